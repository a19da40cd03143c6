"""A category and a peer in; the peer's result, beside our own and in the same form, out.

Knows nothing about how peers work or how figures are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbft_calibration.benchmark.kept import is_finished
from fbft_calibration.benchmark.measurement import measure
from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.plan import counts
from fbft_calibration.benchmark.result import CategoryResult, Run, finished, provenance, write_result
from fbft_calibration.benchmark.tables import COLUMNS
from fbft_calibration.data.layouts import Category
from fbft_calibration.peers import PeerProcess, open_peer, peer_settings
from fbft_edge.progress import Progress


def peer_folder(out: Path, name: str) -> Path:
    """Where a peer's results lie."""
    return out / "peers" / name


def read_peer_runs(out: Path) -> tuple[Run, ...]:
    """What all peers have finished below a folder of results.

    Raises:
        ArgumentError: A result that cannot be read.
    """
    folders = sorted(path for path in (out / "peers").glob("*") if path.is_dir())
    runs = (Run(folder.name, folder, finished(folder)) for folder in folders)
    return tuple(run for run in runs if run.results)


def finish_peer(
    name: str,
    category: Category,
    root: Path,
    out: Path,
    data_sha256: str,
    resnet_weights: Path | None,
    progress: Progress,
) -> None:
    """Fit a peer on a category's nominal images, all of them, and measure it; a finished result is kept.

    Args:
        name: Of the peer.
        category: Of the data set at `root`.
        root: Files are named from there.
        out: Of our own results; the peer's lie below.
        data_sha256: Identity of the category's files.
        resnet_weights: As `fbft_calibration.peers.open_peer` takes it.
        progress: Told what is done.

    Raises:
        PeerError: It failed.
        FbftError: Whatever else the user can act on.
    """
    folder = peer_folder(out, name)
    target = folder / f"{category.name}.json"
    settings = peer_settings(name, resnet_weights)
    if is_finished(target, settings, data_sha256, progress):
        return
    progress.say(f"{name}: fitting on {len(category.nominal)} images")
    with open_peer(name, resnet_weights) as peer:
        result = measure_peer(peer, category, root, folder, data_sha256, settings, progress)
    write_result(result, target)
    progress.say(f"{name}: {_in_words(result)}")


def measure_peer(
    peer: PeerProcess,
    category: Category,
    root: Path,
    folder: Path,
    data_sha256: str,
    settings: Mapping[str, Any],
    progress: Progress,
) -> CategoryResult:
    """Fit and measure a running peer.

    Args:
        peer: Not fitted.
        category: Of the data set at `root`.
        root: Files are named from there.
        folder: Of the peer's results; the pictures are written there.
        data_sha256: Identity of the category's files.
        settings: All that decides the peer.
        progress: Shown how far it is.

    Raises:
        PeerError: It failed.
        ImageError: No test image could be read.
    """
    peer.fit(category.nominal)
    album = Album(None)
    measured = measure(category, root, peer.detect, album, None, progress, has_thresholds=False)
    cost = peer.cost()
    return CategoryResult(
        category=category.name,
        dataset=root.resolve().name,
        layout=category.layout,
        settings=settings,
        data_sha256=data_sha256,
        bundle=peer.settings,
        provenance=provenance(),
        seconds={"fit": cost.fit_s, "image_median": cost.image_median_s, "scoring": measured.scoring_s},
        peak_memory_bytes=cost.peak_memory_bytes,
        counts=counts(category),
        figures=_without_thresholds(measured.figures.as_dict()),
        images=measured.images,
        pictures=album.write(folder / category.name / "pictures", folder),
        problems=measured.problems,
        cautions=measured.cautions,
    )


def _without_thresholds(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a detector that flags nothing; 0 would say that it had tried."""
    types = [{**kind, "detected": None, "components_found": None} for kind in figures["types"]]
    return {**figures, "thresholds": None, "types": types}


def _in_words(result: CategoryResult) -> str:
    return ", ".join(f"{column.heading} {column.text(column.value(result))}" for column in COLUMNS)

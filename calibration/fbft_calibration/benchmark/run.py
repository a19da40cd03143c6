"""The whole of `fbft-calibrate benchmark`: a data set in; a result per category and peer, and one report of them, out.

Here is only the order. Knows nothing about how data sets are laid out, how figures are computed or how a report looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from fbft_calibration.benchmark.category import finish_category
from fbft_calibration.benchmark.kept import refuse_other_results
from fbft_calibration.benchmark.peer_results import finish_peer, peer_folder, read_peer_runs
from fbft_calibration.benchmark.plan import choose, data_sha256
from fbft_calibration.benchmark.report import REPORT, write_summary
from fbft_calibration.benchmark.result import finished, read_run
from fbft_calibration.benchmark.settings import BenchmarkSettings
from fbft_calibration.data.layouts import Category, categories
from fbft_calibration.out_folder import make_out_folder
from fbft_calibration.peers import peer_settings
from fbft_edge.bundle.write_lock import LOCK, write_lock
from fbft_edge.errors import ArgumentError, BundleError, EngineError, FbftError, ImageError
from fbft_edge.progress import SILENT, Progress


def run_benchmark(
    root: Path,
    out: Path,
    settings: BenchmarkSettings = BenchmarkSettings(),
    progress: Progress = SILENT,
    names: Sequence[str] = (),
    peers: Sequence[str] = (),
    resnet_weights: Path | None = None,
) -> None:
    """Measure categories one after the other, peers beside each; the summary is written anew after each of them.

    What an earlier run with the same settings has finished is kept.

    Args:
        root: Of the data set.
        out: Made if it does not exist.
        settings: How.
        progress: Told what is done.
        names: Of the categories to measure; empty for all of them.
        peers: To be fitted and measured on the same images; keys of `fbft_calibration.peers.PEERS`.
        resnet_weights: As `fbft_calibration.peers.open_peer` takes it.

    Raises:
        FbftError: Anything the user can act on, another program at work in `out` among it. What is wrong with one
            category or peer is said after the others are done.
    """
    chosen = choose(categories(root), names, root)
    make_out_folder(out)
    with write_lock(out / LOCK, out):
        _measure(root, out, settings, progress, chosen, peers, resnet_weights)


def _measure(
    root: Path,
    out: Path,
    settings: BenchmarkSettings,
    progress: Progress,
    chosen: Sequence[Category],
    peers: Sequence[str],
    resnet_weights: Path | None,
) -> None:
    refuse_other_results(out, root.resolve().name, settings.of_fit())
    for peer in peers:
        refuse_other_results(peer_folder(out, peer), root.resolve().name, peer_settings(peer, resnet_weights))
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, category in enumerate(chosen, start=1):
        progress.say(f"{category.name}, {number} of {len(chosen)}", "heading")
        digest = data_sha256(category)
        try:
            finish_category(category, root, out, digest, settings, progress)
        except (ArgumentError, ImageError, BundleError, EngineError) as error:
            refused[category.name] = str(error).replace(f"{root}/", "")
            progress.say(f"{category.name} cannot be measured: {error}", "failure")
            _summarise(out, failed, refused)
            continue
        _summarise(out, failed, refused)
        for peer in peers:
            try:
                finish_peer(peer, category, root, out, digest, resnet_weights, progress)
            except FbftError as error:
                failed[f"{peer} on {category.name}"] = str(error)
                progress.say(f"{peer} cannot be measured: {error}", "failure")
            _summarise(out, failed, refused)
    if (out / REPORT).is_file():
        progress.say(f"open {out / REPORT}", "done")
    _refuse_the_incomplete(refused, failed, len(chosen), len(peers) * (len(chosen) - len(refused)))


def _summarise(out: Path, failed: Mapping[str, str], refused: Mapping[str, str]) -> None:
    if finished(out):
        write_summary(dataclasses.replace(read_run(out), refused=refused), out, read_peer_runs(out), failed)


def _refuse_the_incomplete(
    refused: Mapping[str, str], failed: Mapping[str, str], num_categories: int, num_beside: int
) -> None:
    said = {
        f"{len(refused)} of {num_categories} categories could not be measured": refused,
        f"{len(failed)} of {num_beside} measurements of peers failed": failed,
    }
    lines = [
        f"{words}: {'; '.join(f'{name}: {cause}' for name, cause in causes.items())}"
        for words, causes in said.items()
        if causes
    ]
    if lines:
        raise ArgumentError("; ".join(lines))

"""What is known about a category after a benchmark, and with what it was found out; as JSON and back.

Knows nothing about how figures are computed or shown.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import fbft_edge
from fbft_edge.detectors.host import native_precision, openvino_core
from fbft_edge.errors import ArgumentError
from fbft_edge.strict_json import json_from_bytes

SCHEMA = "fbft.benchmark/1"
SUMMARY = "summary"
_PACKAGES = ("fbft-edge", "numpy", "openvino", "timm", "torch")


@dataclass(frozen=True, slots=True)
class InspectedImage:
    """One test image and what was said about it.

    Attributes:
        file: Path below the data set's root.
        defect_type: Name of its folder, or what the data set calls it.
        is_defective: What is true.
        score: Image score.
        is_flagged: What the detector said, at the bundle's own thresholds; None for a peer, which has none.
        is_located: True when the detector's mask touches the true one; None without a true mask or thresholds.
        seconds: From pixels to detection.
    """

    file: str
    defect_type: str
    is_defective: bool
    score: float
    is_flagged: bool | None
    is_located: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Picture:
    """One strip of the report: the whole picture, a close-up bare and marked, its anomaly map.

    Attributes:
        file: JPEG file, relative to the folder of the results.
        group: Heading that it stands under.
        caption: What is to be seen.
    """

    file: str
    group: str
    caption: str


@dataclass(frozen=True, slots=True)
class CategoryResult:
    """A finished category.

    Attributes:
        category: Name within the data set.
        dataset: Name of the data set's folder.
        layout: How the data set is laid out.
        settings: All that decides the figures, as it was asked for.
        data_sha256: Identity of the images and masks, by names and contents.
        bundle: Teacher, tiles and thresholds that the settings led to; of a peer, what it says about itself.
        provenance: Versions, commit, machine and time.
        seconds: `fit`, `image_median` (pixels to detection) and `scoring` (figures, all images together).
        peak_memory_bytes: Largest resident memory of a process that inspects; None where it was not measured.
        counts: Images by what they are: `nominal`, `test_nominal`, `test_defective`, `masks`.
        figures: As `fbft_calibration.metrics` has them; None where a peer would need thresholds.
        images: Every test image that could be read.
        pictures: What is shown of it.
        problems: A line for every file that does not count, or not for all figures.
        cautions: A line for whatever else keeps figures from being known or trusted.
    """

    category: str
    dataset: str
    layout: str
    settings: Mapping[str, Any]
    data_sha256: str
    bundle: Mapping[str, Any]
    provenance: Mapping[str, Any]
    seconds: Mapping[str, float | None]
    peak_memory_bytes: int | None
    counts: Mapping[str, int]
    figures: Mapping[str, Any]
    images: tuple[InspectedImage, ...]
    pictures: tuple[Picture, ...]
    problems: tuple[str, ...]
    cautions: tuple[str, ...] = ()

    @property
    def has_thresholds(self) -> bool:
        """Whether images were flagged, and regions marked; peers do neither."""
        return self.figures["thresholds"] is not None

    def flagged(self, *, is_defective: bool) -> tuple[int, int]:
        """How many of the defective or nominal images were flagged, and how many there are."""
        chosen = [image for image in self.images if image.is_defective == is_defective]
        return sum(image.is_flagged is True for image in chosen), len(chosen)


@dataclass(frozen=True, slots=True)
class Run:
    """All finished categories of one folder of results.

    Attributes:
        name: Of the folder.
        folder: Where the files of the results' pictures are.
        results: By category name.
        refused: Categories that could not be measured this time, each with its cause.
    """

    name: str
    folder: Path
    results: tuple[CategoryResult, ...]
    refused: Mapping[str, str] = field(default_factory=dict)

    def find(self, category: str) -> CategoryResult | None:
        """The result of a category, if the run has it."""
        return next((result for result in self.results if result.category == category), None)


def read_run(folder: Path) -> Run:
    """The finished categories of a folder that `fbft-calibrate benchmark --out` names.

    Raises:
        ArgumentError: No such folder, nothing finished in it, or a result that cannot be read.
    """
    results = finished(folder)
    if not results:
        raise ArgumentError(
            f"{folder} holds no finished category; name a folder that fbft-calibrate benchmark --out has filled"
        )
    return Run(folder.resolve().name, folder, results)


def finished(folder: Path) -> tuple[CategoryResult, ...]:
    """The finished categories of a folder, by name; other JSON files may lie there too.

    Raises:
        ArgumentError: A result that cannot be read.
    """
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return tuple(read_result(path) for path in paths if f'"schema": "{SCHEMA}"' in _opening(path))


def _opening(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(200)


def read_result(path: Path) -> CategoryResult:
    """One finished category.

    Raises:
        ArgumentError: The file is not what `write_result` writes.
    """
    try:
        contents = json_from_bytes(path.read_bytes())
        if contents.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA!r}")
        images = tuple(InspectedImage(**image) for image in contents.pop("images"))
        pictures = tuple(Picture(**picture) for picture in contents.pop("pictures"))
        problems, cautions = tuple(contents.pop("problems")), tuple(contents.pop("cautions", ()))
        return CategoryResult(**contents, images=images, pictures=pictures, problems=problems, cautions=cautions)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{path} is not a benchmark result ({type(error).__name__}: {error!s:.200}); "
            "remove it, and run the benchmark again"
        ) from error


def write_result(result: CategoryResult, path: Path) -> None:
    """Write a finished category; the file is there whole or not at all."""
    write_json({"schema": SCHEMA, **asdict(result)}, path)


def write_json(contents: Mapping[str, Any], path: Path) -> None:
    """Write JSON; the file is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(contents, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings on one level: `{"students": {"steps": 600}}` becomes `{"students.steps": 600}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = flat_settings(value) if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}.{key}": part for key, part in inner.items()}
    return flat


def provenance() -> dict[str, Any]:
    """With what figures were found: commit, versions, machine and time."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": source_commit(Path(fbft_edge.__file__)),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        "machine": {
            "cpu": openvino_core().get_property("CPU", "FULL_DEVICE_NAME").strip(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(memory_gib, 1),
            "native_precision": native_precision(),
        },
    }


def source_commit(source: Path) -> str | None:
    """Commit of a source file's checkout, with `-dirty` when tracked files differ from it; None outside of one."""
    try:
        for command in (["ls-files", "--error-unmatch", source.name], ["describe", *_DESCRIBE]):
            done = subprocess.run(
                ["git", *command], cwd=source.parent, capture_output=True, text=True, check=True, timeout=30
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


_DESCRIBE = ("--always", "--dirty", "--abbrev=12", "--exclude=*")

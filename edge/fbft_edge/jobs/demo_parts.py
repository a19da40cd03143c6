"""The parts of the demo: rendered into a folder, and found there again by a former run's stamp.

Knows nothing about how a part is rendered, and what is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from fbft_edge.errors import ArgumentError
from fbft_edge.frames.images import write_image
from fbft_edge.progress import SILENT, Progress
from fbft_edge.strict_json import json_from_bytes
from fbft_edge.synthetic import GENERATOR_VERSION, render_part

DEFECT_SIZES_PX = (3, 5, 8, 12, 20, 40)
SIDE_PX = 700
STEPS = 600  # of fitting
HELD_OUT = 0.6  # of the nominal parts for thresholds: the more, the lower the false-alarm rate that they support
_STAMP = "demo.json"
_NUM_NOMINAL = 64
_NUM_TEST_NOMINAL = 24
_NUM_PER_SIZE = 8


@dataclass(frozen=True, slots=True)
class DemoPart:
    """One rendered part of the test set, and what is wrong with it.

    Attributes:
        name: Of its file, without suffix.
        size_px: Nominal size of its defect; 0 for a nominal part.
        kind: Of its defect; `nominal` without one.
        box_xyxy: Around its defect's visible pixels; the data matrix of a nominal part.
    """

    name: str
    size_px: int
    kind: str
    box_xyxy: tuple[int, int, int, int]


def render_set(out: Path, progress: Progress = SILENT) -> list[DemoPart]:
    """Write the nominal parts and the test parts; returns the latter."""
    for folder in (out / "nominal", out / "test"):
        _make_folder(folder)
    for index in progress.track(range(_NUM_NOMINAL), "Rendering nominal parts"):
        write_image(out / "nominal" / f"{index:03}.png", render_part(index, SIDE_PX, SIDE_PX).pixels)
    sizes_px = [0] * _NUM_TEST_NOMINAL + [size for size in DEFECT_SIZES_PX for _ in range(_NUM_PER_SIZE)]
    numbered = list(enumerate(sizes_px, start=_NUM_NOMINAL))
    shown = progress.track(numbered, "Rendering test parts")
    return [_render_test_part(out / "test", seed, size_px) for seed, size_px in shown]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cannot make {folder}: {error.strerror}; choose another --out") from error


def _render_test_part(folder: Path, seed: int, size_px: int) -> DemoPart:
    part = render_part(seed, SIDE_PX, SIDE_PX, (float(size_px),) if size_px else ())
    print_xyxy = (int(0.58 * SIDE_PX), int(0.66 * SIDE_PX), int(0.74 * SIDE_PX), int(0.78 * SIDE_PX))
    kind, box_xyxy = (part.defects[0].kind, part.defects[0].box_xyxy) if size_px else ("nominal", print_xyxy)
    name = f"{seed:03}-{kind}" + (f"-{size_px}px" if size_px else "")
    write_image(folder / f"{name}.png", part.pixels)
    return DemoPart(name, size_px, kind, box_xyxy)


def write_stamp(out: Path, parts: Sequence[DemoPart]) -> None:
    """Note that `out` holds a complete set and its bundle."""
    contents = {**_settings(), "parts": [asdict(part) for part in parts]}
    (out / _STAMP).write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def stamped_parts(out: Path) -> list[DemoPart] | None:
    """The test parts in `out`; None when they or the bundle are of another version, or not complete."""
    try:
        contents = json_from_bytes((out / _STAMP).read_bytes())
        parts = [DemoPart(**{**part, "box_xyxy": tuple(part["box_xyxy"])}) for part in contents.pop("parts")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    files = [out / "demo.fbft" / "bundle.json", *(out / "test" / f"{part.name}.png" for part in parts)]
    is_complete = contents == _settings() and all(file.is_file() for file in files)
    return parts if is_complete else None


def _settings() -> dict[str, str | float]:
    return {
        "version": version("fbft-edge"),
        "generator_version": GENERATOR_VERSION,
        "side_px": SIDE_PX,
        "num_nominal": _NUM_NOMINAL,
        "held_out": HELD_OUT,
        "steps": STEPS,
        "num_test_nominal": _NUM_TEST_NOMINAL,
        "num_per_size": _NUM_PER_SIZE,
    }

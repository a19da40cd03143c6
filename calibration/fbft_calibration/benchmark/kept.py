"""What an earlier run left behind: whether it is kept, and whether it must not be overwritten.

Knows nothing about how results come about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbft_calibration.benchmark.result import CategoryResult, finished, flat_settings, read_result, write_result
from fbft_edge.errors import ArgumentError
from fbft_edge.progress import Progress

_PIXEL_SIZE = "pixel_size_mm"


def is_finished(target: Path, settings: Mapping[str, Any], data_sha256: str, progress: Progress) -> bool:
    """Whether a result of the same settings and data is there; said where a file is.

    Where only the pixel size is another, the result's lengths are told anew from those in pixels.

    Raises:
        ArgumentError: The file is no result.
    """
    if not target.is_file():
        return False
    kept = read_result(target)
    if kept.data_sha256 != data_sha256:
        progress.say(
            f"{target} has other images or masks, or is of a version that did not compare what is in them; "
            "measured again"
        )
        return False
    if {**kept.settings, _PIXEL_SIZE: None} != {**settings, _PIXEL_SIZE: None}:
        progress.say(f"{target} has other settings; measured again")
        return False
    if kept.settings != settings:
        write_result(_with_settings(kept, settings), target)
        progress.say(f"{target} has another pixel size; its lengths are told anew")
    progress.say(f"kept: {target} is finished")
    return True


def _with_settings(result: CategoryResult, settings: Mapping[str, Any]) -> CategoryResult:
    """A result under settings whose pixel size is another."""
    figures = _in_millimetres(result.figures, settings[_PIXEL_SIZE])
    return dataclasses.replace(result, settings=settings, figures=figures)


def _in_millimetres(figures: Any, pixel_size_mm: float | None) -> Any:
    """Figures whose every `NAME_mm` is `NAME_px` at a pixel size; None without either."""
    if isinstance(figures, list):
        return [_in_millimetres(part, pixel_size_mm) for part in figures]
    if not isinstance(figures, Mapping):
        return figures
    told = {name: _in_millimetres(value, pixel_size_mm) for name, value in figures.items()}
    for name in told:
        if name.endswith("_mm"):
            length_px = told[f"{name.removesuffix('_mm')}_px"]
            told[name] = None if None in (length_px, pixel_size_mm) else length_px * pixel_size_mm
    return told


def refuse_other_results(folder: Path, dataset: str, settings: Mapping[str, Any]) -> None:
    """Hours of an earlier run are not overwritten, and one summary has one data set and one kind of detector.

    Args:
        folder: Of results, if it exists.
        dataset: Name of the data set that is to be measured.
        settings: All that decides the detector.

    Raises:
        ArgumentError: A result there has others.
    """
    wanted = {"dataset": dataset, **flat_settings(settings)}
    for result in finished(folder):
        kept = {"dataset": result.dataset, **flat_settings(result.settings)}
        other = [f"{name} {kept.get(name)}, now {value}" for name, value in wanted.items() if kept.get(name) != value]
        if other:
            raise ArgumentError(
                f"{folder} holds {result.category} with other settings ({'; '.join(other)}); "
                f"choose another --out, or remove {folder}"
            )

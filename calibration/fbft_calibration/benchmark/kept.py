"""What an earlier run left behind: whether it is kept, and whether it must not be overwritten.

Knows nothing about how results come about.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from fbft_calibration.benchmark.result import finished, flat_settings, read_result
from fbft_edge.errors import ArgumentError


def is_finished(target: Path, settings: Mapping[str, Any], data_sha256: str, console: Console) -> bool:
    """Whether a result of the same settings and data is there; said on the console where a file is.

    Raises:
        ArgumentError: The file is no result.
    """
    if not target.is_file():
        return False
    kept = read_result(target)
    if (kept.settings, kept.data_sha256) == (settings, data_sha256):
        console.print(f"kept: {target} is finished", markup=False)
        return True
    console.print(f"{target} has other images or another pixel size; measured again", markup=False)
    return False


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

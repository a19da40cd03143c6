"""What inspection wrote about the demo's parts in; what was found of each size, and a picture of it, out.

Knows nothing about how a frame is inspected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbft_edge.frames.drawing import Closeup, Entry, card, contact_sheet
from fbft_edge.frames.frame import Detection, Region, Uint8, Verdict
from fbft_edge.frames.images import read_image
from fbft_edge.jobs.demo_parts import DEFECT_SIZES_PX, DemoPart
from fbft_edge.jobs.results_file import RESULTS
from fbft_edge.strict_json import json_from_bytes

_PATCH_PX = 14


@dataclass(frozen=True, slots=True)
class Outcome:
    """What inspection said about a test part.

    Attributes:
        part: The part.
        detection: Without its anomaly map.
    """

    part: DemoPart
    detection: Detection

    @property
    def is_found(self) -> bool:
        """True when the verdict is anomalous and the mask comes within one patch of the defect."""
        left, top, right, bottom = self.part.box_xyxy
        rows = slice(max(top - _PATCH_PX, 0), bottom + _PATCH_PX)
        columns = slice(max(left - _PATCH_PX, 0), right + _PATCH_PX)
        return self.detection.is_anomalous and bool(self.detection.mask[rows, columns].any())


def read_outcomes(folder: Path, parts: Sequence[DemoPart]) -> list[Outcome]:
    """Read back what `inspect` wrote about the parts, in their order."""
    lines = (folder / RESULTS).read_bytes().splitlines()
    return [
        Outcome(part, _read_detection(folder, json_from_bytes(line))) for part, line in zip(parts, lines, strict=True)
    ]


def _read_detection(folder: Path, line: dict[str, Any]) -> Detection:
    mask = read_image(folder / line["mask"])[..., 0] > 0
    regions = tuple(
        Region(tuple(region["box_xyxy"]), region["area_px"], region["peak"], tuple(region["centroid_xy"]))
        for region in line["regions"]
    )
    return Detection(line["score"], line["peak"], mask, regions, line["verdict"] == Verdict.ANOMALOUS.value)


def found(outcomes: Sequence[Outcome], size_px: int) -> tuple[int, int]:
    """How many parts with a defect of that size were found, and how many there are."""
    of_size = [outcome.is_found for outcome in outcomes if outcome.part.size_px == size_px]
    return sum(of_size), len(of_size)


def false_alarms(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """How many nominal parts were called anomalous, and how many there are."""
    alarms = [outcome.detection.is_anomalous for outcome in outcomes if not outcome.part.size_px]
    return sum(alarms), len(alarms)


def demo_picture(outcomes: Sequence[Outcome], folder: Path) -> Uint8:
    """A part with a defect of each size, the clearest that was found if any was, and two nominal parts.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    nominal = [outcome for outcome in outcomes if not outcome.part.size_px]
    shown = [_example(outcomes, size_px) for size_px in DEFECT_SIZES_PX] + nominal[:2]
    cards = [card(_entry(outcome, folder)) for outcome in shown]
    by_size = [found(outcomes, size_px) for size_px in DEFECT_SIZES_PX]
    subtitle = (
        f"{sum(one for one, _ in by_size)} of {sum(number for _, number in by_size)} defects of "
        f"{DEFECT_SIZES_PX[0]} to {DEFECT_SIZES_PX[-1]} px found, "
        "{} false alarms on {} nominal parts".format(*false_alarms(outcomes))
    )
    return contact_sheet(cards, "fbft-edge demo", subtitle, num_columns=4)


def _example(outcomes: Sequence[Outcome], size_px: int) -> Outcome:
    of_size = [outcome for outcome in outcomes if outcome.part.size_px == size_px]
    return max(of_size, key=lambda outcome: (outcome.is_found, outcome.detection.peak))


def _entry(outcome: Outcome, folder: Path) -> Entry:
    part = outcome.part
    left, top, right, bottom = part.box_xyxy
    what = f"{part.kind.replace('_', ' ')}, {part.size_px} px" if part.size_px else "print"
    side_px = max(56, round(1.4 * max(right - left, bottom - top)))
    closeup = Closeup(((left + right) / 2, (top + bottom) / 2), side_px, what)
    return Entry(f"part {part.name.split('-')[0]}", read_image(folder / f"{part.name}.png"), outcome.detection, closeup)

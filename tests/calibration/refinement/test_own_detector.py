"""The detector on docs/refinement.md is short, runs as it stands, and is refined."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="refinement needs the extra calibration")

from fbft_calibration.refinement.f2pad import Refinement, refine
from fbft_edge.frames.frame import Bool
from fbft_edge.synthetic import Part, render_part

PAGE = Path(__file__).parents[3] / "docs/refinement.md"
SIZE = (256, 256)


def example() -> str:
    section = PAGE.read_text(encoding="utf-8").split("## Your own detector")[1]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


@pytest.fixture(scope="module")
def refined() -> list[tuple[Part, Refinement]]:
    """Parts with a defect of 40 px of which the example's coarse mask holds a pixel."""
    names: dict[str, Any] = {}
    exec(example(), names)
    detector = names["NominalColours"]([render_part(seed, *SIZE).pixels for seed in range(30)])
    parts = [render_part(seed, *SIZE, (40.0,)) for seed in range(100, 116)]
    found = [(part, refine(detector, part.pixels)) for part in parts]
    return [(part, refinement) for part, refinement in found if (refinement.flagged & part.mask).any()]


def overlap(found: Bool, expected: Bool) -> float:
    return float((found & expected).sum() / (found | expected).sum())


def test_a_new_detector_takes_less_than_40_lines() -> None:
    assert len(example().splitlines()) < 40


def test_its_masks_come_closer_to_the_defects(refined: list[tuple[Part, Refinement]]) -> None:
    coarse, fine = (
        np.array([overlap(getattr(refinement, mask), part.mask) for part, refinement in refined])
        for mask in ("flagged", "mask")
    )
    assert len(refined) >= 8
    assert fine.mean() > coarse.mean() + 0.05
    assert (fine > coarse).mean() >= 0.7


def test_no_region_is_added_to_its_masks(refined: list[tuple[Part, Refinement]]) -> None:
    for _, refinement in refined:
        labels = cv2.connectedComponents(refinement.mask.view(np.uint8), connectivity=8)[1]
        assert set(np.unique(labels[refinement.mask])) == set(np.unique(labels[refinement.mask & refinement.flagged]))

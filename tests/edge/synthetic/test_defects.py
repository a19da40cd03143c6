"""What each kind of defect does to a part; every law is checked on parts of many seeds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pytest

from fbft_edge.synthetic import Part, render_part
from fbft_edge.synthetic.defects import KINDS, Defect

SIDE_PX = 300
SIZES_PX = (8.0, 16.0, 30.0)


@lru_cache(maxsize=1)
def examples() -> dict[str, list[tuple[Part, Part]]]:
    """Parts with one defect, beside the nominal part of the same seed, by kind."""
    found: dict[str, list[tuple[Part, Part]]] = {kind: [] for kind in KINDS}
    for seed in range(90):
        part = render_part(seed, SIDE_PX, SIDE_PX, (SIZES_PX[seed % 3],))
        found[part.defects[0].kind].append((part, render_part(seed, SIDE_PX, SIDE_PX)))
    return found


def of_kind(kind: str) -> Iterator[tuple[Part, Part, Defect]]:
    for part, nominal in examples()[kind]:
        yield part, nominal, part.defects[0]


def change(part: Part, nominal: Part) -> np.ndarray:
    """(pixels, 3) signed change in grey levels under the mask."""
    return part.pixels[part.mask].astype(int) - nominal.pixels[part.mask].astype(int)


def longer_side(defect: Defect) -> int:
    left, top, right, bottom = defect.box_xyxy
    return max(right - left, bottom - top)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_examples(kind: str) -> None:
    assert len(examples()[kind]) >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_one_place(kind: str) -> None:
    for _, _, defect in of_kind(kind):
        assert longer_side(defect) <= 1.5 * defect.size_px + 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_lies_inside_the_frame(kind: str) -> None:
    for _, _, defect in of_kind(kind):
        left, top, right, bottom = defect.box_xyxy
        assert 0 <= left < right <= SIDE_PX
        assert 0 <= top < bottom <= SIDE_PX


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_who_zooms_in_sees_it(kind: str) -> None:
    for part, nominal, _ in of_kind(kind):
        assert np.abs(change(part, nominal)).max() >= 16


@pytest.mark.parametrize("kind", ["pit", "stain", "scratch", "chip"])
def test_defects_that_take_light_away_darken_the_part(kind: str) -> None:
    means = [change(part, nominal).mean() for part, nominal, _ in of_kind(kind)]

    assert np.mean(means) < 0


def test_missing_print_only_brightens() -> None:
    for part, nominal, _ in of_kind("missing_print"):
        assert change(part, nominal).mean() > 10


def test_missing_print_lies_where_the_nominal_part_has_dark_ink() -> None:
    for part, nominal, _ in of_kind("missing_print"):
        assert nominal.pixels[part.mask].mean() < part.pixels[part.mask].mean() - 10


def test_stains_are_brown() -> None:
    for part, nominal, _ in of_kind("stain"):
        red, _, blue = np.abs(change(part, nominal)).mean(axis=0)
        assert blue > red


def test_pits_are_gray() -> None:
    for part, _, _ in of_kind("pit"):
        red, green, blue = part.pixels[part.mask].mean(axis=0)
        assert np.ptp([red, green, blue]) < 12


@pytest.mark.parametrize("kind", ["pit", "stain"])
def test_pits_and_stains_are_compact(kind: str) -> None:
    for _, _, defect in of_kind(kind):
        assert defect.area_px > 0.35 * defect.size_px**2


@pytest.mark.parametrize("kind", ["scratch", "fibre"])
def test_scratches_and_fibres_are_thin(kind: str) -> None:
    for _, _, defect in of_kind(kind):
        assert defect.area_px < 10 * (defect.size_px + 4)  # the lens and a shadow widen the ends


@pytest.mark.parametrize("kind", ["scratch", "fibre"])
def test_scratches_and_fibres_are_as_long_as_their_size(kind: str) -> None:
    for _, _, defect in of_kind(kind):
        left, top, right, bottom = defect.box_xyxy
        assert np.hypot(right - left, bottom - top) >= 0.6 * defect.size_px


def test_chips_lie_on_the_outline() -> None:
    margins = []
    for _, _, defect in of_kind("chip"):
        left, top, right, bottom = defect.box_xyxy
        margins.append(min(left, top, SIDE_PX - right, SIDE_PX - bottom))

    assert max(margins) < 0.12 * SIDE_PX


def test_chips_leave_the_belt_as_it_is() -> None:
    for part, nominal, _ in of_kind("chip"):
        belt = nominal.pixels.mean(axis=2) < 50
        assert (part.mask & belt).sum() <= 0.4 * part.mask.sum()


def test_kinds_of_one_seed_depend_on_the_seed_only() -> None:
    kinds = [[defect.kind for defect in render_part(seed, SIDE_PX, SIDE_PX, SIZES_PX).defects] for seed in (4, 5, 4)]

    assert kinds[0] == kinds[2]


@pytest.mark.parametrize("size_px", [2.0, 4.0])
def test_only_kinds_that_come_this_small_are_this_small(size_px: float) -> None:
    kinds = {render_part(seed, 150, 150, (size_px,)).defects[0].kind for seed in range(40)}

    assert kinds == {"pit", "stain", "chip"}


def test_the_largest_defect_of_the_smallest_frame_can_be_drawn() -> None:
    for seed in range(20):
        part = render_part(seed, 64, 64, (32.0,))
        assert part.defects[0].area_px == part.mask.sum() > 0


def test_more_defects_than_there_is_room_for_are_drawn_over_each_other() -> None:
    part = render_part(0, 64, 64, (32.0,) * 6)

    assert len(part.defects) == 6
    assert sum(defect.area_px for defect in part.defects) >= part.mask.sum()

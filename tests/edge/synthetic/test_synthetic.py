from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.errors import ArgumentError
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.synthetic import Part, render_part
from fbft_edge.synthetic.defects import KINDS
from fbft_edge.synthetic.layout import layout_of

SIZES_PX = (3.0, 5.0, 8.0, 12.0, 20.0, 40.0)
SEEDS = st.integers(0, 2**32 - 1)


def levels_changed(part: Part, nominal: Part) -> np.ndarray:
    return np.abs(part.pixels.astype(int) - nominal.pixels.astype(int)).max(axis=2)


def test_the_same_seed_gives_the_same_part() -> None:
    first, second = (render_part(7, 200, 240, SIZES_PX[:3]) for _ in range(2))

    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.mask, second.mask)
    assert first.defects == second.defects


def test_another_seed_gives_another_part() -> None:
    assert not np.array_equal(render_part(1, 100, 100).pixels, render_part(2, 100, 100).pixels)


def test_a_nominal_part_has_an_empty_mask_and_no_defects() -> None:
    part = render_part(3, 128, 128)

    assert (part.mask.any(), part.defects) == (False, ())


@pytest.mark.parametrize("size", [(64, 64), (64, 300), (333, 65), (700, 700)])
def test_pixels_and_mask_have_the_size_asked_for(size: tuple[int, int]) -> None:
    part = render_part(0, *size, (3.0,))

    assert (part.pixels.shape, part.pixels.dtype) == ((*size, 3), np.uint8)
    assert (part.mask.shape, part.mask.dtype) == (size, np.bool_)
    assert part.pixels.flags.c_contiguous


@pytest.mark.parametrize("size", [(63, 100), (100, 8193)])
def test_a_frame_size_out_of_range_is_refused_with_the_range(size: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match="64 to 8192"):
        render_part(0, *size)


@pytest.mark.parametrize("size_px", [1.9, 51.0, float("nan")])
def test_a_defect_size_out_of_range_is_refused_with_the_range(size_px: float) -> None:
    with pytest.raises(ArgumentError, match="use 2 to 50 px"):
        render_part(0, 100, 100, (size_px,))


def test_one_defect_is_put_for_each_size_in_order() -> None:
    part = render_part(11, 400, 400, SIZES_PX)

    assert tuple(defect.size_px for defect in part.defects) == SIZES_PX
    assert {defect.kind for defect in part.defects} <= set(KINDS)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size_px=st.sampled_from(SIZES_PX))
def test_every_defect_is_visible_and_inside_its_box(seed: int, size_px: float) -> None:
    part = render_part(seed, 240, 240, (size_px,))
    (defect,) = part.defects
    left, top, right, bottom = defect.box_xyxy

    assert defect.area_px == part.mask.sum() > 0
    assert part.mask[top:bottom, left:right].sum() == defect.area_px
    assert part.mask[[top, bottom - 1]].any(axis=1).all()
    assert part.mask[:, [left, right - 1]].any(axis=0).all()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size_px=st.sampled_from(SIZES_PX))
def test_outside_the_mask_the_part_is_the_nominal_part_of_the_seed(seed: int, size_px: float) -> None:
    part, nominal = render_part(seed, 240, 240, (size_px,)), render_part(seed, 240, 240)
    changed = levels_changed(part, nominal)

    assert changed[~part.mask].max() <= 8  # less than six levels of light, and its share of the shot noise


@pytest.mark.parametrize("seed", [44, 371, 2**31 - 1])
def test_a_defect_is_drawn_again_until_it_shows(seed: int) -> None:
    assert render_part(seed, 240, 240, (3.0,)).mask.any()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size_px=st.sampled_from(SIZES_PX))
def test_inside_the_mask_the_part_differs_visibly(seed: int, size_px: float) -> None:
    part, nominal = render_part(seed, 240, 240, (size_px,)), render_part(seed, 240, 240)

    assert np.median(levels_changed(part, nominal)[part.mask]) >= 6


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size_px=st.sampled_from(SIZES_PX))
def test_a_defect_is_about_as_large_as_its_nominal_size(seed: int, size_px: float) -> None:
    (defect,) = render_part(seed, 300, 300, (size_px,)).defects
    left, top, right, bottom = defect.box_xyxy

    assert max(right - left, bottom - top) <= 1.5 * size_px + 6  # lips, shadows and the lens widen it


def test_the_size_of_a_defect_does_not_depend_on_the_size_of_the_frame() -> None:
    areas = [
        np.median([render_part(seed, side, side, (12.0,)).defects[0].area_px for seed in range(24)])
        for side in (200, 600)
    ]

    assert 0.5 < areas[0] / areas[1] < 2


def test_defects_of_one_part_do_not_overlap() -> None:
    part = render_part(5, 600, 600, SIZES_PX)

    assert sum(defect.area_px for defect in part.defects) == part.mask.sum()


def test_where_no_print_is_legible_none_is_missing() -> None:
    kinds = {render_part(seed, 64, 64, (4.0,)).defects[0].kind for seed in range(60)}

    assert kinds == {"pit", "stain", "chip"}


def test_all_kinds_of_defects_occur() -> None:
    kinds = {render_part(seed, 256, 256, (12.0,)).defects[0].kind for seed in range(60)}

    assert kinds == set(KINDS)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_defects_lie_on_the_part(seed: int) -> None:
    part = render_part(seed, 300, 300, (8.0,))
    rows, columns = np.nonzero(part.mask)

    assert 10 < rows.mean() < 290
    assert 10 < columns.mean() < 290


def test_nominal_parts_vary_less_than_a_large_defect_does() -> None:
    means = [render_part(seed, 150, 150).pixels.mean() for seed in range(12)]

    assert 0.1 < np.std(means) < 10


def test_no_part_of_the_picture_is_clipped() -> None:
    pixels = render_part(9, 500, 500).pixels

    assert ((pixels == 0) | (pixels == 255)).mean() < 0.01


def test_the_layout_scales_with_the_frame() -> None:
    small, large = (layout_of(side, side).planes[..., 0].mean() for side in (128, 512))

    assert small == pytest.approx(large, abs=0.01)


def test_the_layout_is_drawn_once_per_size() -> None:
    assert layout_of(96, 96) is layout_of(96, 96)


def test_rendering_leaves_the_layout_as_it_is() -> None:
    layout = layout_of(90, 90)
    before = layout.radiance.copy(), layout.planes.copy()
    render_part(1, 90, 90, (5.0,))

    assert np.array_equal(before[0], layout.radiance)
    assert np.array_equal(before[1], layout.planes)


def test_layout_planes_are_shares() -> None:
    planes = layout_of(200, 260).planes

    assert 0 <= planes.min() <= planes.max() <= 1


def test_a_part_survives_a_png_file(tmp_path: Path) -> None:
    part = render_part(2, 120, 160, (5.0,))
    write_image(tmp_path / "part.png", part.pixels)

    assert np.array_equal(read_image(tmp_path / "part.png"), part.pixels)

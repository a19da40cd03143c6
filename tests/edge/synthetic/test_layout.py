"""The drawing of the product, whatever the frame size."""

from __future__ import annotations

import numpy as np
import pytest

from fbft_edge.frames.frame import Float32
from fbft_edge.synthetic.layout import Layout, layout_of

SIZES = [(64, 64), (64, 400), (300, 300), (420, 260)]


def plane(layout: Layout, name: str) -> Float32:
    return layout.planes[..., ["cover", "belt_light", "grain", "ink"].index(name)]


@pytest.mark.parametrize("size", SIZES)
def test_a_layout_has_the_size_asked_for(size: tuple[int, int]) -> None:
    layout = layout_of(*size)

    assert layout.radiance.shape == (*size, 3)
    assert layout.planes.shape == (*size, 4)
    assert layout.radiance.dtype == layout.planes.dtype == np.float32


@pytest.mark.parametrize("size", SIZES)
def test_planes_are_shares(size: tuple[int, int]) -> None:
    planes = layout_of(*size).planes

    assert 0 <= planes.min() <= planes.max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_radiance_is_never_negative_and_rarely_beyond_full_scale(size: tuple[int, int]) -> None:
    radiance = layout_of(*size).radiance

    assert radiance.min() >= 0
    assert (radiance > 1).mean() < 0.01


@pytest.mark.parametrize("size", SIZES)
def test_the_part_covers_the_middle_and_leaves_a_border(size: tuple[int, int]) -> None:
    cover = plane(layout_of(*size), "cover")

    assert cover[size[0] // 2, size[1] // 2] == 1
    assert max(cover[0].max(), cover[-1].max(), cover[:, 0].max(), cover[:, -1].max()) == 0


@pytest.mark.parametrize("name", ["grain", "ink"])
@pytest.mark.parametrize("size", SIZES)
def test_grain_and_ink_lie_on_the_part_only(size: tuple[int, int], name: str) -> None:
    layout = layout_of(*size)

    assert (plane(layout, name)[plane(layout, "cover") == 0] == 0).all()


def test_the_part_is_symmetric() -> None:
    cover = plane(layout_of(301, 301), "cover")

    assert np.allclose(cover, cover[::-1], atol=1e-3)
    assert np.allclose(cover, cover.T, atol=1e-3)


def test_edges_are_smooth() -> None:
    cover = plane(layout_of(300, 300), "cover")

    assert ((cover > 0.05) & (cover < 0.95)).sum() > 400


def test_the_shadow_falls_away_from_the_lamp() -> None:
    layout = layout_of(400, 400)
    beside = plane(layout, "cover") == 0
    light = np.where(beside, plane(layout, "belt_light"), np.nan)

    assert np.nanmin(light[200:]) < np.nanmin(light[:60]) - 0.05


def test_far_from_the_part_all_the_light_reaches_the_belt() -> None:
    assert plane(layout_of(400, 400), "belt_light")[0, 0] == pytest.approx(1, abs=0.01)


def test_holes_are_dark_and_without_grain() -> None:
    layout = layout_of(400, 400)
    offset = round((0.425 - 0.055) * 400)
    row, column = 200 - offset, 200 - offset

    assert layout.radiance[row, column].max() < 0.1
    assert plane(layout, "grain")[row, column] == 0


def test_the_bore_is_dark() -> None:
    assert layout_of(400, 400).radiance[200 - 18, 200].max() < 0.1


def test_the_label_is_bright_and_carries_ink() -> None:
    layout = layout_of(700, 700)
    label = (slice(325 + 120, 325 + 185), slice(220, 480))

    assert np.median(layout.radiance[label]) > 0.55
    assert 0.05 < (plane(layout, "ink")[label] > 0.5).mean() < 0.5


def test_the_data_matrix_has_no_ink_as_dark_as_text() -> None:
    ink = plane(layout_of(1036, 1036), "ink")
    middle = (1036 - 1) / 2
    matrix = ink[int(middle + 0.19 * 1036) : int(middle + 0.255 * 1036), int(middle + 0.125 * 1036) :]

    assert 0.8 < matrix.max() < 0.93


def test_the_gasket_is_black_rubber() -> None:
    layout = layout_of(400, 400)
    row = round(199.5 - (0.425 - 0.118) * 400)

    assert layout.radiance[row, 150].max() < 0.12


def test_a_longer_frame_makes_a_longer_part_with_features_of_the_same_size() -> None:
    square, long = (plane(layout_of(200, width), "ink").sum() for width in (200, 500))

    assert square == pytest.approx(long, rel=0.05)

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.detectors.judge import find_regions
from fbft_edge.frames.drawing import Closeup, Entry, card, contact_sheet, heat, overlay, smallest_region, write
from fbft_edge.frames.frame import Detection, Uint8

AMBER = (255, 176, 0)
BLUE = (100, 155, 255)


def gray(height: int = 120, width: int = 160) -> Uint8:
    return np.full((height, width, 3), 128, np.uint8)


def detection(*boxes: tuple[int, int, int, int], height: int = 120, width: int = 160) -> Detection:
    anomaly_map = np.zeros((height, width), np.float32)
    for left, top, right, bottom in boxes:
        anomaly_map[top:bottom, left:right] = 1
    mask = anomaly_map > 0
    return Detection(0.5, 1.0, mask, find_regions(mask, anomaly_map), bool(boxes), anomaly_map)


def has_colour(pixels: Uint8, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == np.array(colour)).all(axis=2).any())


def test_an_overlay_without_a_mask_is_the_picture_itself() -> None:
    assert np.array_equal(overlay(gray(), detection()), gray())


def test_an_overlay_does_not_change_its_input() -> None:
    pixels = gray()
    overlay(pixels, detection((50, 50, 60, 60)))

    assert np.array_equal(pixels, gray())


def test_an_overlay_leaves_the_pixels_of_the_defect_visible() -> None:
    found = detection((50, 50, 90, 80), (10, 10, 13, 13))

    assert (overlay(gray(), found)[found.mask] == 128).all()


def test_an_overlay_outlines_every_region() -> None:
    marked = overlay(gray(), detection((50, 50, 90, 80), (10, 10, 13, 13)))

    assert tuple(marked[49, 70]) == AMBER
    assert tuple(marked[9, 11]) == AMBER


def test_a_tiny_region_is_marked_at_a_distance_too() -> None:
    tiny = overlay(gray(600, 600), detection((300, 300, 303, 303), height=600, width=600))
    changed = np.argwhere((tiny != 128).any(axis=2))

    assert changed.min() < 300 - 10
    assert changed.max() > 303 + 10


def test_a_large_region_gets_only_its_outline() -> None:
    large = overlay(gray(600, 600), detection((200, 200, 400, 400), height=600, width=600))
    changed = np.argwhere((large != 128).any(axis=2))

    assert (changed.min(), changed.max()) == (198, 401)


def test_what_is_anomalous_without_a_region_is_marked_at_its_peak() -> None:
    nothing = detection(height=600, width=600)
    marked = overlay(gray(600, 600), replace(nothing, is_anomalous=True, peak_xy=(300, 200), decided_by="image"))
    rows, columns = np.nonzero((marked != 128).any(axis=2))

    assert rows.min() < 200 < rows.max() < 230
    assert columns.min() < 300 < columns.max() < 330


@pytest.mark.parametrize(("peak_y", "changed"), [(100, slice(500, 600)), (500, slice(0, 100))])
def test_a_note_stands_away_from_the_peak(peak_y: int, changed: slice) -> None:
    marked = overlay(gray(600, 600), replace(detection(height=600, width=600), peak_xy=(300, peak_y)), "peak 0.9")
    rows = np.nonzero((marked != 128).any(axis=(1, 2)))[0]

    assert changed.start <= rows.min() <= rows.max() < changed.stop


@pytest.mark.parametrize("box", [(0, 0, 2, 2), (158, 118, 160, 120), (0, 0, 160, 120)], ids=["first", "last", "all"])
def test_regions_at_the_border_are_drawn_without_harm(box: tuple[int, int, int, int]) -> None:
    assert overlay(gray(), detection(box)).shape == (120, 160, 3)


def test_heat_shows_nothing_where_the_map_is_zero() -> None:
    assert np.array_equal(heat(gray(), np.zeros((120, 160), np.float32), 1.0), gray())


def test_heat_grows_with_the_map_up_to_full_scale() -> None:
    anomaly_map = np.tile(np.linspace(0, 2, 160, dtype=np.float32), (120, 1))
    change = np.abs(heat(gray(), anomaly_map, 1.0).astype(int) - 128).sum(axis=2)[0]

    assert change[0] == 0 < change[40] < change[79]
    assert (change[81:] == change[-1]).all()


def test_the_smallest_region_is_the_closeup() -> None:
    closeup = smallest_region(detection((50, 50, 90, 80), (10, 20, 13, 23)))

    assert closeup is not None
    assert closeup.centre_xy == pytest.approx((11, 21))


def test_there_is_no_closeup_without_a_region() -> None:
    assert smallest_region(detection()) is None


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_cards_have_one_shape_whatever_the_picture(height: int, width: int) -> None:
    found = detection((0, 0, 1, 1), height=height, width=width)

    assert card(Entry("x", gray(height, width), found)).shape == card(Entry("y", gray(), detection())).shape


@pytest.mark.parametrize(("boxes", "colour"), [((), BLUE), (((5, 5, 9, 9),), AMBER)])
def test_the_verdict_has_its_colour(boxes: tuple[tuple[int, int, int, int], ...], colour: tuple[int, int, int]) -> None:
    heading = card(Entry("", gray(), detection(*boxes)))[:44]

    assert has_colour(heading, colour)
    assert not has_colour(heading, AMBER if colour == BLUE else BLUE)


def test_the_first_closeup_shows_the_pixels_without_marks() -> None:
    picture = card(Entry("", gray(), detection((50, 50, 60, 60)), Closeup((55, 55), 40, "")), 420)
    bare, outlined = picture[46:230, 440:624], picture[250:430, 440:624]

    assert (bare == 128).all()
    assert has_colour(outlined, AMBER)


@pytest.mark.parametrize("centre_xy", [(-50.0, -50.0), (0.0, 119.0), (400.0, 60.0)])
def test_a_closeup_beyond_the_border_is_moved_inside(centre_xy: tuple[float, float]) -> None:
    picture = card(Entry("", gray(), detection(), Closeup(centre_xy, 40, "")), 420)

    assert (picture[60:220, 450:600] == 128).all()


def test_a_sheet_holds_every_card_in_reading_order() -> None:
    cards = [np.full((20, 30, 3), shade, np.uint8) for shade in (200, 210, 220, 230, 240)]
    sheet = contact_sheet(cards, "", "", num_columns=2)
    centres = [np.argwhere((sheet == shade).all(axis=2)).mean(axis=0) for shade in (200, 210, 220, 230, 240)]
    rows, columns = np.array(centres).T

    assert rows[0] == rows[1] < rows[2] == rows[3] < rows[4]
    assert columns[0] == columns[2] == columns[4] < columns[1] == columns[3]


def test_a_sheet_is_no_wider_than_its_cards() -> None:
    narrow = contact_sheet([np.zeros((20, 300, 3), np.uint8)], "", "", num_columns=4)

    assert narrow.shape[1] < 400


@given(text=st.text(max_size=40), size_px=st.integers(8, 40), x=st.integers(0, 99), y=st.integers(0, 59))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_written_anywhere(text: str, size_px: int, x: int, y: int) -> None:
    canvas = np.zeros((60, 100, 3), np.uint8)

    assert write(canvas, text, (x, y), size_px, (255, 255, 255)) >= 0


def test_text_is_smooth() -> None:
    canvas = np.zeros((60, 300, 3), np.uint8)
    write(canvas, "HOUSING", (10, 40), 24, (255, 255, 255))
    shades = np.unique(canvas)

    assert len(shades) > 16


def test_text_grows_with_its_size() -> None:
    canvas = np.zeros((100, 900, 3), np.uint8)
    small, large = (write(canvas, "HOUSING", (0, 60), size_px, (255, 255, 255)) for size_px in (16, 32))

    assert large == pytest.approx(2 * small, rel=0.15)


def test_capitals_rise_about_seven_tenths_of_the_size() -> None:
    canvas = np.zeros((100, 300, 3), np.uint8)
    write(canvas, "HHH", (10, 80), 40, (255, 255, 255))
    rows = np.flatnonzero(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY).max(axis=1) > 127)

    assert 24 <= rows.max() - rows.min() + 1 <= 36
    assert abs(rows.max() - 80) <= 3

"""An inspector says of a picture what the detectors say, takes every size of its bundle, and names what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbft_edge import Inspector
from fbft_edge.bundle.nominal_statistics import Reference
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.host import OpenVinoDetector, OpenVinoEngine
from fbft_edge.errors import ArgumentError, BundleError, EngineError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import layout_of

BrightBundle = Callable[..., Bundle]
SIZES = ((84, 98), (112, 84))


@pytest.fixture(scope="module")
def bundle(bright_bundle: BrightBundle) -> Bundle:
    return bright_bundle(frame_sizes=SIZES)


def picture(size: tuple[int, int], level: int = 250) -> Uint8:
    pixels = np.full((*size, 3), 20, np.uint8)
    pixels[28:56, 28:56] = level
    return pixels


@pytest.mark.parametrize("as_path", [str, Path, None], ids=["name", "path", "bundle"])
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_gets_the_detectors_detection(
    bundle: Bundle, size: tuple[int, int], as_path: Callable[[Path], Any] | None
) -> None:
    pixels = picture(size)
    with Inspector(as_path(bundle.path) if as_path else bundle) as inspector:
        found = inspector.inspect(pixels)
    with OpenVinoDetector(bundle, layout_of(pixels)) as detector:
        expected = detector.detect(pixels)
    assert expected.regions
    assert (found.score, found.regions, found.is_anomalous) == (
        expected.score,
        expected.regions,
        expected.is_anomalous,
    )
    np.testing.assert_array_equal(found.mask, expected.mask)


def test_a_detection_is_its_owners_when_another_picture_is_inspected(bundle: Bundle) -> None:
    with Inspector(bundle) as inspector:
        first = inspector.inspect(picture(SIZES[0]))
        mask = first.mask.copy()
        assert not inspector.inspect(picture(SIZES[0], level=20)).mask.any()
    np.testing.assert_array_equal(first.mask, mask)


def test_threads_that_share_it_get_each_their_own_pictures_detection(bundle: Bundle) -> None:
    pictures = [picture(size, level) for level in (20, 250) for size in SIZES] * 25
    with Inspector(bundle) as inspector:
        expected = [inspector.inspect(pixels).score for pixels in pictures]
        with ThreadPoolExecutor(4) as threads:
            found = [detection.score for detection in threads.map(inspector.inspect, pictures)]
    assert found == expected


def test_a_mono_picture_is_refused_where_nominal_ones_have_colour(bright_bundle: BrightBundle) -> None:
    colour = Notes(nominal_statistics={"colour": Reference(9, 1, 1.0, 1.0, 1.0)})
    with Inspector(bright_bundle(notes=colour)) as inspector, pytest.raises(BundleError, match="the picture is mono"):
        inspector.inspect(picture(SIZES[0]))


def test_leaving_it_closes_every_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(OpenVinoEngine, "close", lambda engine: closed.append(engine))
    with Inspector(bundle) as inspector:
        for size in SIZES:
            inspector.inspect(picture(size))
        assert not closed
    assert len(closed) == len(SIZES)


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (np.zeros((84, 98), np.uint8), r"shape \(84, 98\) and type uint8"),
        (np.zeros((84, 98, 4), np.uint8), r"shape \(84, 98, 4\)"),
        (np.zeros((84, 98, 3), np.float32), "type float32"),
        (np.zeros((0, 98, 3), np.uint8), r"shape \(0, 98, 3\)"),
        ([[[0, 0, 0]]], "not a list"),
    ],
    ids=["gray", "four channels", "float", "empty", "list"],
)
def test_what_is_no_rgb_picture_is_refused_with_what_it_is(bundle: Bundle, pixels: Any, found: str) -> None:
    with Inspector(bundle) as inspector, pytest.raises(ArgumentError, match=rf"{found}.*; read it with") as refused:
        inspector.inspect(pixels)
    assert "(height, width, 3)" in str(refused.value)


def test_a_picture_of_another_size_is_refused_with_the_sizes(bundle: Bundle) -> None:
    with Inspector(bundle) as inspector, pytest.raises(BundleError, match=r"has 84x98 pixels.*98x84 or 84x112"):
        inspector.inspect(picture((98, 84)))


def test_an_engine_that_cannot_run_is_refused_before_the_first_picture(bright_bundle: BrightBundle) -> None:
    with pytest.raises(EngineError, match="holds no tensorrt engine"):
        Inspector(bright_bundle(frame_sizes=SIZES[:1]), "tensorrt")


def test_an_engine_that_there_is_not_is_refused_with_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(ArgumentError, match=r"no engine 'onnx'.*openvino"):
        Inspector(bundle, "onnx")


def test_a_bundle_without_thresholds_is_refused(bright_bundle: BrightBundle) -> None:
    with pytest.raises(BundleError, match="has no thresholds"):
        Inspector(bright_bundle(thresholds=None))

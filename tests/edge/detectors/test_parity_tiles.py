"""What finds nothing because it computes nothing is refused: by the bundle's own tiles, and by implausible scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.notes import NominalScores, Notes
from fbft_edge.bundle.reading import Bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import open_model
from fbft_edge.detectors.parity_tiles import PARITY_FILE, ParityTiles, parity_tiles, tensors_from_safetensors
from fbft_edge.errors import EngineError, MapError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat
from fbft_edge.synthetic import render_part

GEOMETRY = TileGeometry(tile_px=56, patch_px=14, overlap_patches=1)
RANDOM = np.random.default_rng(0)
TILES = RANDOM.integers(0, 255, (6, 56, 56, 3), np.uint8)
DISTANCES = RANDOM.random((6, 4, 4), np.float32)
Infer = Callable[[Uint8], Float32]


class Engine:
    """Computes for tiles what it is told."""

    def __init__(self, infer: Infer) -> None:
        self.distances_of = infer


def right(tiles: Uint8) -> Float32:
    """What the reference says of these very tiles."""
    places = [int(np.flatnonzero((tile == TILES).all(axis=(1, 2, 3)))[0]) for tile in tiles]
    return DISTANCES[places]


WRONG: dict[str, Infer] = {
    "zeros": lambda tiles: 0 * right(tiles),
    "a small constant": lambda tiles: 0 * right(tiles) + 0.01,
    "the mean": lambda tiles: 0 * right(tiles) + DISTANCES.mean(),
    "negative": lambda tiles: -right(tiles),
    "no numbers": lambda tiles: np.nan * right(tiles),
    "those of other tiles": lambda tiles: np.roll(right(tiles), 1, axis=0),
    "half": lambda tiles: right(tiles) / 2,
}


@pytest.mark.parametrize("infer", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("most", [None, 4])
def test_an_engine_that_computes_something_else_is_refused(infer: Infer, most: int | None) -> None:
    with pytest.raises(EngineError, match="does not compute what the bundle's own tiles say"):
        ParityTiles(TILES, DISTANCES, GEOMETRY).require(Engine(infer), most)


def test_an_engine_that_rounds_is_accepted() -> None:
    ParityTiles(TILES, DISTANCES, GEOMETRY).require(
        Engine(lambda tiles: right(tiles).astype(np.float16) * np.float32(1.01))
    )


def test_a_few_tiles_at_a_time_come_to_all_of_them() -> None:
    seen: list[int] = []

    def noting(tiles: Uint8) -> Float32:
        seen.extend(int(tile.sum()) for tile in tiles)
        return right(tiles)

    reference = ParityTiles(TILES, DISTANCES, GEOMETRY)
    for _ in range(2):
        reference.require(Engine(noting), 4)
    assert len(seen) == 8
    assert set(seen) == {int(tile.sum()) for tile in TILES}


# The file


def test_the_plain_reader_reads_what_safetensors_writes() -> None:
    read = tensors_from_safetensors(save({"tiles": TILES, "distances": DISTANCES}, {"made": "here"}))
    assert set(read) == {"tiles", "distances"}
    np.testing.assert_array_equal(read["tiles"], TILES)
    np.testing.assert_array_equal(read["distances"], DISTANCES)


def with_header(about: object) -> bytes:
    header = json.dumps({"tiles": about}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        save({"tiles": TILES})[:-1],
        with_header({"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}),
        with_header({"dtype": "U8", "shape": [9], "data_offsets": [0, 8]}),
        with_header({"dtype": "U8", "shape": [8], "data_offsets": [8, 0]}),
        with_header({"dtype": "U8", "shape": [-8], "data_offsets": [0, 8]}),
        with_header({"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}),
        with_header([]),
    ],
)
def test_a_file_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        tensors_from_safetensors(raw)


# The engine that inspects


@pytest.fixture
def detector(small_bundle: Bundle) -> Iterator[OpenVinoDetector]:
    with OpenVinoDetector(small_bundle, FrameLayout(*small_bundle.frame_sizes[0])) as made:
        yield made


class Idle:
    """An engine that writes a constant, or nothing."""

    batch, precision = 1, "f32"

    def __init__(self, value: float | None) -> None:
        self._value = value

    def infer(self, tiles: Uint8, out: Float32) -> None:
        if self._value is not None:
            out.fill(self._value)

    def close(self) -> None: ...


def test_the_engine_that_inspects_computes_what_its_tiles_say(small_bundle: Bundle, detector: OpenVinoDetector) -> None:
    reference = parity_tiles(small_bundle)
    assert reference is not None
    reference.require(detector)
    detector.engine = Idle(0.0)  # type: ignore[assignment]
    with pytest.raises(EngineError):
        reference.require(detector)


@pytest.mark.parametrize("value", [None, 0.0, 1e-30, -1.0])
def test_what_an_engine_says_that_does_not_look_is_no_verdict(
    small_bundle: Bundle, detector: OpenVinoDetector, value: float | None
) -> None:
    pixels = render_part(1, *small_bundle.frame_sizes[0]).pixels
    detector.detect(pixels)
    detector.engine = Idle(value)  # type: ignore[assignment]
    with pytest.raises(MapError):
        detector.detect(pixels)


@pytest.fixture
def straying(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle whose tiles say something else than its graph."""
    copy = replace(small_bundle, path=Path(shutil.copytree(small_bundle.path, tmp_path / "strays.fbft")))
    tensors = {name: value.copy() for name, value in load((copy.path / PARITY_FILE).read_bytes()).items()}
    tensors["distances"][0] += 1
    (copy.path / PARITY_FILE).write_bytes(save(tensors))
    return seal_bundle(copy)


def test_a_line_does_not_start_with_an_engine_that_strays_from_the_tiles(straying: Bundle) -> None:
    with pytest.raises(EngineError, match="tiles"):
        open_model(straying, [FrameLayout(*straying.frame_sizes[0])])


def test_frames_of_a_layout_that_comes_later_are_not_inspected_by_such_an_engine(straying: Bundle) -> None:
    opened = open_model(straying, [])
    with pytest.raises(EngineError, match="tiles"):
        opened.model.detectors.of(FrameLayout(*straying.frame_sizes[0]))


def test_what_was_opened_later_is_held_to_the_tiles_now_and_then_too(small_bundle: Bundle) -> None:
    size = small_bundle.frame_sizes[0]
    opened = open_model(small_bundle, [FrameLayout(*size)])
    later = opened.model.detectors.of(FrameLayout(*size, PixelFormat.BGR8))
    later.engine = Idle(0.0)  # type: ignore[attr-defined]
    assert opened.model.prove is not None
    with pytest.raises(EngineError):
        opened.model.prove()


def test_an_engine_that_strays_from_the_tiles_later_is_refused_then(small_bundle: Bundle) -> None:
    layout = FrameLayout(*small_bundle.frame_sizes[0])
    opened = open_model(small_bundle, [layout])
    assert opened.model.prove is not None
    opened.model.prove()
    opened.model.detectors.of(layout).engine = Idle(0.0)  # type: ignore[attr-defined]
    with pytest.raises(EngineError):
        opened.model.prove()


def test_a_bundle_without_tiles_is_said_to_prove_nothing(
    bright_bundle: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bright_bundle(84)
    opened = open_model(bundle, [FrameLayout(84, 84, PixelFormat.RGB8)], "openvino")
    opened.model.detectors.close()
    assert f"{bundle.path} holds no tiles for that; fit it again" in caplog.text


def test_the_least_score_follows_the_lowest_that_calibration_saw() -> None:
    assert replace(Notes(), calibration=NominalScores((0.4, 0.2), (0.5, 0.5))).least_score == pytest.approx(0.05)
    assert Notes().least_score == 0

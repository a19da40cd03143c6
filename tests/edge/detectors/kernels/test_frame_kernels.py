"""Tables, buffers and launches fit the frames, and what the kernels cannot take is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.kernels import SOURCES, source_text, sources_sha256
from fbft_edge.detectors.kernels.frame_kernels import (
    MAP_COLUMNS,
    MAP_STAGED_ROWS,
    TILE_BLOCK_PX,
    Buffer,
    FrameKernels,
    _divisor,
)
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape

GEOMETRY = TileGeometry(56, 14, 1)


def kernels_for(geometry: TileGeometry = GEOMETRY, size: tuple[int, int] = (120, 90), **options: int) -> FrameKernels:
    return FrameKernels(TilePlan(geometry, *size), PixelFormat.MONO16, 0.5, **options)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_opens_with_its_contract(name: str) -> None:
    assert source_text(name).startswith("// ")


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_includes_anything(name: str) -> None:
    assert "#include" not in source_text(name)


def test_the_hash_of_the_sources_is_a_sha256() -> None:
    assert len(bytes.fromhex(sources_sha256())) == 32


def test_constants_here_are_those_of_the_sources() -> None:
    expected = f"COLUMNS = {MAP_COLUMNS};", f"STAGED_ROWS = {MAP_STAGED_ROWS};"
    assert all(each in source_text("map_and_mask") for each in expected)


@given(st.integers(1, 2**16), st.integers(0, 2**31 - 1))
def test_factor_and_shift_divide_any_number_below_two_to_the_31(divisor: int, number: int) -> None:
    _, factor, shift = (int(value) for value in _divisor(divisor + 1))
    assert (number * factor >> 32) >> shift == number // (divisor + 1)


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_dense_frame_has_the_shape_of_the_cameras_array(pixel_format: PixelFormat) -> None:
    kernels = FrameKernels(TilePlan(GEOMETRY, 120, 90), pixel_format, 0.5)
    assert kernels.buffers["frame"].shape == frame_array_shape(pixel_format, 120, 90)


def test_a_pitched_frame_is_rows_of_bytes() -> None:
    assert kernels_for(pitch=256).buffers["frame"] == Buffer((120, 256), np.dtype(np.uint8))


@pytest.mark.parametrize("pitch", [179, 183])
def test_a_pitch_that_rows_do_not_fit_is_refused(pitch: int) -> None:
    with pytest.raises(ArgumentError, match=f"a pitch of {pitch} bytes does not fit rows of 180"):
        kernels_for(pitch=pitch)


@pytest.mark.parametrize("with_map", [False, True])
def test_the_map_is_made_only_when_asked_for(with_map: bool) -> None:
    assert ("map" in kernels_for(with_map=with_map).buffers) == with_map


def test_every_argument_that_is_a_name_is_a_table_or_buffer() -> None:
    kernels = kernels_for()
    arguments = kernels.tiles_launch.arguments + kernels.map_launch.arguments + kernels.score_launch.arguments
    names = {argument for argument in arguments if isinstance(argument, str)}
    assert names - {""} <= {*kernels.tables, *kernels.buffers}


def test_every_table_is_an_argument() -> None:
    kernels = kernels_for()
    assert set(kernels.tables) <= {*kernels.tiles_launch.arguments, *kernels.map_launch.arguments}


def test_blocks_cover_all_pixels_of_the_tiles() -> None:
    kernels = kernels_for(size=(1500, 2100))
    assert kernels.tiles_launch.grid[0] * TILE_BLOCK_PX >= kernels.plan.num_tiles * 56 * 56


def test_memory_counts_what_is_exchanged_once_per_frame_in_flight() -> None:
    kernels = kernels_for()
    exchanged = sum(kernels.buffers[name].nbytes for name in ("frame", "result", "mask", "grid"))
    one, two = (kernels.memory_bytes(frames)["buffers"] for frames in (1, 2))
    assert two - one == exchanged


def test_a_patch_too_small_for_the_kernel_is_refused() -> None:
    with pytest.raises(ArgumentError, match="room for 24 rows; use larger patches"):
        kernels_for(TileGeometry(64, 1, 4), (120, 90))


def test_more_pixels_than_are_counted_are_refused() -> None:
    plan = TilePlan(TileGeometry(56, 14, 1), 120, 90)
    plan.frame_size = (60_000, 60_000)
    with pytest.raises(ArgumentError, match="make 3600000000 pixels"):
        FrameKernels(plan, PixelFormat.MONO8, 0.5)


def test_wide_frames_are_taken() -> None:
    kernels = kernels_for(TileGeometry(392, 14, 4), (1200, 16_384))
    assert kernels.map_launch.grid == (128, 19, 1)

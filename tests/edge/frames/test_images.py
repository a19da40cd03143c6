"""Every readable image becomes 8-bit RGB without invention; everything else is an ImageError."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from fbft_edge.errors import ImageError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import decode_image, image_paths, read_image, write_image


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def written(folder: Path, data: bytes, name: str = "picture.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def photograph(height: int = 60, width: int = 80) -> Uint8:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm"])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str) -> None:
    pixels = photograph()
    write_image(tmp_path / f"part{suffix}", pixels)
    tolerance = 24 if suffix == ".webp" else 0
    np.testing.assert_allclose(read_image(tmp_path / f"part{suffix}").astype(int), pixels, atol=tolerance)


def test_channels_come_red_first(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 2] = 255
    np.testing.assert_array_equal(read_image(written(tmp_path, encoded(red)))[0, 0], [255, 0, 0])


def test_gray_becomes_three_equal_channels(tmp_path: Path) -> None:
    gray = photograph()[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(written(tmp_path, encoded(gray))), expected)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    bgr = photograph()
    alpha = np.random.default_rng(1).integers(0, 256, (*bgr.shape[:2], 1), np.uint8)
    found = read_image(written(tmp_path, encoded(np.concatenate([bgr, alpha], axis=2))))
    np.testing.assert_array_equal(found, bgr[..., ::-1])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_16_bit_value_is_divided_by_257_and_rounded(tmp_path: Path, channels: int) -> None:
    values = np.arange(65536).reshape(256, 256)
    pixels = np.repeat(values[..., None].astype(np.uint16), channels, axis=2)
    expected = np.repeat(((2 * values + 257) // 514)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(written(tmp_path, encoded(pixels))), expected)


def test_an_orientation_tag_is_honoured(tmp_path: Path) -> None:
    turned = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0)
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(turned)) + b"Exif\0\0" + turned
    plain = encoded(photograph(60, 80), ".jpg")
    path = written(tmp_path, plain[:2] + exif + plain[2:], "turned.jpg")
    assert read_image(path).shape == (80, 60, 3)


def test_pixels_are_contiguous_and_writable(tmp_path: Path) -> None:
    pixels = read_image(written(tmp_path, encoded(photograph())))
    assert pixels.flags["C_CONTIGUOUS"]
    assert pixels.flags["WRITEABLE"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    data = encoded(photograph(300, 400), suffix)
    path = written(tmp_path, data[: int(len(data) * share)], f"cut{suffix}")
    with pytest.raises(ImageError, match=f"cut{suffix}"):
        read_image(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"not an image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"P6 0 0 255\n", bytes(500)],
    ids=["empty", "zero", "text", "PNG head", "JPEG head", "GIF head", "no pixels", "zeros"],
)
def test_bytes_that_are_no_image_are_refused(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    with pytest.raises(ImageError, match=r"picture\.png"):
        read_image(path)


def test_a_damaged_byte_never_raises_anything_but_an_image_error() -> None:
    data = bytearray(encoded(photograph()))
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(data), 200):
        damaged = data.copy()
        damaged[position] ^= int(generator.integers(1, 256))
        try:
            pixels = decode_image(np.frombuffer(bytes(damaged), np.uint8), "damaged")
        except ImageError:
            continue
        assert pixels.dtype == np.uint8


def test_a_picture_that_claims_to_be_enormous_is_refused() -> None:
    data = bytearray(encoded(photograph(), ".bmp"))
    data[18:26] = struct.pack("<ii", 1 << 20, 1 << 20)
    with pytest.raises(ImageError):
        decode_image(np.frombuffer(bytes(data), np.uint8), "enormous")


@pytest.mark.parametrize(("height", "width"), [(10, 16385), (16385, 10), (10, 65501), (10, 1 << 21)])
def test_a_picture_that_is_too_large_is_named_so_and_not_damaged(height: int, width: int) -> None:
    data = encoded(np.zeros((height, width), np.uint8), ".tif")
    with pytest.raises(ImageError, match="at most 16384 pixels a side"):
        decode_image(np.frombuffer(data, np.uint8), "large")


@pytest.mark.parametrize("size", [(16384, 3), (3, 16384)])
def test_the_largest_sides_of_a_frame_are_read(size: tuple[int, int]) -> None:
    pixels = decode_image(np.frombuffer(encoded(np.zeros(size, np.uint8)), np.uint8), "long")
    assert pixels.shape[:2] == size


def test_a_picture_that_is_too_wide_for_a_jpeg_is_not_blamed_on_the_format(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="at most 65500 pixels a side"):
        write_image(tmp_path / "wide.jpg", np.zeros((2, 65501), np.uint8))


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(photograph().astype(np.float32), ".tif"), "float.tif")
    with pytest.raises(ImageError, match="floating-point numbers of 32 bits"):
        read_image(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "missing.png")


def test_a_folder_that_is_named_like_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path / "folder.png")


def test_a_folder_lists_its_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.tiff", ".hidden"):
        (tmp_path / name).touch()
    assert [path.name for path in image_paths(tmp_path)] == ["a.jpg", "b.PNG", "c.tiff"]


@pytest.mark.parametrize("name", ["", "missing", "file.png"])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "file.png").touch()
    with pytest.raises(ImageError):
        image_paths(folder if not name else tmp_path / name)


@pytest.mark.parametrize("name", ["picture.xyz", "picture", "missing/picture.png"])
def test_what_cannot_be_written_is_an_image_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError):
        write_image(tmp_path / name, photograph())

"""What a file says about itself is heeded, or the file is refused: pictures it holds, the value of white."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from fbft_edge.errors import ImageError
from fbft_edge.frames.file_formats import stated_levels
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import decode_image

SIZE = (4, 32)
NEW_SUBFILE, BITS, PHOTOMETRIC, MAX_SAMPLE, SUB_DIRECTORIES, SAMPLE_FORMAT = 254, 258, 262, 281, 330, 339
Tags = dict[int, tuple[str, Sequence[int]]]


def ramp(white: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """Values from 0 on the left to `white` on the right."""
    return np.tile(np.round(np.linspace(0, white, width)).astype(np.int64), (height, 1))


def packed(values: np.ndarray, bits: int, order: str = "<") -> bytes:
    """Rows of samples of so many bits, as TIFF packs them."""
    if bits == 16:
        return values.astype(order + "u2").tobytes()
    ones = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.astype(np.uint8).reshape(len(values), -1), axis=1).tobytes()


def tiff(
    pages: Sequence[tuple[Tags, bytes]], sub_page: int | None = None, order: str = "<", big: bool = False
) -> bytes:
    """A TIFF or BigTIFF file of gray pages of SIZE; `sub_page` is moved below the first page.

    The tags of a page are added to those that every page needs, or replace them.
    """
    offset_kind, count_kind, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    codes = {"H": 3, "I": 4, "Q": 16}
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHH" if big else "H"), *((43, 8, 0) if big else (42,))
    )
    out = bytearray(head + bytes(struct.calcsize("=" + offset_kind)))
    starts, links = [], [len(head)]
    for own, data in pages:
        tags: Tags = {
            **{256: ("I", (SIZE[1],)), 257: ("I", (SIZE[0],)), BITS: ("H", (8,)), 259: ("H", (1,))},
            **{PHOTOMETRIC: ("H", (1,)), 273: (offset_kind, (len(out),)), 277: ("H", (1,)), 278: ("I", (SIZE[0],))},
            **{279: ("I", (len(data),)), **own},
        }
        out += data + bytes(len(data) % 2)
        starts.append(len(out))
        out += struct.pack(order + count_kind, len(tags))
        for tag, (kind, values) in sorted(tags.items()):
            field = struct.pack(f"{order}{len(values)}{kind}", *values).ljust(
                entry - 4 - struct.calcsize("=" + offset_kind), b"\0"
            )
            out += struct.pack(order + "HH" + offset_kind, tag, codes[kind], len(values)) + field
        links.append(len(out))
        out += bytes(struct.calcsize("=" + offset_kind))
    chain = [start for index, start in enumerate(starts) if index != sub_page]
    kept = [link for index, link in enumerate(links) if sub_page is None or index != sub_page + 1]
    for link, start in zip(kept, chain, strict=False):
        struct.pack_into(order + offset_kind, out, link, start)
    if sub_page is not None:
        marked = struct.pack(order + "HH" + offset_kind, SUB_DIRECTORIES, codes[offset_kind], 1)
        struct.pack_into(order + offset_kind, out, out.index(marked) + len(marked), starts[sub_page])
    return bytes(out)


def gray_page(level: int, **tags: tuple[str, Sequence[int]]) -> tuple[Tags, bytes]:
    return {int(tag[1:]): value for tag, value in tags.items()}, bytes([level]) * (SIZE[0] * SIZE[1])


def ramp_tiff(bits: int, white: int | None = None, extra: Tags | None = None, order: str = "<") -> bytes:
    values = ramp((1 << bits) - 1 if white is None else white)
    return tiff([({BITS: ("H", (bits,)), **(extra or {})}, packed(values, bits, order))], order=order)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def apng(frames: int, is_default_a_frame: bool = True) -> bytes:
    """An animated PNG of gray frames of SIZE."""
    height, width = SIZE
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    out += chunk(b"acTL", struct.pack(">II", frames, 0))
    number = 0
    for index in range(frames + (0 if is_default_a_frame else 1)):
        data = zlib.compress((b"\0" + bytes([40 * index]) * width) * height)
        if index or is_default_a_frame:
            out += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0))
            number += 1
        out += chunk(b"fdAT", struct.pack(">I", number) + data) if index else chunk(b"IDAT", data)
        number += 1 if index else 0
    return out + chunk(b"IEND", b"")


def webp_animation(frames: int) -> bytes:
    """Lossless WebP pictures of SIZE as the frames of an animation."""
    height, width = SIZE
    place = (0).to_bytes(3, "little") * 2 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + place[6:]
    body += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    for index in range(frames):
        picture = encoded(np.full(SIZE, 50 * index, np.uint8), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
        body += b"ANMF" + struct.pack("<I", 16 + len(picture)) + place + (100).to_bytes(3, "little") + b"\0" + picture
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def encoded(pixels: np.ndarray, suffix: str, *parameters: int) -> bytes:
    done, data = cv2.imencode(suffix, pixels, list(parameters))
    assert done
    return data.tobytes()


def jpeg(height: int = 40, width: int = 60, seed: int = 0, progressive: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encoded(noise, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)


def pgm(white: int, values: np.ndarray, head: str = "P5") -> bytes:
    height, width = values.shape[0], values.shape[1] // (3 if head == "P6" else 1)
    return f"{head}\n{width} {height}\n{white}\n".encode() + values.astype(">u2" if white > 255 else "u1").tobytes()


def read(data: bytes) -> Uint8:
    return decode_image(np.frombuffer(data, np.uint8), "part.x")


ONE_PAGE = tiff([gray_page(90)])
SEVERAL = {
    "TIFF": (tiff([gray_page(90), gray_page(255)]), 2),
    "TIFF of another byte order": (tiff([gray_page(90)] * 5, order=">"), 5),
    "BigTIFF": (tiff([gray_page(90), gray_page(255)], big=True), 2),
    "thumbnail first": (tiff([gray_page(90, _254=("I", (1,))), gray_page(255)]), 2),
    "page below a page": (tiff([gray_page(90, _330=("I", (0,))), gray_page(255)], sub_page=1), 2),
    "page outside of the file": (ONE_PAGE[:-4] + struct.pack("<I", 1 << 30), 2),
    "APNG": (apng(3), 3),
    "APNG beside a still picture": (apng(2, is_default_a_frame=False), 3),
    "WebP": (webp_animation(4), 4),
    "motion JPEG": (jpeg() + jpeg(seed=1), 2),
    "progressive JPEGs": (jpeg(progressive=1) + jpeg(seed=1, progressive=1) + jpeg(seed=2), 3),
    "JPEG behind its thumbnail": (jpeg(20, 30) + bytes(37) + jpeg(), 2),
    "PGM": (pgm(255, ramp(255)) * 3, 3),
    "PPM of 16 bits": (pgm(1023, ramp(1023, width=96), "P6") * 2, 2),
    "PBM": (b"P4 16 2\n" + bytes(4) + b"P4 16 2\n" + bytes(4), 2),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_file_of_several_pictures_is_refused_with_their_number(kind: str) -> None:
    data, number = SEVERAL[kind]
    with pytest.raises(ImageError, match=rf"part\.x holds {number} pictures, of which only the first .* of its own"):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        ONE_PAGE,
        tiff([gray_page(90)], order=">"),
        tiff([gray_page(90)], big=True),
        ONE_PAGE[:-4] + ONE_PAGE[4:8],  # the next page is the first one
        apng(1),
        webp_animation(1),
        jpeg(progressive=1),
        jpeg() + jpeg(20, 30),  # a phone's preview, or gain map
        jpeg() + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,  # a phone's film
        pgm(255, ramp(255)) + b"\n",
        b"P4 16 2\n" + bytes(4),
        encoded(ramp(255).astype(np.uint8), ".bmp"),
    ],
)
def test_a_file_of_one_picture_is_read(data: bytes) -> None:
    assert read(data).ndim == 3


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".hdr", ".pfm", ".jp2"])
def test_a_format_in_which_pictures_are_not_counted_is_refused_whatever_its_name(suffix: str) -> None:
    pixels = np.full((64, 64, 3), 0.5 if suffix in (".hdr", ".pfm") else 90)
    try:
        data = encoded(pixels.astype(np.float32 if suffix in (".hdr", ".pfm") else np.uint8), suffix)
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {suffix}")
    with pytest.raises(ImageError, match="BMP, JPEG, PBM, PGM, PNG, PPM, TIFF and WebP are read"):
        read(data)


@pytest.mark.parametrize("white", [1, 100, 127, 200, 255, 256, 1000, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("head", ["P5", "P6"])
def test_the_white_that_a_netpbm_file_states_is_white(white: int, head: str) -> None:
    values = ramp(white, width=32 * (3 if head == "P6" else 1))
    expected = (values * (255 / white)).reshape(SIZE[0], 32, -1)
    np.testing.assert_allclose(read(pgm(white, values, head)), np.broadcast_to(expected, (*SIZE, 3)), atol=0.501)


@pytest.mark.parametrize("space", ["\n# 65535 65535 65535\n", "\t \r\n", " #\n#\n"])
def test_comments_and_white_space_do_not_hide_the_stated_white(space: str) -> None:
    data = f"P5{space}32{space}4{space}4095\n".encode() + ramp(4095).astype(">u2").tobytes()
    assert stated_levels(memoryview(data), "part.pgm").white == 4095


def test_the_white_of_a_netpbm_file_in_text_is_heeded() -> None:
    data = b"P2\n2 1\n15\n0 15\n"
    assert read(data)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    "header", [b"P5\n32 4\n", b"P5\n32 4\n0\n", b"P5\n32 4\n65536\n", b"P5 32 x 255\n", b"P8 1 1 1\n"]
)
def test_a_netpbm_file_that_does_not_state_its_white_is_refused(header: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        read(header + bytes(512))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_largest_value_of_every_depth_is_white(bits: int, order: str) -> None:
    found = read(ramp_tiff(bits, order=order))[0, :, 0]
    np.testing.assert_allclose(found, ramp(255)[0], atol=1)


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 14, 16])
def test_a_tiff_in_which_0_is_white_is_turned_round(bits: int) -> None:
    found = read(ramp_tiff(bits, extra={PHOTOMETRIC: ("H", (0,))}))[0, :, 0]
    assert (found[0], found[-1]) == (255, 0)


@pytest.mark.parametrize(("bits", "white"), [(16, 255), (16, 1023), (16, 4095), (16, 65535), (12, 1023)])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_depth_that_a_tiff_states_as_its_largest_value_is_white(bits: int, white: int, photometric: int) -> None:
    extra: Tags = {MAX_SAMPLE: ("H", (white,)), PHOTOMETRIC: ("H", (photometric,))}
    found = read(ramp_tiff(bits, white, extra))[0, :, 0].astype(int)
    expected = ramp(255)[0] if photometric else 255 - ramp(255)[0]
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("stated", [7, 4000, 5000, 65534])
def test_a_largest_value_that_may_be_white_or_the_brightest_pixel_is_refused(stated: int) -> None:
    with pytest.raises(ImageError, match=f"largest value is {stated} of 65535"):
        read(ramp_tiff(16, 4095, {MAX_SAMPLE: ("H", (stated,))}))


@pytest.mark.parametrize(("kind", "words"), [(2, "signed integers"), (3, "floating-point"), (4, "unknown kind")])
@pytest.mark.parametrize("bits", [8, 16])
def test_samples_that_are_no_unsigned_integers_are_refused(bits: int, kind: int, words: str) -> None:
    with pytest.raises(ImageError, match=f"{words}.* of {bits} bits as pixels; convert it to unsigned 8 or 16-bit"):
        read(ramp_tiff(bits, extra={SAMPLE_FORMAT: ("H", (kind,))}))


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_damaged_byte_never_raises_anything_but_an_image_error(kind: str) -> None:
    original = SEVERAL[kind][0]
    generator = np.random.default_rng(0)
    for position in generator.integers(0, min(len(original), 400), 60):
        damaged = bytearray(original)
        damaged[position] ^= int(generator.integers(1, 256))
        try:
            stated_levels(memoryview(bytes(damaged)), "damaged")
        except ImageError:
            continue

"""Video whose pictures build on each other, encoded here: as RTP packets or as a file, with or without losses."""

from __future__ import annotations

import base64
import struct
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from rtsp_server import PACKET_BYTES, RATE_HZ, Packets

from fbft_edge.frames.frame import Uint8

# One slice a picture would hide how one of several goes missing.
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "scenecut=0:slices=4"},
    "libx265": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "scenecut=0:log-level=none"},
}


def encoded(pictures: Sequence[Uint8], key_every: int, codec: str = "libx264") -> Iterator[Any]:
    """One packet for each BGR picture."""
    context = _set_up(av.CodecContext.create(codec, "w"), pictures, key_every)
    for number, bgr in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(bgr, format="bgr24").reformat(format="yuv420p")
        frame.pts = number
        yield from context.encode(frame)
    yield from context.encode(None)


def write_coded(
    path: Path, pictures: Sequence[Uint8], key_every: int, codec: str = "libx264", lost: Collection[int] = ()
) -> Path:
    """A file of what is left of the pictures when some are lost."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE_HZ)
        _set_up(stream.codec_context, pictures, key_every)
        number = 0
        for bgr in [*pictures, None]:
            frame = None
            if bgr is not None:
                frame = av.VideoFrame.from_ndarray(bgr, format="bgr24").reformat(format="yuv420p")
                frame.pts = number
                frame.time_base = Fraction(1, RATE_HZ)
                number += 1
            for packet in stream.encode(frame):
                if round(packet.pts * packet.time_base * RATE_HZ) not in lost:
                    container.mux(packet)
    return path


def _set_up(context: Any, pictures: Sequence[Uint8], key_every: int) -> Any:
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = "yuv420p", Fraction(1, RATE_HZ), RATE_HZ
    context.gop_size, context.max_b_frames = key_every, 0
    context.options = _OPTIONS.get(context.codec.name, {})
    return context


def h264_stream(
    pictures: Sequence[Uint8], key_every: int, lost: Collection[int] = (), cut: Collection[int] = ()
) -> tuple[str, list[Packets]]:
    """A description of H.264 for `RtspServer`, and a clip: some pictures lost, some cut short by their last packet."""
    packets = [_units(bytes(packet)) for packet in encoded(pictures, key_every)]
    clip, sequence = [], 0
    parameters: list[bytes] = []
    for number, units in enumerate(packets):
        parameters = parameters or [unit for unit in units if unit[0] & 31 in (7, 8)]
        payloads = [payload for unit in units for payload in _payloads(unit)]
        sent = []
        for index, payload in enumerate(payloads):
            is_last = index == len(payloads) - 1
            stamp = 90_000 + number * 90_000 // RATE_HZ
            sent.append(struct.pack("!BBHII", 0x80, 96 | is_last << 7, sequence & 0xFFFF, stamp, 7) + payload)
            sequence += 1
        if number not in lost:
            clip.append(Packets(sent[:-1] if number in cut else sent))
    sets = ",".join(base64.b64encode(unit).decode() for unit in parameters)
    return (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:video\r\n",
        clip,
    )


def _units(data: bytes) -> list[bytes]:
    return [unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]


def _payloads(unit: bytes) -> Iterator[bytes]:
    """As RFC 6184 has it: a unit as it stands, or in fragments (FU-A)."""
    if len(unit) <= PACKET_BYTES:
        yield unit
        return
    body = unit[1:]
    for offset in range(0, len(body), PACKET_BYTES):
        part = body[offset : offset + PACKET_BYTES]
        begins, ends = offset == 0, offset + len(part) == len(body)
        yield bytes([unit[0] & 0xE0 | 28, begins << 7 | ends << 6 | unit[0] & 31]) + part

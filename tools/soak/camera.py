"""A network camera, a process of its own: image files in, H.264 over RTSP out, each picture with its own time.

    python -m tools.soak.camera PORT FPS FOLDER FAULTS

Its beat is the machine's monotonic clock: stopped and continued, it hands on at once what it took meanwhile, each with
the time at which it was taken, as network cameras do behind a stall. Every fourth picture is a key frame. While
the file `camera-loses` lies in the folder FAULTS, some pictures are lost on their way; numbers of those, and of what
builds on them, are appended to `unfit`: nobody may judge these. One client at a time, over TCP. Knows nothing of lines.
"""

from __future__ import annotations

import base64
import contextlib
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av

from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import images_in, read_image

CLOCK_HZ = 90_000
PACKET_BYTES = 8000  # FFmpeg takes up to 8192
LONGEST_S = 10.0  # what it took earlier is forgotten
PARAMETER_SETS = (7, 8)
KEY_EVERY = 4
LOSES, UNFIT = "camera-loses", "unfit"
LOST_SHARE = 0.4


def encoded(pictures: Sequence[Uint8]) -> list[list[bytes]]:
    """The units of each picture; every fourth is a key frame, the others build on those before them."""
    context: Any = av.CodecContext.create("libx264", "w")
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 1)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "g": f"{KEY_EVERY}", "sc_threshold": "0"}
    packets = []
    for number, pixels in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        packets += context.encode(frame)
    return [_units(bytes(packet)) for packet in (*packets, *context.encode(None))]


def _units(data: bytes) -> list[bytes]:
    return [unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]


def rtp_packets(units: Sequence[bytes], stamp: int, sequence: Iterator[int]) -> Iterator[bytes]:
    """A picture as RFC 6184 has it: units as they stand, or in fragments (FU-A)."""
    payloads: list[bytes] = []
    for unit in units:
        parts = [unit[place : place + PACKET_BYTES] for place in range(1, len(unit), PACKET_BYTES)]
        head, kind = bytes([unit[0] & 0xE0 | 28]), unit[0] & 31
        ends = [(number == 0) << 7 | (number == len(parts) - 1) << 6 for number in range(len(parts))]
        split = [head + bytes([end | kind]) + part for end, part in zip(ends, parts, strict=True)]
        payloads += [unit] if len(parts) == 1 else split
    for number, payload in enumerate(payloads):
        marker = (number == len(payloads) - 1) << 7
        yield struct.pack("!BBHII", 0x80, 96 | marker, next(sequence) & 0xFFFF, stamp & 0xFFFFFFFF, 7) + payload


def serve(port: int, fps: float, folder: Path, faults: Path) -> None:
    """Play the images of a folder to one client after the other, until killed."""
    pictures = encoded([read_image(path) for path in images_in(folder)])
    sets = ",".join(base64.b64encode(unit).decode() for unit in pictures[0] if unit[0] & 31 in PARAMETER_SETS)
    description = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:video\r\n"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError, ValueError), client.makefile("rb") as requests:
                if _is_playing(client, requests, description):
                    _play(client, pictures, fps, faults)


def _is_playing(client: socket.socket, requests: BinaryIO, description: str) -> bool:
    while line := requests.readline().decode().strip():
        method = line.split()[0]
        headers = dict(line.decode().strip().split(": ", 1) for line in iter(requests.readline, b"\r\n"))
        body = description if method == "DESCRIBE" else ""
        more = {
            "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(description)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7\r\n",
        }.get(method, "")
        client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\n{more}\r\n{body}".encode())
        if method == "PLAY":
            return True
    return False


def _play(client: socket.socket, pictures: Sequence[Sequence[bytes]], fps: float, faults: Path) -> None:
    number, sequence, is_fit = int(time.monotonic() * fps) + 1, iter(range(sys.maxsize)), False
    while True:
        late_s = time.monotonic() - number / fps
        if late_s < 0:
            time.sleep(-late_s)
        stamp = round(number / fps * CLOCK_HZ)
        packets = list(rtp_packets(pictures[number % len(pictures)], stamp, sequence))
        is_lost = late_s > LONGEST_S or ((faults / LOSES).exists() and random.random() < LOST_SHARE)
        is_fit = not is_lost and (is_fit or number % KEY_EVERY == 0)
        if not is_fit:
            with (faults / UNFIT).open("a") as unfit:
                unfit.write(f"{number} {'lost' if is_lost else 'behind'}\n")
        for packet in () if is_lost else packets:
            client.sendall(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
        number += 1


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))

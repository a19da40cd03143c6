"""A small RTSP server over TCP: clips in, each played to one client in turn. Knows nothing about cameras that read it.

    rtsp_server.py PORT LEVEL

plays frames of one level to one client after the other until it is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np

from fbft_edge.frames.frame import Uint8

SIZE = (112, 160)
RATE_HZ = 25
PACKET_BYTES = 1200
NTP_ZERO_S = 2_208_988_800  # 1900 to 1970
SEQUENCE = itertools.count()
DESCRIPTION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:video\r\n"


def flat(level: int, size: tuple[int, int] = SIZE) -> Uint8:
    """A frame of one level in green and blue, red at full in its left half; BGR as OpenCV encodes it."""
    bgr = np.full((*size, 3), level, np.uint8)
    bgr[:, : size[1] // 2, 2] = 255
    return bgr


def rtp_packets(bgr: Uint8, number: int) -> Iterator[bytes]:
    """One frame as RFC 2435 has it: headers that every JPEG shares are left out, tables come first."""
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
    tables, scan = _tables_and_scan(encoded.tobytes())
    height, width = bgr.shape[:2]
    for offset in range(0, len(scan), PACKET_BYTES):
        part = scan[offset : offset + PACKET_BYTES]
        is_last = offset + len(part) == len(scan)
        header = struct.pack("!BBHII", 0x80, 26 | is_last << 7, next(SEQUENCE) & 0xFFFF, number * 90_000 // RATE_HZ, 7)
        jpeg = struct.pack("!IBBBB", offset, 1, 255, width // 8, height // 8)
        quantisation = struct.pack("!BBH", 0, 0, len(tables)) + tables if offset == 0 else b""
        yield header + jpeg + quantisation + part


def _tables_and_scan(jpeg: bytes) -> tuple[bytes, bytes]:
    tables, place = b"", 2
    while True:
        marker, length = struct.unpack_from("!HH", jpeg, place)
        body = jpeg[place + 4 : place + 2 + length]
        if marker == 0xFFDB:
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        place += 2 + length
        if marker == 0xFFDA:
            return tables, jpeg[place:]


def textured(level: int, seed: int = 0) -> Uint8:
    """A frame of one level in its right half, with noise that takes many packets in its left half."""
    bgr = flat(level)
    bgr[:, : SIZE[1] // 2] = np.random.default_rng(seed).integers(0, 256, (SIZE[0], SIZE[1] // 2, 3), np.uint8)
    return bgr


def sender_report(number: int, clock_behind_s: float = 0.0) -> bytes:
    """What an RTCP sender says: the picture of this number was taken now, by its own wall clock (RFC 3550, 6.4.1)."""
    ntp_s = time.time() - clock_behind_s + NTP_ZERO_S
    stamp = number * 90_000 // RATE_HZ
    report = struct.pack("!BBHIIIIII", 0x80, 200, 6, 7, int(ntp_s), int(ntp_s % 1 * 2**32), stamp, 0, 0)
    return struct.pack("!cBH", b"$", 1, len(report)) + report


@dataclass(frozen=True)
class Truncated:
    """A frame whose second packet never arrives."""

    bgr: Uint8


@dataclass(frozen=True)
class Packets:
    """RTP packets sent as they stand, after a pause."""

    packets: Sequence[bytes]
    after_s: float = 0.0


# Bytes are sent as they stand, between two packets.
Clip = Iterable[Uint8 | Truncated | Packets | bytes]


class RtspServer:
    """Plays one clip to each client in turn and hangs up; refuses UDP, as a firewall would."""

    def __init__(self, clips: Iterable[Clip], port: int = 0, description: str = DESCRIPTION) -> None:
        self._description = description
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._clips = clips
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last clip has ended, or its client has gone."""
        self._thread.join()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            for clip in self._clips:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError), client.makefile("rb") as requests:
                    if self._is_playing(client, requests):
                        self._play(client, clip)

    def _is_playing(self, client: socket.socket, requests: BinaryIO) -> bool:
        while line := requests.readline().decode().strip():
            method = line.split()[0]
            headers = dict(line.decode().strip().split(": ", 1) for line in iter(requests.readline, b"\r\n"))
            client.sendall(self._answer(method, headers).encode())
            if method == "PLAY":
                return True
        return False

    def _answer(self, method: str, headers: dict[str, str]) -> str:
        transport = headers.get("Transport", "")
        status = "461 Unsupported transport" if method == "SETUP" and "TCP" not in transport else "200 OK"
        answers = {
            "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(self._description)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7\r\n",
        }
        body = self._description if method == "DESCRIBE" else ""
        return f"RTSP/1.0 {status}\r\nCSeq: {headers['CSeq']}\r\n{answers.get(method, '')}\r\n{body}"

    def _play(self, client: socket.socket, clip: Clip) -> None:
        # By a beat that does not drift: the timestamps say 25 pictures a second, and are believed.
        due_s = time.monotonic()
        for number, part in enumerate(clip):
            if isinstance(part, bytes):
                client.sendall(part)
                continue
            if isinstance(part, Packets):
                due_s += part.after_s
                if self._closing.wait(part.after_s):
                    return
            for packet in _packets_of(part, number):
                client.sendall(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
            due_s += 1 / RATE_HZ
            if self._closing.wait(max(0.0, due_s - time.monotonic())):
                return


def _packets_of(part: Uint8 | Truncated | Packets, number: int) -> Sequence[bytes]:
    if isinstance(part, Packets):
        return part.packets
    packets = list(rtp_packets(part.bgr if isinstance(part, Truncated) else part, number))
    if isinstance(part, Truncated):
        del packets[1]
    return packets


if __name__ == "__main__":
    RtspServer(itertools.repeat([flat(int(sys.argv[2]))] * 1000), int(sys.argv[1]))
    print("ready", flush=True)

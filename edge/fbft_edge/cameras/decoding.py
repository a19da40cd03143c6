"""Compressed streams and files in, through PyAV; pictures out, each with its time, or why it must not be judged.

OpenCV tells neither that a picture was damaged nor that one is missing, and scales one of another size to that of the
first. Imports PyAV when something is opened. Knows nothing about cameras.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fbft_edge.cameras.key_frames import KeyFrames
from fbft_edge.cameras.source_clock import StreamClock
from fbft_edge.clock import now_ns, session_ns
from fbft_edge.frames.frame import Pixels

NANOSECONDS = 1_000_000_000
# What has to be waited for this long had not arrived before.
WAITED_S = 0.002
CATCH_UP_S = 2.0
# FFmpeg hands a picture of these on when the next one begins (need_parsing of libavformat's RTP handlers).
_HELD_BACK = ("h264", "hevc", "mpeg4")
_OUTPUT_CORRUPT = 1 << 3  # AV_CODEC_FLAG_OUTPUT_CORRUPT of libavcodec
_INTRA = (1, 5)  # I, SI: AVPictureType of libavutil
_TAKEN = "prft"  # AV_PKT_DATA_PRFT of libavcodec: begins with Unix time in us, int64, from the sender's last report


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source, in order of presentation.

    Attributes:
        pixels: At the picture's own size, C-contiguous; None when it must not be judged.
        taken_ns: When it was taken, on the session clock; None when nothing says so.
        refusal: Why it must not be judged.
    """

    pixels: Pixels | None
    taken_ns: int | None
    refusal: str | None


class Decoder:
    """Decodes the first video of a container.

    Args:
        source: Address or path.
        options: FFmpeg's, for opening it.
        timeout_s: For opening, and for each packet.

    Attributes:
        rate_hz: Frames per second that it claims to have; 0 when it does not say.

    Raises:
        av.FFmpegError, OSError, ValueError, IndexError: It cannot be opened, or has no video.
    """

    def __init__(self, source: str, options: Mapping[str, str], timeout_s: float | None) -> None:
        import av

        self._container = av.open(source, options=dict(options), timeout=timeout_s)
        stream = self._container.streams.video[0]
        # By slices, which is PyAV's way, FFmpeg does not tell that parts of a picture were missing (libavcodec 62,
        # enable_er of h264dec.c); by frames it is late by as many as there are threads.
        stream.codec_context.thread_type = "NONE"
        # What a decoder would leave out without a word comes out with a flag.
        stream.codec_context.flags |= _OUTPUT_CORRUPT
        self.rate_hz = float(stream.average_rate or 0)
        self._time_base = stream.time_base or Fraction(1)
        self._is_held_back = self._container.format.name == "rtsp" and stream.codec_context.name in _HELD_BACK
        self._clock, self._key_frames = StreamClock(), KeyFrames()
        self._packets = self._received()
        self._ahead: deque[Any] = deque()

    @property
    def lost(self) -> int:
        """Pictures that never came, by the gaps in presentation time."""
        return self._key_frames.lost

    def close(self) -> None:
        """Give the source back; may be called twice."""
        self._container.close()

    def catch_up(self) -> None:
        """Learn a live source's clock from what has piled up while it was opened; all of it is still to be had."""
        import av

        begun_s = asked_s = time.monotonic()
        waits = 2 if self._is_held_back else 1  # of the first, only when the one before came out of the pile is known
        with contextlib.suppress(av.FFmpegError, OSError, IndexError):
            for packet in self._packets:
                self._ahead.append(packet)
                now_s = time.monotonic()
                waits -= now_s - asked_s > WAITED_S
                if waits == 0 or now_s - begun_s > CATCH_UP_S:
                    return
                asked_s = now_s

    def pictures(self) -> Iterator[Picture]:
        """Every picture until the source ends or falls silent; also one for each packet that could not be decoded."""
        import av

        try:
            while (packet := self._ahead.popleft() if self._ahead else next(self._packets, None)) is not None:
                self._key_frames.packet(packet.is_keyframe)
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    yield Picture(None, None, self._key_frames.damage())
                    continue
                if packet.is_corrupt:
                    self._key_frames.damage()
                for frame in frames:
                    yield self._decoded(frame)
        except (av.FFmpegError, OSError, IndexError):
            return

    def _received(self) -> Iterator[Any]:
        before_ns: int | None = None
        for packet in self._container.demux(video=0):
            came_ns = now_ns()
            if packet.pts is not None:
                # A picture that is held back until the next begins had begun itself when the one before came.
                begun_ns = before_ns if self._is_held_back and before_ns is not None else came_ns
                self._clock.see(self._nanoseconds(packet.pts), begun_ns, _reported_ns(packet))
            before_ns = came_ns
            yield packet

    def _decoded(self, frame: Any) -> Picture:
        stamp = frame.dts if frame.pts is None else frame.pts
        source_ns = None if stamp is None else self._nanoseconds(stamp)
        # A key frame that is no I picture begins an intra refresh, and is whole only some pictures later.
        is_key = bool(frame.key_frame) and int(frame.pict_type) in _INTRA
        refusal = self._key_frames.refusal(source_ns, is_key, is_whole=not frame.is_corrupt)
        taken_ns = None if source_ns is None else self._clock.date(source_ns)
        return Picture(frame.to_ndarray(format="bgr24") if refusal is None else None, taken_ns, refusal)

    def _nanoseconds(self, stamp: int) -> int:
        return stamp * self._time_base.numerator * NANOSECONDS // self._time_base.denominator


def _reported_ns(packet: Any) -> int | None:
    """When the sender of a stream took a picture, by the last report of its wall clock; None before the first."""
    if not packet.has_sidedata(_TAKEN):
        return None
    (taken_us,) = struct.unpack_from("=q", packet.get_sidedata(_TAKEN))
    return session_ns(taken_us * 1000)

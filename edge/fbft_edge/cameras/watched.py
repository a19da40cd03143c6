"""A camera under watch: it is opened again whenever it is lost, and pictures that must not be judged are refused.

What is wrong with a camera leaves `read` as a CameraError, which the line publishes as a fault; one text per fault, so
that a fault that lasts is said once. Knows nothing about kinds of cameras.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from fbft_edge.cameras.camera import (
    Camera,
    Live,
    Repetition,
    SourceLostError,
    Triggerable,
    incomplete_of,
    lost_of,
)
from fbft_edge.cameras.sequence import layout_text
from fbft_edge.clock import wait_for
from fbft_edge.errors import ArgumentError, CameraError
from fbft_edge.frames.frame import Frame, Pixels
from fbft_edge.frames.images import about_dark_camera, dark_peak
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.frames.statistics import BLACK_BELOW, NEARLY_ALL, ROW_STEP, WHITE_FROM, Look, black_and_white, mean_level
from fbft_edge.ranges import FROZEN_AFTER, LATENCY_S, LEVEL

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
MOST_OUT_OF_ORDER = 10
# Of the mean level: outside of these a picture can be nearly all black or white, in any pixel format.
_DARK, _LIGHT = 40.0, 225.0
_WITHOUT_LIGHT = {
    "black": ("light, lens cap and exposure, and that 10 or 12 bits fill the 16 in which they are sent", "black_below"),
    "white": ("light, aperture, exposure and gain", "white_above"),
}

_logger = logging.getLogger(__name__)


class WatchedCamera:
    """Brings a camera back whenever it is lost, and refuses pictures that must not be judged.

    - A lost camera is closed and opened again after a pause that doubles from 0.5 s to 30 s, shortened at random so
      that many cameras do not all come at once. A frame that passes ends the series.
    - Frozen: so many bit-identical pictures in a row. Sensors have noise, so that means a stuck grabber or driver, and
      the camera is opened again; the same picture is refused until another one comes. On 5 MP BGR: 1 us where the
      first rows differ, 3.4 ms where nothing does.
    - Black, white: 99 % of every 17th row of a live camera are so, or the mean level is beyond a limit that was given.
    - Colour: it has, or has not, what nominal pictures have.
    - 16-bit pictures that use less than an eighth of their range are said to the log, once.
    - Out of order: frames not later than the last one are dropped and counted; 10 in a row are a lost camera.
    - Another size or pixel format is refused until the old one is back.
    - What the source itself holds for damaged (`fbft_edge.cameras.key_frames`) is refused and counted.

    Args:
        open_source: Opens the camera; called again whenever it was lost.
        name: The camera's name.
        frozen_after: Identical pictures in a row that count as frozen, from 2; 0: not checked; None: what a live camera
            says itself (`fbft_edge.cameras.camera.Live`).
        black_below: Mean level, 0 to 255, below which a picture is black; 0: not checked; None: one of a live camera is
            that is nearly all below 16 of 255, unless nominal pictures are, too.
        white_above: Mean level, 0 to 255, above which a picture is white; 0: not checked; None: one of a live camera is
            that is nearly all from 252 of 255 on, unless nominal pictures are, too.
        wait: The camera need not be there yet. Its frames are then of the expected size and, wherever it was not
            there, converted to RGB8 (0.7 to 2.7 ms per 5 MP frame): layout and detector are chosen before it is known.
        expected_size: The only (height, width) that is accepted; None for the size that the camera has.
        latency_s: How long before the date that the source gives it a picture was taken.

    Attributes:
        reconnects: Attempts to open a lost camera again.
        out_of_order: Frames dropped because they were not later than the last one.
        refused: Pictures that must not be judged, each told by a CameraError, and those out of order.
        expected: What nominal pictures look like. Where they are nearly all black or white, one that is passes unless a
            limit was given; where they have colour, or none, others are refused.

    Raises:
        CameraError: It cannot be opened, or has another size, and need not be waited for.
        ArgumentError: A limit is out of its range.
    """

    def __init__(
        self,
        open_source: Callable[[], Camera],
        name: str,
        frozen_after: int | None = None,
        black_below: float | None = None,
        white_above: float | None = None,
        wait: bool = False,
        expected_size: tuple[int, int] | None = None,
        latency_s: float = 0.0,
    ) -> None:
        limits = {"frozen_after": (frozen_after, FROZEN_AFTER), "black_below": (black_below, LEVEL)}
        for key, (limit, within) in (limits | {"white_above": (white_above, LEVEL)}).items():
            if limit is not None and limit not in within:
                raise ArgumentError(f"camera {name!r}: {key} cannot be {limit:g}; use {within}")
        if latency_s not in LATENCY_S:
            raise ArgumentError(f"camera {name!r}: latency_s cannot be {latency_s:g}; use {LATENCY_S} s")
        self._open_source, self._name, self._latency_ns = open_source, name, round(latency_s * 1e9)
        self._frozen_after, self._black_below, self._white_above = frozen_after, black_below, white_above
        self.expected = Look()
        self._is_live = self._is_dark_said = False
        self._frozen_by: Repetition | None = None
        self.reconnects = self.out_of_order = self.refused = 0
        self._incomplete = self._lost = self._failures = self._count = self._last_ns = 0
        self._identical = self._identical_since_ns = 0
        self._last_pixels: Pixels | None = None
        self._source: Camera | None = None
        self._refusal: CameraError | None = None
        self._is_lost = self._is_frozen = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        try:
            source = self._opened(expected_size, None)
        except CameraError as error:
            if not wait:
                raise
            if expected_size is None:
                raise CameraError(
                    f"{error}; it can be waited for only with a bundle of one frame size, which says what to expect"
                ) from error
            self._size, self._pixel_format, self._converts = expected_size, PixelFormat.RGB8, True
            self._refusal, self._failures = error, 1
        else:
            self._size, self._pixel_format, self._converts = source.size, source.pixel_format, False

    @property
    def name(self) -> str:
        """The camera's name."""
        return self._name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every frame."""
        return self._size

    @property
    def pixel_format(self) -> PixelFormat:
        """Layout of every frame's pixels."""
        return self._pixel_format

    @property
    def incomplete(self) -> int:
        """Pictures that arrived with parts missing and were skipped, for cameras that count them."""
        return self._incomplete + incomplete_of(self._source)

    @property
    def lost(self) -> int:
        """Pictures that never reached this program, for cameras that know."""
        return self._lost + lost_of(self._source)

    def read(self) -> Frame | None:
        """Wait for the next frame that may be judged; None at the end of a finite source, or once closed.

        Never returns at once for long: it waits for the source, or for the pause before the next attempt.

        Raises:
            CameraError: The camera is lost, cannot be opened again, or sent a picture that is refused.
        """
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        if self._is_lost:
            self._let_go()
        source = self._source or self._reopened()
        if source is None:
            return None
        try:
            frame = self._later(source)
            return None if frame is None else self._passed(frame)
        except SourceLostError:
            self._failures += 1
            self._is_lost = True
            raise
        except CameraError:
            self.refused += 1
            raise

    def trigger(self) -> bool:
        """Release the shutter of a camera that waits for it; False when this one does not.

        Raises:
            CameraError: The camera is not there, or did not take the command.
        """
        source = self._source
        if source is None or self._is_lost:
            raise CameraError(f"camera {self._name!r} is not there to be triggered; wait until it is back")
        return source.trigger() if isinstance(source, Triggerable) else False

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None, and give the source back."""
        self._closed.set()
        with self._lock:
            source = self._source
        if source is not None:
            source.close()

    def _reopened(self) -> Camera | None:
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
        if wait_for(self._closed, random.uniform(FIRST_PAUSE_S, longest_s)):
            return None
        self.reconnects += 1
        try:
            return self._opened(self._size, None if self._converts else self._pixel_format)
        except CameraError:
            self._failures += 1
            raise

    def _opened(self, size: tuple[int, int] | None, pixel_format: PixelFormat | None) -> Camera:
        source = self._open_source()
        expected = size or source.size, pixel_format or source.pixel_format
        if (source.size, source.pixel_format) != expected:
            source.close()
            raise CameraError(
                f"camera {self._name!r} sends {layout_text(source.size, source.pixel_format)}, the line expects "
                f"{layout_text(*expected)}; set the camera to that"
            )
        by_itself = source.frozen_by if isinstance(source, Live) else None
        self._is_live = by_itself is not None
        self._frozen_by = by_itself if self._frozen_after is None else _so_many(self._frozen_after)
        with self._lock:
            self._source = source
        if self._closed.is_set():
            source.close()
        return source

    def _let_go(self) -> None:
        """Closing what is lost takes seconds where the other side does not answer, so the fault is told first."""
        with self._lock:
            source, self._source, self._is_lost = self._source, None, False
        self._identical = 0
        if source is not None:
            self._incomplete += incomplete_of(source)
            self._lost += lost_of(source)
            source.close()

    def _later(self, source: Camera) -> Frame | None:
        for _ in range(MOST_OUT_OF_ORDER):
            frame = source.read()
            if frame is None or frame.captured_ns > self._last_ns:
                return frame
            self.out_of_order += 1
            self.refused += 1
        raise SourceLostError(
            f"camera {self._name!r} sent {MOST_OUT_OF_ORDER} pictures in a row that are not later than the last one; "
            "check its clock, or start it again"
        )

    def _passed(self, frame: Frame) -> Frame:
        self._last_ns = frame.captured_ns
        self._refuse_without_light(frame)
        source = f"camera {self._name!r}"
        if objection := self.expected.objection(source, frame.pixels, frame.pixel_format, ROW_STEP):
            raise CameraError(objection)
        if self._frozen_by is not None:
            self._refuse_frozen(frame, self._frozen_by)
        self._failures = 0
        pixels = frame.rgb if self._converts else frame.pixels
        taken_ns = frame.captured_ns - self._latency_ns
        passed = Frame(self._name, self._count, taken_ns, pixels, self._pixel_format)
        self._count += 1
        return passed

    def _refuse_without_light(self, frame: Frame) -> None:
        """Refuse a picture that is black or white; the mean level of most says that they are neither."""
        level = mean_level(frame.pixels, frame.pixel_format)
        if level < _DARK and frame.pixel_format is PixelFormat.MONO16 and not self._is_dark_said:
            self._say_dark(frame.pixels)
        black_below, white_above = self._black_below, self._white_above
        if black_below is not None and level < black_below:
            raise self._without_light("black", f"their mean level is {level:.0f}, below {black_below:g}")
        if white_above and level > white_above:
            raise self._without_light("white", f"their mean level is {level:.0f}, above {white_above:g}")
        if not self._is_live or _DARK <= level <= _LIGHT:
            return
        shares = black_and_white(frame.pixels, frame.pixel_format)
        if black_below is None and not self.expected.may_be_black and shares["black"] >= NEARLY_ALL:
            raise self._without_light("black", f"{NEARLY_ALL:.0%} or more of it is below {BLACK_BELOW} of 255")
        if white_above is None and not self.expected.may_be_white and shares["white"] >= NEARLY_ALL:
            raise self._without_light("white", f"{NEARLY_ALL:.0%} or more of it is at least {WHITE_FROM} of 255")

    def _without_light(self, colour: str, cause: str) -> CameraError:
        check, key = _WITHOUT_LIGHT[colour]
        return CameraError(
            f"camera {self._name!r} sends {colour} pictures: {cause}; check {check}, or set {key} (0: not checked)"
        )

    def _say_dark(self, pixels: Pixels) -> None:
        peak = dark_peak(pixels)
        if peak is not None:
            self._is_dark_said = True
            _logger.warning("camera %s: %s", self._name, about_dark_camera(peak))

    def _refuse_frozen(self, frame: Frame, rule: Repetition) -> None:
        last, self._last_pixels = self._last_pixels, frame.pixels
        is_same = last is not None and are_identical(last, frame.pixels)
        if not is_same or not self._identical:
            self._identical, self._identical_since_ns = 0, frame.captured_ns
        self._identical += 1
        identical_s = (frame.captured_ns - self._identical_since_ns) / 1e9
        is_lost = self._identical >= rule.pictures and identical_s >= rule.seconds
        self._is_frozen = is_lost or (self._is_frozen and is_same)
        if self._is_frozen:
            self.refused += is_lost  # `read` counts those that end no source
            long = f" or more, over {rule.seconds:g} s or more," if rule.seconds else ""
            raise (SourceLostError if is_lost else CameraError)(
                f"camera {self._name!r} is frozen: {rule.pictures} pictures in a row{long} were bit-identical; start "
                "it again, or raise frozen_after where nothing moves and the stream is compressed (0: not checked)"
            )


def _so_many(pictures: int) -> Repetition | None:
    return Repetition(pictures) if pictures else None


def are_identical(first: Pixels, second: Pixels) -> bool:
    """Whether two pictures agree in every bit; stops at the first row that differs."""
    return first.shape == second.shape and all(
        row.tobytes() == other.tobytes() for row, other in zip(first, second, strict=True)
    )

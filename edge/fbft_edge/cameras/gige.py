"""GenICam cameras through Aravis: GigE Vision frames as the sensor took them, numbered and stamped.

Aravis is a system library; it is loaded through GObject introspection when the first camera is opened.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fbft_edge.cameras.camera import SENSOR, SourceLostError
from fbft_edge.cameras.frame_numbers import FrameNumbers
from fbft_edge.cameras.sequence import FrameSequence, SequenceCamera
from fbft_edge.cameras.source_clock import MOST_ON_THE_WAY_NS, SourceClock
from fbft_edge.clock import session_ns
from fbft_edge.errors import CameraError
from fbft_edge.extras import require_extra
from fbft_edge.frames.frame import Frame, Pixels
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape, pixel_dtype

SILENCE_S = 5.0
NUM_BUFFERS = 8
_POP_US = 100_000

# By the numbers of GenICam's pixel format naming convention.
_PIXEL_FORMATS = {
    0x01080001: PixelFormat.MONO8,
    0x01100007: PixelFormat.MONO16,
    0x02180014: PixelFormat.RGB8,
    0x02180015: PixelFormat.BGR8,
    0x01080008: PixelFormat.BAYER_GR8,
    0x01080009: PixelFormat.BAYER_RG8,
    0x0108000A: PixelFormat.BAYER_GB8,
    0x0108000B: PixelFormat.BAYER_BG8,
}
_READABLE = "Mono8, Mono16, RGB8, BGR8, BayerGR8, BayerRG8, BayerGB8, BayerBG8"


class GigeCamera(SequenceCamera):
    """A GenICam camera in the network.

    What the options do not name stays as the camera has it: region, binning, white balance. Frames are dated by the
    camera's own timestamps, held against the arrival of their first packets.

    Args:
        target: Serial number, name, IP or MAC address; empty for the first camera found.
        name: The camera's name.
        trigger: `free`: it runs by itself; `software`: one frame per `trigger()`; else the input that triggers it, as
            the camera names it: `Line1`.
        exposure_us: Exposure in microseconds, automatic exposure off.
        gain: Gain in the camera's unit, mostly dB, automatic gain off.
        fps: Frames per second of a camera that runs by itself.
        pixel_format: By its GenICam name: `BayerRG8`.

    Attributes:
        incomplete: Pictures skipped because packets of them were lost.

    Raises:
        ArgumentError: PyGObject is not installed.
        CameraError: Aravis is not installed, no such camera answers, or it does not take an option.
    """

    frozen_by = SENSOR

    def __init__(
        self,
        target: str,
        name: str,
        trigger: str = "free",
        exposure_us: float | None = None,
        gain: float | None = None,
        fps: float | None = None,
        pixel_format: str | None = None,
    ) -> None:
        self._aravis, self._error = _libraries()
        self._label = f"camera {name!r} at gige://{target}"
        self._trigger = trigger
        self.incomplete = 0
        self._numbers, self._clock = FrameNumbers(), _DeviceClock()
        self._lost, self._closed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._is_started = False
        self._camera = self._found(target)
        try:
            lost = self._lost
            self._camera.get_device().connect("control-lost", lambda _: lost.set())
            with self._asked("cannot be set up", "check that no other program has it open"):
                self._set_up(exposure_us, gain, fps, pixel_format)
            self._sequence = FrameSequence(name, *self._layout())
            self._stream = self._filled_stream()
            if trigger == "software":
                self._start()
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> int:
        """Pictures that the camera numbered and that never came."""
        return self._numbers.lost

    def read(self) -> Frame | None:
        """Wait for the next complete picture; None once closed.

        A camera that is triggered may be silent for as long as it likes.

        Raises:
            SourceLostError: The camera does not answer any more, or runs by itself and sent nothing for 5 s.
            CameraError: A picture of another size or pixel format came.
        """
        with self._lock:
            if not self._closed.is_set():
                self._start()
            silent_since_s = time.monotonic()
            while not self._closed.is_set():
                frame = self._next()
                if frame is not None:
                    return frame
                self._require_life(silent_since_s)
        return None

    def trigger(self) -> bool:
        """Release the shutter of a camera with `trigger=software`; False for any other.

        Raises:
            CameraError: The camera did not take the command.
        """
        if self._trigger != "software":
            return False
        camera = self._camera
        with self._asked("cannot be triggered", "check its cable and its power"):
            if camera is not None:
                camera.software_trigger()
        return True

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None, and give the camera back."""
        self._closed.set()
        with self._lock:
            if self._camera is not None and not self._lost.is_set():
                with contextlib.suppress(self._error):
                    self._camera.stop_acquisition()
                    self._camera.get_device().leave_control()
            # Aravis ends its threads with the last references.
            self._stream = self._camera = None

    def _found(self, target: str) -> Any:
        known = self._known()
        if target not in known:
            self._aravis.update_device_list()  # takes a second
            known = self._known()
        try:
            return self._aravis.Camera.new(known.get(target, target) or None)
        except self._error as error:
            self._aravis.update_device_list()
            present = ", ".join(sorted(set(self._known().values()))) or "none"
            raise CameraError(
                f"{self._label} cannot be opened ({error.message}); present: {present}; check name, cable, power and "
                "network address, and that no other program has it open"
            ) from error

    def _known(self) -> dict[str, str]:
        """Identifiers by all that Aravis tells of a camera; it finds user-defined names by itself."""
        ask = self._aravis
        return {
            key: ask.get_device_id(index)
            for index in range(ask.get_n_devices())
            for key in (ask.get_device_id(index), ask.get_device_serial_nbr(index), ask.get_device_address(index))
        }

    def _set_up(self, exposure_us: float | None, gain: float | None, fps: float | None, layout: str | None) -> None:
        camera, off = self._camera, self._aravis.Auto.OFF
        if layout is not None:
            with self._asked(f"has no pixel_format={layout}", f"it has {self._names('pixel_formats_as_strings')}"):
                camera.set_pixel_format_from_string(layout)
        if exposure_us is not None and camera.is_exposure_auto_available():
            camera.set_exposure_time_auto(off)
        if gain is not None and camera.is_gain_auto_available():
            camera.set_gain_auto(off)
        self._set("exposure_us", exposure_us, camera.get_exposure_time_bounds, camera.set_exposure_time)
        self._set("gain", gain, camera.get_gain_bounds, camera.set_gain)
        self._set("fps", fps, camera.get_frame_rate_bounds, camera.set_frame_rate)
        with self._asked(f"does not take trigger={self._trigger}", f"it has {self._names('trigger_sources')}"):
            if self._trigger == "free":
                camera.clear_triggers()
            else:
                camera.set_trigger("Software" if self._trigger == "software" else self._trigger)

    def _set(
        self, option: str, value: float | None, bounds: Callable[[], Any], set_value: Callable[[float], None]
    ) -> None:
        if value is None:
            return
        with self._asked(f"does not take {option}={value:g}", "leave it out"):
            least, most = bounds().min, bounds().max
            if not least <= value <= most:
                raise CameraError(f"{self._label} takes {option} from {least:g} to {most:g}, not {value:g}")
            set_value(value)

    def _layout(self) -> tuple[tuple[int, int], PixelFormat]:
        with self._asked("does not say what it sends", "start it again"):
            region, code = self._camera.get_region(), self._camera.get_pixel_format()
        pixel_format = _PIXEL_FORMATS.get(code)
        if pixel_format is None:
            raise CameraError(
                f"{self._label} sends {self._camera.get_pixel_format_as_string()} pixels, which are not read; it has "
                f"{self._names('pixel_formats_as_strings')}; choose one of {_READABLE}, as in gige://...?pixel_format=Mono8"
            )
        return (region.height, region.width), pixel_format

    def _filled_stream(self) -> Any:
        with self._asked("cannot stream", "check that no other program has it open"):
            stream, payload = self._camera.create_stream(None, None), self._camera.get_payload()
        for _ in range(NUM_BUFFERS):
            stream.push_buffer(self._aravis.Buffer.new_allocate(payload))
        return stream

    def _start(self) -> None:
        if not self._is_started:
            with self._asked("does not start", "check that no other program has it open"):
                self._camera.start_acquisition()
            self._is_started = True

    def _next(self) -> Frame | None:
        buffer = self._stream.timeout_pop_buffer(_POP_US)
        if buffer is None:
            return None
        # All that come in, whole or not: what no buffer was free for, as the reader was held up, leaves its number out.
        self._numbers.follow(buffer.get_frame_id())
        try:
            if buffer.get_status() == self._aravis.BufferStatus.SUCCESS:
                return self._frame(buffer)
            self.incomplete += 1
            return None
        finally:
            self._stream.push_buffer(buffer)

    def _frame(self, buffer: Any) -> Frame:
        pixel_format = _PIXEL_FORMATS.get(buffer.get_image_pixel_format())
        self._sequence.require((buffer.get_image_height(), buffer.get_image_width()), pixel_format)
        shape = frame_array_shape(self.pixel_format, *self.size)
        dtype, count = pixel_dtype(self.pixel_format), math.prod(shape)
        sent: bytes = buffer.get_data()
        if len(sent) < count * dtype.itemsize:
            raise CameraError(
                f"{self._label} sent {len(sent)} bytes where a picture has {count * dtype.itemsize}; "
                "set its image padding to 0"
            )
        pixels: Pixels = np.frombuffer(sent, dtype, count).reshape(shape)  # type: ignore[assignment]
        arrived_ns = session_ns(buffer.get_system_timestamp())
        return self._sequence.frame(pixels, self._clock.date(buffer.get_timestamp(), arrived_ns))

    def _require_life(self, silent_since_s: float) -> None:
        if self._lost.is_set():
            raise SourceLostError(f"{self._label} does not answer any more; check its cable and its power")
        if self._trigger == "free" and time.monotonic() - silent_since_s > SILENCE_S:
            self._lost.set()
            raise SourceLostError(
                f"{self._label} sent no complete picture for {SILENCE_S:g} s ({self.incomplete} incomplete so far); "
                "check network, firewall and packet size, and whether it waits for a trigger"
            )

    def _names(self, kind: str) -> str:
        with contextlib.suppress(self._error):
            return ", ".join(
                getattr(self._camera, f"dup_available_{kind}" + "_as_strings" * (kind == "pixel_formats"))()
            )
        return "none"

    @contextlib.contextmanager
    def _asked(self, failing: str, remedy: str) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise CameraError(f"{self._label} {failing} ({error.message}); {remedy}") from error


class _DeviceClock:
    """Dates pictures by the camera's timestamps, held against the arrival of their first packets.

    A network takes milliseconds. Where the two come to differ by a second, the timestamps count something else than
    nanoseconds, and arrival alone is believed from then on.
    """

    def __init__(self) -> None:
        self._clock: SourceClock | None = SourceClock()

    def date(self, stamp_ns: int, arrived_ns: int) -> int:
        if self._clock is None or stamp_ns == 0:
            return arrived_ns
        self._clock.see(stamp_ns, arrived_ns)
        taken_ns = self._clock.date(stamp_ns)
        if taken_ns is None or arrived_ns - taken_ns > MOST_ON_THE_WAY_NS:
            self._clock = None
            return arrived_ns
        return taken_ns


def _libraries() -> tuple[Any, Any]:
    """Aravis, and the error that it raises."""
    require_extra("gige", "a gige:// camera")
    import gi

    try:
        gi.require_version("Aravis", "0.8")
    except ValueError as error:
        raise CameraError(
            "gige:// cameras need Aravis 0.8, which this system lacks; sudo apt install gir1.2-aravis-0.8"
        ) from error
    from gi.repository import Aravis, GLib

    return Aravis, GLib.Error

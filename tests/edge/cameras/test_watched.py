"""A watched camera comes back by itself, and no picture that must not be judged gets past it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until

from fbft_edge.cameras import Camera, Live, SourceLostError, WatchedCamera, open_camera, open_watched_camera
from fbft_edge.cameras import watched as module
from fbft_edge.cameras.camera import COMPRESSED, SENSOR, Repetition
from fbft_edge.cameras.video import repetition_of
from fbft_edge.cameras.watched import are_identical
from fbft_edge.errors import ArgumentError, CameraError
from fbft_edge.frames.frame import Frame, Pixels
from fbft_edge.frames.images import about_dark_camera, write_image
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape, pixel_dtype, rgb_from_pixels
from fbft_edge.frames.statistics import Look, mean_level

SIZE = (48, 64)
TICK_NS = 1_000_000
DEADLINE_S = 30.0

Delivery = Pixels | Exception | None


def noise(seed: int, level: int = 100, size: tuple[int, int] = SIZE, layout: PixelFormat = PixelFormat.BGR8) -> Pixels:
    """A picture of a sensor: one level, and noise that is another in each."""
    shape, dtype = frame_array_shape(layout, *size), pixel_dtype(layout)
    return np.random.default_rng(seed).integers(level, level + 20, shape).astype(dtype)


class ScriptedCamera:
    """Delivers what it is given, one thing per `read`, then None."""

    name = "source"

    def __init__(
        self,
        deliveries: Sequence[Delivery],
        size: tuple[int, int] = SIZE,
        pixel_format: PixelFormat = PixelFormat.BGR8,
        stamps_ns: Iterator[int] | None = None,
    ) -> None:
        self.size, self.pixel_format, self.is_closed, self.triggers = size, pixel_format, False, 0
        self._deliveries, self._stamps_ns = iter(deliveries), stamps_ns
        self.incomplete, self.lost = 3, 2

    def read(self) -> Frame | None:
        delivery = None if self.is_closed else next(self._deliveries, None)
        if isinstance(delivery, Exception):
            raise delivery
        if delivery is None:
            return None
        stamp_ns = time.monotonic_ns() if self._stamps_ns is None else next(self._stamps_ns)
        return Frame("source", 0, stamp_ns, delivery, self.pixel_format)

    def trigger(self) -> bool:
        self.triggers += 1
        return True

    def close(self) -> None:
        self.is_closed = True


class ScriptedLiveCamera(ScriptedCamera):
    """The same of a camera that looks at the world."""

    frozen_by: Repetition | None = SENSOR


class Factory:
    """Opens one camera after the other, or fails as it is told."""

    def __init__(self, *cameras: Camera | Exception) -> None:
        self.cameras = list(cameras)
        self.opened_s: list[float] = []

    def __call__(self) -> Camera:
        self.opened_s.append(time.monotonic())
        camera = self.cameras[min(len(self.opened_s), len(self.cameras)) - 1]
        if isinstance(camera, Exception):
            raise camera
        return camera


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.004)


LOST = SourceLostError("the source is gone; plug it in")
pytestmark = pytest.mark.usefixtures("quick")


def watched(*deliveries: Delivery, **options: object) -> WatchedCamera:
    return WatchedCamera(Factory(ScriptedCamera(deliveries)), "press-1", **options)  # type: ignore[arg-type]


def live(
    *deliveries: Delivery,
    frozen_by: Repetition = SENSOR,
    every_ns: int = TICK_NS,
    layout: PixelFormat = PixelFormat.BGR8,
    **options: object,
) -> WatchedCamera:
    """A live camera whose pictures are so far apart; when it is opened again it has ended."""
    stamps_ns = iter(range(every_ns, (len(deliveries) + 1) * every_ns, every_ns))
    source = ScriptedLiveCamera(deliveries, pixel_format=layout, stamps_ns=stamps_ns)
    source.frozen_by = frozen_by
    return WatchedCamera(Factory(source, ScriptedCamera([])), "press-1", **options)  # type: ignore[arg-type]


def read_all(camera: WatchedCamera) -> list[int | str]:
    """What becomes of each picture: its frame's number, or the first words of why it is refused."""
    read: list[int | str] = []
    while True:
        try:
            frame = camera.read()
        except CameraError as error:
            read.append(str(error).split(":")[0])
            continue
        if frame is None:
            return read
        read.append(frame.frame_id)


# Coming back


def test_frames_are_numbered_on_over_a_loss() -> None:
    cameras = [ScriptedCamera([noise(1), noise(2), LOST]), ScriptedCamera([noise(3)])]
    camera = WatchedCamera(Factory(*cameras), "press-1")
    frames = [camera.read(), camera.read()]
    with pytest.raises(CameraError, match="plug it in"):
        camera.read()
    frames.append(camera.read())
    assert [(frame.camera, frame.frame_id) for frame in frames if frame] == [("press-1", n) for n in range(3)]


def test_a_lost_source_is_closed_before_it_is_opened_again() -> None:
    first = ScriptedCamera([LOST])
    was_closed: list[bool] = []

    def opening() -> Camera:
        was_closed.append(first.is_closed)
        return ScriptedCamera([noise(1)]) if len(was_closed) == 2 else first

    camera = WatchedCamera(opening, "press-1")
    with pytest.raises(CameraError):
        camera.read()
    camera.read()
    assert was_closed == [False, True]


def test_every_attempt_is_counted_and_says_why_it_failed() -> None:
    away = CameraError("no device; plug it in")
    camera = WatchedCamera(Factory(ScriptedCamera([LOST]), away, away, ScriptedCamera([noise(1)])), "press-1")
    said = []
    for _ in range(3):
        with pytest.raises(CameraError) as caught:
            camera.read()
        said.append(str(caught.value))
    frame = camera.read()
    assert (said, camera.reconnects, frame is not None) == ([str(LOST), str(away), str(away)], 3, True)


def test_an_error_that_passes_keeps_the_source_open() -> None:
    factory = Factory(ScriptedCamera([CameraError("one bad file"), noise(1)]))
    camera = WatchedCamera(factory, "press-1")
    with pytest.raises(CameraError, match="one bad file"):
        camera.read()
    assert (camera.read() is not None, camera.reconnects, len(factory.opened_s)) == (True, 0, 1)


def test_pauses_grow_from_attempt_to_attempt_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def shortest(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    monkeypatch.setattr(module.random, "uniform", shortest)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 30.0)
    camera = WatchedCamera(Factory(ScriptedCamera([LOST]), CameraError("away; wait")), "press-1")
    for _ in range(9):
        with pytest.raises(CameraError):
            camera.read()
    assert asked == [(0.5, high) for high in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)]


def test_a_frame_that_passes_ends_the_series_of_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[float] = []
    monkeypatch.setattr(module.random, "uniform", lambda low, high: longest.append(high) or 0.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 30.0)
    sources = [ScriptedCamera([noise(n), LOST]) for n in range(4)]
    camera = WatchedCamera(Factory(*sources), "press-1")
    for _ in range(4):
        camera.read()
        with pytest.raises(CameraError):
            camera.read()
    assert len(set(longest)) == 1


def test_closing_wakes_who_waits_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 600.0)
    camera = watched(LOST)
    with pytest.raises(CameraError):
        camera.read()
    answers: list[Frame | None] = []
    thread = threading.Thread(target=lambda: answers.append(camera.read()))
    thread.start()
    camera.close()
    thread.join(DEADLINE_S)
    assert answers == [None]


def test_a_source_that_opens_after_the_end_is_closed_again() -> None:
    late = ScriptedCamera([noise(1)])
    first = ScriptedCamera([LOST])

    def opening() -> Camera:
        if not first.is_closed:
            return first
        camera.close()
        return late

    camera = WatchedCamera(opening, "press-1")
    with pytest.raises(CameraError):
        camera.read()
    assert (camera.read(), late.is_closed) == (None, True)


def test_a_finite_source_ends() -> None:
    camera = watched(noise(1))
    camera.read()
    assert (camera.read(), camera.reconnects) == (None, 0)


# Waiting for a camera


def test_a_camera_that_is_not_there_is_refused_unless_it_is_waited_for() -> None:
    with pytest.raises(CameraError, match="no device"):
        WatchedCamera(Factory(CameraError("no device; plug it in")), "press-1", expected_size=SIZE)


def test_a_camera_can_not_be_waited_for_without_a_size() -> None:
    with pytest.raises(
        CameraError, match="no device; plug it in; it can be waited for only with a bundle of one frame"
    ):
        WatchedCamera(Factory(CameraError("no device; plug it in")), "press-1", wait=True)


@pytest.mark.parametrize("uri", ["gigge://4711", "v4l2:///dev/video0?widht=1920"])
def test_a_uri_that_is_not_understood_is_refused_and_not_waited_for(uri: str) -> None:
    with pytest.raises(CameraError, match=r"no camera kind 'gigge'|unknown option 'widht'"):
        open_watched_camera(uri, wait=True, expected_size=SIZE)


def test_a_camera_that_is_waited_for_says_at_once_why_it_is_not_there_and_comes() -> None:
    factory = Factory(CameraError("no device; plug it in"), ScriptedCamera([noise(1)]))
    camera = WatchedCamera(factory, "press-1", wait=True, expected_size=SIZE)
    with pytest.raises(CameraError, match="no device"):
        camera.read()
    assert (len(factory.opened_s), camera.size) == (1, SIZE)
    assert camera.read() is not None


@pytest.mark.parametrize("layout", [PixelFormat.BGR8, PixelFormat.MONO16, PixelFormat.BAYER_GR8, PixelFormat.RGB8])
def test_a_camera_that_comes_later_delivers_rgb_whatever_it_sends(layout: PixelFormat) -> None:
    pixels = noise(1, layout=layout)
    source = ScriptedCamera([pixels], pixel_format=layout)
    factory = Factory(CameraError("away"), source)
    camera = WatchedCamera(factory, "press-1", wait=True, expected_size=SIZE)
    with pytest.raises(CameraError):
        camera.read()
    frame = camera.read()
    assert (frame.pixel_format, camera.pixel_format) == (PixelFormat.RGB8, PixelFormat.RGB8)
    np.testing.assert_array_equal(frame.pixels, rgb_from_pixels(pixels, layout))


def test_a_camera_that_is_there_keeps_its_pixel_format_though_it_would_be_waited_for() -> None:
    source = ScriptedCamera([noise(1, layout=PixelFormat.MONO8)], pixel_format=PixelFormat.MONO8)
    camera = WatchedCamera(Factory(source), "press-1", wait=True, expected_size=SIZE)
    assert (camera.pixel_format, camera.read().pixel_format) == (PixelFormat.MONO8, PixelFormat.MONO8)


def test_a_camera_of_another_size_than_expected_is_a_fault_until_it_has_that() -> None:
    wrong, right = ScriptedCamera([noise(1)], (50, 64)), ScriptedCamera([noise(2)])
    camera = WatchedCamera(Factory(wrong, wrong, right), "press-1", wait=True, expected_size=SIZE)
    for _ in range(2):
        with pytest.raises(CameraError, match=r"sends 64x50 pixels .* of bgr8, the line expects 64x48 pixels"):
            camera.read()
    assert (camera.read() is not None, wrong.is_closed) == (True, True)


def test_a_camera_that_comes_back_with_another_format_is_refused_until_the_old_one_is_back() -> None:
    bgr = ScriptedCamera([noise(1), LOST])
    mono = ScriptedCamera([noise(2, layout=PixelFormat.MONO8)], pixel_format=PixelFormat.MONO8)
    camera = WatchedCamera(Factory(bgr, mono, ScriptedCamera([noise(3)])), "press-1")
    camera.read()
    with pytest.raises(CameraError):
        camera.read()
    with pytest.raises(CameraError, match=r"64x48 pixels .* of mono8, the line expects 64x48 pixels .* of bgr8"):
        camera.read()
    assert camera.read().frame_id == 1


# Frozen


def frozen_then(*pictures: Pixels, reopened: int) -> WatchedCamera:
    """Stuck at one picture, which it also begins with whenever it is opened again."""
    stuck = noise(1)
    sources = [ScriptedCamera([stuck.copy() for _ in range(3)]) for _ in range(reopened)]
    camera = WatchedCamera(Factory(*sources, ScriptedCamera([stuck, *pictures])), "press-1", frozen_after=3)
    assert [camera.read() is not None for _ in range(2)] == [True, True]
    return camera


@pytest.mark.parametrize("reopened", [1, 2])
def test_a_frozen_camera_is_a_fault_and_opened_again_until_its_picture_changes(reopened: int) -> None:
    camera = frozen_then(noise(2), noise(3), reopened=reopened)
    for _ in range(3 * reopened - 1):
        with pytest.raises(CameraError, match="'press-1' is frozen: 3 pictures in a row were bit-identical"):
            camera.read()
    assert ([camera.read().frame_id, camera.read().frame_id], camera.reconnects) == ([2, 3], reopened)


def test_one_changed_bit_is_not_frozen() -> None:
    pictures = [noise(1) for _ in range(20)]
    for index in range(0, 20, 2):
        pictures[index][-1, -1, -1] ^= 1
    camera = watched(*pictures, frozen_after=2)
    assert [camera.read() is not None for _ in range(20)] == [True] * 20


def test_pictures_of_what_is_not_live_may_repeat() -> None:
    camera = watched(*[noise(1)] * 50)
    assert [camera.read() is not None for _ in range(50)] == [True] * 50


def test_the_first_repetition_of_a_sensor_is_frozen_by_default() -> None:
    assert read_all(live(noise(1), noise(2), noise(2))) == [0, 1, "camera 'press-1' is frozen"]


def test_a_still_scene_passes_by_default_as_a_sensor_has_noise() -> None:
    scene = np.full((*SIZE, 3), 90, np.uint8)
    dice = np.random.default_rng(0)
    pictures = [np.asarray(np.rint(scene + dice.normal(0, 0.3, scene.shape)), np.uint8) for _ in range(100)]
    assert read_all(live(*pictures)) == list(range(100))


@pytest.mark.parametrize(
    ("pictures", "every_s", "passed"),
    [(8, 1.0, 8), (40, 0.1, 40), (60, 0.1, 50), (40, 1.0, 9)],
    ids=["long, but few", "many, but short", "many and long", "a slow stream"],
)
def test_a_compressed_stream_is_frozen_by_default_when_many_pictures_repeat_for_long(
    pictures: int, every_s: float, passed: int
) -> None:
    camera = live(*[noise(1)] * pictures, frozen_by=COMPRESSED, every_ns=round(every_s * 1e9))
    frozen = [] if passed == pictures else ["camera 'press-1' is frozen"]
    assert read_all(camera) == [*range(passed), *frozen]


def test_a_key_frame_that_differs_ends_the_repetition_of_a_compressed_stream() -> None:
    camera = live(*[noise(n // 25) for n in range(250)], frozen_by=COMPRESSED, every_ns=40_000_000)
    assert read_all(camera) == list(range(250))


def test_a_frozen_stream_says_by_which_numbers_and_what_to_do() -> None:
    camera = live(*[noise(1)] * 60, frozen_by=COMPRESSED, every_ns=100_000_000)
    said = r"10 pictures in a row or more, over 5 s or more, were bit-identical; .* raise frozen_after"
    with pytest.raises(CameraError, match=said):
        [camera.read() for _ in range(60)]


def test_zero_switches_off_what_a_live_camera_is_checked_for() -> None:
    pictures = [np.full((*SIZE, 3), level, np.uint8) for level in (0, 0, 255, 255)]
    assert read_all(live(*pictures, frozen_after=0, black_below=0.0, white_above=0.0)) == [0, 1, 2, 3]


def test_a_number_that_is_given_takes_the_place_of_the_camera_s_own() -> None:
    assert read_all(live(*[noise(1)] * 3, frozen_after=3)) == [0, 1, "camera 'press-1' is frozen"]


@pytest.mark.parametrize(
    ("fourcc", "repetition"), [("YUYV", SENSOR), ("GREY", SENSOR), ("MJPG", COMPRESSED), ("\0\0\0\0", COMPRESSED)]
)
def test_a_device_is_judged_by_what_it_sends(fourcc: str, repetition: Repetition) -> None:
    assert repetition_of(fourcc) == repetition


@pytest.mark.parametrize(("options", "repetition"), [("?loop=true", COMPRESSED), ("", None)])
def test_a_folder_in_a_loop_stands_in_for_a_live_camera(
    tmp_path: Path, options: str, repetition: Repetition | None
) -> None:
    write_image(tmp_path / "0.png", noise(1))
    camera = open_camera(f"folder://{tmp_path}{options}")
    assert isinstance(camera, Live)
    assert camera.frozen_by == repetition


@pytest.mark.parametrize("layout", PixelFormat)
def test_pictures_of_every_format_are_compared(layout: PixelFormat) -> None:
    first, same, other = noise(1, layout=layout), noise(1, layout=layout), noise(2, layout=layout)
    assert (are_identical(first, same), are_identical(first, other)) == (True, False)


# Black and white


def test_black_pictures_are_a_fault_and_light_ends_it() -> None:
    camera = watched(noise(1), noise(2, level=0), noise(3, level=0), noise(4), black_below=30.0)
    camera.read()
    for _ in range(2):
        with pytest.raises(
            CameraError, match=r"sends black pictures: their mean level is (9|10), below 30; check light"
        ):
            camera.read()
    assert (camera.read().frame_id, camera.reconnects) == (1, 0)


@pytest.mark.parametrize("layout", PixelFormat)
def test_the_level_of_every_format_is_on_one_scale(layout: PixelFormat) -> None:
    size = (680, 64)
    shape, dtype = frame_array_shape(layout, *size), pixel_dtype(layout)
    pixels = np.full(shape, 51 * (257 if layout is PixelFormat.MONO16 else 1), dtype)
    if layout is PixelFormat.NV12:
        pixels[680:] = 200
    assert mean_level(pixels, layout) == pytest.approx(51)


def test_a_bayer_picture_is_not_black_when_only_blue_is_bright() -> None:
    pixels = np.zeros((680, 64), np.uint8)
    pixels[1::2, 1::2] = 200
    assert mean_level(pixels, PixelFormat.BAYER_RG8) == pytest.approx(50, rel=0.1)


def uniform(level: int, layout: PixelFormat) -> Pixels:
    """A picture of one level of 255, with the noise that a sensor has at that level; NV12 has levels from 16 to 235."""
    shape, dtype = frame_array_shape(layout, *SIZE), pixel_dtype(layout)
    if layout is PixelFormat.NV12:
        level = 16 + round(level * 219 / 255)
    noisy = level + np.random.default_rng(level).integers(-2, 3, shape)
    return (np.clip(noisy, 0, 255) * (257 if layout is PixelFormat.MONO16 else 1)).astype(dtype)


@pytest.mark.parametrize("layout", PixelFormat)
@pytest.mark.parametrize(
    ("level", "found"),
    [
        (0, "black pictures"),
        (5, "black pictures"),
        (30, ""),
        (128, ""),
        (240, ""),
        (255, "white pictures"),
    ],
)
def test_black_and_white_pictures_of_a_live_camera_are_refused_by_default(
    layout: PixelFormat, level: int, found: str
) -> None:
    expected = [f"camera 'press-1' sends {found}"] if found else [0]
    assert read_all(live(uniform(level, layout), layout=layout)) == expected


@pytest.mark.parametrize(("ground", "part"), [(0, 200), (255, 20)], ids=["dark field", "backlight"])
def test_a_part_on_nothing_but_black_or_white_passes_by_default(ground: int, part: int) -> None:
    pixels = np.full((170, 170), ground, np.uint8)
    pixels[:, 80:84] = part
    assert read_all(live(pixels, layout=PixelFormat.MONO8)) == [0]


def test_twelve_bits_in_sixteen_are_black() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, SIZE).astype(np.uint16)
    with pytest.raises(CameraError, match=r"black pictures: .* that 10 or 12 bits fill the 16 in which they are sent"):
        live(pixels, layout=PixelFormat.MONO16).read()


def test_a_product_that_is_black_or_white_itself_passes_by_default() -> None:
    camera = live(uniform(0, PixelFormat.BGR8), uniform(255, PixelFormat.BGR8))
    camera.expected = Look(may_be_black=True, may_be_white=True)
    assert read_all(camera) == [0, 1]


def grey(seed: int) -> Pixels:
    """What a mono camera sends as BGR."""
    return np.dstack([noise(seed, layout=PixelFormat.MONO8)] * 3)


@pytest.mark.parametrize(
    ("has_colour", "refused"), [(True, [1, 2]), (False, [0, 3]), (None, [])], ids=["colour", "mono", "not known"]
)
def test_pictures_are_refused_that_have_colour_or_none_where_nominal_ones_do_not(
    has_colour: bool | None, refused: list[int]
) -> None:
    camera = watched(noise(1), grey(2), grey(3), noise(4))
    camera.expected = Look(has_colour=has_colour)
    assert [index for index, read in enumerate(read_all(camera)) if isinstance(read, str)] == refused


def test_white_pictures_are_a_fault_by_a_limit() -> None:
    camera = watched(noise(1), noise(2, level=230), white_above=200.0)
    camera.read()
    with pytest.raises(CameraError, match=r"white pictures: their mean level is 240, above 200; check light, aperture"):
        camera.read()


def test_dark_pictures_of_sixteen_bits_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    dark = [np.random.default_rng(n).integers(0, 4096, SIZE).astype(np.uint16) for n in range(3)]
    read_all(live(*dark, layout=PixelFormat.MONO16, black_below=0.0))
    said = [record.message for record in caplog.records]
    assert said == [f"camera press-1: {about_dark_camera(int(dark[0].max()))}"]


# Time


def test_frames_that_are_not_later_are_dropped_and_counted() -> None:
    source = ScriptedCamera([noise(n) for n in range(6)], stamps_ns=iter([10, 20, 20, 15, 30, 40]))
    camera = WatchedCamera(Factory(source), "press-1")
    frames = [camera.read() for _ in range(4)]
    assert [frame.captured_ns for frame in frames if frame] == [10, 20, 30, 40]
    assert (camera.out_of_order, camera.refused) == (2, 2)


def test_a_clock_that_stands_still_is_a_fault() -> None:
    source = ScriptedCamera([noise(n) for n in range(12)], stamps_ns=iter([7] * 12))
    camera = WatchedCamera(Factory(source), "press-1")
    camera.read()
    with pytest.raises(CameraError, match="10 pictures in a row that are not later than the last one"):
        camera.read()
    assert (camera.read(), source.is_closed, camera.reconnects) == (None, True, 1)


# Triggers and counts


def test_a_trigger_is_passed_on() -> None:
    source = ScriptedCamera([noise(1)])
    assert (WatchedCamera(Factory(source), "press-1").trigger(), source.triggers) == (True, 1)


def test_a_camera_without_a_trigger_says_so() -> None:
    camera = open_watched_camera("synthetic://?height=64&width=64")
    assert camera.trigger() is False


def test_a_camera_that_is_away_can_not_be_triggered() -> None:
    camera = watched(LOST)
    with pytest.raises(CameraError):
        camera.read()
    with pytest.raises(CameraError, match="is not there to be triggered"):
        camera.trigger()


def test_pictures_that_never_came_are_counted_over_a_loss() -> None:
    camera = WatchedCamera(Factory(ScriptedCamera([LOST]), ScriptedCamera([noise(1)])), "press-1")
    with pytest.raises(CameraError):
        camera.read()
    camera.read()
    assert camera.lost == 4


def test_a_picture_was_taken_so_long_before_its_date_as_the_latency_says() -> None:
    source = ScriptedCamera([noise(1), noise(2)], stamps_ns=iter([10**9, 2 * 10**9]))
    camera = WatchedCamera(Factory(source), "press-1", latency_s=0.3)
    frames = [camera.read(), camera.read()]
    assert [frame.captured_ns for frame in frames if frame] == [700_000_000, 1_700_000_000]


def test_each_refused_picture_is_counted() -> None:
    refused = CameraError("not to be trusted")
    camera = watched(noise(1), refused, refused, noise(4), noise(5, level=0), black_below=30.0)
    for _ in range(5):
        with contextlib.suppress(CameraError):
            camera.read()
    assert camera.refused == 3


def test_the_picture_with_which_a_camera_is_held_to_be_frozen_is_counted_like_those_behind_it() -> None:
    cameras = [ScriptedCamera([noise(1)] * count) for count in (3, 1)]
    camera = WatchedCamera(Factory(*cameras), "press-1", frozen_after=3)
    camera.read(), camera.read()
    for _ in range(2):
        with pytest.raises(CameraError, match="is frozen"):
            camera.read()
    assert camera.refused == 2


def test_incomplete_pictures_are_counted_over_a_loss() -> None:
    camera = WatchedCamera(Factory(ScriptedCamera([LOST]), ScriptedCamera([noise(1)])), "press-1")
    with pytest.raises(CameraError):
        camera.read()
    camera.read()
    assert camera.incomplete == 6


@pytest.mark.parametrize(
    "limits", [{"frozen_after": 1}, {"frozen_after": -1}, {"black_below": 256.0}, {"white_above": -1.0}]
)
def test_unusable_limits_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be .*; use (0, or from 2|from 0) to"):
        watched(**limits)


# Real sources


def test_a_folder_that_appears_is_played_from_then_on(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    camera = open_watched_camera(f"folder://{folder}?fps=100", wait=True, expected_size=SIZE)
    with pytest.raises(CameraError, match="is not a folder"):
        camera.read()
    folder.mkdir()
    write_image(folder / "0.png", noise(1))
    assert read_until_frame(camera.read).frame_id == 0


def test_a_device_is_named_as_it_is_found_each_time(tmp_path: Path) -> None:
    """What can be had of a device without one: absent, then present as a node that is no camera, then absent."""
    node = tmp_path / "video-line"
    camera = open_watched_camera(f"v4l2://{node}", "press-1", wait=True, expected_size=SIZE)
    said = []
    for present in (False, True, False):
        if present:
            node.symlink_to("/dev/null")
        elif node.is_symlink():
            node.unlink()
        with pytest.raises(CameraError) as caught:
            camera.read()
        said.append(str(caught.value))
    assert [(f"no device {node}" in text, "cannot be opened" in text) for text in said] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def read_until_frame(read: Callable[[], Frame | None]) -> Frame:
    def frame() -> Frame | None:
        try:
            return read()
        except CameraError:
            return None

    return wait_until(frame, "a frame")

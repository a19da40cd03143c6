"""A new bundle takes over between two frames, after it was verified and tried, or everything stays as it was."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import re
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.bundle.nominal_statistics import Reference
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle
from fbft_edge.bundle.sealing import seal_bundle, sign_bundle
from fbft_edge.bundle.signing import write_signing_keys
from fbft_edge.clock import now_ns
from fbft_edge.detectors.model import OpenModel, open_model
from fbft_edge.errors import BundleError, CommandError, EngineError, FbftError
from fbft_edge.frames.frame import Frame, Uint8
from fbft_edge.frames.images import read_image
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat
from fbft_edge.line.inference import Acquisition, Inference, Inspection
from fbft_edge.service.canary_frames import CanaryFrame, CanaryFrames
from fbft_edge.service.reload import Reloader, reload_handler, reloading_on_hangup
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.command_server import CommandServer

BrightBundle = Callable[..., Bundle]
MessageSource = Callable[[str], Any]
SIZE = (84, 98)
LAYOUTS = [FrameLayout(*SIZE)]
STRICT = Thresholds(0.01, 0.02, 0.01, 0.01, 0.05, 100)
BLIND = Thresholds(4.0, 4.0, 0.01, 0.01, 0.05, 100)


def picture(level: int, size: tuple[int, int] = SIZE) -> Uint8:
    return np.full((*size, 3), level, np.uint8)


def opened(bundle: Bundle) -> OpenModel:
    return open_model(bundle, LAYOUTS, "openvino")


class Line:
    """Inspects frames of one camera with a real engine, and keeps what came of them."""

    def __init__(
        self,
        bundle: Bundle,
        pixels: Uint8,
        open_model: Callable[[Bundle], OpenModel] = opened,
        pause_s: float = 0.0,
    ) -> None:
        self.inspections: list[Inspection] = []
        self._pause_s = pause_s
        self._pixels, self._taken = pixels, 0
        self.inference = Inference([self], open_model(bundle).model)
        self._threads = [threading.Thread(target=work) for work in (self.inference.begin, self.inference.infer)]
        for thread in self._threads:
            thread.start()

    def is_ready(self, most: int) -> bool:
        return self._taken - len(self.inspections) < most

    def take(self) -> Acquisition:
        time.sleep(self._pause_s)
        self._taken += 1
        return Acquisition(Frame("press-1", self._taken, now_ns(), self._pixels), None, time.monotonic_ns())

    def deliver(self, inspection: Inspection) -> None:
        self.inspections.append(inspection)
        self.inference.wake()

    def replace_model(self, model: Any) -> None:
        self.inference.replace_model(model)

    def wait_for_frames(self, count: int) -> None:
        """Wait until so many more frames were inspected."""
        wanted = len(self.inspections) + count
        wait_until(lambda: len(self.inspections), f"{wanted} frames", lambda inspected: inspected >= wanted)

    def close(self) -> None:
        self.inference.stop()
        for thread in self._threads:
            thread.join()
        self.inference.close()


@pytest.fixture
def bundle(bright_bundle: BrightBundle) -> Bundle:
    return bright_bundle()


@pytest.fixture
def strict_bundle(bright_bundle: BrightBundle) -> Bundle:
    """Calls everything anomalous that is not black."""
    return bright_bundle(thresholds=STRICT)


@pytest.fixture
def line(bundle: Bundle) -> Iterator[Line]:
    line = Line(bundle, picture(40))
    yield line
    line.close()


@pytest.fixture
def canary(messages: MessageSource) -> CanaryFrames:
    """Four frames of level 40 that were ok, and two of level 240 that were not."""
    canary, source = CanaryFrames(), messages("press-1")
    for level in (40, 40, 240, 40, 240, 40):
        canary.published(source.fresh(level / 255, picture(level)))
    return canary


def reloader(line: Any, canary: CanaryFrames | None = None, **options: Any) -> Reloader:
    return Reloader(line, options.pop("open_model", opened), canary.frames if canary else list, **options)


# Taking over


def test_a_new_bundle_takes_over_while_frames_are_inspected_and_none_is_lost(
    line: Line, canary: CanaryFrames, bright_bundle: BrightBundle
) -> None:
    other = bright_bundle(thresholds=dataclasses.replace(STRICT, image=0.4, pixel=0.5))
    line.wait_for_frames(5)
    report = reloader(line, canary).reload(other.path)
    line.wait_for_frames(5)
    names = [inspection.model.bundle_sha256 for inspection in line.inspections]
    first = names.index(other.sha256)
    assert (report.bundle_sha256, set(names[first:])) == (other.sha256, {other.sha256})
    assert other.sha256 not in names[:first]
    assert [inspection for inspection in line.inspections if isinstance(inspection.found, Exception)] == []
    assert [inspection.acquisition.frame.frame_id for inspection in line.inspections] == [
        *range(1, len(line.inspections) + 1)
    ]


def test_the_report_compares_old_and_new_verdicts_frame_by_frame(
    line: Line, canary: CanaryFrames, strict_bundle: Bundle
) -> None:
    report = reloader(line, canary).reload(strict_bundle.path, force=True)
    assert [(trial.was_anomalous, trial.is_anomalous) for trial in report.trials] == [(False, True)] * 4 + [
        (True, True)
    ] * 2
    assert all(trial.new_score == pytest.approx(trial.old_score, rel=0.02) for trial in report.trials)
    assert "4 of 4 that were ok are anomalous" in report.text


def test_the_report_can_be_sent(line: Line, canary: CanaryFrames, bundle: Bundle) -> None:
    sent = json.loads(json.dumps(reloader(line, canary).reload(bundle.path).to_json()))
    assert (sent["bundle_sha256"], len(sent["trials"])) == (bundle.sha256, 6)


def test_whoever_needs_to_know_is_told_after_the_takeover(line: Line, bundle: Bundle, strict_bundle: Bundle) -> None:
    told: list[tuple[str, str]] = []

    def replaced(new: Bundle, model: OpenModel) -> None:
        told.append((new.sha256, line.inference.model.bundle_sha256))

    reloader(line, replaced=replaced).reload(strict_bundle.path, force=True)
    assert told == [(strict_bundle.sha256, strict_bundle.sha256)]


def test_a_bundle_that_can_be_tried_on_nothing_is_taken_by_force_alone(
    line: Line, bundle: Bundle, strict_bundle: Bundle
) -> None:
    with pytest.raises(BundleError, match=r"could not be tried.*--force"):
        reloader(line).reload(strict_bundle.path)
    expect_unchanged(line, bundle)
    report = reloader(line).reload(strict_bundle.path, force=True)
    assert (report.trials, "BY FORCE, though it could not be tried" in report.text) == ((), True)


def test_a_model_that_finds_what_the_old_one_missed_among_anomalous_frames_is_taken(
    line: Line, messages: MessageSource, strict_bundle: Bundle
) -> None:
    canary = CanaryFrames()
    canary.published(messages("press-1").fresh(0.9, picture(240)))
    assert reloader(line, canary).reload(strict_bundle.path).trials[0].is_anomalous


# Refusals


@pytest.fixture
def blind_bundle(bright_bundle: BrightBundle) -> Bundle:
    """Calls everything ok."""
    return bright_bundle(thresholds=BLIND)


def expect_unchanged(line: Line, bundle: Bundle) -> None:
    line.wait_for_frames(3)
    assert line.inference.model.bundle_sha256 == bundle.sha256
    assert not isinstance(line.inspections[-1].found, Exception)


def test_a_model_that_calls_good_frames_anomalous_is_refused(
    line: Line, canary: CanaryFrames, bundle: Bundle, strict_bundle: Bundle
) -> None:
    with pytest.raises(BundleError, match=r"4 of 4 frames anomalous.*force"):
        reloader(line, canary).reload(strict_bundle.path)
    expect_unchanged(line, bundle)


def test_a_model_that_calls_anomalous_frames_ok_is_refused_and_by_force_says_so(
    line: Line, canary: CanaryFrames, bundle: Bundle, blind_bundle: Bundle
) -> None:
    objection = "2 of 2 frames ok that were anomalous just now"
    with pytest.raises(BundleError, match=f"{objection}.*--force"):
        reloader(line, canary).reload(blind_bundle.path)
    expect_unchanged(line, bundle)
    report = reloader(line, canary).reload(blind_bundle.path, force=True)
    assert (objection in report.to_json()["objection"], objection in report.text) == (True, True)


@pytest.mark.parametrize(("faint", "is_taken"), [(2, True), (3, False)])
def test_more_than_half_of_the_anomalous_frames_is_too_many(
    line: Line, messages: MessageSource, bright_bundle: BrightBundle, faint: int, is_taken: bool
) -> None:
    canary, source = CanaryFrames(), messages("press-1")
    for index in range(4):
        level = 160 if index < faint else 240
        canary.published(source.fresh(level / 255, picture(level)))
    duller = bright_bundle(thresholds=dataclasses.replace(STRICT, image=0.8, pixel=0.9))
    if is_taken:
        assert reloader(line, canary).reload(duller.path).objection is None
    else:
        with pytest.raises(BundleError, match="3 of 4 frames ok"):
            reloader(line, canary).reload(duller.path)


def test_no_camera_is_blinded_however_much_another_still_sees(
    line: Line, messages: MessageSource, bright_bundle: BrightBundle
) -> None:
    canary, clear, faint = CanaryFrames(), messages("press-1"), messages("press-2")
    for _ in range(3):
        canary.published(clear.fresh(0.9, picture(240)))
    canary.published(faint.fresh(0.6, picture(160)))
    duller = bright_bundle(thresholds=dataclasses.replace(STRICT, image=0.8, pixel=0.9))
    with pytest.raises(BundleError, match="1 of 1 frames ok that were anomalous just now at camera press-2"):
        reloader(line, canary).reload(duller.path)


@pytest.mark.parametrize(
    "pixel_format", [PixelFormat.RGB8, PixelFormat.MONO16, PixelFormat.NV12, PixelFormat.BAYER_RG8]
)
def test_a_line_that_saw_nothing_anomalous_still_refuses_a_model_that_finds_nothing(
    line: Line, messages: MessageSource, bundle: Bundle, blind_bundle: Bundle, pixel_format: PixelFormat
) -> None:
    canary, source = CanaryFrames(), messages("press-1")
    rows = SIZE[0] * 3 // 2 if pixel_format is PixelFormat.NV12 else SIZE[0]
    shape = (rows, SIZE[1], 3) if pixel_format is PixelFormat.RGB8 else (rows, SIZE[1])
    pixels = np.full(shape, 16, np.uint16 if pixel_format is PixelFormat.MONO16 else np.uint8)
    pixels[SIZE[0] :] = 128  # NV12: grey
    message, before = source.fresh(0.1, picture(16)), pixels.copy()
    frame = dataclasses.replace(message.fresh.frame, pixels=pixels, pixel_format=pixel_format)
    canary.published(dataclasses.replace(message, fresh=dataclasses.replace(message.fresh, frame=frame)))
    with pytest.raises(BundleError, match="chequerboard"):
        reloader(line, canary).reload(blind_bundle.path)
    expect_unchanged(line, bundle)
    assert reloader(line, canary).reload(bundle.path).objection is None
    assert (pixels == before).all()


@pytest.mark.parametrize(("bright", "is_taken"), [(2, True), (3, False)])
def test_more_than_half_of_the_good_frames_is_too_many(
    line: Line, messages: MessageSource, strict_bundle: Bundle, bright: int, is_taken: bool
) -> None:
    canary, source = CanaryFrames(), messages("press-1")
    for index in range(4):
        level = 40 if index < bright else 0
        canary.published(source.fresh(level / 255, picture(level)))
    if is_taken:
        reloader(line, canary).reload(strict_bundle.path)
    else:
        with pytest.raises(BundleError, match="3 of 4"):
            reloader(line, canary).reload(strict_bundle.path)


def test_an_altered_bundle_is_refused(line: Line, bundle: Bundle, strict_bundle: Bundle) -> None:
    with (strict_bundle.path / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="was altered"):
        reloader(line).reload(strict_bundle.path)
    expect_unchanged(line, bundle)


def test_a_bundle_of_other_frames_is_refused(line: Line, bundle: Bundle, bright_bundle: BrightBundle) -> None:
    with pytest.raises(BundleError, match="98x84"):
        reloader(line).reload(bright_bundle(frame_sizes=((112, 112),)).path)
    expect_unchanged(line, bundle)


def test_a_bundle_for_a_mono_camera_is_refused_by_a_line_whose_frames_have_colour(
    line: Line, bright_bundle: BrightBundle
) -> None:
    mono = bright_bundle(notes=Notes(nominal_statistics={"colour": Reference(9, 1, 0.0, 0.0, 0.0)}))
    pixels = picture(40)
    pixels[..., 0] += 1
    frame = CanaryFrame(Frame("press-1", 0, now_ns(), pixels), 0.1, False)
    with pytest.raises(BundleError, match="camera 'press-1' has colour, and the bundle was fitted on mono images"):
        Reloader(line, opened, lambda: [frame]).reload(mono.path, force=True)


def test_a_bundle_without_thresholds_is_refused(line: Line, bundle: Bundle, bright_bundle: BrightBundle) -> None:
    with pytest.raises(BundleError, match="no thresholds"):
        reloader(line).reload(bright_bundle(thresholds=None).path)
    expect_unchanged(line, bundle)


def test_where_keys_are_trusted_one_of_them_must_have_signed(
    line: Line, bundle: Bundle, strict_bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra signing")
    secret, public = write_signing_keys(tmp_path, "release")
    reload = reloader(line, trusted=[public]).reload
    with pytest.raises(BundleError, match="not signed"):
        reload(strict_bundle.path)
    expect_unchanged(line, bundle)
    sign_bundle(strict_bundle.path, secret)
    assert reload(strict_bundle.path, force=True).bundle_sha256 == strict_bundle.sha256


def nan_bundle(bundle: Bundle) -> Bundle:
    """Sealed again with a graph that divides by 0."""
    import onnx
    from onnx import numpy_helper

    path = bundle.path / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(np.nan, np.float32), "white"))
    onnx.save(model, path)
    return seal_bundle(bundle)


def test_a_model_whose_scores_are_no_numbers_is_refused_even_by_force(
    line: Line, canary: CanaryFrames, bundle: Bundle, strict_bundle: Bundle
) -> None:
    with pytest.raises(EngineError, match="cannot inspect frame"):
        reloader(line, canary).reload(nan_bundle(strict_bundle).path, force=True)
    expect_unchanged(line, bundle)


def test_a_refused_model_is_closed(line: Line, canary: CanaryFrames, strict_bundle: Bundle) -> None:
    made: list[OpenModel] = []

    def kept(bundle: Bundle) -> OpenModel:
        made.append(opened(bundle))
        return made[-1]

    with pytest.raises(BundleError):
        reloader(line, canary, open_model=kept).reload(strict_bundle.path)
    assert made[0].model.detectors._detectors == {}


def test_a_second_reload_at_the_same_time_is_refused(line: Line, bundle: Bundle, strict_bundle: Bundle) -> None:
    is_loading, may_go_on = threading.Event(), threading.Event()

    def slow(new: Bundle) -> OpenModel:
        is_loading.set()
        may_go_on.wait(30)
        return opened(new)

    busy = reloader(line, open_model=slow)
    thread = threading.Thread(target=busy.reload, args=(strict_bundle.path,), kwargs={"force": True})
    thread.start()
    is_loading.wait(30)
    with pytest.raises(BundleError, match="another bundle is being loaded"):
        busy.reload(bundle.path)
    may_go_on.set()
    thread.join()
    assert line.inference.model.bundle_sha256 == strict_bundle.sha256


# The command socket


@pytest.fixture
def client(line: Line, canary: CanaryFrames, tmp_path: Path) -> Iterator[CommandClient]:
    endpoint = f"ipc://{tmp_path}/commands"
    handlers = {"reload": reload_handler(reloader(line, canary))}
    with CommandServer(endpoint, handlers, long=["reload"]), CommandClient(endpoint) as client:
        yield client


def test_the_command_reloads_and_answers_with_the_report(
    line: Line, client: CommandClient, bundle: Bundle, strict_bundle: Bundle
) -> None:
    with pytest.raises(CommandError, match="4 of 4 frames anomalous"):
        client.call("reload", timeout_s=30, bundle=str(strict_bundle.path))
    expect_unchanged(line, bundle)
    answer = client.call("reload", timeout_s=30, bundle=str(strict_bundle.path), force=True)
    assert (answer["bundle_sha256"], len(answer["trials"])) == (strict_bundle.sha256, 6)
    assert line.inference.model.bundle_sha256 == strict_bundle.sha256


@pytest.mark.parametrize(
    "arguments", [{}, {"bundle": ""}, {"bundle": 1}, {"bundle": "x", "force": "yes"}, {"path": "x"}]
)
def test_a_command_that_is_not_understood_is_refused(client: CommandClient, arguments: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match="reload takes"):
        client.call("reload", timeout_s=30, **arguments)


# SIGHUP


def test_sighup_reloads(line: Line, canary: CanaryFrames, bright_bundle: BrightBundle) -> None:
    other = bright_bundle(thresholds=dataclasses.replace(STRICT, image=0.4, pixel=0.5))
    with reloading_on_hangup(lambda: reloader(line, canary).reload(other.path)):
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: line.inference.model.bundle_sha256 == other.sha256)


def test_signals_during_a_reload_cause_one_more() -> None:
    calls, may_go_on = [], threading.Event()

    def slow() -> None:
        calls.append(1)
        may_go_on.wait(30)

    with reloading_on_hangup(slow):
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: len(calls) == 1)
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
        may_go_on.set()
        wait_until(lambda: len(calls) == 2)
        time.sleep(0.1)
    assert len(calls) == 2


@pytest.mark.parametrize("error", [BundleError("no bundle there"), ValueError("a bug")])
def test_why_a_signal_reloaded_nothing_is_logged_and_the_next_one_is_heard(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def failing() -> None:
        calls.append(1)
        raise error

    with reloading_on_hangup(failing):
        for count in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(lambda count=count: len(calls) == count)  # type: ignore[misc]
    assert caplog.text.count("the old model goes on") == 2
    assert str(error) in caplog.text


def test_sighup_is_as_before_after_the_block() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with reloading_on_hangup(lambda: None):
        pass
    assert signal.getsignal(signal.SIGHUP) is before


# Canary frames


def test_the_newest_frames_of_either_kind_are_kept_nominal_ones_first(messages: MessageSource) -> None:
    canary, source = CanaryFrames(most=2), messages("press-1")
    for score in (0.1, 0.9, 0.8, 0.7, 0.2, 0.3, *[0.4] * 20, 0.5):
        canary.published(source.fresh(score))
    assert [frame.score for frame in canary.frames()] == [0.5, 0.4, 0.7, 0.8]


def test_what_another_model_said_is_forgotten(messages: MessageSource) -> None:
    canary, source = CanaryFrames(), messages("press-1")
    canary.published(source.fresh(0.1))
    canary.forget()
    canary.published(source.fresh(0.9))
    assert [frame.score for frame in canary.frames()] == [0.9]


def test_every_camera_has_its_frames(messages: MessageSource) -> None:
    canary, slow, fast = CanaryFrames(most=2), messages("slow"), messages("fast")
    canary.published(slow.fresh(0.1))
    for _ in range(50):
        canary.published(fast.fresh(0.2))
    assert sorted(frame.frame.camera for frame in canary.frames()) == ["fast", "fast", "slow"]


@pytest.mark.parametrize(("most_bytes", "expected"), [(3 * 192, 3), (100, 1)])
def test_large_frames_are_fewer(messages: MessageSource, most_bytes: int, expected: int) -> None:
    canary, source = CanaryFrames(most=8, most_bytes=most_bytes), messages("press-1")
    for _ in range(10):
        canary.published(source.fresh(0.1))
    assert len(canary.frames()) == expected


def test_messages_without_a_new_frame_change_nothing(messages: MessageSource) -> None:
    canary, source = CanaryFrames(), messages("press-1")
    for message in (source.stale(), source.fault("gone")):
        canary.published(message)
    assert canary.frames() == []


# A real bundle


@pytest.fixture
def fitted_line(small_bundle: Bundle, nominal_folder: Path) -> Iterator[Line]:
    line = Line(small_bundle, read_image(next(iter(sorted(nominal_folder.iterdir())))), opened_small, 0.2)
    yield line
    line.close()


def opened_small(bundle: Bundle) -> OpenModel:
    return open_model(bundle, [FrameLayout(140, 182)], "openvino")


def test_a_fitted_bundle_with_other_thresholds_takes_over_and_one_with_none_left_is_refused(
    fitted_line: Line, small_bundle: Bundle, messages: MessageSource, tmp_path: Path
) -> None:
    canary, source = CanaryFrames(), messages("press-1")
    first = fitted_line
    first.wait_for_frames(2)
    for inspection in first.inspections[:2]:
        canary.published(source.fresh(inspection.found.score, inspection.acquisition.frame.pixels))  # type: ignore[union-attr]
    altered = {}
    for name, factor in (("looser", 1.5), ("stricter", 1e-3)):
        shutil.copytree(small_bundle.path, tmp_path / name)
        held = small_bundle.require_thresholds()
        thresholds = dataclasses.replace(held, image=held.image * factor, pixel=held.pixel * factor)
        altered[name] = seal_bundle(dataclasses.replace(small_bundle, path=tmp_path / name, thresholds=thresholds))
    reload = reloader(first, canary, open_model=opened_small).reload
    assert reload(altered["looser"].path).bundle_sha256 == altered["looser"].sha256
    with pytest.raises(FbftError, match="2 of 2"):
        reload(altered["stricter"].path)
    expect_unchanged(first, altered["looser"])


def resident_bytes() -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def test_the_memory_of_replaced_models_is_freed(fitted_line: Line, small_bundle: Bundle) -> None:
    old = weakref.ref(next(iter(fitted_line.inference.model.detectors._detectors.values())))
    reload = reloader(fitted_line, open_model=opened_small).reload
    reload(small_bundle.path, force=True)
    resident = resident_bytes()
    reload(small_bundle.path, force=True)
    fitted_line.wait_for_frames(2)
    fitted_line.inspections.clear()
    gc.collect()
    grown, model_bytes = resident_bytes() - resident, small_bundle.file("model.onnx").stat().st_size
    assert (old(), grown < model_bytes) == (None, True), (
        f"{grown / 1e6:.0f} MB more, a model has {model_bytes / 1e6:.0f}"
    )

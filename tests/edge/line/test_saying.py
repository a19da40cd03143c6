"""What the message of a period says, without a camera, an engine or a thread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fbft_edge.frames.frame import Detection, Frame, Verdict
from fbft_edge.line.inference import Acquisition
from fbft_edge.line.saying import ENDED, SILENCE_NS, Finished, Memory, Period, Said, said_in
from fbft_edge.line.settings import Settings
from fbft_edge.line.status import LineState
from fbft_edge.line.trigger import Request
from fbft_edge.messages.header import Health
from fbft_edge.messages.published import Inspected
from fbft_edge.messages.writing import encode_bundle, encode_detection, encode_no_detection

S = 1_000_000_000
NOW_NS = 100 * S
SETTINGS = Settings(30.0, "hall-3", stale_after_s=2.0, late_after_s=3.0)
LINE = LineState(encode_bundle(0.5, "ab" * 32))
HUNG = replace(LINE, engine_fault="inference: one frame has been in the engine for 11.0 s, the limit is 10 s")
ADVISED = replace(LINE, advice="drift: press-1: mean level; check light")
LOST, TRIGGER = "camera: it is lost", Request("part 7", NOW_NS - S, "SN-7")


def finished(age_s: float, is_anomalous: bool = False, error: str | None = None) -> Finished:
    frame = Frame("press-1", 7, NOW_NS - round(age_s * S), np.zeros((8, 12, 3), np.uint8))
    detection = Detection(0.25, 1.0, np.zeros((8, 12), bool), (), is_anomalous)
    acquisition = Acquisition(frame, TRIGGER, 0)
    if error is not None:
        return Finished(acquisition, encode_no_detection(frame, error, "part 7"), None)
    return Finished(acquisition, encode_detection(frame, detection), Inspected(frame, detection, 1, 2, 3))


def remembered(age_s: float, error: str | None = None, may_repeat: bool = True) -> Memory:
    return Memory(finished(age_s, is_anomalous=True).result, may_repeat, error)


def said(period: Period, memory: Memory = Memory()) -> Said:  # noqa: B008  # frozen
    return said_in(period, memory, SETTINGS)


NEW, BAD, BROKEN, LATE = (
    finished(0.1),
    finished(0.1, True),
    finished(0.1, error="inference: out of memory"),
    finished(3.5),
)
TOO_LATE = "inference: frame 7 was 3.500 s old with its result, the limit is 3 s"
NO_FRAME = "trigger: no frame within 1.000 s of trigger 'part 7'"
SILENT = Period(NOW_NS, LINE, silence_ns=SILENCE_NS + 1)
OK = Health("ok")


@pytest.mark.parametrize(
    ("period", "memory", "kind", "verdict", "health"),
    [
        # a result that came
        (Period(NOW_NS, LINE, NEW), Memory(), "fresh", "ok", OK),
        (Period(NOW_NS, LINE, BAD), Memory(), "fresh", "anomalous", OK),
        (Period(NOW_NS, LINE, NEW), remembered(1, error=LOST), "fresh", "ok", OK),
        (Period(NOW_NS, LINE, NEW, silence_ns=9 * S), Memory(), "fresh", "ok", OK),
        (Period(NOW_NS, ADVISED, NEW), Memory(), "fresh", "ok", Health("degraded", ADVISED.advice)),
        (Period(NOW_NS, HUNG, NEW, camera_error=LOST), Memory(), "fresh", "ok", Health("degraded", LOST)),
        (Period(NOW_NS, HUNG, BROKEN), remembered(1), "fault", "fault", Health("fault", "inference: out of memory")),
        (Period(NOW_NS, LINE, LATE, camera_error=LOST), remembered(1), "fault", "fault", Health("fault", TOO_LATE)),
        # a trigger that brought no frame
        (Period(NOW_NS, HUNG, None, TRIGGER, LOST), remembered(1), "fault", "fault", Health("fault", NO_FRAME)),
        # the engine, then the camera
        (Period(NOW_NS, HUNG, camera_error=LOST), remembered(1), "fault", "fault", Health("fault", HUNG.engine_fault)),
        (Period(NOW_NS, ADVISED, camera_error=LOST), remembered(1), "fault", "fault", Health("fault", LOST)),
        # the last result again
        (Period(NOW_NS, LINE), Memory(), "stale", "stale", OK),
        (Period(NOW_NS, LINE), remembered(2), "stale", "anomalous", OK),
        (Period(NOW_NS, LINE), remembered(2.001), "stale", "stale", OK),
        (Period(NOW_NS, LINE), remembered(1, may_repeat=False), "stale", "stale", OK),
        (SILENT, remembered(1, error=TOO_LATE), "stale", "anomalous", Health("degraded", TOO_LATE)),
        (replace(SILENT, has_ended=True, line=ADVISED), remembered(1), "stale", "anomalous", Health("degraded", ENDED)),
        (replace(SILENT, line=ADVISED), Memory(), "stale", "stale", Health("degraded", "no new result for 5 s")),
        (replace(SILENT, silence_ns=SILENCE_NS), Memory(), "stale", "stale", OK),
        (Period(NOW_NS, ADVISED), remembered(1), "stale", "anomalous", Health("degraded", ADVISED.advice)),
    ],
)
def test_a_message_says_what_comes_first_in_the_list(
    period: Period, memory: Memory, kind: str, verdict: str, health: Health
) -> None:
    found = said(period, memory)
    assert (found.kind, found.verdict.value, found.health) == (kind, verdict, health)


@pytest.mark.parametrize(
    ("came", "dropped", "fresh", "age_ns"),
    [
        (NEW, None, NEW.inspected, S // 10),
        (finished(-1), None, finished(-1).inspected, 0),
        (BROKEN, "inference_error", None, None),
        (LATE, "too_late", None, None),
    ],
)
def test_a_frame_is_told_or_dropped_with_its_cause(
    came: Finished, dropped: str | None, fresh: Inspected | None, age_ns: int | None
) -> None:
    found = said(Period(NOW_NS, LINE, came))
    assert (found.dropped, found.fresh and found.fresh.waited_ns, found.age_ns) == (
        dropped,
        fresh and fresh.waited_ns,
        age_ns,
    )


@pytest.mark.parametrize(
    ("period", "memory", "after"),
    [
        (Period(NOW_NS, LINE, NEW), remembered(1, LOST), Memory(NEW.result, True, None)),
        (Period(NOW_NS, LINE, BROKEN), remembered(1), remembered(1, "inference: out of memory", False)),
        (Period(NOW_NS, LINE, LATE), remembered(1), remembered(1, TOO_LATE, False)),
        (Period(NOW_NS, LINE, missed=TRIGGER), remembered(1), remembered(1, NO_FRAME, False)),
        (Period(NOW_NS, HUNG), remembered(1, TOO_LATE), remembered(1, TOO_LATE, False)),
        (Period(NOW_NS, LINE, camera_error=LOST), remembered(1), remembered(1, None, False)),
        (Period(NOW_NS, LINE), remembered(9), remembered(9)),
    ],
)
def test_what_is_said_again_later_is_the_last_result_until_a_fault(
    period: Period, memory: Memory, after: Memory
) -> None:
    assert said(period, memory).memory == after


def test_what_is_said_of_no_frame_names_the_bundle_of_now_and_of_a_late_one_its_own() -> None:
    told = [said(Period(NOW_NS, LINE)), said(Period(NOW_NS, HUNG)), said(Period(NOW_NS, LINE, missed=TRIGGER))]
    late = said(Period(NOW_NS, LINE, replace(LATE, result=replace(LATE.result, bundle='"bundle": "other"'))))
    assert [one.result.bundle for one in (*told, late)] == [LINE.bundle] * 3 + ['"bundle": "other"']


@pytest.mark.parametrize("period", [Period(NOW_NS, LINE, LATE), Period(NOW_NS, LINE, missed=TRIGGER)])
def test_a_fault_that_answers_a_trigger_carries_its_identifiers(period: Period) -> None:
    fields = said(period).result.fields.replace('":"', '": "')
    assert '"trigger_id": "part 7"' in fields
    assert '"part_id": "SN-7"' in fields


@pytest.mark.parametrize("limit_s", [0.5, 3.0])
def test_a_result_is_late_as_soon_as_it_is_older_than_the_limit(limit_s: float) -> None:
    limited = replace(SETTINGS, late_after_s=limit_s)
    ages_s = (limit_s / 2, limit_s, limit_s + 1e-9)
    kinds = [said_in(Period(NOW_NS, LINE, finished(age_s)), Memory(), limited).kind for age_s in ages_s]
    assert kinds == ["fresh", "fresh", "fault"]


def test_without_limits_every_result_is_taken_and_every_repeat_is_stale() -> None:
    unlimited = replace(SETTINGS, stale_after_s=0.0, late_after_s=0.0)
    fresh = said_in(Period(NOW_NS, LINE, LATE), Memory(), unlimited)
    repeated = said_in(Period(NOW_NS, LINE), fresh.memory, unlimited)
    assert (fresh.verdict, repeated.verdict) == (Verdict.OK, Verdict.STALE)

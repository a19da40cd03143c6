"""What the message of one period says: what there is to say it about in, verdict, health and result out.

Pure functions. A message says, whatever comes first in this list:

- a result that came since the last one: `ok` or `anomalous`, or `fault` when its inspection failed or took too long;
- a trigger that brought no frame: `fault`;
- the engine does not come back, or the camera is in error: `fault`;
- the last result again: with its verdict as long as that may be repeated, else `stale`. A fault ends the repeating.

Knows nothing about threads, clocks, counters or sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fbft_edge.frames.frame import Frame, Verdict
from fbft_edge.line.inference import Acquisition
from fbft_edge.line.settings import Settings
from fbft_edge.line.status import LineState
from fbft_edge.line.trigger import Request
from fbft_edge.messages.header import Health
from fbft_edge.messages.published import Inspected
from fbft_edge.messages.writing import EncodedResult, encode_no_detection

SILENCE_NS = 5_000_000_000
ENDED = "camera: its source has ended"


@dataclass(frozen=True, slots=True)
class Finished:
    """An inspected frame whose result waits for its message.

    Attributes:
        acquisition: The frame.
        result: What is said about it; its `error` is set when the inspection failed.
        inspected: With what was found; None when the inspection failed.
        cause: What the frame is dropped as when the result is an error.
    """

    acquisition: Acquisition
    result: EncodedResult
    inspected: Inspected | None
    cause: str = "inference_error"


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier messages leave to be said again.

    Attributes:
        last: The last result with a verdict.
        may_repeat: False once something else than that result was said to be the case.
        error: Why there is none for what came after it.
    """

    last: EncodedResult | None = None
    may_repeat: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """What there is to say something about.

    Attributes:
        published_ns: When it is said, on the session clock.
        line: What is true for all cameras.
        finished: A result that came, or None.
        missed: A trigger that brought no frame in time, or None.
        camera_error: Why the camera brings no frames, or None.
        has_ended: True when none will come any more.
        silence_ns: Since the last result with a verdict; 0 where frames come only when they are asked for.
    """

    published_ns: int
    line: LineState
    finished: Finished | None = None
    missed: Request | None = None
    camera_error: str | None = None
    has_ended: bool = False
    silence_ns: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What one message says.

    Attributes:
        kind: What the ledger counts it as.
        result: What it is about.
        verdict: What it says of that.
        health: How the line is doing.
        memory: For the next message.
        dropped: Why the frame that it is about is dropped, or None.
        fresh: That frame, when the message is the first with a verdict about it.
        age_ns: How old that frame is then.
    """

    kind: Literal["fresh", "stale", "fault"]
    result: EncodedResult
    verdict: Verdict
    health: Health
    memory: Memory
    dropped: str | None = None
    fresh: Inspected | None = None
    age_ns: int | None = None


def said_in(period: Period, memory: Memory, settings: Settings) -> Said:
    """What the message of a period says, after what the messages before it have left."""
    if period.finished is not None:
        return _about(period.finished, period, memory, settings)
    if period.missed is not None:
        reason = (
            f"trigger: no frame within {(period.published_ns - period.missed.asked_ns) / 1e9:.3f} s of {period.missed}"
        )
        missed = period.missed
        result = encode_no_detection(None, reason, missed.trigger_id, period.line.bundle, missed.part_id)
        return _fault(result, reason, replace(memory, error=reason))
    if (fault := period.line.engine_fault or period.camera_error) is not None:
        return _fault(encode_no_detection(bundle=period.line.bundle), fault, memory)
    return _repeat(period, memory, settings)


def _about(finished: Finished, period: Period, memory: Memory, settings: Settings) -> Said:
    frame, result = finished.acquisition.frame, finished.result
    age_ns = max(0, period.published_ns - frame.captured_ns)
    if result.error is not None:
        return _fault(result, result.error, replace(memory, error=result.error), finished.cause)
    if 0 < (limit_s := settings.late_after_s or 0.0) < age_ns / 1e9:
        reason = f"inference: {too_late(frame, age_ns)} with its result, the limit is {limit_s:.4g} s"
        asked = finished.acquisition
        late = encode_no_detection(frame, reason, asked.trigger_id, result.bundle, asked.part_id)
        return _fault(late, reason, replace(memory, error=reason), "too_late")
    spoken = Memory(result, may_repeat=True)
    health = _lesser_health(replace(period, silence_ns=0), spoken)
    return Said("fresh", result, result.verdict, health, spoken, fresh=finished.inspected, age_ns=age_ns)


def too_late(frame: Frame, age_ns: int) -> str:
    """What is said of a frame that is too old for a verdict, up to when it was."""
    return f"frame {frame.frame_id} was {age_ns / 1e9:.3f} s old"


def _fault(result: EncodedResult, reason: str, memory: Memory, dropped: str | None = None) -> Said:
    return Said("fault", result, Verdict.FAULT, Health("fault", reason), replace(memory, may_repeat=False), dropped)


def _repeat(period: Period, memory: Memory, settings: Settings) -> Said:
    last, health = memory.last, _lesser_health(period, memory)
    if last is None:
        return Said("stale", encode_no_detection(bundle=period.line.bundle), Verdict.STALE, health, memory)
    age_ns = period.published_ns - (last.captured_ns or 0)
    is_current = memory.may_repeat and age_ns <= settings.stale_after_s * 1e9
    return Said("stale", last, last.verdict if is_current else Verdict.STALE, health, memory)


def _lesser_health(period: Period, memory: Memory) -> Health:
    reason = period.camera_error or memory.error or _silence(period) or period.line.advice
    return Health("ok") if reason is None else Health("degraded", reason)


def _silence(period: Period) -> str | None:
    if period.has_ended:
        return ENDED
    return f"no new result for {period.silence_ns / 1e9:.0f} s" if period.silence_ns > SILENCE_NS else None

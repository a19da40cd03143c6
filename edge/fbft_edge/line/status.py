"""What a line knows of itself, what a camera's last message said, and what a run amounted to."""

from __future__ import annotations

from dataclasses import dataclass

from fbft_edge.errors import FbftError
from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.names import printable


@dataclass(frozen=True, slots=True)
class LineState:
    """What a station cannot know by itself.

    Attributes:
        bundle: What `fbft_edge.messages.writing.encode_bundle` says of the model that inspects now.
        engine_fault: Why no verdict can come from the engine, or None.
        advice: What else is wrong with the line, or None.
    """

    bundle: str
    engine_fault: str | None = None
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What the last message said; `latency_ms` is from capture to publishing, of the last inspected frame."""

    verdict: Verdict
    score: float | None
    latency_ms: float | None
    health: Health
    ledger: LedgerSnapshot


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of one camera amounted to.

    Attributes:
        session: UUID of the camera's run.
        ledger: The final totals.
        elapsed_s: From the start to the end.
        inspected_hz: Frames inspected and published per second.
        deviation_ms: How far messages were sent from their due time: 50th and 99th percentile and maximum.
        latency_ms: From capture to publishing: 50th and 99th percentile and maximum.
        priority: What the system granted the publishing thread: `real-time`, `nice -10` or `normal`.
    """

    session: str
    ledger: LedgerSnapshot
    elapsed_s: float
    inspected_hz: float
    deviation_ms: tuple[float, float, float]
    latency_ms: tuple[float, float, float]
    priority: str


def reason_of(stage: str, error: BaseException) -> str:
    """An error as the reason in a message: its stage, its kind unless it is meant for users, its text."""
    kind = "" if isinstance(error, FbftError) else f"{type(error).__name__}: "
    return printable(f"{stage}: {kind}{error}")

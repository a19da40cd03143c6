"""Messages in, whether the line lives and whether it is ready out, each with its reason.

Knows nothing about HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fbft_edge.clock import now_ns
from fbft_edge.messages.published import Published

PERIODS = 3
LEAST_SILENCE_S = 0.1  # three periods at 30 messages per second; shorter pauses are the system's scheduling


@dataclass(frozen=True, slots=True)
class Report:
    """What is known about the line.

    Attributes:
        reason: What stands against it, one line; None when nothing does.
        cameras: What the last message of each camera said; JSON members.
    """

    reason: str | None
    cameras: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report as the body of an answer."""
        return {
            "status": "ok" if self.reason is None else "unavailable",
            "reason": self.reason,
            "cameras": self.cameras,
        }


@dataclass(frozen=True, slots=True)
class _Last:
    published_ns: int
    verdict: str
    health: str
    reason: str | None
    has_result: bool
    waits_for_trigger: bool


class Liveness:
    """Remembers the last message of each camera, as an observer of the line.

    Args:
        cameras: All that should publish.
        fps: Messages per second of each.
        on_demand: Those whose frames come only when a trigger asks for them.

    Attributes:
        engine: Which engine is loaded; None until one is.
    """

    def __init__(self, cameras: Sequence[str], fps: float, on_demand: Collection[str] = ()) -> None:
        self.engine: str | None = None
        self._on_demand = frozenset(on_demand)
        self._silence_ns = round(max(PERIODS / fps, LEAST_SILENCE_S) * 1e9)
        self._last: dict[str, _Last | None] = dict.fromkeys(cameras)

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`."""
        before = self._last.get(message.camera)
        self._last[message.camera] = _Last(
            message.published_ns,
            message.verdict.value,
            message.health.state,
            message.health.reason,
            message.fresh is not None or (before is not None and before.has_result),
            message.camera in self._on_demand,
        )

    def alive(self) -> Report:
        """Every camera's messages came within the last three periods, or 0.1 s if that is longer."""
        return self._report(self._silence)

    def ready(self) -> Report:
        """Alive, an engine is loaded, no camera is in fault, and each gave a result or waits for its first trigger.

        A line that only triggers wake would otherwise never be ready, as nobody triggers what is not ready.
        """
        return self._report(self._unready, None if self.engine else "no engine is loaded yet")

    def _report(self, against: Callable[[_Last | None, int], str | None], first: str | None = None) -> Report:
        now, last = now_ns(), dict(self._last)
        found = {camera: against(state, now) for camera, state in last.items()}
        reasons = [f"camera {camera}: {reason}" for camera, reason in found.items() if reason is not None]
        return Report(first or "; ".join(reasons) or None, {name: _camera_json(last[name], now) for name in last})

    def _silence(self, last: _Last | None, now: int) -> str | None:
        if last is None:
            return "no message yet"
        silence_ns = now - last.published_ns
        return f"no message for {silence_ns / 1e9:.1f} s" if silence_ns > self._silence_ns else None

    def _unready(self, last: _Last | None, now: int) -> str | None:
        if (silence := self._silence(last, now)) is not None or last is None:
            return silence
        if last.health == "fault":
            return last.reason
        return None if last.has_result or last.waits_for_trigger else "no result yet"


def _camera_json(last: _Last | None, now: int) -> dict[str, Any]:
    if last is None:
        return {"published_s_ago": None, "verdict": None, "health": None, "reason": None, "has_result": False}
    return {
        "published_s_ago": round((now - last.published_ns) / 1e9, 3),
        "verdict": last.verdict,
        "health": last.health,
        "reason": last.reason,
        "has_result": last.has_result,
    }

"""What `run` and `listen` show a person: one live line on a terminal, plain lines anywhere else.

Showing how a run goes never ends it: a line that cannot be written is left out.
Knows nothing about threads or sockets.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from fbft_edge.closeable import Closeable
from fbft_edge.frames.explanation import explained
from fbft_edge.frames.frame import Verdict
from fbft_edge.line.pipeline import Status, Summary
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.messages.reading import Result

LOG_EVERY_S = 5.0
RATE_OVER_S = 2.0
COLOURS = {
    Verdict.OK: "green",
    Verdict.ANOMALOUS: "bold red",
    Verdict.STALE: "yellow",
    Verdict.FAULT: "bold magenta",
}


class StatusDisplay(Closeable):
    """Shows how a run goes on stderr: one live line on a terminal, else a line every 5 s."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._next_s = 0.0
        self._counted_s: float | None = None
        self._counted: dict[str, int] = {}
        self._inspected_hz: dict[str, float] = {}

    def show(self, statuses: Mapping[str, Status]) -> None:
        """Show the newest status of each camera, if it is time for a line."""
        now_s = time.monotonic()
        self._count(now_s, {name: status.ledger.published_fresh for name, status in statuses.items()})
        if not self._console.is_terminal and now_s < self._next_s:
            return
        self._next_s = now_s + LOG_EVERY_S
        with contextlib.suppress(OSError):
            self._write(statuses)

    def close(self) -> None:
        """Leave the live line, if there is one."""
        if self._console.is_terminal and self._counted_s is not None:
            with contextlib.suppress(OSError):
                self._console.print()

    def _write(self, statuses: Mapping[str, Status]) -> None:
        rates = {name: self._inspected_hz.get(name, 0.0) for name in statuses}
        if self._console.is_terminal:
            line = live_line(statuses, rates)
            line.truncate(self._console.width - 1, overflow="ellipsis", pad=True)
            self._console.print(line, end="\r", no_wrap=True)
            return
        for name, status in statuses.items():
            label = f"{name}  " if len(statuses) > 1 else ""
            print(f"{label}{status_line(status, rates[name]).plain}", file=sys.stderr, flush=True)

    def _count(self, now_s: float, inspected: Mapping[str, int]) -> None:
        self._counted_s = now_s if self._counted_s is None else self._counted_s
        over_s = now_s - self._counted_s
        if over_s >= RATE_OVER_S:
            self._inspected_hz = {
                name: (count - self._counted.get(name, 0)) / over_s for name, count in inspected.items()
            }
            self._counted_s, self._counted = now_s, dict(inspected)


def say(text: str) -> None:
    """Show a line about a run on stderr."""
    print(text, file=sys.stderr)


def print_result(result: Result, *, as_json: bool) -> None:
    """Show one received message on stdout.

    Raises:
        OSError: Nobody reads stdout any more, or its disk is full.
    """
    if as_json:
        print(result_json(result), flush=True)
    elif sys.stdout.isatty():
        Console().print(result_line(result), soft_wrap=True)
    else:
        print(result_line(result).plain, flush=True)


def live_line(statuses: Mapping[str, Status], inspected_hz: Mapping[str, float]) -> Text:
    """The state of all cameras in one line: everything about a single one, the verdict of each of several."""
    if len(statuses) == 1:
        return next(status_line(status, inspected_hz[name]) for name, status in statuses.items())
    parts = []
    for name, status in statuses.items():
        part = Text(f"{name} ").append(status.verdict.value, COLOURS[status.verdict])
        parts.append(part.append(f" {inspected_hz[name]:.1f}/s{_health_text(status.health)}"))
    return Text(" | ").join(parts)


def status_line(status: Status, inspected_hz: float) -> Text:
    """The state of a run in one line."""
    latency = "-" if status.latency_ms is None else f"{status.latency_ms:.0f} ms"
    line = _verdict_text(status.verdict, status.score)
    line.append(f"  {inspected_hz:.1f} frames/s  latency {latency}  {ledger_text(status.ledger)}")
    return line.append(_health_text(status.health))


def result_line(result: Result) -> Text:
    """One received message in one line."""
    frame = "-" if result.frame_id is None else str(result.frame_id)
    line = Text(f"{result.site}/{result.camera} #{result.sequence}  ")
    line.append(f"{result.verdict.value:9} ", COLOURS[result.verdict])
    line.append(_numbers(result), COLOURS[result.verdict])
    line.append(f"  frame {frame}  regions {len(result.regions)}")
    if result.lost:
        line.append(f"  lost {result.lost}", "bold red")
    return line.append(_health_text(result.health))


def _numbers(result: Result) -> str:
    if result.score is None:
        return "score -"
    peak = result.peak, result.pixel_threshold, result.peak_xy
    return explained(result.score, result.image_threshold, *peak, result.decided_by)


def result_json(result: Result) -> str:
    """One received message as a line of JSON, without mask and preview pixels."""
    left_out = ("encoded_mask", "preview", "sent_s", "period_s")
    fields: dict[str, Any] = {name: getattr(result, name) for name in result.__slots__ if name not in left_out}
    fields["verdict"] = result.verdict.value
    fields["regions"] = [asdict(region) for region in result.regions]
    fields["ledger"], fields["health"] = result.ledger.to_json(), asdict(result.health)
    fields["age_s"] = None if result.sent_s is None else round(result.age_s, 6)
    fields["mask_px"] = None if result.mask is None else int(result.mask.sum())
    return json.dumps(fields, allow_nan=False)


def ledger_text(ledger: LedgerSnapshot) -> str:
    """The ledger in one line."""
    dropped = " ".join(f"{cause} {count}" for cause, count in ledger.dropped.items() if count) or "none"
    beside = {"missed triggers": ledger.missed_triggers, "lost": ledger.lost, "refused": ledger.refused}
    return (
        f"captured {ledger.captured}  fresh {ledger.published_fresh}  stale {ledger.published_stale}  "
        f"fault {ledger.published_fault}  dropped {dropped}  in flight {ledger.in_flight}"
    ) + "".join(f"  {what} {count}" for what, count in beside.items() if count)


def summaries_text(summaries: Mapping[str, Summary]) -> str:
    """The end of a run in a few lines for each camera."""
    if len(summaries) == 1:
        return "\n".join(map(summary_text, summaries.values()))
    return "\n\n".join(f"camera      {name}\n{summary_text(summary)}" for name, summary in summaries.items())


def summary_text(summary: Summary) -> str:
    """The end of one camera's run in a few lines."""
    return "\n".join(
        (
            f"session     {summary.session}",
            f"messages    {summary.ledger.messages} in {summary.elapsed_s:.1f} s",
            f"frames      {ledger_text(summary.ledger)}",
            f"inspected   {summary.inspected_hz:.2f} frames/s",
            f"latency     {_percentiles_text(summary.latency_ms)} (capture to publish)",
            f"deviation   {_percentiles_text(summary.deviation_ms)} (tick from its due time)",
            f"priority    {summary.priority}",
        )
    )


def _percentiles_text(values_ms: tuple[float, float, float]) -> str:
    return "p50 {:.2f}  p99 {:.2f}  max {:.2f} ms".format(*values_ms)


def _verdict_text(verdict: Verdict, score: float | None) -> Text:
    number = "-" if score is None else f"{score:.4f}"
    return Text(f"{verdict.value:9} score {number}", COLOURS[verdict])


def _health_text(health: Health) -> str:
    return "" if health.reason is None else f"  {health.state}: {health.reason}"

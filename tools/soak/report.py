"""What was seen of a run in, what must hold and the figures in Markdown out.

Knows nothing of how it was seen.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.soak.place import CAMERAS

WARM_UP_S = 600.0
MAX_GROWTH = 0.01


def growth(samples: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """Median of the last tenth of a run over that of the tenth after a warm-up of 10 minutes, at most a sixth."""
    if not samples:
        return {}
    end_s = samples[-1]["elapsed_s"]
    warm_s, tenth_s = min(WARM_UP_S, end_s / 6), end_s / 10
    values = [(sample["elapsed_s"], sample[key]) for sample in samples if sample[key] is not None]
    early = [value for at_s, value in values if warm_s <= at_s <= warm_s + tenth_s]
    late = [value for at_s, value in values if at_s >= end_s - tenth_s]
    if not early or not late:
        return {}
    before, after = statistics.median(early), statistics.median(late)
    return {"before": before, "after": after, "max": max(value for _, value in values), "growth": after / before - 1}


def judged(seen: dict[str, Any]) -> dict[str, bool]:
    """What must hold."""
    checks = {"the line ended with status 0": seen["status"] == 0}
    for camera in CAMERAS:
        got, said = seen["received"][camera], seen["summaries"].get(camera)
        if said is None:
            checks[f"{camera}: it has a summary"] = False
            continue
        expected = said["elapsed_s"] * seen["fps"]
        checks[f"{camera}: no period is missing"] = (
            got["first"] == 0 and got["missing"] == 0 and got["messages"] == got["next"] == said["messages"]
        )
        checks[f"{camera}: one message a period"] = abs(said["messages"] - expected) <= 2
        checks[f"{camera}: one session"] = got["sessions"] == [said["session"]]
        checks[f"{camera}: every message is valid"] = got["invalid"] == 0
        checks[f"{camera}: every ledger is closed"] = got["open_ledgers"] == 0 and is_closed(said["ledger"])
        checks[f"{camera}: every ledger counts its message"] = got["miscounted"] == 0
    checks["memory grew by less than 1 %"] = seen["memory"]["rss"].get("growth", 0.0) < MAX_GROWTH
    checks["faults went as they must"] = not seen["fault_problems"]
    checks["no traceback in the log"] = not seen["log"].get("traceback")
    return checks


def is_closed(ledger: Mapping[str, int]) -> bool:
    """Captured frames against what became of them."""
    dropped = sum(ledger.get(cause, 0) for cause in ("replaced", "inference_error", "too_late", "shutdown"))
    return ledger["captured"] == ledger["fresh"] + dropped + ledger["in flight"]


def table(seen: Mapping[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [
        f"{seen['elapsed_s'] / 60:.1f} minutes at {seen['fps']:g} Hz, "
        f"{sum(seen['faults'].values())} faults, seed {seen['seed']}.",
        "",
        *_camera_rows(seen),
        *("", "| of the process | after warm-up | at the end | growth | most |", "| --- | --- | --- | --- | --- |"),
        *_process_rows(seen["memory"]),
        *("", "| fault | times |", "| --- | --- |"),
        *(f"| {outcome} | {count} |" for outcome, count in seen["outcomes"].items()),
        *("", "| check | |", "| --- | --- |"),
        *(f"| {check} | {'yes' if holds else 'NO'} |" for check, holds in seen["checks"].items()),
    ]
    return "\n".join(lines) + "\n"


def _camera_rows(seen: Mapping[str, Any]) -> list[str]:
    lines = ["| | " + " | ".join(CAMERAS) + " |", "| --- |" + " --- |" * len(CAMERAS)]
    received, said, bounds = seen["received"], seen["summaries"], seen["histograms"]

    def row(name: str, value: Callable[[str], str]) -> None:
        lines.append(f"| {name} | " + " | ".join(value(camera) for camera in CAMERAS if camera in said) + " |")

    row("messages sent", lambda camera: str(said[camera]["messages"]))
    row("received", lambda camera: str(received[camera]["messages"]))
    row("missing", lambda camera: str(received[camera]["missing"]))
    row("sessions", lambda camera: str(len(received[camera]["sessions"])))
    row(
        "invalid; checked against the schema",
        lambda camera: f"{received[camera]['invalid']}; {received[camera]['schema_checked']}",
    )
    row("deviation as published", lambda camera: said[camera]["deviation"].partition(" (")[0])
    row(
        "deviation as received, p50 / p99 / p99.9 / max ms",
        lambda camera: " / ".join(f"{value:.2f}" for value in received[camera]["deviation_ms"].values()),
    )
    row("capture to publish", lambda camera: said[camera]["latency"].partition(" (")[0])
    for name in ("deviation", "latency"):
        row(
            f"{name} by `/metrics`, p50 / p99 / max at most, ms",
            lambda camera, name=name: " / ".join(
                f"{value:g}" for value in bounds.get(name, {}).get(camera, {}).values()
            ),  # type: ignore[misc]
        )
    row("inspected", lambda camera: said[camera]["inspected"])
    row(
        "verdicts",
        lambda camera: ", ".join(f"{key} {count}" for key, count in sorted(received[camera]["verdicts"].items())),
    )
    row("ledger", lambda camera: ", ".join(f"{key} {count}" for key, count in said[camera]["ledger"].items()))
    row("priority", lambda camera: said[camera]["priority"])
    return lines


def _process_rows(memory: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = []
    for name, figures in memory.items():
        if figures:
            scale = 1024 if name in ("rss", "pss") else 1
            before, after, most = (figures[key] / scale for key in ("before", "after", "max"))
            unit = " MiB" if scale == 1024 else ""
            change = f"{100 * figures['growth']:.2f} %"
            lines.append(f"| {name} | {before:.1f}{unit} | {after:.1f}{unit} | {change} | {most:.1f}{unit} |")
    return lines

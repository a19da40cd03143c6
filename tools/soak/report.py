"""What was seen of a run in, what must hold and the figures in Markdown out.

Knows nothing of how it was seen.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fbft_edge.names import size_text
from tools.soak.asker import CUT_OFF, GOOD, MISSED, NOT_GOOD, REFUSED
from tools.soak.board import EXITS
from tools.soak.clients import PERIODS
from tools.soak.place import ASKED, CAMERAS
from tools.soak.programs import BROKER, CAMERA, LINE
from tools.soak.shown import PERIODS_STOPPED

WARM_UP_S = 600.0
MAX_GROWTH, MAX_GROWTH_KIB = 0.01, 4096.0  # whichever is more
MEMORY_AFTER_S = 1800.0  # shorter runs are all warm-up
FIRST_WITHIN_S = 2.0  # a subscriber that is there finds a line that was started again
ALL_CAMERAS = (*CAMERAS, ASKED)


def last_life(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of the newest process of a program, by the time since its first."""
    own = [sample for sample in samples if sample["pid"] == samples[-1]["pid"]]
    return [{**sample, "elapsed_s": sample["elapsed_s"] - own[0]["elapsed_s"]} for sample in own]


def growth(samples: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """Lower deciles of the first and the last third of a run behind a warm-up of 10 minutes, at most a sixth.

    What is in hand for a moment, such as pictures that wait, comes and goes above that; what is never given back raises
    it.
    """
    if not samples:
        return {}
    end_s = samples[-1]["elapsed_s"]
    warm_s = min(WARM_UP_S, end_s / 6)
    third_s = (end_s - warm_s) / 3
    values = [(sample["elapsed_s"], sample[key]) for sample in samples if sample[key] is not None]
    early = [value for at_s, value in values if warm_s <= at_s <= warm_s + third_s]
    late = [value for at_s, value in values if at_s >= end_s - third_s]
    if min(len(early), len(late)) < 2:
        return {}
    before, after = (statistics.quantiles(each, n=10)[0] for each in (early, late))
    hours = 2 * third_s / 3600  # between the middles of the two
    most = max(value for _, value in values)
    return {
        "before": before,
        "after": after,
        "max": most,
        "growth": (after / before - 1) / hours,
        "grown": (after - before) / hours,
    }


def is_flat(memory: Mapping[str, float], picture_kib: float = 0.0) -> bool:
    """Whether memory in KiB grows by less than 1 %, 4 MiB or one picture an hour."""
    grown_kib = max(MAX_GROWTH_KIB, picture_kib)
    return not memory or memory["growth"] < MAX_GROWTH or memory["grown"] < grown_kib


def judged_unfit(seen: Mapping[str, Any]) -> list[int]:
    """Numbers of the pictures that nobody may judge, and that were judged."""
    return sorted(set(seen["judged_pictures"]) & set(seen["unfit_pictures"]))


def judged(seen: dict[str, Any]) -> dict[str, bool]:
    """What must hold."""
    checks = {f"the {name} ended with status 0": status == 0 for name, status in seen["status"].items()}
    for shown_by, shown in seen["shown"].items():
        checks[f"{shown_by}: no good was too old"] = shown["too_old"] == 0
        checks[f"{shown_by}: every good is what the line said"] = len(shown["problems"]) == shown["too_old"]
        checks[f"{shown_by}: there were goods"] = shown["goods"] > 0
    for exit_ in EXITS:
        checks[f"{exit_}: it was looked at"] = any(shown_by.startswith(exit_) for shown_by in seen["shown"])
    checks["every picture has the date at which it was taken"] = not seen["misdated"]
    checks["no picture was judged that builds on a lost one"] = not judged_unfit(seen)
    for way, outcomes in seen["asked"].items():
        checks[f"{way}: there were goods"] = outcomes.get(GOOD, 0) > 0
    checks["every trigger was answered about its part, or missed"] = not seen["asked_problems"]
    for camera in ALL_CAMERAS:
        got, said = seen["received"][camera], seen["summaries"].get(camera)
        if said is None:
            checks[f"{camera}: it has a summary"] = False
            continue
        expected = said["elapsed_s"] * seen["fps"]
        late_first = FIRST_WITHIN_S * seen["fps"]
        checks[f"{camera}: no period is missing"] = (
            got["first"][0] == 0
            and all(first <= late_first for first in got["first"])
            and got["missing"] == 0
            and got["next"][-1] == said["messages"]
            and got["messages"] == sum(got["next"]) - sum(got["first"])
        )
        checks[f"{camera}: one message a period"] = abs(said["messages"] - expected) <= 2
        checks[f"{camera}: a session for each start of the line"] = (
            len(got["sessions"]) == 1 + seen["line_kills"] and got["sessions"][-1] == said["session"]
        )
        checks[f"{camera}: every message is valid"] = got["invalid"] == 0
        checks[f"{camera}: every ledger is closed"] = got["open_ledgers"] == 0 and is_closed(said["ledger"])
        checks[f"{camera}: every ledger counts its message"] = got["miscounted"] == 0
    for name, memory in seen["memory"].items():
        if name not in (BROKER, CAMERA) and seen["elapsed_s"] > MEMORY_AFTER_S:
            height, width = seen["size"]
            checks[f"{name}: memory is flat"] = is_flat(memory["rss"], (name == LINE) * 3 * height * width / 1024)
    checks["faults went as they must"] = not seen["fault_problems"]
    checks["no traceback in the log"] = not seen["log"].get("traceback")
    return checks


def is_closed(ledger: Mapping[str, int]) -> bool:
    """Captured frames against what became of them."""
    dropped = sum(ledger.get(cause, 0) for cause in ("replaced", "inference_error", "too_late", "shutdown"))
    return ledger["captured"] == ledger["fresh"] + dropped + ledger["in flight"]


def table(seen: Mapping[str, Any]) -> str:
    """The page in Markdown: whether it passed, then the figures."""
    failed = [check for check, holds in seen["checks"].items() if not holds]
    about = (
        f"{seen['elapsed_s'] / 60:.1f} minutes, {len(CAMERAS)} cameras and one that is asked, of "
        f"{size_text(tuple(seen['size']))} at {seen['camera_fps']:g} pictures and {seen['fps']:g} messages a second, "
        f"{sum(seen['faults'].values())} faults, seed {seen['seed']}."
    )
    lines = [
        "# Soak",
        "",
        f"**FAILED: {'; '.join(failed)}.**" if failed else f"**It passed: all {len(seen['checks'])} checks hold.**",
        "",
        about,
        "",
        "![ages of what was good, and faults, over time](soak.svg)",
        *("", "## What was shown as good", "", *_shown_rows(seen)),
        *("", "## What came of triggers with a part's number", "", *_asked_rows(seen)),
        *("", "## What the line sent", "", *_camera_rows(seen)),
        *(
            "",
            "## Memory",
            "",
            f"Of the newest process of each, lower deciles of the first and the last third behind a warm-up of "
            f"{WARM_UP_S / 60:g} minutes; flat is less than {100 * MAX_GROWTH:g} % or {MAX_GROWTH_KIB / 1024:g} MiB of "
            f"RSS an hour, for the line one picture; judged in runs of more than {MEMORY_AFTER_S / 60:g} minutes. What "
            "begins with `check` is the check itself.",
        ),
        *("", "| | first third | last third | growth an hour | most |", "| --- | --- | --- | --- | --- |"),
        *(row for program, memory in seen["memory"].items() for row in _process_rows(program, memory)),
        *("", "## Faults", "", *_fault_rows(seen)),
        *("", "## Checks", "", "| check | |", "| --- | --- |"),
        *(f"| {check} | {'yes' if holds else '**NO**'} |" for check, holds in seen["checks"].items()),
    ]
    return "\n".join(lines) + "\n"


def _shown_rows(seen: Mapping[str, Any]) -> list[str]:
    period_ms = 1e3 / seen["fps"]
    return [
        f"Ages in ms, from when the line sent the message until the client had what it asked for; allowed are "
        f"{PERIODS * period_ms:g} and the way of question and answer, which is the uncertainty: at least "
        f"20 ms, at most a period; {PERIODS_STOPPED * period_ms:g} while a program was stopped or gone. "
        f"{seen['unanswered_plc']} questions of the PLC got no answer.",
        "",
        "| | looks | goods | too old | oldest good | while a program was stopped | oldest picture of a good "
        "| refused, as the broker delivered it late; the oldest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {shown_by} | {shown['looks']} | {shown['goods']} | {shown['too_old']} | {shown['oldest_ms']:.0f} "
            f"| {shown['oldest_stopped_ms']:.0f} | {shown['oldest_picture_ms']:.0f} "
            f"| {shown['late']}; {shown['oldest_late_ms']:.0f} |"
            for shown_by, shown in seen["shown"].items()
        ),
    ]


def _asked_rows(seen: Mapping[str, Any]) -> list[str]:
    names = GOOD, NOT_GOOD, MISSED, REFUSED, CUT_OFF, "wrong"
    return [
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
        *(
            f"| {way} | " + " | ".join(str(outcomes.get(name, 0)) for name in names) + " |"
            for way, outcomes in seen["asked"].items()
        ),
    ]


def _fault_rows(seen: Mapping[str, Any]) -> list[str]:
    """Each kind with how often, what came of it, and the oldest good at each exit while it lasted and 1 s longer."""
    lines = ["| | times | what came of it | " + " | ".join(EXITS) + " |", "| --- | --- | --- |" + " --- |" * len(EXITS)]
    for kind, count in seen["faults"].items():
        events = [event for event in seen["events"] if event["kind"] == kind]
        spans = [(event["at_s"], event["at_s"] + event["lasted_s"] + 1) for event in events]
        oldest = [
            max((age for at_s, age in seen["ages_ms"][exit_] if any(a <= at_s <= b for a, b in spans)), default=None)
            for exit_ in EXITS
        ]
        outcomes = [
            f"{outcome.removeprefix(f'{kind}: ')}" + f" ({times} times)" * (times < count)
            for outcome, times in seen["outcomes"].items()
            if outcome.startswith(f"{kind}: ")
        ]
        ages = " | ".join("never good" if age is None else f"{age:.0f} ms" for age in oldest)
        lines.append(f"| {kind} | {count} | {'; '.join(outcomes)} | {ages} |")
    return lines


def _camera_rows(seen: Mapping[str, Any]) -> list[str]:
    lines = ["| | " + " | ".join(ALL_CAMERAS) + " |", "| --- |" + " --- |" * len(ALL_CAMERAS)]
    received, said, bounds = seen["received"], seen["summaries"], seen["histograms"]

    def row(name: str, value: Callable[[str], str]) -> None:
        lines.append(f"| {name} | " + " | ".join(value(camera) for camera in ALL_CAMERAS if camera in said) + " |")

    row("messages sent by the last session", lambda camera: str(said[camera]["messages"]))
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


def _process_rows(program: str, memory: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = []
    for name, figures in memory.items():
        if figures:
            scale = 1024 if name in ("rss", "pss") else 1
            before, after, most = (figures[key] / scale for key in ("before", "after", "max"))
            unit = " MiB" if scale == 1024 else ""
            change = f"{100 * figures['growth']:.2f} %"
            lines.append(
                f"| {program}, {name} | {before:.1f}{unit} | {after:.1f}{unit} | {change} | {most:.1f}{unit} |"
            )
    return lines

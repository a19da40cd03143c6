"""What was seen of a run in, a picture of it as SVG out: the oldest good of each second at each exit, above the faults.

Knows nothing of how it was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from tools.soak.board import EXITS
from tools.soak.clients import PERIODS
from tools.soak.shown import PERIODS_STOPPED

WIDTH, LEFT, RIGHT, TOP = 1400, 260, 20, 50
PANEL, GAP, ROW = 110, 26, 16
COLORS = dict(zip(EXITS, ("#1f5fa8", "#a8551f", "#2f7d4f", "#7a3f9d"), strict=True))


def picture(seen: Mapping[str, Any]) -> str:
    """The picture."""
    kinds = list(seen["faults"])
    height = TOP + len(EXITS) * (PANEL + GAP) + len(kinds) * ROW + 50
    failed = sum(not holds for holds in seen["checks"].values())
    title = f"{seen['elapsed_s'] / 60:.0f} minutes of soak: " + (f"{failed} checks FAILED" if failed else "passed")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="12" y="24" font-size="18">{title}</text>',
            f'<text x="12" y="42" fill="#555">Oldest good of each second at each exit, by the line\'s own clock; '
            f"dashed: {PERIODS} periods, and {PERIODS_STOPPED} while a program is stopped. Below, the faults.</text>",
            *(line for number, exit_ in enumerate(EXITS) for line in _panel(seen, exit_, number)),
            *(line for number, kind in enumerate(kinds) for line in _row(seen, kind, number)),
            *_minutes(seen, height),
            "</svg>",
            "",
        ]
    )


def _x(seen: Mapping[str, Any], at_s: float) -> float:
    share = float(at_s / seen["elapsed_s"])
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(share, 0.0), 1.0)


def _panel(seen: Mapping[str, Any], exit_: str, number: int) -> Iterator[str]:
    period_ms, bottom = 1e3 / seen["fps"], TOP + number * (PANEL + GAP) + PANEL
    most_ms = (PERIODS_STOPPED + 1) * period_ms
    yield f'<text x="12" y="{bottom - PANEL / 2}" fill="{COLORS[exit_]}" font-size="14">{exit_}</text>'
    yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="#999"/>'
    for periods in (PERIODS, PERIODS_STOPPED):
        y = bottom - PANEL * periods * period_ms / most_ms
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#b00" stroke-dasharray="4 4"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#b00">{periods * period_ms:g} ms</text>'
    points = (
        f"M{_x(seen, at_s):.1f} {bottom - PANEL * min(age_ms / most_ms, 1.05):.1f}h.1"
        for at_s, age_ms in seen["ages_ms"][exit_]
    )
    yield f'<path d="{"".join(points)}" stroke="{COLORS[exit_]}" stroke-width="2" stroke-linecap="round"/>'


def _row(seen: Mapping[str, Any], kind: str, number: int) -> Iterator[str]:
    y = TOP + len(EXITS) * (PANEL + GAP) + number * ROW
    yield f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(kind)}</text>'
    for event in seen["events"]:
        if event["kind"] == kind:
            x = _x(seen, event["at_s"])
            width = max(_x(seen, event["at_s"] + event["lasted_s"]) - x, 1.5)
            color = "#c00" if event["outcome"].startswith("PROBLEM") else "#888"
            about = escape(f"{event['at_s']:.0f} s: {event['outcome']}")
            yield f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 4}" fill="{color}">'
            yield f"<title>{about}</title></rect>"


def _minutes(seen: Mapping[str, Any], height: int) -> Iterator[str]:
    minutes = seen["elapsed_s"] / 60
    step = next(step for step in (1, 2, 5, 10, 30, 60, 1e9) if minutes / step <= 12)
    at_min = 0.0
    while at_min <= minutes:
        x = _x(seen, 60 * at_min)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - 34}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{height - 18}" text-anchor="middle">{at_min:g} min</text>'
        at_min += step

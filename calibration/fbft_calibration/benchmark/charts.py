"""Numbers in, SVG drawings that stand in an HTML page out.

Every line and bar is labelled where it ends, so that colour is never the only key. Knows nothing about benchmarks.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#9b5a8d", "#a6761d", "#444f5a")
_INK, _MUTED, _GRID = "#1b2530", "#5a6b7b", "#dfe5ea"
_WIDTH, _HEIGHT = 560, 300
_LEFT, _TOP, _BOTTOM = 44, 30, 52
_MARGIN = 10
_LABEL_PX, _LETTER_PX = 18, 7.8


def line_chart(title: str, ticks: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> str:
    """Lines over a few steps, from 0 to 1.

    Args:
        title: Read out in the place of the drawing.
        ticks: Under the steps; a line break in one is kept.
        lines: A value per tick; None where there is none.
    """
    last = {name: [value for value in values if value is not None][-1:] for name, values in lines.items()}
    labels = {name: f"{name}: {values[0]:.3f}" for name, values in last.items() if values}
    end = _WIDTH - _MARGIN - _LETTER_PX * max((len(label) for label in labels.values()), default=0)
    parts = [_axes(ticks, end)]
    places = _apart({name: _y(values[0]) for name, values in last.items() if values})
    for (name, values), colour in zip(lines.items(), _repeated(len(lines)), strict=True):
        points = [(_x(i, len(ticks), end), _y(value)) for i, value in enumerate(values) if value is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
        if name in places:
            parts.append(_text(end + 6, places[name] + 5, labels[name], colour, "start"))
    return _drawing(title, parts)


def bar_chart(title: str, bars: Mapping[str, tuple[int, int]]) -> str:
    """Shares as bars from 0 to 1, with their counts above.

    Args:
        title: Read out in the place of the drawing.
        bars: Name to (part, whole); a line break in a name is kept.
    """
    end = _WIDTH - _MARGIN
    parts = [_axes(list(bars), end)]
    width = 0.6 * (end - _LEFT) / max(1, len(bars))
    for index, (part, whole) in enumerate(bars.values()):
        x, y = _x(index, len(bars), end), _y(part / whole if whole else 0)
        parts.append(
            f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_y(0) - y:.1f}" '
            f'fill="{_COLOURS[0]}" fill-opacity=".85"/>'
        )
        parts.append(_text(x, y - 6, f"{part} of {whole}" if whole else "none", _INK, "middle"))
    return _drawing(title, parts)


def _drawing(title: str, parts: Sequence[str]) -> str:
    label = html.escape(title, quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axes(ticks: Sequence[str], end: float) -> str:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(share)
        parts.append(f'<line x1="{_LEFT}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 8, y + 5, f"{share:g}", _MUTED, "end"))
    for index, tick in enumerate(ticks):
        for line, words in enumerate(tick.split("\n")):
            y = _HEIGHT - _BOTTOM + 20 + _LABEL_PX * line
            parts.append(_text(_x(index, len(ticks), end), y, words, _MUTED, "middle"))
    return "".join(parts)


def _x(index: int, count: int, end: float) -> float:
    return _LEFT + (index + 0.5) * (end - _LEFT) / max(1, count)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, words: str, colour: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="14" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(words)}</text>"
    )


def _repeated(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Heights of labels, moved down as far as they must to stay readable, and up again where they would leave."""
    spread: dict[str, float] = {}
    lowest = -float("inf")
    for name, y in sorted(places.items(), key=lambda place: place[1]):
        lowest = max(y, lowest + _LABEL_PX)
        spread[name] = lowest
    highest = float(_HEIGHT - _BOTTOM)
    for name in reversed(spread):
        spread[name] = highest = min(spread[name], highest)
        highest -= _LABEL_PX
    return spread

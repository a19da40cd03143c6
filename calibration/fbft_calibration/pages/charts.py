"""Numbers in, SVG drawings that stand in an HTML page out.

Every line and bar is labelled where it ends, so that colour is never the only key; colours that return are dashed.
Knows nothing about benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fbft_calibration.pages.page import made

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#9b5a8d", "#a6761d", "#444f5a")
_DASHES = ("", "7 4", "2 4")
_INK, _MUTED, _GRID = "#1b2530", "#5a6b7b", "#dfe5ea"
_WIDTH, _HEIGHT = 560, 218
_LEFT, _TOP = 44, 30
_MARGIN = 10
_LABEL_PX, _LETTER_PX = 18, 7.8
_LONGEST_NAME = 22

_Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where shares from 0 to 1 lie over ticks, in px of the drawing.

    Attributes:
        ticks: Under the steps; a line break in one is kept.
        end: Right edge; labels of lines stand beyond it.
        height: From 0 to 1.
    """

    ticks: Sequence[str]
    end: float
    height: float

    @property
    def bottom(self) -> float:
        """Of the whole drawing."""
        return self.y(0) + 16 + _LABEL_PX * max((1 + tick.count("\n") for tick in self.ticks), default=1)

    def x(self, index: int) -> float:
        """Of a tick."""
        return _LEFT + (index + 0.5) * (self.end - _LEFT) / max(1, len(self.ticks))

    def y(self, share: float) -> float:
        """Of a value."""
        return _TOP + (1 - share) * self.height


def line_chart(title: str, ticks: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> Markup:
    """Lines over a few steps, from 0 to 1.

    Args:
        title: Read out in the place of the drawing.
        ticks: Under the steps; a line break in one is kept.
        lines: A value per tick; None where there is none. Long names are shortened in their middle.
    """
    last = {name: [value for value in values if value is not None][-1:] for name, values in lines.items()}
    labels = {name: f"{_shortened(name)}: {values[0]:.3f}" for name, values in last.items() if values}
    end = _WIDTH - _MARGIN - _LETTER_PX * max((len(label) for label in labels.values()), default=0)
    plot = _Plot(ticks, end, max(_HEIGHT, _LABEL_PX * len(labels)))
    places = _apart({name: plot.y(values[0]) for name, values in last.items() if values}, plot.y(0))
    parts = [_axes(plot)]
    for index, (name, values) in enumerate(lines.items()):
        points = [(plot.x(i), plot.y(value)) for i, value in enumerate(values) if value is not None]
        to_label = [points[-1], (end + 3, places[name])] if points else []
        parts.append(_line(points, to_label, index))
        if points:
            parts.append(_text(end + 6, places[name] + 5, labels[name], _COLOURS[index % len(_COLOURS)], "start", name))
    return _drawing(title, plot, parts)


def bar_chart(title: str, bars: Mapping[str, tuple[int, int]]) -> Markup:
    """Shares as bars from 0 to 1, with their counts above.

    Args:
        title: Read out in the place of the drawing.
        bars: Name to (part, whole); a line break in a name is kept.
    """
    plot = _Plot(list(bars), _WIDTH - _MARGIN, _HEIGHT)
    parts = [_axes(plot)]
    width = 0.6 * (plot.end - _LEFT) / max(1, len(bars))
    for index, (part, whole) in enumerate(bars.values()):
        x, y = plot.x(index), plot.y(part / whole if whole else 0)
        sizes = x - width / 2, y, width, plot.y(0) - y
        parts.append(_made("bar", *(f"{size:.1f}" for size in sizes), _COLOURS[0]))
        parts.append(_text(x, y - 6, f"{part} of {whole}" if whole else "none", _INK, "middle"))
    return _drawing(title, plot, parts)


def dot_strip(label: str, values: Sequence[float], threshold: float) -> Markup:
    """A dot per value along one axis that starts at 0, with the threshold as a line."""
    limit = 1.15 * max(threshold, *values)
    ranked = enumerate(sorted(values))
    places = [(20 + 860 * value / limit, 58 - 9 * (rank % 5)) for rank, value in ranked]
    at = 20 + 860 * threshold / limit
    return _made("dots", label, [(f"{x:.1f}", y) for x, y in places], f"{at:.1f}", f"{threshold:.4g}")


def loss_curve(losses: Sequence[tuple[int, float, float]]) -> Markup:
    """Loss on held-out patches over steps, logarithmic.

    Args:
        losses: (step, training loss, loss on held-out patches) at every check, at least one.
    """
    steps, values = [entry[0] for entry in losses], [math.log10(entry[2]) for entry in losses]
    low, high = min(values), max(values) + 1e-9
    points = [
        (60 + 820 * step / steps[-1], 20 + 100 * (high - value) / (high - low))
        for step, value in zip(steps, values, strict=True)
    ]
    caption = f"loss on held-out patches over {steps[-1]} steps"
    return _made("curve", _rounded(points), f"{10**high:.3f}", f"{10**low:.3f}", caption)


def _shortened(name: str) -> str:
    """Both ends of a long name: names of runs differ at either."""
    if len(name) <= _LONGEST_NAME:
        return name
    kept = (_LONGEST_NAME - 1) // 2
    return f"{name[: _LONGEST_NAME - 1 - kept]}\u2026{name[-kept:]}"


def _line(points: Sequence[_Point], to_label: Sequence[_Point], index: int) -> Markup:
    """A line with its points, and a thin one to its label; of a look of its own up to the eighteenth."""
    colour, dash = _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]
    return _made("line", _rounded(points), _rounded(to_label), colour, dash)


def _drawing(title: str, plot: _Plot, parts: Sequence[Markup]) -> Markup:
    return _made("drawing", title, _WIDTH, f"{plot.bottom:.0f}", Markup("").join(parts))


def _axes(plot: _Plot) -> Markup:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = plot.y(share)
        parts.append(_made("grid_line", _LEFT, f"{plot.end:.1f}", f"{y:.1f}", _GRID))
        parts.append(_text(_LEFT - 8, y + 5, f"{share:g}", _MUTED, "end"))
    for index, tick in enumerate(plot.ticks):
        for line, words in enumerate(tick.split("\n")):
            parts.append(_text(plot.x(index), plot.y(0) + 20 + _LABEL_PX * line, words, _MUTED, "middle"))
    return Markup("").join(parts)


def _text(x: float, y: float, words: str, colour: str, anchor: str, in_full: str = "") -> Markup:
    """Words; what they are short for shows below a pointer."""
    return _made("label", f"{x:.1f}", f"{y:.1f}", words, colour, anchor, in_full)


def _rounded(points: Sequence[_Point]) -> list[tuple[str, str]]:
    """To a tenth of a px."""
    return [(f"{x:.1f}", f"{y:.1f}") for x, y in points]


def _made(macro: str, *values: object) -> Markup:
    return made("charts.svg.j2", macro, *values)


def _apart(places: Mapping[str, float], bottom: float) -> dict[str, float]:
    """Heights of labels, moved down as far as they must to stay readable, and up again where they would leave."""
    spread: dict[str, float] = {}
    lowest = -float("inf")
    for name, y in sorted(places.items(), key=lambda place: place[1]):
        lowest = max(y, lowest + _LABEL_PX)
        spread[name] = lowest
    highest = bottom
    for name in reversed(spread):
        spread[name] = highest = min(spread[name], highest)
        highest -= _LABEL_PX
    return spread

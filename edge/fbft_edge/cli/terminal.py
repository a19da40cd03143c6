"""The `Progress` that a person sees: bars on a terminal, which go away at the end, and a line a minute anywhere else.

Knows nothing about the work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import rich.progress
from rich.console import Console

from fbft_edge.progress import Tone

LINE_EVERY_S = 60.0
_STYLES: dict[Tone, str] = {
    "plain": "",
    "heading": "bold",
    "done": "bold green",
    "caution": "yellow",
    "failure": "red",
}
_T = TypeVar("_T")


class TerminalProgress:
    """Shows on one console how work goes.

    Args:
        console: Where; on standard error unless given.
        at_once: Where there is no terminal, whether the first line comes with the first item, or after a minute.
    """

    def __init__(self, console: Console | None = None, *, at_once: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._bars: rich.progress.Progress | None = None
        self._next_line_s = time.monotonic() + (0.0 if at_once else LINE_EVERY_S)

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Show a line, above the bars if there are any."""
        self._console.print(text, style=_STYLES[tone], markup=False, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
        """The items themselves, counted as they are done; several may be under way at once."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        return self._with_bar(items, what, total) if self._console.is_terminal else self._with_lines(items, what, total)

    def _with_bar(self, items: Iterable[_T], what: str, total: int | None) -> Iterator[_T]:
        if self._bars is None:  # made anew each time: rich draws a bar that is started again over the lines above it
            self._bars = rich.progress.Progress(console=self._console, transient=True)
            self._bars.start()
        bars, task = self._bars, self._bars.add_task(what, total=total)
        try:
            for item in items:
                yield item
                bars.advance(task)
        finally:
            bars.remove_task(task)
            if not bars.tasks:
                self._bars = None
                bars.stop()

    def _with_lines(self, items: Iterable[_T], what: str, total: int | None) -> Iterator[_T]:
        for count, item in enumerate(items, start=1):
            yield item
            now_s = time.monotonic()
            if now_s >= self._next_line_s:
                self._next_line_s = now_s + LINE_EVERY_S
                self.say(f"{what}: {count}" if total is None else f"{what}: {count} of {total}")

"""How long work says how far it is: lines and counted items out, to whoever wants them; nobody does by default.

Knows nothing about terminals; `fbft_edge.cli.terminal` shows it on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, TypeVar

Tone = Literal["plain", "heading", "done", "caution", "failure"]
_T = TypeVar("_T")


class Progress(Protocol):
    """Is told how work goes."""

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Take a line for the user, as it is: it has no markup."""
        ...

    def track(self, items: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
        """The items themselves, counted as they are done; several may be under way at once.

        Args:
            items: What is worked through.
            what: Names the work in a few words.
            total: Number of items; None: their length, if they have one.
        """
        ...


class Silence:
    """The `Progress` that nobody sees."""

    def say(self, text: str, tone: Tone = "plain") -> None:
        """Take a line, and show it to nobody."""

    def track(self, items: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
        """The items themselves."""
        return iter(items)


SILENT: Progress = Silence()

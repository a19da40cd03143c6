"""Progress bars on terminals, silence in logs.

Knows nothing about the work it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, track

_T = TypeVar("_T")


def tracked(items: Sequence[_T], what: str, console: Console) -> Iterable[_T]:
    """The items, with a bar that goes away at the end."""
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)


def open_progress(console: Console) -> Progress:
    """Bars for work that is not a sequence."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)

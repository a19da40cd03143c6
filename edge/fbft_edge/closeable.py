"""What is closed at the end of a `with`: one base for everything that holds sockets, threads or processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

_Self = TypeVar("_Self", bound="Closeable")


class Closeable(ABC):
    """Enters as itself; leaving closes it."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

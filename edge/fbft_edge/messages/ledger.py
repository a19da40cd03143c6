"""The frame ledger: what became of every captured frame, and how many messages of each kind went out.

It always closes: captured = published fresh + dropped by each named cause + in flight. What is no frame is counted
beside it: triggers that brought none, and pictures that the camera took and that became none.
Knows nothing about cameras, detectors or sockets.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

DROP_CAUSES = ("replaced", "inference_error", "too_late", "shutdown")


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """Running totals of one session at one moment.

    Attributes:
        captured: Frames that left the camera.
        published_fresh: Frames whose own verdict was published, `ok` or `anomalous`.
        published_stale: Messages that repeated the last result, with its verdict or as `stale`.
        published_fault: Messages that said no verdict can be given.
        dropped: Frames without a verdict, by cause: `replaced` (a newer frame came before inference),
            `inference_error`, `too_late` (the result came later than it is of use), `shutdown`.
        in_flight: Frames waiting for inference, in it, or waiting for their tick.
        missed_triggers: Triggers that brought no frame.
        lost: Pictures that never reached the program or came in part, as far as the camera numbers them. What it
            numbered is captured + lost + refused, unless frames are let go as no software trigger asked for them.
        refused: Pictures that came and must not be judged, each told as a fault.
    """

    captured: int
    published_fresh: int
    published_stale: int
    published_fault: int
    dropped: dict[str, int]
    in_flight: int
    missed_triggers: int = 0
    lost: int = 0
    refused: int = 0

    @property
    def is_closed(self) -> bool:
        """True when every captured frame is accounted for exactly once."""
        return self.captured == self.published_fresh + sum(self.dropped.values()) + self.in_flight

    @property
    def messages(self) -> int:
        """Messages of all kinds, the one that carries this snapshot included."""
        return self.published_fresh + self.published_stale + self.published_fault

    def to_json(self) -> dict[str, Any]:
        """The snapshot as it stands in a message header."""
        return {name: getattr(self, name) for name in self.__slots__}


class Ledger:
    """Counts frames and messages of one session; every method may be called from any thread.

    Args:
        causes: The only reasons for which a frame may be dropped.
    """

    def __init__(self, causes: tuple[str, ...] = DROP_CAUSES) -> None:
        self._lock = threading.Lock()
        self._captured = self._fresh = self._stale = self._fault = self._in_flight = self._missed_triggers = 0
        self._lost = self._refused = 0
        self._dropped = dict.fromkeys(causes, 0)

    def capture(self) -> None:
        """A frame left the camera; it is in flight until it is published or dropped."""
        with self._lock:
            self._captured += 1
            self._in_flight += 1

    def drop(self, cause: str) -> None:
        """A frame in flight will never be published.

        Raises:
            KeyError: The cause is not one of the ledger's.
            ValueError: No frame is in flight.
        """
        with self._lock:
            self._dropped[cause] += self._land()

    def drop_all(self, cause: str) -> None:
        """Every frame still in flight will never be published.

        Raises:
            KeyError: The cause is not one of the ledger's.
        """
        with self._lock:
            self._dropped[cause] += self._in_flight
            self._in_flight = 0

    def miss_triggers(self, count: int = 1) -> None:
        """So many triggers brought no frame."""
        with self._lock:
            self._missed_triggers += count

    def note_unseen(self, lost: int, refused: int) -> int:
        """So many pictures became no frame so far; returns by how many these are more than at the last call.

        Args:
            lost: That never reached the program or came in part, in all.
            refused: That must not be judged, in all.
        """
        with self._lock:
            before = self._lost + self._refused
            # A camera that is opened again right now may show fewer for a moment.
            self._lost, self._refused = max(self._lost, lost), max(self._refused, refused)
            return self._lost + self._refused - before

    def publish_fresh(self) -> LedgerSnapshot:
        """A frame in flight gets its own message; returns the totals with that message.

        Raises:
            ValueError: No frame is in flight.
        """
        with self._lock:
            self._fresh += self._land()
            return self._snapshot()

    def publish_stale(self) -> LedgerSnapshot:
        """A message repeats the last result; returns the totals with that message."""
        with self._lock:
            self._stale += 1
            return self._snapshot()

    def publish_fault(self) -> LedgerSnapshot:
        """A message says that no verdict can be given; returns the totals with that message."""
        with self._lock:
            self._fault += 1
            return self._snapshot()

    def snapshot(self) -> LedgerSnapshot:
        """The totals now."""
        with self._lock:
            return self._snapshot()

    def _land(self) -> int:
        if self._in_flight == 0:
            raise ValueError("no frame is in flight, so none can be published or dropped")
        self._in_flight -= 1
        return 1

    def _snapshot(self) -> LedgerSnapshot:
        return LedgerSnapshot(
            self._captured,
            self._fresh,
            self._stale,
            self._fault,
            dict(self._dropped),
            self._in_flight,
            self._missed_triggers,
            self._lost,
            self._refused,
        )

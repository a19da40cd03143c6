"""Kinds of faults in, each begun at random, one at a time of a kind, some alone; what came of them out.

Knows nothing of what a fault is.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any


class Schedule:
    """Begins faults, each in a thread of its own, a kind again only when it is over and every other had its turn.

    Attributes:
        counts: How often each kind was begun.
        outcomes: How often each kind ended in which way.
        start_s: From when on their times count.
        events: Every fault with its time and outcome, in the order in which they were over.
        problems: Those of which something was not as it must be.
    """

    def __init__(
        self,
        kinds: Mapping[str, Callable[[random.Random], str]],
        alone: Collection[str],
        ending: threading.Event,
        seed: int,
        every_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._kinds, self._alone, self._ending, self._every_s, self._say = kinds, alone, ending, every_s, say
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.start_s = time.monotonic()
        self._running: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._work, name="faults")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def rest(self) -> None:
        """Begin nothing more, and undo what is being done."""
        self._ending.set()

    def stop(self) -> None:
        """`rest`, and wait until everything is as it was."""
        self.rest()
        if self._thread.ident is None:
            return
        self._thread.join()
        self._await_all()

    def _work(self) -> None:
        order: list[str] = []
        while not self._ending.wait(self._random.uniform(0.4, 1.6) * self._every_s):
            if not order:
                order = self._random.sample(list(self._kinds), len(self._kinds))
            kind, chance = order.pop(), random.Random(self._random.random())
            if (last := self._running.get(kind)) is not None and last.is_alive():
                continue
            if kind in self._alone:
                self._await_all()
            self._running[kind] = threading.Thread(target=self._inject, args=(kind, chance), name=kind)
            self._running[kind].start()
            if kind in self._alone:
                self._await_all()

    def _await_all(self) -> None:
        for thread in self._running.values():
            thread.join()

    def _inject(self, kind: str, chance: random.Random) -> None:
        begun_s = time.monotonic() - self.start_s
        self.counts[kind] += 1
        try:
            outcome = self._kinds[kind](chance)
        except Exception as error:
            outcome = f"PROBLEM: {type(error).__name__}: {error}"
        if outcome.startswith("PROBLEM"):
            self.problems.append(f"{begun_s:.0f} s, {kind}: {outcome}")
        self.outcomes[f"{kind}: {outcome.partition(';')[0]}"] += 1
        lasted_s = time.monotonic() - self.start_s - begun_s
        self.events.append(
            {"at_s": round(begun_s, 1), "lasted_s": round(lasted_s, 1), "kind": kind, "outcome": outcome}
        )
        self._say(f"{time.strftime('%H:%M:%S')} {begun_s:7.1f} s  {kind} ({lasted_s:.1f} s): {outcome}")

"""Triggers by software: a request for one acquisition in, the one frame that answers it out.

A trigger that was taken is answered exactly once, by a verdict, a fault or a miss, before the next one is taken. Knows
nothing about cameras, sockets or messages.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Frame
from fbft_edge.names import ID_PATTERN, ID_RULE


@dataclass(frozen=True, slots=True)
class Request:
    """One trigger.

    Attributes:
        trigger_id: Its identifier, if it has one.
        asked_ns: When it came, on the session clock.
        part_id: Of the part that it is about, if that was said.
    """

    trigger_id: str | None
    asked_ns: int
    part_id: str | None = None

    def __str__(self) -> str:
        return "the trigger" if self.trigger_id is None else f"trigger {self.trigger_id!r}"


class SoftwareTrigger:
    """Holds at most one trigger that is not answered yet; every method may be called from any thread.

    Args:
        camera: The camera's name, for messages.
        timeout_s: A trigger that brings no frame for so long is missed.
    """

    def __init__(self, camera: str, timeout_s: float) -> None:
        self._camera, self._timeout_ns = camera, round(timeout_s * 1e9)
        self._lock = threading.Lock()
        self._pending: Request | None = None
        self._is_acquired = False

    @property
    def is_pending(self) -> bool:
        """True while a trigger is not answered."""
        return self._pending is not None

    def ask(
        self, trigger_id: str | None, asked_ns: int, deadline_ns: int | None = None, part_id: str | None = None
    ) -> Request:
        """Take a trigger.

        Raises:
            ArgumentError: It comes after its deadline, the last trigger is not answered yet, or an identifier cannot
                stand in a message.
        """
        if deadline_ns is not None and asked_ns > deadline_ns:
            raise ArgumentError(
                f"camera {self._camera!r}: the trigger came {(asked_ns - deadline_ns) / 1e9:.3f} s after its deadline, "
                "when nobody waited for it any more; trigger again"
            )
        for what, text in (("trigger", trigger_id), ("part", part_id)):
            if text is not None and not ID_PATTERN.fullmatch(text):
                raise ArgumentError(f"{what} {text[:80]!r} cannot stand in a message; use {ID_RULE}")
        with self._lock:
            if self._pending is not None:
                age_s = (asked_ns - self._pending.asked_ns) / 1e9
                raise ArgumentError(
                    f"camera {self._camera!r} has not answered {self._pending} of {age_s:.3f} s ago; "
                    "wait for its message before the next trigger"
                )
            self._pending, self._is_acquired = Request(trigger_id, asked_ns, part_id), False
            return self._pending

    def acquire(self, frame: Frame) -> Request | None:
        """The trigger that a frame answers; None when it answers none and is to be let go."""
        with self._lock:
            request = self._pending
            if request is None or self._is_acquired or frame.captured_ns < request.asked_ns:
                return None
            self._is_acquired = True
            return request

    def miss(self, now_ns: int) -> Request | None:
        """The trigger that no frame has answered in time, once; the next one may come."""
        with self._lock:
            request = self._pending
            if request is None or self._is_acquired or now_ns - request.asked_ns <= self._timeout_ns:
                return None
            self._pending = None
            return request

    def answer(self, request: Request | None) -> None:
        """A trigger was answered; the next one may come. None: the frame answers no trigger."""
        with self._lock:
            if request is self._pending:
                self._pending = None

    def withdraw(self, request: Request) -> None:
        """Forget a trigger, unless a frame has been acquired for it, which will answer it."""
        with self._lock:
            if request is self._pending and not self._is_acquired:
                self._pending = None

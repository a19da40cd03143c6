"""Triggers for the line's command socket: a camera's name in, whether the line took the trigger out.

Knows nothing about who pulls the trigger.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from pathlib import Path

from fbft_edge.bridges.handshake import TAKEN_WITHIN_S, Done, Trigger
from fbft_edge.closeable import Closeable
from fbft_edge.errors import CommandError
from fbft_edge.names import TRIGGER_COMMAND
from fbft_edge.sockets.command_client import CommandClient

GRACE_S = 0.5  # for the answer of a line that took the trigger in the last moment
MAX_WAITING = 64

_logger = logging.getLogger(__name__)


class TriggerSender(Closeable):
    """Sends triggers from a thread of its own; without an answer within 1.5 s one was not taken.

    Each carries its deadline: a line that is held up refuses it afterwards, instead of carrying out what was given up.

    Args:
        endpoint: The line's command socket.
        server_key: File of the line's public CURVE key; None for one without CURVE.
        secret_key: File of one's own secret key.

    Raises:
        ArgumentError: The endpoint cannot be connected to, or a key cannot be used.
    """

    def __init__(self, endpoint: str, *, server_key: Path | None = None, secret_key: Path | None = None) -> None:
        self._waiting: queue.Queue[tuple[str, Trigger, Done, float] | None] = queue.Queue(MAX_WAITING)
        self._is_closing = False
        self._client = CommandClient(endpoint, server_key=server_key, secret_key=secret_key)
        self._thread = threading.Thread(target=self._run, name="fbft-trigger", daemon=True)
        self._thread.start()

    def send(self, camera: str, trigger: Trigger, done: Done) -> None:
        """Send a trigger, without waiting; `done` is called with whether the line took it."""
        try:
            self._waiting.put_nowait((camera, trigger, done, time.monotonic() + TAKEN_WITHIN_S))
        except queue.Full:
            done(False)

    def close(self) -> None:
        """End the thread after the trigger that it is sending; those that wait are not taken."""
        self._is_closing = True
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join()

    def _run(self) -> None:
        with self._client:
            while (waiting := self._waiting.get()) is not None:
                camera, trigger, done, deadline_s = waiting
                done(not self._is_closing and self._is_taken(camera, trigger, deadline_s - time.monotonic()))
                if self._is_closing and self._waiting.empty():
                    return

    def _is_taken(self, camera: str, trigger: Trigger, rest_s: float) -> bool:
        if rest_s <= 0:
            _logger.warning("camera %s: trigger %s waited too long behind others", camera, trigger.trigger_id)
            return False
        try:
            self._client.call(
                TRIGGER_COMMAND,
                timeout_s=rest_s + GRACE_S,
                camera=camera,
                trigger_id=trigger.trigger_id,
                part_id=trigger.part_id,
                session=trigger.session,
                deadline_s=trigger.deadline_ns / 1e9,
            )
        except CommandError as error:
            _logger.warning("camera %s: %s", camera, error)
            return False
        return True

"""Triggers for the line's command socket: a camera's name in, whether the line took the trigger out.

Knows nothing about who pulls the trigger.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
from pathlib import Path

from fbft_edge.bridges.handshake import Done
from fbft_edge.closeable import Closeable
from fbft_edge.errors import CommandError
from fbft_edge.names import TRIGGER_COMMAND
from fbft_edge.sockets.command_client import CommandClient

TIMEOUT_S = 1.0
MAX_WAITING = 64

_logger = logging.getLogger(__name__)


class TriggerSender(Closeable):
    """Sends triggers, numbered from 1, from a thread of its own; without an answer within 1 s one was not taken.

    Args:
        endpoint: The line's command socket.
        server_key: File of the line's public CURVE key; None for one without CURVE.
        secret_key: File of one's own secret key.

    Raises:
        ArgumentError: The endpoint cannot be connected to, or a key cannot be used.
    """

    def __init__(self, endpoint: str, *, server_key: Path | None = None, secret_key: Path | None = None) -> None:
        self._waiting: queue.Queue[tuple[str, Done] | None] = queue.Queue(MAX_WAITING)
        self._numbers = itertools.count(1)
        self._is_closing = False
        self._client = CommandClient(endpoint, server_key=server_key, secret_key=secret_key)
        self._thread = threading.Thread(target=self._run, name="fbft-trigger", daemon=True)
        self._thread.start()

    def send(self, camera: str, done: Done) -> None:
        """Send a trigger, without waiting; `done` is called with whether the line took it."""
        try:
            self._waiting.put_nowait((camera, done))
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
            while (trigger := self._waiting.get()) is not None:
                camera, done = trigger
                done(not self._is_closing and self._is_taken(camera))
                if self._is_closing and self._waiting.empty():
                    return

    def _is_taken(self, camera: str) -> bool:
        try:
            self._client.call(TRIGGER_COMMAND, timeout_s=TIMEOUT_S, camera=camera, trigger_id=str(next(self._numbers)))
        except CommandError as error:
            _logger.warning("camera %s: %s", camera, error)
            return False
        return True

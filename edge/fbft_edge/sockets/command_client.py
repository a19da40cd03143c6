"""The command socket's other end: a command in, the line's answer out.

Knows nothing about what a command does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import zmq

from fbft_edge.closeable import Closeable
from fbft_edge.errors import ArgumentError, CommandError
from fbft_edge.names import COMMANDS_ENDPOINT, printable
from fbft_edge.sockets.access import authenticate
from fbft_edge.sockets.command_format import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    answer_from_bytes,
    request_bytes,
)
from fbft_edge.sockets.endpoints import connect, limit


class CommandClient(Closeable):
    """Sends commands to a line and waits for its answers; used by one thread at a time.

    Args:
        endpoint: Where the line's command socket is bound.
        server_key: File of the line's public CURVE key; None for one without CURVE.
        secret_key: File of one's own secret key; None for the one that FBFT_SECRET_KEY_FILE names.

    Raises:
        ArgumentError: The endpoint cannot be connected to, or a key cannot be used.
    """

    def __init__(
        self,
        endpoint: str = COMMANDS_ENDPOINT,
        *,
        server_key: Path | str | None = None,
        secret_key: Path | str | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._number = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # a request waits here, where it can be given up, not in a queue
        limit(self._socket, endpoint, MAX_ANSWER_BYTES)
        try:
            authenticate(self._socket, server_key, secret_key)
            connect(self._socket, endpoint)
        except ArgumentError:
            self.close()
            raise

    def call(self, command: str, *, timeout_s: float = 5.0, **arguments: str | float | bool | None) -> dict[str, Any]:
        """Give a command and wait for its answer.

        Returns:
            The answer's members.

        Raises:
            CommandError: The line refused, or did not answer in time.
        """
        self._number += 1
        request = request_bytes(self._number, command, arguments)
        if len(request) > MAX_REQUEST_BYTES:
            raise CommandError(f"{command}: the request has {len(request)} bytes, {MAX_REQUEST_BYTES} are allowed")
        deadline_s = time.monotonic() + timeout_s
        if not self._socket.poll(_rest_ms(deadline_s), zmq.POLLOUT):
            raise CommandError(
                f"{command}: no line lets us in at {self._endpoint} within {timeout_s:g} s; check that it runs with a "
                "command socket there, and with CURVE its key and whether it knows ours"
            )
        self._socket.send(request)
        while self._socket.poll(_rest_ms(deadline_s)):
            answer = _answer(self._socket.recv_multipart(), command)
            if answer.pop("id", None) == self._number:
                return _accepted(answer, command)
        raise CommandError(
            f"{command}: no answer from {self._endpoint} within {timeout_s:g} s; it may be carried out all the same, "
            "ask for the status, or wait longer (--timeout)"
        )

    def close(self) -> None:
        """Leave the line; may be called twice."""
        self._socket.close()
        self._context.term()


def _rest_ms(deadline_s: float) -> int:
    return max(0, round((deadline_s - time.monotonic()) * 1000))


def _answer(frames: list[bytes], command: str) -> dict[str, Any]:
    try:
        return answer_from_bytes(frames[-1])
    except ValueError:
        raise CommandError(f"{command}: what answers is no line of fbft-edge; check the endpoint") from None


def _accepted(answer: dict[str, Any], command: str) -> dict[str, Any]:
    if answer.pop("ok", None) is not True:
        raise CommandError(f"{command}: {printable(str(answer.get('error')))}")
    return answer

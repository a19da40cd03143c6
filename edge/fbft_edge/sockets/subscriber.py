"""Results from a publisher, for whoever acts on them: a PLC bridge, a logger, a screen.

    from fbft_edge import ResultSubscriber, Verdict

    with ResultSubscriber("tcp://127.0.0.1:5555", site="hall-3", camera="press-1") as results:
        while True:
            result = results.receive(timeout_s=1.0)
            is_good = result is not None and result.verdict is Verdict.OK
            write_output(accept=is_good)

A message comes every period, so silence means that the publisher or the network is gone: treat a timeout,
`stale` and `fault` as "not good". `result.lost` counts messages missed on the way; none of them was `ok`
as far as the bridge can know. Two more arguments, `server_key="line.key"` and `secret_key="bridge.key_secret"`, reach
a line with CURVE keys (docs/security.md).

Knows nothing about cameras or detectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import zmq

from fbft_edge.closeable import Closeable
from fbft_edge.errors import ArgumentError
from fbft_edge.messages.reading import MAX_MASK_BYTES, Result, decode_message
from fbft_edge.names import RESULTS_ENDPOINT
from fbft_edge.sockets.access import authenticate
from fbft_edge.sockets.endpoints import connect, limit

RECEIVE_QUEUE_MESSAGES = 64


class ResultSubscriber(Closeable):
    """Receives and decodes results; an endless iterator and a context manager, used by one thread at a time.

    It may be started before the publisher, and finds a restarted one again by itself.

    Args:
        endpoint: Where the publisher is bound.
        site: Only results of this site; None for all.
        camera: Only results of this camera; None for all.
        server_key: File of the publisher's public CURVE key; None for one without CURVE.
        secret_key: File of one's own secret key; None for the one that FBFT_SECRET_KEY_FILE names.

    Raises:
        ArgumentError: The endpoint cannot be connected to, or a key cannot be used.
    """

    def __init__(
        self,
        endpoint: str = RESULTS_ENDPOINT,
        *,
        site: str | None = None,
        camera: str | None = None,
        server_key: Path | str | None = None,
        secret_key: Path | str | None = None,
    ) -> None:
        self._site, self._camera = site, camera
        self._expected: dict[tuple[str, str], tuple[str, int]] = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"fbft/" + (f"{site}/".encode() if site else b""))
        limit(self._socket, endpoint, MAX_MASK_BYTES)
        try:
            authenticate(self._socket, server_key, secret_key)
            connect(self._socket, endpoint)
        except ArgumentError:
            self.close()
            raise

    def receive(self, timeout_s: float | None = None) -> Result | None:
        """Wait for the next result.

        Args:
            timeout_s: Give up after so long; None waits for ever.

        Returns:
            The result, or None when none came in time.

        Raises:
            MessageError: What came is not a valid result; the next call goes on behind it.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while self._is_readable(deadline_s):
            parts = self._socket.recv_multipart()
            if self._camera is None or parts[0].split(b"/")[2:3] == [self._camera.encode()]:
                return self._with_loss(decode_message(parts))
        return None

    def close(self) -> None:
        """Leave the publisher; may be called twice."""
        self._context.destroy()

    def __iter__(self) -> Iterator[Result]:
        while True:
            result = self.receive()
            if result is not None:
                yield result

    def _is_readable(self, deadline_s: float | None) -> bool:
        wait_ms = None if deadline_s is None else max(0, round((deadline_s - time.monotonic()) * 1000))
        return bool(self._socket.poll(wait_ms))

    def _with_loss(self, result: Result) -> Result:
        source = (result.site, result.camera)
        session, expected = self._expected.get(source, (result.session, result.sequence))
        self._expected[source] = (result.session, result.sequence + 1)
        is_gap = session == result.session and result.sequence > expected
        return replace(result, lost=result.sequence - expected) if is_gap else result

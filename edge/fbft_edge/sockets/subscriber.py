"""Results from a publisher, for whoever acts on them: a PLC bridge, a logger, a screen.

    from fbft_edge import ResultSubscriber

    with ResultSubscriber("tcp://127.0.0.1:5555", site="hall-3", camera="press-1") as results:
        while True:
            result = results.receive()
            write_output(accept=result is not None and result.is_good)

`receive` hands out the newest message, never one that is older than two periods, and None after two periods of
silence: treat None, `stale` and `fault` as "not good". A reader that takes longer than a period skips messages and
stays up to date; `result.lost` counts them. Whoever keeps every message asks for them with `every=True`. Two more
arguments, `server_key="line.key"` and `secret_key="bridge.key_secret"`, reach a line with CURVE keys
(docs/security.md).

Knows nothing about cameras or detectors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import zmq

from fbft_edge.closeable import Closeable
from fbft_edge.errors import ArgumentError
from fbft_edge.messages.age import PublisherClock, oldest_s
from fbft_edge.messages.header import topic_for
from fbft_edge.messages.reading import MAX_MASK_BYTES, Part, Result, decode_message
from fbft_edge.names import RESULTS_ENDPOINT
from fbft_edge.sockets.access import authenticate
from fbft_edge.sockets.endpoints import connect, limit

RECEIVE_QUEUE_MESSAGES = 64
MAX_CAMERAS_WAITING = 64
# A publisher that sends faster than messages can be taken off the queue would else keep a reader from any result.
MAX_SKIPPED = 4096


class ResultSubscriber(Closeable):
    """Receives results; a context manager, used by one thread at a time.

    It may be started before the publisher, and finds a restarted one again by itself. The first message of a
    publisher's run only sets its clock: a result is handed out from the second on.

    Args:
        endpoint: Where the publisher is bound.
        site: Only results of this site; None for all.
        camera: Only results of this camera, or of these; None for all.
        every: Hand out every message in order, however old: for records, and for parts that are counted. An output
            is then set from `Result.is_good` alone.
        period_s: Between messages, until they show a shorter one; None learns it from them.
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
        camera: str | Collection[str] | None = None,
        every: bool = False,
        period_s: float | None = None,
        server_key: Path | str | None = None,
        secret_key: Path | str | None = None,
    ) -> None:
        cameras = {camera} if isinstance(camera, str) else camera
        self._cameras = None if cameras is None else {name.encode() for name in cameras}
        self._every, self._given_period_s = every, period_s
        self._period_s = period_s
        self._clocks: dict[tuple[str, str], PublisherClock] = {}
        self._expected: dict[tuple[str, str], tuple[str, int]] = {}
        self._newest: dict[bytes, Sequence[Part]] = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.LINGER, 0)
        for topic in _topics(site, cameras):
            self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        limit(self._socket, endpoint, MAX_MASK_BYTES)
        try:
            authenticate(self._socket, server_key, secret_key)
            connect(self._socket, endpoint)
        except ArgumentError:
            self.close()
            raise

    def receive(self, timeout_s: float | None = None) -> Result | None:
        """Wait for the newest result, or, with `every`, for the next one.

        Args:
            timeout_s: Give up after so long; None gives up after two periods (2 s before the period is known), or,
                with `every`, never.

        Returns:
            The result, of each camera in its turn; None when none came in time that was at most two periods old (at
            least 0.1 s).

        Raises:
            MessageError: What came is not a valid result; the next call goes on behind it.
        """
        if timeout_s is None and not self._every:
            timeout_s = oldest_s(self._period_s)
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._read()
            while self._newest:
                result = self._dated(decode_message(self._newest.pop(next(iter(self._newest)))))
                if self._every or result.is_current:
                    return self._with_loss(result)
            if not self._is_readable(deadline_s):
                return None

    def close(self) -> None:
        """Leave the publisher; may be called twice."""
        self._context.destroy()

    def __iter__(self) -> Iterator[Result]:
        """Every message without an end; without `every`, silence would leave the last verdict standing.

        Raises:
            ArgumentError: The subscriber was made without `every`.
        """
        if not self._every:
            raise ArgumentError(
                "a loop over results says nothing while a line is silent; call receive(), which then returns None, or "
                "make the subscriber with every=True to keep a record"
            )
        while True:
            result = self.receive()
            if result is not None:
                yield result

    def _read(self) -> None:
        """Take in what has come: all of it and of each camera the newest, or with `every` one message."""
        for _ in range(1 if self._every else MAX_SKIPPED):
            if len(self._newest) >= MAX_CAMERAS_WAITING:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            parts = [frame.buffer for frame in frames]
            topic = bytes(parts[0])
            if self._cameras is None or any(name in self._cameras for name in topic.split(b"/")[2:3]):
                self._newest[topic] = parts

    def _is_readable(self, deadline_s: float | None) -> bool:
        if deadline_s is None:
            return bool(self._socket.poll())
        wait_s = deadline_s - time.monotonic()
        return wait_s > 0 and bool(self._socket.poll(math.ceil(1000 * wait_s)))

    def _dated(self, result: Result) -> Result:
        source = (result.site, result.camera)
        clock = self._clocks.setdefault(source, PublisherClock(self._given_period_s))
        sent_s = clock.sent_s(result.session, result.sequence, result.published_ns, time.monotonic())
        self._period_s = clock.period_s
        if self._expected.get(source, ("", 0))[0] != result.session:
            self._expected[source] = (result.session, result.sequence)
        return replace(result, sent_s=sent_s, period_s=clock.period_s)

    def _with_loss(self, result: Result) -> Result:
        source = (result.site, result.camera)
        _, expected = self._expected[source]
        self._expected[source] = (result.session, result.sequence + 1)
        return replace(result, lost=max(0, result.sequence - expected))


def _topics(site: str | None, cameras: Collection[str] | None) -> list[str]:
    """Beginnings of topics; a publisher sends what begins with one, so the others' messages do not even travel."""
    if site is None:
        return ["fbft/"]
    return [f"fbft/{site}/"] if cameras is None else [topic_for(site, camera) for camera in cameras]

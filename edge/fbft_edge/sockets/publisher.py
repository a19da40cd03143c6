"""The publishing socket: message parts in, nothing out and never a wait.

    send -> [queue] -> thread of the socket -> [queue per subscriber] -> libzmq's thread -> subscribers

The socket has a thread of its own, because libzmq works on subscriptions in the thread that sends: with libzmq
4.3.5 and its defaults, one subscriber that subscribes without end keeps that thread for ever. A subscriber that does
not keep up loses messages, which the `sequence` shows it; nobody else notices. Knows nothing about what the parts
mean.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from queue import SimpleQueue

import zmq

from fbft_edge.closeable import Closeable
from fbft_edge.errors import PublisherError
from fbft_edge.names import RESULTS_ENDPOINT
from fbft_edge.priority import make_real_time, preferring_new_threads
from fbft_edge.sockets.access import Connections, CurveServer, Gate
from fbft_edge.sockets.endpoints import LINGER_MS, bind, check_bind, limit

QUEUE_MESSAGES = 256
# What the first queue can let go at once has to fit, and libzmq gives room back in halves.
SEND_QUEUE_MESSAGES = 2 * QUEUE_MESSAGES
SUBSCRIPTION_QUEUE = 2
SUBSCRIPTION_BUFFER_BYTES = 4096
MAX_SUBSCRIPTION_BYTES = 512  # the handshake of CURVE has commands of more than 256
MAX_SUBSCRIPTIONS = 200
READ_SUBSCRIPTIONS = 1000


class ResultPublisher(Closeable):
    """Sends messages to whoever is subscribed; used by one thread at a time.

    Args:
        endpoint: `tcp://127.0.0.1:PORT` (`*` for any free port) or `ipc://PATH`, readable and writable by the
            owner and the group only.
        insecure: Allow TCP beyond loopback without CURVE.
        curve: Encrypt, and let in only clients whose key is known.

    Attributes:
        endpoint: What was bound, with the port that was found.

    Raises:
        PublisherError: The endpoint cannot be bound, or must not be.
        ArgumentError: The keys cannot be used.
    """

    def __init__(
        self, endpoint: str = RESULTS_ENDPOINT, *, insecure: bool = False, curve: CurveServer | None = None
    ) -> None:
        check_bind(endpoint, insecure=insecure, encrypted=curve is not None)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with preferring_new_threads():  # libzmq's, and the gate's
            self._socket = self._context.socket(zmq.XPUB)
            self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            self._socket.setsockopt(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
            self._socket.setsockopt(zmq.RCVHWM, SUBSCRIPTION_QUEUE)
            self._socket.setsockopt(zmq.RCVBUF, SUBSCRIPTION_BUFFER_BYTES)
            self._socket.setsockopt(zmq.LINGER, LINGER_MS)
            limit(self._socket, endpoint, MAX_SUBSCRIPTION_BYTES)
            try:
                self._gate = Gate(self._context, self._socket, curve)
                self.endpoint = bind(self._socket, endpoint)
            except BaseException:
                self._socket.close()
                self._context.term()
                raise
        self._connections = Connections(self.endpoint, self._gate.allow_list, MAX_SUBSCRIPTIONS)
        self._dropped = 0
        self._failure: Exception | None = None
        self._queue: SimpleQueue[Sequence[bytes] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="publisher", daemon=True)
        self._thread.start()

    def send(self, parts: Sequence[bytes]) -> None:
        """Hand one message over; returns at once, whatever the subscribers do.

        Raises:
            PublisherError: The socket failed.
        """
        if self._failure is not None:
            raise PublisherError(f"{self.endpoint} cannot be sent to any more: {self._failure}") from self._failure
        if self._queue.qsize() >= QUEUE_MESSAGES:
            self._dropped += 1
        else:
            self._queue.put(parts)

    def refused(self) -> dict[str, int]:
        """Running totals, any thread may ask: see `Gate.refused`; `removed_key` and `subscriptions` were cut off."""
        cut = self._connections.cut
        return {**self._gate.refused(), "removed_key": cut["key"], "subscriptions": cut["messages"]}

    def dropped(self) -> dict[str, int]:
        """Running total, any thread may ask: messages that nobody got, the `queue` before the socket being full."""
        return {"queue": self._dropped}

    def close(self) -> None:
        """Give queued messages 0.2 s to leave, then free the endpoint; may be called twice."""
        self._queue.put(None)
        self._thread.join()
        self._context.term()

    def _send_all(self) -> None:
        make_real_time()
        try:
            while (parts := self._queue.get()) is not None:
                self._connections.check()
                self._socket.send_multipart(parts, zmq.NOBLOCK)
                self._read_subscriptions()
        except Exception as error:
            self._failure = error
        finally:
            self._socket.close()

    def _read_subscriptions(self) -> None:
        """Take note of so many that came; asking whether there is one would let libzmq take in more meanwhile."""
        with contextlib.suppress(zmq.Again):
            for _ in range(READ_SUBSCRIPTIONS):
                self._connections.note(self._socket.recv(zmq.NOBLOCK, copy=False))

"""The command socket: requests of other programs in, what the line's handlers say to them out.

Requests are handled one after the other; those of long commands one at a time in a thread of their own, and answered
when they are done. What they look like is said in `fbft_edge.sockets.command_format`. Knows nothing about what a
command does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from fbft_edge.closeable import Closeable
from fbft_edge.errors import FbftError
from fbft_edge.sockets.access import Connections, CurveServer, Gate, LimitedLog
from fbft_edge.sockets.command_format import (
    MAX_REQUEST_BYTES,
    Number,
    accepted,
    answer_bytes,
    refusal,
    request_from_bytes,
)
from fbft_edge.sockets.endpoints import LINGER_MS, bind, check_bind, limit

QUEUE_MESSAGES = 16
ANSWERS_ENDPOINT = "inproc://answers"

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    sender: bytes
    delimiter: list[bytes]  # an empty frame from REQ, none from DEALER
    number: Number
    command: str
    arguments: Mapping[str, Any]


class CommandServer(Closeable):
    """Answers requests in a thread of its own, from `start` on or as a context manager.

    Args:
        endpoint: Where to listen, `ipc://PATH` for owner and group or `tcp://...`.
        handlers: By command. A handler gets the request's other members and returns the answer's, fit for JSON. An
            `FbftError` refuses with its text; any other exception is logged, and the client hears "internal error".
        long: Commands that take long; while one of them runs, others of them are refused.
        curve: Encrypt, and let in only clients whose key is known.

    Attributes:
        endpoint: What was bound, with the port that was found.

    Raises:
        PublisherError: The endpoint cannot be bound, or must not be.
        ArgumentError: The keys cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        handlers: Mapping[str, Handler],
        *,
        long: Collection[str] = (),
        curve: CurveServer | None = None,
    ) -> None:
        check_bind(endpoint, insecure=False, encrypted=curve is not None)  # never in clear text beyond this machine
        self._handlers, self._long = handlers, long
        self._long_running = ""
        self._malformed = 0
        self._log = LimitedLog()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._answers = self._context.socket(zmq.PULL)
        self._answers.bind(ANSWERS_ENDPOINT)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        limit(self._socket, endpoint, MAX_REQUEST_BYTES)
        try:
            self._gate = Gate(self._context, self._socket, curve)
            self.endpoint = bind(self._socket, endpoint)
        except BaseException:
            self._close_sockets()
            self._context.term()
            raise
        self._connections = Connections(self.endpoint, self._gate.allow_list)
        self._thread = threading.Thread(target=self._serve, name="commands", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def refused(self) -> dict[str, int]:
        """Running totals, any thread may ask: see `Gate.refused`; `removed_key` was cut off, `malformed` no request."""
        return {**self._gate.refused(), "removed_key": self._connections.cut["key"], "malformed": self._malformed}

    def close(self) -> None:
        """Stop answering, after the request in hand; does not wait for a long command. May be called twice."""
        if self._thread.ident is None:
            self._close_sockets()
        self._context.term()

    def __enter__(self) -> CommandServer:
        self.start()
        return self

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._answers, zmq.POLLIN)
        try:
            while True:
                for source, _ in poller.poll():
                    if source is self._answers:
                        self._socket.send_multipart(self._answers.recv_multipart(), zmq.NOBLOCK)
                    else:
                        self._receive(self._socket.recv_multipart(copy=False))
        except zmq.ContextTerminated:
            return
        finally:
            self._close_sockets()

    def _close_sockets(self) -> None:
        self._socket.close()
        self._answers.close(linger=0)

    def _receive(self, frames: list[zmq.Frame]) -> None:
        if not self._connections.note(frames[-1]):
            return
        sender, *delimiter, body = (frame.bytes for frame in frames)
        if delimiter not in ([], [b""]):
            self._count_malformed(f"a request of {len(frames) - 1} frames")
            return
        try:
            request = _Request(sender, delimiter, *request_from_bytes(body))
        except ValueError as error:
            self._count_malformed(str(error))
            self._socket.send_multipart([sender, *delimiter, answer_bytes(None, refusal(str(error)))], zmq.NOBLOCK)
            return
        self._dispatch(request)

    def _count_malformed(self, text: str) -> None:
        self._malformed += 1
        self._log.warn(f"malformed request: {text}")

    def _dispatch(self, request: _Request) -> None:
        if request.command not in self._long or request.command not in self._handlers:
            self._answer(request, self._socket, self._outcome(request))
        elif self._long_running:
            reason = f"{self._long_running} is running; ask again when it has ended"
            self._answer(request, self._socket, refusal(reason))
        else:
            self._long_running = request.command
            threading.Thread(
                target=self._run_long, args=(request,), name=f"fbft-{request.command}", daemon=True
            ).start()

    def _run_long(self, request: _Request) -> None:
        outcome = self._outcome(request)
        self._long_running = ""
        try:
            with self._context.socket(zmq.PUSH) as answers:
                answers.connect(ANSWERS_ENDPOINT)
                self._answer(request, answers, outcome)
        except zmq.ZMQError:  # the server was closed meanwhile
            return

    def _answer(self, request: _Request, way: zmq.Socket[bytes], outcome: Mapping[str, Any]) -> None:
        try:
            body = answer_bytes(request.number, outcome)
        except (TypeError, ValueError):
            _logger.exception("command %s: its answer is not JSON", request.command)
            body = answer_bytes(request.number, refusal("internal error"))
        way.send_multipart([request.sender, *request.delimiter, body], zmq.NOBLOCK)

    def _outcome(self, request: _Request) -> Mapping[str, Any]:
        if (handler := self._handlers.get(request.command)) is None:
            return refusal(f"unknown command {request.command!r}; there are {', '.join(self._handlers)}")
        try:
            return accepted(handler(request.arguments))
        except FbftError as error:
            return refusal(str(error))
        except Exception:
            _logger.exception("command %s failed", request.command)
            return refusal("internal error; the line's log says more")

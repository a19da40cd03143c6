"""The command socket: requests of other programs in, what the line's handlers say to them out.

A request is one flat JSON object in UTF-8 of at most 4 KiB, in one ZeroMQ message (DEALER or REQ):

    {"id": 1, "command": "trigger", "camera": "press-1"}

and its answer is `{"id": 1, "ok": true, ...}` or `{"id": 1, "ok": false, "error": "..."}`. Requests are handled one
after the other; those of long commands one at a time in a thread of their own, and answered when they are done.
Knows nothing about what a command does.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from fbft_edge.closeable import Closeable
from fbft_edge.errors import FbftError
from fbft_edge.names import printable
from fbft_edge.sockets.access import Connections, CurveServer, Gate, LimitedLog
from fbft_edge.sockets.command_client import MAX_REQUEST_BYTES
from fbft_edge.sockets.endpoints import LINGER_MS, bind, check_bind, limit

MAX_MEMBERS = 16
MAX_INTEGER = 2**53 - 1
QUEUE_MESSAGES = 16
ANSWERS_ENDPOINT = "inproc://answers"

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Request:
    sender: bytes
    delimiter: list[bytes]  # an empty frame from REQ, none from DEALER
    number: int | str | None
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
            request = _Request(sender, delimiter, *_parsed(body))
        except ValueError as error:
            self._count_malformed(str(error))
            self._socket.send_multipart([sender, *delimiter, _encoded(None, _refusal(str(error)))], zmq.NOBLOCK)
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
            self._answer(request, self._socket, _refusal(reason))
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
            body = _encoded(request.number, outcome)
        except (TypeError, ValueError):
            _logger.exception("command %s: its answer is not JSON", request.command)
            body = _encoded(request.number, _refusal("internal error"))
        way.send_multipart([request.sender, *request.delimiter, body], zmq.NOBLOCK)

    def _outcome(self, request: _Request) -> Mapping[str, Any]:
        if (handler := self._handlers.get(request.command)) is None:
            return _refusal(f"unknown command {request.command!r}; there are {', '.join(self._handlers)}")
        try:
            return {**handler(request.arguments), "ok": True}
        except FbftError as error:
            return _refusal(str(error))
        except Exception:
            _logger.exception("command %s failed", request.command)
            return _refusal("internal error; the line's log says more")


def _parsed(body: bytes) -> tuple[int | str | None, str, Mapping[str, Any]]:
    """Number, command and arguments of a request; ValueError says why it is none."""
    try:
        members = json.loads(body.decode(), parse_constant=_refuse_number, object_pairs_hook=_unique_members)
    except RecursionError:
        raise ValueError("the request is nested too deeply; it is one flat object") from None
    except ValueError as error:
        raise ValueError(f"the request is not JSON in UTF-8 ({printable(str(error))})") from None
    if not isinstance(members, dict) or len(members) > MAX_MEMBERS or not all(map(_is_plain, members.values())):
        raise ValueError(
            f"the request is not an object of at most {MAX_MEMBERS} texts, numbers (to 2^53), true, false or null"
        )
    number, command = members.pop("id", None), members.pop("command", None)
    if not isinstance(number, int | str | None) or not isinstance(command, str):
        raise ValueError('the request lacks "command", a text, or its "id" is neither a whole number nor a text')
    return number, command, members


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and abs(value) <= MAX_INTEGER)


def _refuse_number(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refusal(reason: str) -> dict[str, Any]:
    return {"ok": False, "error": printable(reason)}


def _encoded(number: int | str | None, outcome: Mapping[str, Any]) -> bytes:
    return json.dumps({**outcome, "id": number}, allow_nan=False).encode()

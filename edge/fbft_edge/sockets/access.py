"""Who may connect to a socket: keys in, clients let in, refused, or sent away again out.

Knows nothing about endpoints that are bound or messages that are sent.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from fbft_edge.errors import ArgumentError
from fbft_edge.sockets.keys import client_keys, read_key_pair, read_public_key

ALLOW_LIST_AGE_S = 1.0
LOG_EVERY_S = 10.0
MONITOR_QUEUE_EVENTS = 100_000
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
MONITOR_ENDPOINT = "inproc://refusals"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CurveServer:
    """What a socket needs to encrypt and to know its clients.

    Attributes:
        secret_key: File of the line's secret key.
        clients: Folder of the public keys that are let in, one NAME.key file each; read again while the line runs.
    """

    secret_key: Path
    clients: Path

    def for_commands(self) -> CurveServer:
        """The same for the command socket, whose clients have a folder of their own: `commands` in that of readers."""
        return replace(self, clients=self.clients / "commands")


def authenticate(client: zmq.Socket[bytes], server_key: Path | str | None, secret_key: Path | str | None) -> None:
    """Give a client's socket its keys, if any; see `fbft_edge.sockets.keys.client_keys`."""
    if (keys := client_keys(server_key, secret_key)) is not None:
        client.curve_serverkey, pair = keys
        client.curve_publickey, client.curve_secretkey = pair.public, pair.secret


class LimitedLog:
    """Warnings at a limited rate: the first at once, then one in 10 s that counts those it stands for."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._left_out = 0

    def warn(self, text: str) -> None:
        """Log a line, or count it for the next one."""
        if time.monotonic() < self._next_s:
            self._left_out += 1
            return
        _logger.warning("%s%s", text, f" (and {self._left_out} more like it)" if self._left_out else "")
        self._next_s, self._left_out = time.monotonic() + LOG_EVERY_S, 0


class AllowList:
    """The public keys in a folder; asked by several threads.

    Args:
        folder: Each NAME.key file in it lets one client in.

    Raises:
        ArgumentError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ArgumentError(
                f"{folder} is not a folder of client keys; make it, and put a NAME.key file per client in"
            )
        self.folder = folder
        self._lock = threading.Lock()
        self._log = LimitedLog()
        self._keys: frozenset[bytes] = frozenset()
        self._read_again_s = 0.0

    def allows(self, key: bytes) -> bool:
        """Whether a Z85 key is in the folder, as it was at most a second ago."""
        with self._lock:
            if time.monotonic() >= self._read_again_s:
                self._keys = frozenset(self._read())
                self._read_again_s = time.monotonic() + ALLOW_LIST_AGE_S
            return key in self._keys

    def _read(self) -> list[bytes]:
        keys = []
        for path in sorted(self.folder.glob("*.key")):
            try:
                keys.append(read_public_key(path))
            except ArgumentError as error:
                self._log.warn(f"no client is let in for {path.name}: {error}")
        return keys


class Gate:
    """Lets clients connect to one socket or refuses them, in a thread of its own until the context is terminated.

    Without CURVE everyone who speaks the protocol is let in; refusals are counted in any case.

    Args:
        context: Of that socket alone; ZeroMQ has one authenticator per context.
        guarded: Not bound yet.
        curve: Keys; None for a socket without encryption.

    Attributes:
        allow_list: Who is let in; None for everyone.

    Raises:
        ArgumentError: The keys cannot be used.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], guarded: zmq.Socket[bytes], curve: CurveServer | None):
        self._refused = {"key": 0, "protocol": 0, "handshake": 0}
        self._log = LimitedLog()
        self.allow_list: AllowList | None = None
        self._handlers: dict[zmq.Socket[bytes], Callable[[], None]] = {}
        if curve is not None:
            self.allow_list = AllowList(curve.clients)
            guarded.curve_secretkey = read_key_pair(curve.secret_key).secret
            guarded.curve_server = True
            guarded.setsockopt(zmq.ZAP_DOMAIN, b"fbft")
            requests = context.socket(zmq.REP)
            requests.bind(ZAP_ENDPOINT)
            self._handlers[requests] = partial(self._answer, requests, self.allow_list)
        guarded.monitor(MONITOR_ENDPOINT, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        failures = context.socket(zmq.PAIR)
        failures.setsockopt(zmq.RCVHWM, MONITOR_QUEUE_EVENTS)  # libzmq 4.3.5 waits when it is full
        failures.connect(MONITOR_ENDPOINT)
        self._handlers[failures] = partial(self._note_failure, failures)
        threading.Thread(target=self._watch, name="gate", daemon=True).start()

    def refused(self) -> dict[str, int]:
        """How many connections were refused: `key` not allowed, wrong `protocol`, `handshake` not finished."""
        return dict(self._refused)

    def _watch(self) -> None:
        poller = zmq.Poller()
        for source in self._handlers:
            poller.register(source, zmq.POLLIN)
        try:
            while True:
                for source, _ in poller.poll():
                    self._handlers[source]()
        except zmq.ContextTerminated:
            return
        finally:
            for source in self._handlers:
                source.close(linger=0)

    def _note_failure(self, failures: zmq.Socket[bytes]) -> None:
        if recv_monitor_message(failures)["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refuse("protocol", "a client speaks no ZeroMQ, or not with the keys of this line")
        else:
            self._refuse("handshake", "a client did not finish its handshake")

    def _answer(self, requests: zmq.Socket[bytes], allow_list: AllowList) -> None:
        """One request of ZAP 1.0 (ZeroMQ RFC 27), which libzmq sends; the answer names the user by the key."""
        version, request, _, address, _, mechanism, *credentials = requests.recv_multipart()
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" else b""
        is_allowed = allow_list.allows(key)
        if not is_allowed:
            where = address.decode(errors="replace") or "this machine"
            self._refuse("key", f"the client with key {key.decode()} at {where} is not in {allow_list.folder}")
        # After 400, clients with libzmq 4.3.5 never try again; after 300 they do, and get in once their key is there.
        status = (b"200", b"OK", key) if is_allowed else (b"300", b"unknown key", b"")
        requests.send_multipart([version, request, *status, b""])

    def _refuse(self, cause: str, text: str) -> None:
        self._refused[cause] += 1
        self._log.warn(f"connection refused: {text}")


@dataclass(slots=True)
class _Connection:
    fd: int
    key: bytes
    messages: int = 0


class Connections:
    """The connections of one socket that have sent something; ends those that send too much or lost their key.

    libzmq 4.3.5 cannot disconnect one client, but says from which file descriptor a message came. The inode tells
    whether that is still the same connection. Used by the socket's thread alone.

    Args:
        endpoint: Where the socket is bound.
        allow_list: Who may stay; None for everyone.
        max_messages: What one connection may send in its life; None for any number.
    """

    def __init__(self, endpoint: str, allow_list: AllowList | None, max_messages: int | None = None) -> None:
        self._endpoint = endpoint
        self._allow_list = allow_list
        self._max_messages = max_messages
        self._connections: dict[int, _Connection] = {}
        self._check_again_s = 0.0
        self._log = LimitedLog()
        self.cut = {"key": 0, "messages": 0}

    def note(self, frame: zmq.Frame) -> bool:
        """Take note of a message that came; returns whether its sender may stay."""
        try:
            key = str(frame.get("User-Id")).encode() if self._allow_list is not None else b""
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:  # libzmq made it up, for a connection that has gone
            return False
        try:
            inode = os.fstat(fd).st_ino
        except OSError:  # the connection has gone meanwhile
            return self._may_stay(key)
        connection = self._connections.setdefault(inode, _Connection(fd, key))
        connection.messages += 1
        if self._max_messages is not None and connection.messages > self._max_messages:
            self._end(inode, "messages", f"it sent more than {self._max_messages} messages")
            return False
        if not self._may_stay(key):
            self._end(inode, "key", "its key is not allowed any more")
            return False
        return True

    def check(self) -> None:
        """End connections whose key was removed; does nothing when asked again within a second."""
        if time.monotonic() < self._check_again_s:
            return
        self._check_again_s = time.monotonic() + ALLOW_LIST_AGE_S
        for inode, connection in list(self._connections.items()):
            if not self._may_stay(connection.key):
                self._end(inode, "key", "its key is not allowed any more")
            elif not _is_open(connection.fd, inode):
                del self._connections[inode]

    def _may_stay(self, key: bytes) -> bool:
        return self._allow_list is None or self._allow_list.allows(key)

    def _end(self, inode: int, cause: str, text: str) -> None:
        connection = self._connections.pop(inode)
        whose = f" of the client with key {connection.key.decode()}" if connection.key else ""
        try:
            with socket.socket(fileno=os.dup(connection.fd)) as ended:
                if os.fstat(ended.fileno()).st_ino != inode or not _is_bound_at(ended, self._endpoint):
                    return
                ended.shutdown(socket.SHUT_RDWR)
        except OSError:  # has gone already
            return
        self.cut[cause] += 1
        self._log.warn(f"connection{whose} ended: {text}")


def _is_open(fd: int, inode: int) -> bool:
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:
        return False


def _is_bound_at(connected: socket.socket, endpoint: str) -> bool:
    name = connected.getsockname()
    if endpoint.startswith("tcp://"):
        return isinstance(name, tuple) and str(name[1]) == endpoint.rpartition(":")[2]
    return connected.family == socket.AF_UNIX and os.fsdecode(name).replace("\0", "@") == endpoint.removeprefix(
        "ipc://"
    )

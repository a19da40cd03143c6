"""The publishing socket: message parts in, nothing out and never a wait.

A subscriber that does not keep up loses messages, which the `sequence` shows it; nobody else notices.
Knows nothing about what the parts mean.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import zmq

from fbft_edge.errors import PublisherError
from fbft_edge.security import check_bind

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
SEND_QUEUE_MESSAGES = 32
LINGER_MS = 200


class ResultPublisher:
    """Sends messages to whoever is subscribed; used by one thread at a time.

    Args:
        endpoint: `tcp://127.0.0.1:PORT` (`*` for any free port) or `ipc://PATH`, readable and writable by the
            owner and the group only.
        insecure: Allow TCP beyond loopback.

    Attributes:
        endpoint: What was bound, with the port that was found.

    Raises:
        PublisherError: The endpoint cannot be bound, or must not be.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, *, insecure: bool = False) -> None:
        check_bind(endpoint, insecure=insecure)
        if endpoint.startswith("ipc://"):
            _check_socket_file(endpoint)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        mask = os.umask(0o117)
        try:
            self._socket.bind(endpoint)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise PublisherError(f"cannot bind {endpoint}: {error}; {_remedy(error)}") from error
        finally:
            os.umask(mask)
        self.endpoint = bytes(self._socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def send(self, parts: Sequence[bytes]) -> None:
        """Hand one message to the socket; returns at once, whatever the subscribers do."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)

    def close(self) -> None:
        """Give queued messages 0.2 s to leave, then free the endpoint; may be called twice."""
        self._context.destroy()

    def __enter__(self) -> ResultPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _remedy(error: Exception) -> str:
    if getattr(error, "errno", None) == zmq.EADDRINUSE:
        return "another program publishes there; stop it, or choose another endpoint with --bind"
    return "choose an address of this machine, or a folder you may write to, with --bind"


def _check_socket_file(endpoint: str) -> None:
    """Keep libzmq from what it does without asking: unlink whatever stands at the path, in use or not."""
    path = Path(endpoint.removeprefix("ipc://"))
    if endpoint.startswith("ipc://@") or not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise PublisherError(f"cannot bind {endpoint}: {path} is a file, not a socket; choose another path with --bind")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise PublisherError(
                f"cannot bind {endpoint}: address already in use; "
                f"another program publishes there; stop it, or choose another endpoint with --bind"
            )

"""Where sockets are bound and connected: an endpoint in, a socket with its limits out.

Knows nothing about keys or messages.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import zmq

from fbft_edge.addresses import endpoint_parts, is_loopback
from fbft_edge.errors import ArgumentError, PublisherError

LINGER_MS = 200
HANDSHAKE_MS = 3000
STALLED_MS = 10_000
BACKLOG = 128


def check_bind(endpoint: str, *, insecure: bool, encrypted: bool = False) -> None:
    """Refuse an endpoint that would let unknown machines in.

    Args:
        endpoint: ZeroMQ endpoint, `tcp://HOST:PORT` or `ipc://PATH`.
        insecure: Allow TCP beyond loopback, in clear text and without authentication.
        encrypted: Allow TCP beyond loopback: the socket has CURVE keys and lets only known clients in.

    Raises:
        PublisherError: Transport or port are unknown, or the endpoint reaches beyond this machine.
    """
    try:
        transport, place = endpoint_parts(endpoint)
    except ValueError as error:
        raise PublisherError(str(error)) from None
    if transport == "ipc" or insecure or encrypted or is_loopback(place):
        return
    raise PublisherError(
        f"{endpoint} reaches beyond this machine, in clear text and open to anyone; bind tcp://127.0.0.1:PORT, or let "
        "known clients in with CURVE keys (--secret-key and --clients; fbft-edge keygen makes keys), or, for results "
        "on a network you trust, add --insecure"
    )


def bind(bound: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind a socket whose endpoint was checked; an IPC one for owner and group only.

    Returns:
        What was bound, with the port that was found.

    Raises:
        PublisherError: The endpoint cannot be bound.
    """
    if endpoint.startswith("ipc://"):
        _check_socket_file(endpoint)
    mask = os.umask(0o117)
    try:
        bound.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        raise PublisherError(f"cannot bind {endpoint}: {error}; {_remedy(error)}") from error
    finally:
        os.umask(mask)
    return bytes(bound.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()


def limit(bounded: zmq.Socket[bytes], endpoint: str, max_message_bytes: int) -> None:
    """Set what bounds the other side of a socket: sizes, patience and dead connections."""
    bounded.setsockopt(zmq.MAXMSGSIZE, max_message_bytes)
    bounded.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    bounded.setsockopt(zmq.BACKLOG, BACKLOG)
    bounded.setsockopt(zmq.IPV6, int("[" in endpoint))
    for option, value in (("", 1), ("_IDLE", 10), ("_INTVL", 3), ("_CNT", 3)):
        bounded.setsockopt(getattr(zmq, f"TCP_KEEPALIVE{option}"), value)
    bounded.setsockopt(zmq.TCP_MAXRT, STALLED_MS)


def connect(client: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect a client's socket.

    Raises:
        ArgumentError: The endpoint cannot be connected to.
    """
    try:
        client.connect(endpoint)
    except zmq.ZMQError as error:
        raise ArgumentError(f"cannot connect to {endpoint!r}: {error}; use tcp://HOST:PORT or ipc://PATH") from error


def _remedy(error: Exception) -> str:
    if getattr(error, "errno", None) == zmq.EADDRINUSE:
        return "another program uses it; stop that, or choose another endpoint, with --bind or in the configuration"
    return "choose an address of this machine, or a folder you may write to, with --bind or in the configuration"


def _check_socket_file(endpoint: str) -> None:
    """Keep libzmq from what it does without asking: unlink whatever stands at the path, in use or not."""
    path = Path(endpoint.removeprefix("ipc://"))
    if endpoint.startswith("ipc://@") or not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise PublisherError(
            f"cannot bind {endpoint}: {path} is a file, not a socket; choose another path, with --bind or in the "
            "configuration"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise PublisherError(
                f"cannot bind {endpoint}: address already in use; "
                f"another program uses it; stop that, or choose another endpoint, with --bind or in the configuration"
            )

"""Endpoints and addresses as someone wrote them in, their parts out.

Knows nothing about sockets, and asks no name server.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from fbft_edge.names import RESULTS_ENDPOINT, RESULTS_FILE_ENDPOINT


def endpoint_parts(endpoint: str) -> tuple[str, str]:
    """What a ZeroMQ endpoint to bind, `tcp://HOST:PORT` or `ipc://PATH`, is made of.

    Returns:
        `tcp` and the host, or `ipc` and the path.

    Raises:
        ValueError: Transport or port are unknown: cause, then remedy.
    """
    transport, _, address = endpoint.partition("://")
    if transport not in ("tcp", "ipc") or not address:
        raise ValueError(f"cannot bind {endpoint!r}; use {RESULTS_ENDPOINT} or {RESULTS_FILE_ENDPOINT}")
    if transport == "ipc":
        return transport, address
    host, _, port = address.rpartition(":")
    # libzmq 4.3.5 takes port 99999 and binds the one of its lower 16 bits.
    if port != "*" and not (port.isdecimal() and int(port) < 65536):
        raise ValueError(f"cannot bind {endpoint!r}: {port!r} is no port; use 1 to 65535, or * for any")
    return transport, host


def address_and_port(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """What `ADDRESS:PORT` is made of; an IPv6 address stands in brackets, and `localhost` is an address, too.

    Raises:
        ValueError: It is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not (port.isdecimal() and len(port) < 6 and int(port) < 65536):
        raise ValueError(f"{port!r} is no port")
    return ip_address("127.0.0.1" if host == "localhost" else host.strip("[]")), int(port)


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches; names other than `localhost` may lead anywhere."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

"""Where a bridge may listen: a host and port as the user wrote them in, checked ones out.

Knows nothing about the protocol behind it.
"""

from __future__ import annotations

import socket

from fbft_edge.errors import ArgumentError


def address_from_text(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        ArgumentError: It is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isdecimal() and 0 < int(port) < 65536):
        raise ArgumentError(f"{text!r} is no address; use HOST:PORT such as 127.0.0.1:5020, the port from 1 to 65535")
    return host.strip("[]"), int(port)


def check_free(address: tuple[str, int]) -> None:
    """Listen for a moment, so that the system says what stands in the way.

    Raises:
        ArgumentError: The system refuses the address.
    """
    host, port = address
    try:
        socket.create_server(address, family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ArgumentError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another address or port with --listen"
        ) from error

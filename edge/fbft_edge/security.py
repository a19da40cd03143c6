"""What may be bound where: results stay on this machine unless someone said otherwise.

Knows nothing about messages.
"""

from __future__ import annotations

import ipaddress

from fbft_edge.errors import PublisherError


def check_bind(endpoint: str, *, insecure: bool) -> None:
    """Refuse an endpoint that would show results to other machines.

    Args:
        endpoint: ZeroMQ endpoint, `tcp://HOST:PORT` or `ipc://PATH`.
        insecure: Allow TCP beyond loopback, in clear text and without authentication.

    Raises:
        PublisherError: Transport or port are unknown, or the endpoint reaches beyond this machine.
    """
    transport, _, address = endpoint.partition("://")
    if transport not in ("tcp", "ipc") or not address:
        raise PublisherError(f"cannot bind {endpoint!r}; use tcp://127.0.0.1:5555 or ipc:///run/fbft/results")
    host, _, port = address.rpartition(":")
    # libzmq 4.3.5 takes port 99999 and binds the one of its lower 16 bits.
    if transport == "tcp" and port != "*" and not (port.isdecimal() and int(port) < 65536):
        raise PublisherError(f"cannot bind {endpoint!r}: {port!r} is no port; use 1 to 65535, or * for any")
    if transport == "ipc" or insecure or _is_loopback(host):
        return
    raise PublisherError(
        f"{endpoint} reaches beyond this machine, and results would leave it in clear text to anyone; "
        f"bind tcp://127.0.0.1:PORT, or add --insecure on a network you trust (CURVE encryption comes later)"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

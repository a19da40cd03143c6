"""What the line tells systemd while it runs.

`READY=1` goes out with the first message that was published, `WATCHDOG=1` with later ones and for no other reason: a
process that lives but publishes nothing is restarted. Knows nothing about what messages say, and installs nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

from fbft_edge.messages.published import Published
from fbft_edge.names import printable

STATUS_EVERY_S = 5.0


class ServiceNotifier:
    """Tells systemd how the service is doing, as an observer of the line; does nothing outside of systemd.

    Args:
        environment: With `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, when systemd set them.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _socket_address(environment.get("NOTIFY_SOCKET", ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._every_s = _watchdog_s(environment) / 4 or STATUS_EVERY_S
        self._next_s: float | None = None
        self._health: dict[str, str] = {}

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`."""
        health = message.health
        self._health[message.camera] = health.state if health.reason is None else f"{health.state}: {health.reason}"
        now_s = time.monotonic()
        if self._next_s is None:
            self._send(f"READY=1\nWATCHDOG=1\nSTATUS={self._status()}")
        elif now_s >= self._next_s:
            self._send(f"WATCHDOG=1\nSTATUS={self._status()}")
        else:
            return
        self._next_s = now_s + self._every_s

    def status(self, text: str) -> None:
        """Say in one line what goes on, for `systemctl status`."""
        self._send(f"STATUS={printable(text)}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def _status(self) -> str:
        return printable("; ".join(f"{camera} {health}" for camera, health in self._health.items()))

    def _send(self, state: str) -> None:
        if self._address:
            with contextlib.suppress(OSError):
                self._socket.sendto(state.encode(), self._address)


def _socket_address(name: str) -> str:
    """A path, or with `@` in front a name in the kernel's own namespace, which begins with a zero byte."""
    return f"\0{name[1:]}" if name.startswith("@") else name


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """How soon systemd wants to hear of the process; 0 when it does not."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    return int(text) / 1e6 if text.isdecimal() and pid == str(os.getpid()) else 0.0

"""What systemd hears over its own kind of socket, and that only published messages keep the watchdog quiet."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fbft_edge.service.systemd import ServiceNotifier

MessageSource = Callable[[str], Any]


class Supervisor:
    """A datagram socket as systemd holds it."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """Every datagram since the last time, as lines."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(4096).decode().splitlines())
            except BlockingIOError:
                return datagrams

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{tmp_path}/notify" if request.param == "path" else f"@fbft-test-{os.getpid()}"


@pytest.fixture
def supervisor(address: str) -> Iterator[Supervisor]:
    supervisor = Supervisor(address)
    yield supervisor
    supervisor.close()


@pytest.fixture
def make_notifier(address: str, supervisor: Supervisor) -> Iterator[Callable[..., ServiceNotifier]]:
    made: list[ServiceNotifier] = []

    def make(**environment: str) -> ServiceNotifier:
        made.append(ServiceNotifier({"NOTIFY_SOCKET": address, **environment}))
        return made[-1]

    yield make
    for notifier in made:
        notifier.close()


def sent_for(
    notifier: ServiceNotifier, supervisor: Supervisor, source: Any, seconds: float, period_s: float = 0.005
) -> list[list[str]]:
    """What was heard while messages were published for some time."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        notifier.published(source.stale())
        time.sleep(period_s)
    return supervisor.heard()


def test_the_first_message_makes_the_service_ready(
    make_notifier: Callable[..., ServiceNotifier], supervisor: Supervisor, messages: MessageSource
) -> None:
    notifier = make_notifier()
    before = supervisor.heard()
    notifier.published(messages("press-1").fresh())
    assert (before, supervisor.heard()) == ([], [["READY=1", "WATCHDOG=1", "STATUS=press-1 ok"]])


def test_ready_is_said_once(
    make_notifier: Callable[..., ServiceNotifier], supervisor: Supervisor, messages: MessageSource
) -> None:
    heard = sent_for(make_notifier(WATCHDOG_USEC="40000"), supervisor, messages("press-1"), 0.2)
    assert sum("READY=1" in datagram for datagram in heard) == 1


def test_the_watchdog_is_fed_four_times_per_limit_at_most(
    make_notifier: Callable[..., ServiceNotifier],
    supervisor: Supervisor,
    messages: MessageSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count(1000.0, 0.01)
    monkeypatch.setattr("fbft_edge.service.systemd.time", SimpleNamespace(monotonic=lambda: next(clock)))
    notifier, source = make_notifier(WATCHDOG_USEC="400000"), messages("press-1")
    for _ in range(41):
        notifier.published(source.stale())
    fed = sum("WATCHDOG=1" in datagram for datagram in supervisor.heard())
    assert 2 <= fed <= 1 + 0.4 / 0.1


def test_without_messages_nothing_feeds_the_watchdog(
    make_notifier: Callable[..., ServiceNotifier], supervisor: Supervisor, messages: MessageSource
) -> None:
    notifier = make_notifier(WATCHDOG_USEC="40000")
    notifier.published(messages("press-1").fresh())
    supervisor.heard()
    notifier.status("reloading part.fbft")
    time.sleep(0.1)
    assert supervisor.heard() == [["STATUS=reloading part.fbft"]]


def test_a_watchdog_of_another_process_is_not_followed(
    make_notifier: Callable[..., ServiceNotifier], supervisor: Supervisor, messages: MessageSource
) -> None:
    heard = sent_for(make_notifier(WATCHDOG_USEC="40000", WATCHDOG_PID="1"), supervisor, messages("press-1"), 0.1)
    assert len(heard) == 1


def test_the_status_names_each_camera_and_what_is_wrong_in_one_line(
    make_notifier: Callable[..., ServiceNotifier], supervisor: Supervisor, messages: MessageSource
) -> None:
    notifier = make_notifier(WATCHDOG_USEC="4")
    notifier.published(messages("press-1").fresh())
    notifier.published(messages("press-2").fault("camera: gone\nREADY=0"))
    assert supervisor.heard()[-1][-1] == "STATUS=press-1 ok; press-2 fault: camera: gone READY=0"


def test_the_end_is_announced(make_notifier: Callable[..., ServiceNotifier], supervisor: Supervisor) -> None:
    make_notifier().stopping()
    assert supervisor.heard() == [["STOPPING=1"]]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_supervisor_nothing_happens(environment: Mapping[str, str], messages: MessageSource) -> None:
    notifier = ServiceNotifier(environment)
    notifier.published(messages("press-1").fresh())
    notifier.stopping()
    notifier.close()


def test_a_supervisor_that_does_not_read_holds_nobody_up(
    make_notifier: Callable[..., ServiceNotifier], messages: MessageSource
) -> None:
    notifier, source = make_notifier(WATCHDOG_USEC="4"), messages("press-1")
    for _ in range(1000):
        notifier.published(source.stale())

"""What tests of the bridges share: a line that publishes and a bridge that reads it, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from waiting import wait_until

LINE = Path(__file__).with_name("line.py")
_T = TypeVar("_T")


def until(look: Callable[[], _T], is_there: Callable[[_T], object] = bool) -> _T:
    return wait_until(look, is_there=is_there)


class Process:
    """A program that runs until it is killed."""

    def __init__(self, *command: object, **variables: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(iter(self.popen.stderr.readline, "")))
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Wait until a line of standard error has a text."""
        until(lambda: "".join(self.lines) + str(self.popen.poll() or ""), lambda seen: text in seen)

    def say(self, *words: object) -> None:
        """Write a line to standard input."""
        self.popen.stdin.write(" ".join(map(str, words)) + "\n")
        self.popen.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        self.popen.stdin.close()
        self.popen.stderr.close()


@pytest.fixture(scope="module")
def processes() -> Iterator[Callable[..., Process]]:
    """Starts programs; they end with the module's tests."""
    with contextlib.ExitStack() as stack:

        def start(*command: object, **variables: str) -> Process:
            process = Process(*command, **variables)
            stack.callback(process.close)
            return process

        yield start


@pytest.fixture(scope="module")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="module")
def start_line(
    processes: Callable[..., Process], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[str, Process]]:
    """Starts a line at an endpoint, a new one unless given; returns both."""

    def start(
        period_s: float = 0.05, *options: str, cameras: tuple[str, ...] = ("camera",), endpoint: str = ""
    ) -> tuple[str, Process]:
        endpoint = endpoint or f"ipc://{tmp_path_factory.mktemp('line')}/results"
        return endpoint, processes(LINE, endpoint, period_s, *cameras, *options)

    return start


@pytest.fixture(scope="module")
def start_bridge(processes: Callable[..., Process]) -> Callable[..., Process]:
    """Starts a bridge and waits until it serves."""

    def start(kind: str, endpoint: str, *options: object, **variables: str) -> Process:
        bridge = processes("-m", "fbft_edge", "bridge", kind, "--connect", endpoint, *options, **variables)
        bridge.wait_for("fbft-edge bridge: ")
        return bridge

    return start


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    return until

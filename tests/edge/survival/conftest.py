"""What tests of survival share: whole lines as processes of their own, and a witness who receives every message.

After every fault the same must hold: messages go on without a gap, and each ledger closes. `Witness.check` holds the
line to that over everything that was received, `Line.end` over its last words.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import zmq
from waiting import wait_until

from fbft_edge.bundle.reading import Bundle
from fbft_edge.errors import MessageError
from fbft_edge.frames.images import write_image
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.sockets.access import authenticate

DEADLINE_S = 240.0
SIZE = (84, 84)
DARK, BRIGHT = 20, 240
EDGE = ("-m", "fbft_edge")
FAULTY = (str(Path(__file__).with_name("faulty_line.py")),)
_T = TypeVar("_T")


def until(look: Callable[[], _T], is_there: Callable[[_T], object] = bool) -> _T:
    return wait_until(look, is_there=is_there)


class Program:
    """A program with what it says."""

    def __init__(self, *arguments: object, program: Sequence[str] = EDGE, **variables: str) -> None:
        # A shell's background jobs ignore SIGINT and hand that down; a program that a person starts does not.
        self.process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._said: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in self._said]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        with stream:
            for text in stream:
                self._said[name].append(text)

    @property
    def output(self) -> str:
        """What it said on standard output."""
        return "".join(self._said["stdout"])

    @property
    def errors(self) -> str:
        """What it said on standard error."""
        return "".join(self._said["stderr"])

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until standard error has a text."""

        def look() -> re.Match[str] | None:
            is_over, found = self.process.poll() is not None, re.search(pattern, self.errors)
            assert found or not is_over, f"it ended with {self.process.returncode}: {self.errors}"
            return found

        found = until(look)
        assert found is not None
        return found

    def wait(self) -> int:
        """Wait for its end; returns the status."""
        status = self.process.wait(DEADLINE_S)
        for reader in self._readers:
            reader.join()
        return status

    def kill(self) -> None:
        """End it as the system does when memory runs out."""
        self.process.kill()
        self.wait()


class Line(Program):
    """A whole line, from its configuration."""

    def __init__(self, config: Path, *, program: Sequence[str] = EDGE, **variables: str) -> None:
        super().__init__("run", "--config", config, program=program, **variables)
        self.config = config

    @property
    def results(self) -> str:
        """Where it publishes."""
        return self.wait_for(r"results: (\S+)\n")[1]

    @property
    def commands(self) -> str:
        """Where it takes commands."""
        return self.wait_for(r"commands: (\S+)\n")[1]

    def end(self) -> str:
        """Stop it and hold it to a clean end: status 0, every frame accounted for, no traceback.

        Returns:
            Its summary.
        """
        self.process.terminate()
        assert self.wait() == 0, self.errors
        frames = re.findall(r"^frames .*$", self.output, re.MULTILINE)
        assert frames, self.output
        assert all(" in flight 0" in each for each in frames), self.output
        assert all(_is_closed(each) for each in frames), self.output
        assert "Traceback" not in self.errors, self.errors
        return self.output


def _is_closed(frames: str) -> bool:
    """Whether a summary's line of frames adds up."""
    dropped = frames.partition("dropped ")[2].partition("  in flight")[0]
    captured, fresh = (int(re.search(rf"{name} (\d+)", frames)[1]) for name in ("captured", "fresh"))
    return captured == fresh + sum(map(int, re.findall(r"\d+", dropped)))


class Witness:
    """Receives every message of a line, across its restarts, however busy this process is."""

    def __init__(self, endpoint: str, topic: bytes = b"", **keys: Path) -> None:
        self.received: list[Result] = []
        self._invalid: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._receive, args=(endpoint, topic, keys))
        self._thread.start()

    def _receive(self, endpoint: str, topic: bytes, keys: dict[str, Path]) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.subscribe(topic)
            authenticate(socket, keys.get("server_key"), keys.get("secret_key"))
            socket.connect(endpoint)
            while not self._is_over.is_set():
                if socket.poll(100):
                    self._take(socket.recv_multipart())

    def _take(self, parts: list[bytes]) -> None:
        try:
            self.received.append(decode_message(parts).without_pictures())
        except MessageError as error:
            self._invalid.append(str(error))

    def next(self, is_wanted: Callable[[Result], object] = lambda result: True, camera: str | None = None) -> Result:
        """Wait for a message from now on that is wanted."""
        start = len(self.received)

        def look() -> list[Result]:
            news = self.received[start:]
            return [each for each in news if camera in (None, each.camera) and is_wanted(each)]

        try:
            return until(look)[0]
        except AssertionError:
            raise AssertionError(f"not among {[(r.verdict.value, r.health) for r in self.received[start:]]}") from None

    def goes_on(self, periods: int = 10) -> None:
        """Wait until every camera has published for so many more periods; then check everything."""
        cameras = {each.camera for each in self.received} or {self.next().camera}
        last = {camera: self.last(camera) for camera in cameras}
        for camera, before in last.items():
            until(
                lambda camera=camera, before=before: (
                    self.last(camera).session != before.session
                    or self.last(camera).sequence >= before.sequence + periods
                )
            )
        self.check()

    def last(self, camera: str) -> Result:
        """The newest message of a camera."""
        return next(each for each in reversed(self.received) if each.camera == camera)

    def sessions(self, camera: str) -> list[str]:
        """Of a camera, in their order."""
        return list(dict.fromkeys(each.session for each in self.received if each.camera == camera))

    def check(self) -> None:
        """No gap, no message that is none, every ledger closed, and no total that ever fell."""
        assert self._invalid == []
        received = list(self.received)
        for camera in {each.camera for each in received}:
            for session in self.sessions(camera):
                run = [each for each in received if (each.camera, each.session) == (camera, session)]
                first = run[0].sequence
                assert [each.sequence for each in run] == list(range(first, first + len(run)))
                assert all(each.ledger.is_closed for each in run)
                assert all(each.ledger.messages == each.sequence + 1 for each in run)
                assert all(
                    before <= after
                    for one, two in pairwise(run)
                    for before, after in zip(_totals(one.ledger), _totals(two.ledger), strict=True)
                )
                assert all(one.published_ns <= two.published_ns for one, two in pairwise(run))

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


def _totals(ledger: LedgerSnapshot) -> tuple[int, ...]:
    fresh, stale, fault = ledger.published_fresh, ledger.published_stale, ledger.published_fault
    return (ledger.captured, fresh, stale, fault, *ledger.dropped.values(), ledger.missed_triggers)


@pytest.fixture(scope="module")
def stack() -> Iterator[contextlib.ExitStack]:
    """Ends with the module's tests."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def start(stack: contextlib.ExitStack) -> Callable[..., Any]:
    """Starts a program that ends with the module's tests."""

    def started(*arguments: object, program: Sequence[str] = EDGE, **variables: str) -> Program:
        made = Program(*arguments, program=program, **variables)
        stack.callback(made.kill)
        return made

    return started


@pytest.fixture(scope="module")
def start_line(stack: contextlib.ExitStack) -> Callable[..., Line]:
    """Starts a line; with `faults`, a folder, one that fails on request (faulty_line.py)."""

    def started(config: Path, faults: Path | None = None, **variables: str) -> Line:
        if faults is None:
            line = Line(config, **variables)
        else:
            line = Line(config, program=FAULTY, FBFT_FAULTS=str(faults), **variables)
        stack.callback(line.kill)
        return line

    return started


@pytest.fixture(scope="module")
def watch(stack: contextlib.ExitStack) -> Callable[..., Witness]:
    """Lets a witness listen."""

    def watching(endpoint: str, topic: bytes = b"", **keys: Path) -> Witness:
        witness = Witness(endpoint, topic, **keys)
        stack.callback(witness.close)
        return witness

    return watching


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, the last one with a defect."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, level in enumerate((DARK, DARK, DARK, BRIGHT)):
        write_image(folder / f"{index}.png", np.full((*SIZE, 3), level, np.uint8))
    return folder


@pytest.fixture(scope="session")
def camera(pictures: Path) -> dict[str, Any]:
    """A camera that shows the pictures without end."""
    return {"name": "press-1", "uri": f"folder://{pictures}?fps=20&loop=true"}


@pytest.fixture(scope="session")
def configure(
    tmp_path_factory: pytest.TempPathFactory, bright_bundle: Callable[..., Bundle], camera: dict[str, Any]
) -> Callable[..., Path]:
    """Writes a configuration with a bundle of its own; members are those of the file, dots begin a section."""

    def written(**sections: Any) -> Path:
        folder = tmp_path_factory.mktemp("line")
        bundle = bright_bundle(path=folder / "part.fbft")
        values: dict[str, Any] = {"bundle": str(bundle.path), "fps": 20.0, "cameras": [camera]}
        values |= {"publish": {"bind": f"ipc://{folder}/results"}, "commands": {"bind": f"ipc://{folder}/commands"}}
        (folder / "line.toml").write_text(_toml(values | sections))
        return folder / "line.toml"

    return written


def _toml(values: dict[str, Any]) -> str:
    """As much TOML as a line's configuration needs."""
    plain = {name: value for name, value in values.items() if not _is_table(value)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"[{name}]", _toml(value)]
        elif _is_table(value):
            lines += [text for table in value for text in (f"[[{name}]]", _toml(table))]
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value))

"""Everything that other programs can do to the sockets of a line that lets everyone in; one line bears it all."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from fbft_edge.errors import CommandError
from fbft_edge.frames.images import write_image
from fbft_edge.sockets.command_client import CommandClient

NUM_SUBSCRIBERS = 200
NUM_MESSAGES = 15
NUM_CONNECTIONS = 200
SMALL = b"fbft/site/press-1/"
LARGE = b"fbft/site/noise/"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
NOISE = np.random.default_rng(0).bytes(3000)
GARBAGE = (
    NOISE,
    b"GET /metrics HTTP/1.1\r\nHost: line\r\n",
    GREETING + NOISE,
    GREETING + b"\x06" + struct.pack("!Q", 2**63),
    GREETING + b"\x04\x19\x05READY" + bytes(2000),
)
NO_COMMANDS = (
    b"",
    NOISE[:200],
    b"[" * 4000,
    b'{"id": 1, "command": "status", "command": "reload"}',
    b'{"id": 1e999, "command": "status"}',
    b'{"id": {}, "command": "status"}',
    b'{"id": 1, "command": "stop"}',
    b'{"id": 1, "command": "\\ud800"}',
    b'{"id": "\\ud800", "command": "trigger"}',
    b'{"id": 1, "command": "trigger", "camera": "press-1"}',
    b'{"id": 1, "command": "trigger", "camera": "press-1", "trigger_id": "\\ud800"}',
    b'{"id": 1, "command": "trigger", "camera": "press-1", "part_id": "\\ud800"}',
    b'{"id": 1, "command": "trigger", "camera": 7, "trigger_id": 8}',
    b'{"id": 1, "command": "reload"}',
    b'{"id": 1, "command": "reload", "bundle": "/dev"}',
    b'{"id": 1, "command": "reload", "bundle": "/etc/passwd", "force": true}',
    b'{"id": 1, "command": "reload", "bundle": "a\\u0000b"}',
    b'{"id": 1, "command": "reload", "bundle": "a\\ud800b"}',
    b'{"id": 1, "command": "reload", "bundle": "' + b"a/" * 1900 + b'"}',
)
LISTEN = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(sys.argv[2].encode())
socket.connect(sys.argv[1])
while True:
    socket.recv_multipart()
    print("received", flush=True)
"""


class Target:
    """A line with all its sockets, and what it must hold to."""

    def __init__(self, line: Any, witness: Any, http: str) -> None:
        self.line, self.witness, self.http = line, witness, http
        self.ports = [int(endpoint.rpartition(":")[2]) for endpoint in (line.results, line.commands, http)]
        self._bundle = self.status()["bundle_sha256"]

    def status(self) -> dict[str, Any]:
        with CommandClient(self.line.commands) as client:
            return client.call("status", timeout_s=30)

    def check(self) -> None:
        """It goes on, answers, and nothing about it has changed."""
        self.witness.goes_on()
        assert self.status()["bundle_sha256"] == self._bundle
        with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=30) as answer:
            assert answer.status == 200
        assert len(self.witness.sessions("press-1")) == 1

    def refused(self) -> float:
        """Connections and commands that were not let in, by its own count."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("fbft_refused_"))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture whose preview is large."""
    folder = tmp_path_factory.mktemp("noise")
    pixels = np.random.default_rng(0).integers(0, 256, (448, 640, 3), np.uint8)
    write_image(folder / "noise.png", pixels)
    return folder


@pytest.fixture(scope="module")
def target(
    configure: Any, start_line: Any, watch: Any, camera: dict[str, Any], noise: Path, free_port: Callable[[], int]
) -> Iterator[Target]:
    large = {"name": "noise", "uri": f"folder://{noise}?fps=5&loop=true", "frozen_after": 0}
    http = f"127.0.0.1:{free_port()}"
    tcp = {"bind": "tcp://127.0.0.1:*"}
    config = configure(cameras=[camera, large], publish=tcp, commands=tcp, http={"bind": http}, preview=True)
    line = start_line(config)
    witness = watch(line.results, SMALL)
    witness.goes_on()
    target = Target(line, witness, http)
    yield target
    witness.check()
    line.end()


@pytest.fixture(autouse=True)
def check(target: Target) -> Iterator[None]:
    """After each attack everything is as it was."""
    yield
    target.check()


def test_a_subscriber_that_stops_reading_takes_nothing_from_the_others(
    target: Target, start: Any, eventually: Any
) -> None:
    stalled = start(target.line.results, "fbft/", program=("-c", LISTEN))
    eventually(lambda: stalled.output)
    stalled.process.send_signal(signal.SIGSTOP)
    target.witness.goes_on(40)
    stalled.process.send_signal(signal.SIGCONT)
    received = len(stalled.output)
    eventually(lambda: len(stalled.output) > received + 100)
    stalled.kill()


def test_a_subscriber_that_reads_slowly_takes_nothing_from_the_others(target: Target) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as slow:
        slow.setsockopt(zmq.LINGER, 0)
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.setsockopt(zmq.RCVBUF, 4096)
        slow.subscribe(LARGE)
        slow.connect(target.line.results)
        for _ in range(3):
            assert slow.poll(30_000)
            slow.recv_multipart()
            target.witness.goes_on()


def test_two_hundred_subscribers_get_every_message(target: Target) -> None:
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        subscribers = [stack.enter_context(context.socket(zmq.SUB)) for _ in range(NUM_SUBSCRIBERS)]
        for subscriber in subscribers:
            subscriber.setsockopt(zmq.LINGER, 0)
            subscriber.subscribe(SMALL)
            subscriber.connect(target.line.results)
        for subscriber in subscribers:
            sequences = []
            for _ in range(NUM_MESSAGES):
                assert subscriber.poll(30_000)
                sequences.append(json.loads(subscriber.recv_multipart()[1])["sequence"])
            assert sequences == list(range(sequences[0], sequences[0] + NUM_MESSAGES))


def test_garbage_on_every_socket_is_nothing(target: Target) -> None:
    for words in GARBAGE:
        for port in target.ports:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(words)
        target.witness.goes_on(2)


def test_a_flood_of_connections_is_counted_and_sent_away(target: Target, eventually: Any) -> None:
    refused, is_over = target.refused(), threading.Event()

    def flood() -> None:
        while not is_over.is_set():
            for port in target.ports:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
                    connection.sendall(NOISE[:100])
            time.sleep(0.002)

    floods = [threading.Thread(target=flood) for _ in range(4)]
    with contextlib.ExitStack() as silent:
        for _ in range(NUM_CONNECTIONS):
            for port in target.ports[:2]:
                silent.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        for thread in floods:
            thread.start()
        target.witness.goes_on(20)
        is_over.set()
        for thread in floods:
            thread.join()
    eventually(target.refused, lambda now: now > refused + NUM_CONNECTIONS)


def test_a_line_out_of_file_descriptors_goes_on_and_lets_subscribers_in_afterwards(target: Target) -> None:
    process = target.line.process.pid
    limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
    in_use = len(list(Path(f"/proc/{process}/fd").iterdir()))
    try:
        resource.prlimit(process, resource.RLIMIT_NOFILE, (in_use + 10, limits[1]))
        with contextlib.ExitStack() as silent:
            for _ in range(60):
                silent.enter_context(socket.create_connection(("127.0.0.1", target.ports[0]), 30))
            target.witness.goes_on(20)
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
    with zmq.Context() as context, context.socket(zmq.SUB) as late:
        late.setsockopt(zmq.LINGER, 0)
        late.subscribe(SMALL)
        late.connect(target.line.results)
        assert late.poll(30_000)


def test_commands_that_are_none_are_refused_with_a_reason_and_the_next_one_is_answered(target: Target) -> None:
    with requests(target) as client:
        for body in NO_COMMANDS:
            client.send(body)
            assert client.poll(30_000), body
            answer = json.loads(client.recv())
            assert (answer["ok"], bool(answer["error"]), "internal" in answer["error"]) == (False, True, False), body
            assert target.status()["cameras"], body


@pytest.mark.parametrize("size", [4097, 1 << 20])
def test_an_oversized_command_is_not_taken(target: Target, size: int) -> None:
    with requests(target) as client:
        client.send(b'{"id": 1, "command": "status", "x": "' + b"x" * size + b'"}')
        assert not client.poll(300)


def test_a_command_in_many_parts_is_not_taken(target: Target) -> None:
    with requests(target) as client:
        client.send_multipart([b"x"] * 500 + [b'{"id": 1, "command": "status"}'])
        assert not client.poll(300)


def test_a_trigger_that_was_meant_for_another_run_of_the_line_is_refused(target: Target) -> None:
    with CommandClient(target.line.commands) as client, pytest.raises(CommandError, match="another run of this line"):
        client.call("trigger", timeout_s=30, camera="press-1", session="an earlier one")


def test_a_camera_that_does_not_wait_for_triggers_takes_none(target: Target) -> None:
    with CommandClient(target.line.commands) as client, pytest.raises(CommandError, match="not by command"):
        client.call("trigger", timeout_s=30, camera="press-1", trigger_id="stranger")
    target.witness.goes_on(5)
    assert not any(each.trigger_id for each in target.witness.received)


@contextlib.contextmanager
def requests(target: Target) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(target.line.commands)
        yield client

"""A command is carried out once, answered or refused in words; nothing that comes over the wire holds a line up."""

from __future__ import annotations

import contextlib
import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_until

from fbft_edge.errors import ArgumentError, BundleError, CommandError, PublisherError
from fbft_edge.sockets.access import CurveServer
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.command_format import MAX_REQUEST_BYTES, request_from_bytes
from fbft_edge.sockets.command_server import CommandServer
from fbft_edge.sockets.keys import write_key_pair

DEADLINE_S = 30
LOOPBACK = "tcp://127.0.0.1:*"
FBFT_EDGE = str(Path(sys.executable).with_name("fbft-edge"))


class Handlers:
    """What a line does when it is told to; remembers what that was."""

    def __init__(self) -> None:
        self.triggered: list[Mapping[str, Any]] = []
        self.reloading, self.may_end, self.reloaded = threading.Event(), threading.Event(), threading.Event()

    def trigger(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.triggered.append(dict(arguments))
        return {"camera": arguments.get("camera")}

    def status(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"cameras": {"press-1": {"verdict": "ok"}}}

    def reload(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.reloading.set()
        self.may_end.wait(DEADLINE_S)
        self.reloaded.set()
        return {"bundle": arguments.get("bundle")}

    def refuse(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise BundleError("part.fbft was altered;\nseal it again")

    def fail(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ZeroDivisionError("a password")

    def unfit(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"answer": object()}

    def all(self) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
        names = ("trigger", "status", "reload", "refuse", "fail", "unfit")
        return {name: getattr(self, name) for name in names}


@pytest.fixture
def handlers() -> Iterator[Handlers]:
    made = Handlers()
    yield made
    made.may_end.set()


@pytest.fixture
def server(handlers: Handlers) -> Iterator[CommandServer]:
    with CommandServer(LOOPBACK, handlers.all(), long=("reload",)) as server:
        yield server


@pytest.fixture
def client(server: CommandServer) -> Iterator[CommandClient]:
    with CommandClient(server.endpoint) as client:
        yield client


def call(client: CommandClient, command: str, **arguments: Any) -> dict[str, Any]:
    return client.call(command, timeout_s=DEADLINE_S, **arguments)


def raw_answer(server: CommandServer, *frames: bytes, kind: int = zmq.DEALER) -> Any:
    """What the server says to these frames, whatever they are; None when it says nothing."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(server.endpoint)
        socket.send_multipart(frames)
        return json.loads(socket.recv_multipart()[-1]) if socket.poll(5000) else None


def test_a_command_reaches_its_handler_once_and_is_answered(client: CommandClient, handlers: Handlers) -> None:
    assert call(client, "trigger", camera="press-1") == {"camera": "press-1"}
    assert handlers.triggered == [{"camera": "press-1"}]


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ], ids=["DEALER", "REQ"])
def test_any_language_needs_json_and_zeromq_alone(server: CommandServer, kind: int) -> None:
    request = b'{"id": 7, "command": "trigger", "camera": "press-1"}'
    assert raw_answer(server, request, kind=kind) == {"id": 7, "ok": True, "camera": "press-1"}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("refuse", "part.fbft was altered; seal it again"),
        ("fail", "internal error"),
        ("unfit", "internal error"),
        ("nothing", "unknown command 'nothing'; there are trigger"),
    ],
)
def test_a_refusal_says_why_and_a_bug_says_nothing_of_itself(client: CommandClient, command: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason) as caught:
        call(client, command)
    assert "password" not in str(caught.value)


def test_a_bug_is_logged(client: CommandClient, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CommandError):
        call(client, "fail")
    assert "ZeroDivisionError" in caplog.text


MALFORMED = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"7",
    b"{}",
    b'{"command": 1}',
    b'{"id": 1.5, "command": "status"}',
    b'{"id": [], "command": "status"}',
    b'{"command": "status", "command": "trigger"}',
    b'{"command": "trigger", "camera": NaN}',
    b'{"command": "trigger", "camera": 1e999}',
    b'{"command": "trigger", "camera": 9007199254740993}',
    b'{"command": "trigger", "camera": {"deep": 1}}',
    b'{"command": "trigger", "camera": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    json.dumps({"command": "trigger", **{str(number): 0 for number in range(20)}}).encode(),
]


@pytest.mark.parametrize("request_", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_request_is_answered_counted_and_carried_out_never(
    server: CommandServer, handlers: Handlers, request_: bytes
) -> None:
    answer = raw_answer(server, request_)
    assert (answer["id"], answer["ok"], server.refused()["malformed"], handlers.triggered) == (None, False, 1, [])


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_a_request_is_parsed_or_refused_with_a_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(request_from_bytes(body)[1], str)


def test_a_request_of_many_frames_is_dropped_and_counted(server: CommandServer, client: CommandClient) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(server.endpoint)
        socket.send_multipart([b'{"command": "status"}'] * 5)
        wait_until(lambda: server.refused()["malformed"], "the request to be counted")
    assert server.refused()["malformed"] == 1
    assert call(client, "status")


def test_an_oversized_request_is_not_taken_and_nobody_else_notices(
    server: CommandServer, client: CommandClient, handlers: Handlers
) -> None:
    request = {"command": "trigger", "camera": "x" * MAX_REQUEST_BYTES}
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        with socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            socket.connect(server.endpoint)
            socket.send(json.dumps(request).encode())
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            assert [source for source, _ in poller.poll(DEADLINE_S * 1000)] == [monitor]  # hung up on, not answered
            socket.disable_monitor()
    assert call(client, "status")
    assert (handlers.triggered, server.refused()["malformed"]) == ([], 0)


def test_a_client_says_itself_that_a_request_is_too_large(client: CommandClient) -> None:
    with pytest.raises(CommandError, match="4096"):
        call(client, "reload", bundle="x" * 5000)


def test_a_long_command_holds_no_other_up_and_is_answered_when_it_is_done(
    server: CommandServer, client: CommandClient, handlers: Handlers
) -> None:
    answers: list[dict[str, Any]] = []

    def reload() -> None:
        with CommandClient(server.endpoint) as other:
            answers.append(call(other, "reload", bundle="new.fbft"))

    reloading = threading.Thread(target=reload)
    reloading.start()
    assert handlers.reloading.wait(DEADLINE_S)
    assert call(client, "trigger", camera="press-1") == {"camera": "press-1"}
    with pytest.raises(CommandError, match="reload is running"):
        call(client, "reload", bundle="newer.fbft")
    handlers.may_end.set()
    reloading.join(DEADLINE_S)
    assert answers == [{"bundle": "new.fbft"}]
    assert call(client, "reload", bundle="newer.fbft") == {"bundle": "newer.fbft"}


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(client: CommandClient, handlers: Handlers) -> None:
    with pytest.raises(CommandError, match="no answer"):
        client.call("reload", timeout_s=0.2)
    handlers.may_end.set()
    assert client._socket.poll(DEADLINE_S * 1000)  # it lies there
    assert call(client, "trigger", camera="press-1") == {"camera": "press-1"}


def test_closing_does_not_wait_for_a_long_command(handlers: Handlers) -> None:
    with zmq.Context() as context, CommandServer(LOOPBACK, handlers.all(), long=("reload",)) as server:
        with context.socket(zmq.DEALER) as socket:
            socket.connect(server.endpoint)
            socket.send(b'{"command": "reload"}')
            assert handlers.reloading.wait(DEADLINE_S)
            server.close()
        assert not handlers.reloaded.is_set()


def test_a_server_that_was_never_started_closes(handlers: Handlers) -> None:
    server = CommandServer(LOOPBACK, handlers.all())
    server.close()
    server.close()


def test_a_line_that_is_not_there_is_named_and_gets_the_command_never(handlers: Handlers) -> None:
    with CommandServer(LOOPBACK, handlers.all()) as placeholder:
        endpoint = placeholder.endpoint
    with CommandClient(endpoint) as client:
        with pytest.raises(CommandError, match=endpoint):
            client.call("trigger", timeout_s=0.2, camera="press-1")
        with CommandServer(endpoint, handlers.all()):
            call(client, "status")
    assert handlers.triggered == []


def test_a_command_socket_file_is_for_owner_and_group_only(tmp_path: Path, handlers: Handlers) -> None:
    with CommandServer(f"ipc://{tmp_path}/commands", handlers.all()):
        assert stat.S_IMODE((tmp_path / "commands").stat().st_mode) == 0o660


def test_a_bind_beyond_this_machine_needs_keys(handlers: Handlers) -> None:
    with pytest.raises(PublisherError, match="CURVE"):
        CommandServer("tcp://0.0.0.0:*", handlers.all())


@pytest.fixture
def curve(tmp_path: Path) -> CurveServer:
    """Keys of a line; `commander` may command, `reader` may read results."""
    _, secret = write_key_pair(tmp_path / "line", "line")
    (tmp_path / "clients" / "commands").mkdir(parents=True)
    for name, folder in (("commander", "clients/commands"), ("reader", "clients")):
        public, _ = write_key_pair(tmp_path / name, name)
        (tmp_path / folder / public.name).write_bytes(public.read_bytes())
    return CurveServer(secret, tmp_path / "clients")


def keys_of(name: str, tmp_path: Path) -> dict[str, Path]:
    return {"server_key": tmp_path / "line" / "line.key", "secret_key": tmp_path / name / f"{name}.key_secret"}


def test_who_may_read_may_not_command(curve: CurveServer, tmp_path: Path, handlers: Handlers) -> None:
    with CommandServer(LOOPBACK, handlers.all(), curve=curve.for_commands()) as server:
        with CommandClient(server.endpoint, **keys_of("commander", tmp_path)) as commander:
            assert call(commander, "trigger", camera="press-1")
        with CommandClient(server.endpoint, **keys_of("reader", tmp_path)) as reader, pytest.raises(CommandError):
            reader.call("trigger", timeout_s=0.5, camera="press-1")
        with CommandClient(server.endpoint) as anyone, pytest.raises(CommandError):
            anyone.call("trigger", timeout_s=0.5, camera="press-1")
        assert len(handlers.triggered) == 1
        assert server.refused()["key"] > 0


def test_a_removed_key_commands_no_more_on_a_connection_that_it_has(
    curve: CurveServer, tmp_path: Path, handlers: Handlers
) -> None:
    with (
        CommandServer(LOOPBACK, handlers.all(), curve=curve.for_commands()) as server,
        CommandClient(server.endpoint, **keys_of("commander", tmp_path)) as commander,
    ):
        assert call(commander, "status")
        (tmp_path / "clients" / "commands" / "commander.key").unlink()
        time.sleep(1.1)
        with pytest.raises(CommandError):
            commander.call("trigger", timeout_s=0.5, camera="press-1")
        wait_until(lambda: server.refused()["removed_key"] == 1, "the refusal to be counted")
        assert handlers.triggered == []


def test_keys_that_can_not_be_used_are_refused(tmp_path: Path, handlers: Handlers) -> None:
    with pytest.raises(ArgumentError):
        CommandServer(LOOPBACK, handlers.all(), curve=CurveServer(tmp_path / "none.key_secret", tmp_path))


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FBFT_EDGE, "command", *arguments], capture_output=True, text=True, check=False)


def test_the_command_line_shows_the_answer(server: CommandServer, handlers: Handlers) -> None:
    done = run_command("trigger", "--camera", "press-1", "--connect", server.endpoint, "--timeout", "30")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"camera": "press-1"})
    assert handlers.triggered == [{"camera": "press-1"}]


def test_a_trigger_takes_its_identifiers_along(server: CommandServer, handlers: Handlers) -> None:
    given = ("--trigger-id", "17", "--part-id", "SN 4711")
    done = run_command("trigger", "--camera", "press-1", *given, "--connect", server.endpoint, "--timeout", "30")
    taken = {"camera": "press-1", "trigger_id": "17", "part_id": "SN 4711"}
    assert (done.returncode, handlers.triggered) == (0, [taken])


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_bundle_is_forced_on_a_line_only_where_that_is_said(options: list[str]) -> None:
    with CommandServer(LOOPBACK, {"reload": dict}) as server:
        done = run_command("reload", "/part.fbft", *options, "--connect", server.endpoint, "--timeout", "30")
    assert json.loads(done.stdout) == {"bundle": "/part.fbft", "force": bool(options)}


def test_the_command_line_ends_with_status_2_when_nobody_answers(tmp_path: Path) -> None:
    done = run_command("status", "--connect", f"ipc://{tmp_path}/nobody", "--timeout", "0.2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"ipc://{tmp_path}/nobody" in done.stderr

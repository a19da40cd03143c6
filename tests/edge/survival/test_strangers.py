"""Strangers at a line with CURVE: with other keys, with none, and with keys that may read but not command."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from fbft_edge.errors import CommandError
from fbft_edge.sockets.access import authenticate
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.keys import write_key_pair

NO_ENTRY = "no line lets us in"
Keys = dict[str, Path]


@dataclass(frozen=True)
class Locked:
    """A line whose camera takes pictures on command alone, so that its ledger shows any command that was taken."""

    line: Any
    witness: Any
    folder: Path

    def keys(self, name: str | None, server: str = "line") -> Keys:
        """What a client of that name connects with."""
        if name is None:
            return {}
        return {"server_key": self.folder / f"{server}.key", "secret_key": self.folder / f"{name}.key_secret"}


@pytest.fixture(scope="module")
def locked(
    configure: Any,
    start_line: Any,
    watch: Any,
    camera: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("line", "reader", "commander", "stranger", "removed"):
        write_key_pair(folder, name)
    commanders = folder / "clients" / "commands"
    commanders.mkdir(parents=True)
    for name, place in (("reader", commanders.parent), ("removed", commanders), ("commander", commanders)):
        (place / f"{name}.key").write_bytes((folder / f"{name}.key").read_bytes())
    config = configure(
        cameras=[camera | {"trigger": "software", "trigger_timeout_s": 30.0}],
        publish={"bind": f"tcp://127.0.0.1:{free_port()}"},
        commands={"bind": f"tcp://127.0.0.1:{free_port()}"},
        curve={"secret_key": str(folder / "line.key_secret"), "clients": str(folder / "clients")},
    )
    line = start_line(config)
    locked = Locked(line, None, folder)
    locked = Locked(line, watch(line.results, **locked.keys("reader")), folder)
    locked.witness.goes_on()
    yield locked
    locked.witness.check()
    line.end()


@pytest.fixture(autouse=True)
def check(locked: Locked) -> Iterator[None]:
    """After each attempt: no command was taken from a stranger, and those who may command still can."""
    captured = locked.witness.next().ledger.captured
    yield
    locked.witness.goes_on()
    assert locked.witness.next().ledger.captured == captured
    with CommandClient(locked.line.commands, **locked.keys("commander")) as client:
        assert client.call("status", timeout_s=30)["cameras"]["press-1"]["ledger"]["captured"] == captured
        ours = {"trigger_id": f"ours-{captured}", "part_id": f"SN {captured}"}
        client.call("trigger", timeout_s=30, camera="press-1", **ours)
    answer = locked.witness.next(lambda result: result.trigger_id == f"ours-{captured}" and result.score is not None)
    assert answer.part_id == f"SN {captured}"
    assert all((each.trigger_id or "ours-").startswith("ours-") for each in locked.witness.received)


STRANGERS = pytest.mark.parametrize(
    ("name", "server"),
    [("stranger", "line"), ("reader", "stranger"), (None, "line")],
    ids=["unknown key", "another line's key", "no keys"],
)


@STRANGERS
def test_a_stranger_gets_no_result_and_commands_nothing(locked: Locked, name: str | None, server: str) -> None:
    keys = locked.keys(name, server)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.subscribe(b"")
        authenticate(subscriber, keys.get("server_key"), keys.get("secret_key"))
        subscriber.connect(locked.line.results)
        with CommandClient(locked.line.commands, **keys) as client, pytest.raises(CommandError, match=NO_ENTRY):
            client.call("trigger", timeout_s=0.7, camera="press-1", trigger_id="theirs")
        assert not subscriber.poll(0)


def test_who_may_read_commands_nothing(locked: Locked) -> None:
    keys = locked.keys("reader")
    with CommandClient(locked.line.commands, **keys) as client, pytest.raises(CommandError, match=NO_ENTRY):
        client.call("trigger", timeout_s=0.7, camera="press-1", trigger_id="theirs")


def test_commands_that_do_not_wait_for_the_handshake_are_not_taken(locked: Locked) -> None:
    request = {"id": 1, "command": "trigger", "camera": "press-1", "trigger_id": "theirs"}
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        for keys in ({}, locked.keys("stranger")):
            client = stack.enter_context(context.socket(zmq.DEALER))
            client.setsockopt(zmq.LINGER, 0)
            authenticate(client, keys.get("server_key"), keys.get("secret_key"))
            client.connect(locked.line.commands)
            client.send(json.dumps(request).encode(), zmq.NOBLOCK)
        locked.witness.goes_on(20)


def test_a_key_that_was_removed_commands_no_more(locked: Locked) -> None:
    with CommandClient(locked.line.commands, **locked.keys("removed")) as client:
        assert client.call("status", timeout_s=30)["cameras"]
        (locked.folder / "clients" / "commands" / "removed.key").unlink()
        locked.witness.goes_on(30)  # the folder is read once a second
        with pytest.raises(CommandError):
            client.call("trigger", timeout_s=0.7, camera="press-1", trigger_id="theirs")


@pytest.mark.parametrize("part_id", ["", "x" * 65, "SN\n4711", "SN\0", "\u00e9", 4711, True], ids=repr)
def test_a_part_that_cannot_travel_is_refused_with_a_word_and_nothing_triggered(locked: Locked, part_id: Any) -> None:
    refused = pytest.raises(CommandError, match=r"part '.*' cannot stand in a message|\"part_id\"")
    with CommandClient(locked.line.commands, **locked.keys("commander")) as client, refused:
        client.call("trigger", timeout_s=30, camera="press-1", trigger_id="theirs", part_id=part_id)

"""A trigger reaches the line in time, is refused by it, or is given up and refused afterwards; each is told once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from fbft_edge.bridges.handshake import Trigger
from fbft_edge.bridges.trigger_sender import TriggerSender
from fbft_edge.clock import now_ns
from fbft_edge.line.trigger import SoftwareTrigger
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.command_server import CommandServer

DEADLINE_S = 30


class HeldUpLine:
    """A line's command socket whose thread a test holds up; takes triggers as a station does."""

    def __init__(self) -> None:
        self.goes_on, self.is_held = threading.Event(), threading.Event()
        self.asked: SimpleQueue[str] = SimpleQueue()
        self.trigger = SoftwareTrigger("camera", 60.0)

    def take(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.put(arguments["trigger_id"])
        self.trigger.ask(arguments["trigger_id"], now_ns(), round(arguments["deadline_s"] * 1e9))
        return {}

    def hold(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.is_held.set()
        self.goes_on.wait(DEADLINE_S)
        return {}


def trigger(number: int) -> Trigger:
    return Trigger(str(number), "a session", now_ns() + 1_000_000_000)


def test_a_trigger_that_was_given_up_is_not_carried_out_afterwards(tmp_path: Path) -> None:
    line, told = HeldUpLine(), SimpleQueue[bool]()
    with (
        CommandServer(f"ipc://{tmp_path}/commands", {"trigger": line.take, "hold": line.hold}) as server,
        TriggerSender(server.endpoint) as sender,
    ):
        threading.Thread(target=hold_up, args=(server.endpoint,), daemon=True).start()
        assert line.is_held.wait(DEADLINE_S)
        sender.send("camera", trigger(1), told.put)
        assert told.get(timeout=DEADLINE_S) is False
        line.goes_on.set()
        assert line.asked.get(timeout=DEADLINE_S) == "1"  # the line hears of it, too late
        assert not line.trigger.is_pending
        sender.send("camera", trigger(2), told.put)
        assert told.get(timeout=DEADLINE_S) is True
        assert line.trigger.is_pending


def hold_up(endpoint: str) -> None:
    with CommandClient(endpoint) as client:
        client.call("hold", timeout_s=DEADLINE_S)


def test_a_trigger_that_waited_behind_others_for_too_long_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbft_edge.bridges.trigger_sender.TAKEN_WITHIN_S", -1.0)
    told, asked = SimpleQueue[bool](), SimpleQueue[object]()
    with (
        CommandServer(
            f"ipc://{tmp_path}/commands", {"trigger": lambda arguments: asked.put(arguments) or {}}
        ) as server,
        TriggerSender(server.endpoint) as sender,
    ):
        sender.send("camera", trigger(1), told.put)
        assert (told.get(timeout=DEADLINE_S), asked.empty()) == (False, True)

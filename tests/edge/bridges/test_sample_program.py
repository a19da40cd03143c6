"""The program of docs/plc.md accepts a part for the ok that answers its own trigger, and for nothing else."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structured_text import FunctionBlock
from waiting import wait_until

from fbft_edge.bridges.registers import COMMAND_ADDRESS, MAP_2, PART_REGISTERS, Status
from fbft_edge.errors import ArgumentError
from fbft_edge.sockets.command_server import CommandServer

pytest.importorskip("pymodbus", reason="the PLC of this test is pymodbus")
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

PAGE = (Path(__file__).parents[3] / "docs" / "plc.md").read_text(encoding="utf-8")
PROGRAM = PAGE[PAGE.index("FUNCTION_BLOCK FB_Inspection") : PAGE.index("END_FUNCTION_BLOCK")] + "END_FUNCTION_BLOCK"
PERIOD_S = 0.2


class Controller:
    """Reads the block, runs the program and writes its control register, cycle by cycle."""

    def __init__(self, port: int) -> None:
        self.client = ModbusTcpClient("127.0.0.1", port=port, timeout=30, retries=0)
        self.program = FunctionBlock(PROGRAM, time.monotonic)
        self.block = [0] * MAP_2.size
        self.rejects = 0
        self.accepted: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return self.program.variables[name]

    def cycle(self, trigger: bool = False, part: str = "") -> Controller:
        was_good, is_read = self.Accept, False
        with contextlib.suppress(ModbusException, ConnectionError):
            self.client.connect()
            answer = self.client.read_input_registers(MAP_2.address, count=MAP_2.size)
            self.block, is_read = answer.registers, True
        packed = part.encode("ascii").ljust(2 * PART_REGISTERS, b"\0")
        words = struct.unpack(f">{PART_REGISTERS}H", packed)
        self.program.cycle(Block=self.block, ReadOk=is_read, Trigger=trigger, Part=list(words))
        with contextlib.suppress(ModbusException, ConnectionError):
            self.client.connect()
            self.client.write_registers(COMMAND_ADDRESS, self.Command)
        self.rejects += self.Reject
        self.accepted += [self.FrameId] if self.Accept and not was_good else []
        return self

    def until(self, is_there: Callable[[Controller], object]) -> None:
        wait_until(self.cycle, is_there=is_there)

    def is_ready(self) -> bool:
        return bool(self.block[1] & Status.TRIGGER_READY) and not self.Alarm

    def trigger(self, part: str = "") -> None:
        """One part comes, once the bridge is ready for it."""
        self.until(Controller.is_ready)
        self.cycle(trigger=True, part=part)


class Plant:
    """A line, its command socket, a bridge and a controller with the program."""

    def __init__(self, start_line: Any, start_bridge: Any, free_port: Any, folder: Path) -> None:
        self._start_line, self._start_bridge, self._port = start_line, start_bridge, free_port()
        self.endpoint, self.line = start_line(PERIOD_S, "--free")
        self.commands = CommandServer(f"ipc://{folder}/commands", {"trigger": self._take})
        self.triggers: list[str] = []
        self.parts: list[str | None] = []
        self.refuses = False
        self.plc = Controller(self._port)

    def _take(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.refuses:
            raise ArgumentError("the last trigger is not answered yet")
        self.triggers.append(arguments["trigger_id"])
        self.parts.append(arguments["part_id"])
        return {}

    def start_bridge(self) -> None:
        ways = ("--commands", self.commands.endpoint, "--anyone-may-trigger", "--listen", f"127.0.0.1:{self._port}")
        self.bridge = self._start_bridge("modbus", self.endpoint, "--handshake", *ways)

    def restart_bridge(self) -> None:
        self.bridge.kill()
        self.bridge.popen.wait(30)
        self.start_bridge()

    def restart_line(self) -> None:
        self.line.kill()
        self.line.popen.wait(30)
        _, self.line = self._start_line(PERIOD_S, "--free", endpoint=self.endpoint)

    def trigger(self, part: str = "") -> str:
        """The controller triggers, and the line takes it; the identifier."""
        before = len(self.triggers)
        self.plc.trigger(part)
        self.plc.until(lambda plc: len(self.triggers) > before and not plc.Raised)
        return self.triggers[-1]

    def answer(self, verdict: str, frame_id: int, trigger_id: str, *part: str) -> None:
        self.line.say(verdict, frame_id, "camera", "camera", trigger_id, *part)


@pytest.fixture
def plant(start_line: Any, start_bridge: Any, free_port: Any, tmp_path: Path) -> Iterator[Plant]:
    made = Plant(start_line, start_bridge, free_port, tmp_path)
    with made.commands:
        made.start_bridge()
        yield made
    made.plc.client.close()


def test_a_good_part_is_accepted_and_a_bad_one_rejected_and_each_trigger_takes_the_verdict_before_away(
    plant: Plant,
) -> None:
    plc = plant.plc
    plant.answer("ok", 3, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    assert (plc.FrameId, plc.Score, plc.rejects) == (3, 1.5, 0)
    trigger_id = plant.trigger()
    assert not plc.Accept
    plant.answer("anomalous", 4, trigger_id)
    plc.until(lambda plc: plc.rejects)
    assert (plc.FrameId, plc.rejects, plc.accepted) == (4, 1, [3])
    plant.answer("ok", 5, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    assert plc.accepted == [3, 5]


def test_a_part_is_accepted_by_the_answer_about_it_and_an_answer_about_another_rejects_it(plant: Plant) -> None:
    plc = plant.plc
    for frame_id, answered in ((3, "SN-4711"), (4, "SN-4710"), (5, "SN-4711" + "0" * 57), (6, "")):
        trigger_id = plant.trigger("SN-4711")
        plant.answer("ok", frame_id, trigger_id, *([answered] if answered else []))
        plc.until(lambda plc: plc.Accept or plc.rejects + len(plc.accepted) == len(plant.triggers))
    assert (plant.parts, plc.accepted, plc.rejects) == (["SN-4711"] * 4, [3], 3)


def test_a_part_without_a_number_is_not_accepted_by_an_answer_about_one_that_has(plant: Plant) -> None:
    plc = plant.plc
    plant.answer("ok", 3, plant.trigger(), "SN-4711")
    plc.until(lambda plc: plc.rejects)
    plant.answer("ok", 4, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    assert (plant.parts, plc.accepted) == ([None, None], [4])


def test_a_missed_trigger_rejects_the_part_and_leaves_nothing_accepted(plant: Plant) -> None:
    plc = plant.plc
    plant.answer("ok", 3, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    plant.refuses = True
    plc.trigger()
    plc.until(lambda plc: plc.rejects)
    assert not plc.Accept
    plant.refuses = False
    plant.answer("ok", 5, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    assert (plc.rejects, plc.accepted) == (1, [3, 5])


def test_a_trigger_when_the_bridge_is_not_ready_rejects_the_part(plant: Plant) -> None:
    plc = plant.plc
    trigger_id = plant.trigger()
    plc.cycle(trigger=True)
    plant.answer("ok", 3, trigger_id)
    plc.until(Controller.is_ready)
    assert (plc.accepted, plc.rejects) == ([], 1)


def test_what_another_triggered_is_never_accepted(plant: Plant) -> None:
    plc = plant.plc
    trigger_id = plant.trigger()
    plant.answer("ok", 3, "by-hand")
    plant.answer("ok", 4, trigger_id)
    plc.until(lambda plc: plc.Accept)
    assert plc.accepted == [4]


def test_a_restarted_bridge_rejects_the_part_that_waits_and_what_was_said_to_the_one_before_is_not_accepted(
    plant: Plant,
) -> None:
    plc = plant.plc
    trigger_id = plant.trigger()
    plant.restart_bridge()
    plc.until(lambda plc: plc.rejects)
    plant.answer("ok", 3, trigger_id)
    plant.answer("ok", 4, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    assert (plc.accepted, plc.rejects) == ([4], 1)


def test_a_restarted_line_rejects_the_part_that_waits(plant: Plant) -> None:
    plc = plant.plc
    trigger_id = plant.trigger()
    plant.restart_line()
    plc.until(lambda plc: plc.rejects)
    plant.answer("ok", 3, trigger_id)
    plant.answer("ok", 4, plant.trigger())
    plc.until(lambda plc: plc.Accept)
    assert (plc.accepted, plc.rejects) == ([4], 1)

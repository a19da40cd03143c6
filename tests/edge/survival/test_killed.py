"""kill -9 of the line, of a bridge, of a subscriber: the others go on, and what is started again finds its place."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.bridges.registers import MAP_1, Status
from fbft_edge.recording.recordings import find_recordings, read_recording
from fbft_edge.sockets.command_client import CommandClient

pytest.importorskip("pymodbus", reason="the PLC of this test is pymodbus")
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

STATUS = next(register.address for register in MAP_1.registers if register.name == "status")


@dataclass
class Hall:
    """A line that records, a bridge, and a program that listens."""

    line: Any
    bridge: Any
    listener: Any
    witness: Any
    port: int
    recordings: Path

    def is_good(self) -> bool | None:
        """What a PLC reads of the bridge; None when nobody answers."""
        client = ModbusTcpClient("127.0.0.1", port=self.port, timeout=2, retries=0)
        try:
            if not client.connect():
                return None
            answer = client.read_input_registers(0, count=MAP_1.size, device_id=1)
            return None if answer.isError() else bool(answer.registers[STATUS] & Status.GOOD)
        except (ModbusException, OSError):
            return None
        finally:
            client.close()

    def heard(self) -> list[tuple[str, int]]:
        """Sessions and sequences that the listening program got."""
        lines = self.listener.output.splitlines(keepends=True)
        return [(each["session"], each["sequence"]) for each in map(json.loads, (x for x in lines if x[-1] == "\n"))]


@pytest.fixture(scope="module")
def hall(
    configure: Any,
    start: Any,
    start_line: Any,
    watch: Any,
    eventually: Any,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hall]:
    recordings, port, endpoint = tmp_path_factory.mktemp("recordings"), free_port(), f"tcp://127.0.0.1:{free_port()}"
    config = configure(
        publish={"bind": endpoint},
        recorder={"folder": str(recordings), "nominal_every": 1},
        stale_after_s=1.0,
    )
    line, bridge, listener = start_line(config), start(*bridging(endpoint, port)), start(*listening(endpoint))
    hall = Hall(line, bridge, listener, watch(endpoint), port, recordings)
    eventually(hall.is_good)
    eventually(hall.heard)
    hall.witness.goes_on()
    yield hall
    hall.witness.check()
    hall.line.end()


def bridging(endpoint: str, port: int) -> tuple[object, ...]:
    return ("bridge", "modbus", "--connect", endpoint, "--listen", f"127.0.0.1:{port}", "--camera", "press-1")


def listening(endpoint: str) -> tuple[object, ...]:
    return ("listen", "--connect", endpoint, "--json")


def test_a_subscriber_that_is_killed_is_missed_by_nobody(hall: Hall, start: Any, eventually: Any) -> None:
    hall.listener.kill()
    hall.witness.goes_on()
    hall.listener = start(*listening(hall.line.results))
    eventually(hall.heard)
    hall.witness.goes_on()


def test_a_bridge_that_is_killed_is_missed_by_nobody_and_its_successor_serves_at_once(
    hall: Hall, start: Any, eventually: Any
) -> None:
    hall.bridge.kill()
    assert hall.is_good() is None
    hall.witness.goes_on()
    hall.bridge = start(*bridging(hall.line.results, hall.port))
    eventually(hall.is_good)
    hall.witness.goes_on()


def test_a_line_that_is_killed_is_a_fault_and_its_successor_is_found_where_it_was(
    hall: Hall, start_line: Any, eventually: Any
) -> None:
    endpoints, before = (hall.line.results, hall.line.commands), hall.witness.last("press-1")
    hall.line.kill()
    eventually(hall.is_good, lambda good: good is False)
    hall.line = start_line(hall.line.config)
    after = hall.witness.next(lambda result: result.session != before.session)
    hall.witness.goes_on()
    assert (hall.line.results, hall.line.commands) == endpoints
    eventually(hall.is_good)
    eventually(hall.heard, lambda heard: heard[-1][0] == after.session)
    with CommandClient(hall.line.commands) as client:
        assert client.call("status", timeout_s=30)["cameras"]["press-1"]["health"]["state"] == "ok"


def test_who_listens_all_the_time_heard_every_message_of_every_session(hall: Hall) -> None:
    heard = hall.heard()
    sessions = [list(run) for _, run in itertools.groupby(heard, key=lambda each: each[0])]
    assert len(sessions) == 2
    for run in sessions:
        assert [sequence for _, sequence in run] == list(range(run[0][1], run[0][1] + len(run)))


def test_recordings_are_whole_and_nothing_is_left_of_those_that_were_being_written(hall: Hall) -> None:
    sessions = {session[:8] for session in hall.witness.sessions("press-1")}
    recordings = find_recordings(hall.recordings)
    assert {path.name.split("-")[4] for path in recordings} == sessions
    for path in recordings:
        read_recording(path)
    running = hall.witness.sessions("press-1")[-1][:8]
    assert [path for path in hall.recordings.glob("*/*/.*") if running not in path.name] == []

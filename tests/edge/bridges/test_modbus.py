"""A PLC on Modbus TCP: whole results, a handshake that holds, and a fault whenever the line is not to be believed."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from fbft_edge.bridges.camera_state import Fault
from fbft_edge.bridges.modbus_requests import ExceptionCode
from fbft_edge.bridges.registers import COMMAND_ADDRESS, MAP_1, MAP_2, PART_REGISTERS, Control, RegisterMap, Status
from fbft_edge.cli.main import main
from fbft_edge.errors import ArgumentError
from fbft_edge.sockets.access import CurveServer
from fbft_edge.sockets.command_server import CommandServer
from fbft_edge.sockets.keys import write_key_pair

pytest.importorskip("pymodbus", reason="the PLC of this test is pymodbus")
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

FAULT, OK, ANOMALOUS, STALE = range(4)


@dataclass(frozen=True)
class Block:
    """What one request read, by name of the register."""

    values: dict[str, float]

    def __getattr__(self, name: str) -> Any:
        return self.values[name]

    def has(self, *bits: Status) -> bool:
        return all(int(self.values["status"]) & bit for bit in bits)


class Plc:
    """What a PLC program does: reads the block, writes the control register."""

    def __init__(self, port: int, unit: int = 1, timeout_s: float = 30) -> None:
        self.client = ModbusTcpClient("127.0.0.1", port=port, timeout=timeout_s, retries=0)
        self.unit = unit

    def read(self, map_: RegisterMap = MAP_1) -> Block:
        self.client.connect()
        try:
            answer = self.client.read_input_registers(map_.address, count=map_.size, device_id=self.unit)
        except (ModbusException, ConnectionError):
            self.client.close()
            raise
        assert not answer.isError(), answer
        packed = struct.pack(f">{map_.size}H", *answer.registers)
        kinds = {"uint16": ">H", "uint32": ">I", "float32": ">f", "text": ">64s"}
        places = {one: 2 * (one.address - map_.address) for one in map_.registers}
        return Block({one.name: struct.unpack_from(kinds[one.kind], packed, at)[0] for one, at in places.items()})

    def write(self, control: Control) -> None:
        self.client.connect()
        answer = self.client.write_register(0, int(control), device_id=self.unit)
        assert not answer.isError(), answer

    def command(self, control: Control, part: bytes = b"") -> Any:
        """Write the control register and the part in one request."""
        self.client.connect()
        words = struct.unpack(f">{PART_REGISTERS}H", part.ljust(2 * PART_REGISTERS, b"\0"))
        return self.client.write_registers(COMMAND_ADDRESS, [int(control), *words], device_id=self.unit)

    def acknowledge(self) -> None:
        self.write(Control.RESULTS_ACKNOWLEDGE)
        self.write(Control(0))


@pytest.fixture(scope="module")
def connect() -> Iterator[Callable[..., Plc]]:
    with contextlib.ExitStack() as stack:

        def connected(port: int, unit: int = 1, timeout_s: float = 30) -> Plc:
            plc = Plc(port, unit, timeout_s)
            stack.callback(plc.client.close)
            return plc

        yield connected


@pytest.fixture(scope="module")
def serve(start_bridge: Callable[..., Any], free_port: Callable[[], int], connect: Callable[..., Plc]) -> Any:
    """Starts a bridge to an endpoint; returns it with a PLC."""

    def started(endpoint: str, *options: object, port: int = 0) -> tuple[Any, Plc]:
        port = port or free_port()
        bridge = start_bridge("modbus", endpoint, "--listen", f"127.0.0.1:{port}", *options)
        return bridge, connect(port)

    return started


@dataclass(frozen=True)
class Say:
    """Lets the line give a camera a result."""

    line: Any
    camera: str

    def __call__(self, verdict: str, frame_id: int, *answer: str) -> None:
        self.line.say(verdict, frame_id, self.camera, *answer)


class Triggers:
    """The line's command socket, as far as triggers go."""

    def __init__(self, endpoint: str, curve: CurveServer | None = None) -> None:
        self.taken: list[dict[str, Any]] = []
        self.behaviour, self.bridge = "take", None
        self.server = CommandServer(endpoint, {"trigger": self._trigger}, curve=curve)

    def _trigger(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.behaviour == "refuse":
            raise ArgumentError("the last trigger is not answered yet")
        if self.behaviour == "dawdle":
            time.sleep(1.7)
        self.taken.append(dict(arguments))
        return {}


@pytest.fixture(scope="module")
def handshakes(
    start_line: Any, serve: Any, connect: Any, eventually: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Callable[[], tuple[Any, Plc]], Triggers]]:
    """One bridge for many cameras; each test takes one, with what its line says and a PLC of its own."""
    triggers = Triggers(f"ipc://{tmp_path_factory.mktemp('line')}/commands")
    cameras = tuple(f"press-{number}" for number in range(1, 31))
    endpoint, line = start_line(0.05, "--free", cameras=cameras)
    options = [text for camera in cameras for text in ("--camera", camera)]
    way = ("--commands", triggers.server.endpoint, "--anyone-may-trigger")
    triggers.bridge, first = serve(endpoint, "--handshake", *way, *options)
    units = enumerate(cameras, 1)

    def take() -> tuple[Any, Plc]:
        unit, camera = next(units)
        plc = connect(first.client.comm_params.port, unit)
        eventually(plc.read, lambda block: block.has(Status.ONLINE))
        return Say(line, camera), plc

    with triggers.server:
        yield take, triggers


@pytest.fixture(scope="module")
def fast_plc(start_line: Any, serve: Any, eventually: Any) -> Plc:
    """A PLC that reads a line where every message is a new result."""
    endpoint, _ = start_line(0.001, "--fast")
    _, plc = serve(endpoint)
    eventually(plc.read, lambda block: block.has(Status.RESULTS_VALID))
    return plc


@dataclass
class Mortals:
    """A line and a bridge that tests may kill; each leaves living ones behind."""

    endpoint: str
    line: Any
    bridge: Any
    plc: Plc


@pytest.fixture(scope="module")
def mortals(start_line: Any, serve: Any) -> Mortals:
    endpoint, line = start_line(0.5)
    return Mortals(endpoint, line, *serve(endpoint))


def test_a_result_arrives_register_by_register(handshakes: Any, eventually: Any) -> None:
    say, plc = handshakes[0]()
    say("anomalous", 7)
    block = eventually(plc.read, lambda block: block.has(Status.RESULTS_VALID))
    captured_s, captured_ns = divmod(7 * 1_000_000_007, 1_000_000_000)
    assert (block.verdict, block.score, block.image_threshold, block.frame_id, block.regions) == (
        ANOMALOUS,
        3.5,
        0.5,
        7,
        7,
    )
    assert (block.captured_s, block.captured_ns, block.results, block.anomalous) == (captured_s, captured_ns, 1, 1)
    region = [block.values[f"region_3_{name}"] for name in ("x", "y", "width", "height", "area", "peak")]
    assert region == [7 + 2, 7, 7 + 1, 7 + 2, 10, 3000]
    assert block.values["region_8_width"] == 0
    assert (block.has(Status.GOOD), block.period_ms) == (False, pytest.approx(50, abs=25))


def test_map_2_says_of_the_same_result_why_it_is_so(handshakes: Any, eventually: Any) -> None:
    say, plc = handshakes[0]()
    say("anomalous", 15)
    first = eventually(plc.read, lambda block: block.has(Status.RESULTS_VALID))
    block = plc.read(MAP_2)
    assert (first.map_version, block.map_version, block.pixel_threshold, block.peak) == (1, 2, 0.25, 1.0)
    assert (block.peak_x, block.peak_y, block.decided_by, block.part_id.strip(b"\0")) == (15, 3, 3, b"")
    apart = {"heartbeat", "map_version"}
    assert {name: value for name, value in first.values.items() if name in block.values and name not in apart} == {
        name: value for name, value in block.values.items() if name in first.values and name not in apart
    }
    assert [block.values[f"region_{number}_area"] for number in (1, 9)] == [18, 18]


def is_honest_silence(block: Block) -> bool:
    """True of a block that says that the line is not heard, and nothing of any result."""
    empty = {"frame_id", "trigger_id", "captured_s", "captured_ns", "regions"} | {
        name for name in block.values if name.startswith("region_")
    }
    is_silent = (block.fault, block.verdict, block.has(Status.GOOD)) == (Fault.SILENCE, FAULT, False)
    return is_silent and not any(block.values[name] for name in empty)


_refused: list[Plc] = []


def handshakes_plc(take: Callable[[], tuple[Any, Plc]]) -> Plc:
    """One for all tests in which nothing is carried out."""
    if not _refused:
        _refused.append(take()[1])
    return _refused[0]


def test_no_request_sees_halves_of_two_results(fast_plc: Plc, eventually: Any) -> None:
    blocks: list[Block] = []

    def numbers() -> set[float]:
        blocks.extend(fast_plc.read() for _ in range(400))
        return {block.frame_id for block in blocks if not is_honest_silence(block)}

    eventually(numbers, lambda seen: len(seen) > 20)
    for block in blocks:
        if is_honest_silence(block):
            continue
        number = int(block.frame_id)
        expected = min(MAP_1.num_regions, number % 17)
        assert block.verdict == (OK if number % 3 else ANOMALOUS)
        assert (block.score, block.trigger_id, block.regions) == (number / 2, number, number % 17)
        assert 1_000_000_000 * block.captured_s + block.captured_ns == number * 1_000_000_007
        areas = [block.values[f"region_{index}_area"] for index in range(1, MAP_1.num_regions + 1)]
        assert areas == [number % 1000 + 3] * expected + [0] * (MAP_1.num_regions - expected)


def test_a_killed_line_reads_fault_and_its_successor_is_found(
    mortals: Mortals, start_line: Any, eventually: Any
) -> None:
    plc = mortals.plc
    eventually(plc.read, lambda block: block.period_ms > 0)
    mortals.line.say("ok", 1)
    mortals.line.kill()
    block = eventually(plc.read, lambda block: block.fault == Fault.SILENCE)
    assert (block.verdict, block.frame_id, block.has(Status.FAULT)) == (FAULT, 0, True)
    assert not Status(block.status) & (Status.ONLINE | Status.GOOD | Status.RESULTS_VALID)
    _, mortals.line = start_line(0.5, endpoint=mortals.endpoint)
    eventually(plc.read, lambda block: block.has(Status.ONLINE))
    mortals.line.say("ok", 2)
    eventually(plc.read, lambda block: block.has(Status.GOOD) and block.frame_id == 2)


def test_a_stalled_line_reads_fault_until_it_goes_on(mortals: Mortals, eventually: Any) -> None:
    eventually(mortals.plc.read, lambda block: block.has(Status.ONLINE))
    mortals.line.kill(signal.SIGSTOP)
    eventually(mortals.plc.read, lambda block: block.fault == Fault.SILENCE)
    mortals.line.kill(signal.SIGCONT)
    eventually(mortals.plc.read, lambda block: block.has(Status.ONLINE))


@pytest.mark.parametrize("now", ["gone", "anomalous", "ok"])
def test_a_bridge_that_was_stopped_answers_what_waited_for_it_without_the_good_of_before(
    start_line: Any, serve: Any, eventually: Any, now: str
) -> None:
    endpoint, line = start_line(0.1, "--repeat")
    bridge, plc = serve(endpoint)
    eventually(plc.read, lambda block: block.has(Status.ONLINE))
    line.say("ok", 1)
    eventually(plc.read, lambda block: block.has(Status.GOOD))
    with socket.create_connection(("127.0.0.1", plc.client.comm_params.port)) as waiting:
        waiting.sendall(read_request(0))
        assert is_good(waiting, 0) == (True, 1)
        bridge.kill(signal.SIGSTOP)
        for number in range(1, 6):
            waiting.sendall(read_request(number))
        line.kill() if now == "gone" else line.say(now, 2)
        time.sleep(1.0)
        bridge.kill(signal.SIGCONT)
        answers = [is_good(waiting, number) for number in range(1, 6)]
    assert (True, 1) not in answers
    eventually(plc.read, lambda block: (block.has(Status.GOOD), block.fault > 0) == (now == "ok", now == "gone"))


def read_request(number: int) -> bytes:
    return struct.pack(">HHHBBHH", number, 0, 6, 1, 4, 0, MAP_1.size)


def is_good(connection: socket.socket, number: int) -> tuple[bool, int]:
    """What the answer of that number says: whether it is good, and of which frame."""
    answer = b""
    while len(answer) < 9 + 2 * MAP_1.size:
        answer += connection.recv(9 + 2 * MAP_1.size - len(answer))
    registers = struct.unpack(f">{MAP_1.size}H", answer[9:])
    assert struct.unpack_from(">H", answer) == (number,)
    return bool(registers[1] & Status.GOOD), registers[10] << 16 | registers[11]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)])
def test_a_bridge_that_ends_answers_no_more_and_its_successor_begins_anew(
    mortals: Mortals, serve: Any, eventually: Any, number: signal.Signals, status: int
) -> None:
    beats = mortals.plc.read().heartbeat
    eventually(mortals.plc.read, lambda block: block.heartbeat != beats)
    mortals.bridge.kill(number)
    assert mortals.bridge.popen.wait(30) == status
    with pytest.raises((ModbusException, ConnectionError)):
        mortals.plc.read()
    mortals.bridge, mortals.plc = serve(mortals.endpoint, port=mortals.plc.client.comm_params.port)
    block = eventually(mortals.plc.read, lambda block: block.has(Status.ONLINE))
    assert block.results <= 1


def test_clients_that_ask_without_a_pause_keep_no_bridge_from_ending(
    start_bridge: Any, free_port: Callable[[], int]
) -> None:
    port, question = free_port(), struct.pack(">HHHBBHH", 1, 0, 6, 1, 4, 0, 125)
    bridge = start_bridge("modbus", f"tcp://127.0.0.1:{free_port()}", "--listen", f"127.0.0.1:{port}")

    def ask_on() -> None:
        with socket.create_connection(("127.0.0.1", port)) as client, contextlib.suppress(OSError):
            asking.wait()
            while not is_over.is_set():
                client.sendall(question)
                if not client.recv(4096):
                    return

    clients, is_over = [threading.Thread(target=ask_on) for _ in range(4)], threading.Event()
    asking = threading.Barrier(len(clients) + 1)
    for client in clients:
        client.start()
    asking.wait()
    time.sleep(0.5)
    bridge.kill(signal.SIGTERM)
    try:
        assert bridge.popen.wait(30) == 0
    finally:
        is_over.set()
        bridge.kill()
        for client in clients:
            client.join()


def test_a_result_stays_until_it_is_acknowledged_and_the_next_ones_follow_in_order(
    handshakes: Any, eventually: Any
) -> None:
    say, plc = handshakes[0]()
    for frame_id in range(1, 5):
        say("anomalous" if frame_id == 2 else "ok", frame_id)
    eventually(plc.read, lambda block: block.results == 4)
    seen = []
    for _ in range(4):
        block = eventually(plc.read, lambda block: block.has(Status.RESULTS_VALID))
        assert plc.read().frame_id == block.frame_id
        seen.append((block.frame_id, block.verdict))
        plc.write(Control.RESULTS_ACKNOWLEDGE)
        assert not plc.read().has(Status.RESULTS_VALID)
        plc.write(Control(0))
    assert seen == [(1, OK), (2, ANOMALOUS), (3, OK), (4, OK)]
    block = eventually(plc.read, lambda block: block.verdict == STALE)
    assert (block.has(Status.RESULTS_VALID), block.frame_id) == (False, 0)


def test_a_plc_that_does_not_acknowledge_loses_ok_results_first_and_counts_them(
    handshakes: Any, eventually: Any
) -> None:
    say, plc = handshakes[0]()
    for frame_id in range(1, 21):
        say("anomalous" if frame_id > 16 else "ok", frame_id)
    block = eventually(plc.read, lambda block: block.results == 20)
    assert (block.frame_id, block.overruns, block.has(Status.OVERRUN)) == (1, 11, True)
    seen = []
    while plc.read().has(Status.RESULTS_VALID):
        seen.append(plc.read().frame_id)
        plc.acknowledge()
    assert seen[-4:] == [17, 18, 19, 20]
    assert len(seen) + block.overruns == 20
    assert not plc.read().has(Status.OVERRUN)


def test_a_fault_of_a_frame_is_a_result_too(handshakes: Any, eventually: Any) -> None:
    say, plc = handshakes[0]()
    say("fault", 5)
    block = eventually(plc.read, lambda block: block.has(Status.RESULTS_VALID))
    assert (block.verdict, block.frame_id, block.has(Status.GOOD)) == (FAULT, 5, False)


def test_several_cameras_are_several_units(handshakes: Any, eventually: Any) -> None:
    take, _ = handshakes
    (say_first, first), (say_second, second) = take(), take()
    say_first("ok", 11)
    say_second("anomalous", 22)
    assert eventually(first.read, lambda block: block.has(Status.RESULTS_VALID)).frame_id == 11
    assert eventually(second.read, lambda block: block.has(Status.RESULTS_VALID)).frame_id == 22
    first.acknowledge()
    assert second.read().has(Status.RESULTS_VALID)


def test_a_unit_without_a_camera_is_an_error(handshakes: Any) -> None:
    _, plc = handshakes[0]()
    assert plc.client.read_input_registers(0, count=1, device_id=99).isError()


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.write_register(1, 5),
        lambda client: client.write_registers(0, [0, 5]),
        lambda client: client.write_coil(0, True),
        lambda client: client.read_coils(0, count=8),
        lambda client: client.read_holding_registers(MAP_1.size, count=1),
        lambda client: client.read_holding_registers(MAP_1.size - 1, count=2),
        lambda client: client.read_holding_registers(MAP_2.address - 1, count=2),
        lambda client: client.read_holding_registers(MAP_2.address + MAP_2.size, count=1),
        lambda client: client.read_holding_registers(COMMAND_ADDRESS, count=1),
        lambda client: client.write_register(MAP_2.address + 1, 5),
    ],
)
def test_what_is_not_in_the_map_is_refused(fast_plc: Plc, write: Any) -> None:
    fast_plc.client.connect()
    assert write(fast_plc.client).isError()
    assert not fast_plc.client.read_holding_registers(0, count=MAP_1.size).isError()


def test_one_request_writes_the_control_register_and_reads_the_block(fast_plc: Plc) -> None:
    fast_plc.client.connect()
    answer = fast_plc.client.readwrite_registers(
        read_address=0, read_count=MAP_1.size, write_address=0, values=[int(Control.RESULTS_ACKNOWLEDGE)]
    )
    assert answer.registers[0] == Control.RESULTS_ACKNOWLEDGE
    fast_plc.write(Control(0))


def test_a_trigger_goes_to_the_line_and_no_other_is_ready_until_its_answer_was_taken(
    handshakes: Any, eventually: Any
) -> None:
    take, triggers = handshakes
    say, plc = take()
    taken_before = len(triggers.taken)
    eventually(plc.read, lambda block: block.has(Status.TRIGGER_READY))
    for frame_id in range(2):
        plc.write(Control.TRIGGER)
        eventually(plc.read, lambda block: block.has(Status.TRIGGER_ACKNOWLEDGE))
        plc.write(Control(0))
        block = plc.read()
        handshake = Status.TRIGGER_READY | Status.TRIGGER_ACKNOWLEDGE | Status.BUSY
        assert Status(block.status) & handshake == Status.BUSY
        say("ok", frame_id, "camera", triggers.taken[-1]["trigger_id"])
        block = eventually(plc.read, lambda block: block.has(Status.RESULTS_VALID))
        assert Status(block.status) & (Status.TRIGGER_READY | Status.GOOD) == Status.GOOD
        plc.acknowledge()
        assert plc.read().has(Status.TRIGGER_READY)
    first, second = triggers.taken[taken_before:]
    assert first["camera"] == second["camera"] == f"press-{plc.unit}"
    assert (int(second["trigger_id"]), block.missed_acquisitions) == (int(first["trigger_id"]) + 1, 0)
    assert block.trigger_id == int(second["trigger_id"])


@pytest.mark.parametrize("behaviour", ["refuse", "dawdle"])
def test_a_trigger_that_the_line_does_not_take_is_a_missed_acquisition(
    handshakes: Any, eventually: Any, behaviour: str
) -> None:
    take, triggers = handshakes
    _, plc = take()
    triggers.behaviour = behaviour
    plc.write(Control.TRIGGER)
    block = eventually(plc.read, lambda block: block.has(Status.MISSED_ACQUISITION))
    assert (block.missed_acquisitions, block.has(Status.TRIGGER_ACKNOWLEDGE)) == (1, False)
    triggers.behaviour = "take"
    plc.write(Control(0))
    plc.write(Control.TRIGGER)
    block = eventually(plc.read, lambda block: block.has(Status.TRIGGER_ACKNOWLEDGE))
    assert (block.missed_acquisitions, block.has(Status.MISSED_ACQUISITION)) == (1, False)


def trigger(plc: Plc, eventually: Any) -> Block:
    """Trigger once; returns what is read when it was taken or missed."""
    plc.write(Control.TRIGGER)
    block = eventually(
        plc.read, lambda block: block.has(Status.TRIGGER_ACKNOWLEDGE) or block.has(Status.MISSED_ACQUISITION)
    )
    plc.write(Control(0))
    return block


def test_a_line_that_encrypts_is_read_and_triggered_with_its_keys_and_not_with_others(
    start_line: Any, serve: Any, free_port: Any, eventually: Any, tmp_path: Any
) -> None:
    commanders = tmp_path / "clients" / "commands"
    commanders.mkdir(parents=True)
    for name in ("line", "plc", "stranger"):
        write_key_pair(tmp_path, name)
    for folder in (commanders, commanders.parent):
        (folder / "plc.key").write_bytes((tmp_path / "plc.key").read_bytes())
    curve = CurveServer(tmp_path / "line.key_secret", commanders.parent).for_commands()
    endpoint, line = start_line(0.05, f"--keys={tmp_path}", endpoint=f"tcp://127.0.0.1:{free_port()}")
    triggers = Triggers("tcp://127.0.0.1:*", curve)
    with triggers.server:
        ours, theirs = (
            serve(
                endpoint,
                *("--commands", triggers.server.endpoint, "--anyone-may-trigger"),
                *("--server-key", tmp_path / "line.key"),
                *("--secret-key", tmp_path / f"{name}.key_secret"),
            )[1]
            for name in ("plc", "stranger")
        )
        eventually(ours.read, lambda block: block.has(Status.ONLINE))
        line.say("ok", 3)
        eventually(ours.read, lambda block: block.frame_id == 3)
        # One that is not answered within a second is missed; a PLC asks again.
        eventually(lambda: trigger(ours, eventually), lambda block: block.has(Status.TRIGGER_ACKNOWLEDGE))
        taken = list(triggers.taken)
        block = trigger(theirs, eventually)
    assert (block.fault, block.verdict, block.has(Status.MISSED_ACQUISITION)) == (Fault.NO_MESSAGE, FAULT, True)
    assert (taken != [], triggers.taken == taken) == (True, True)


@pytest.mark.parametrize("part", [b"SN-4711", b"x" * 64, b" a b "])
def test_a_part_travels_with_its_trigger_to_the_line_and_back(handshakes: Any, eventually: Any, part: bytes) -> None:
    take, triggers = handshakes
    say, plc = take()
    eventually(plc.read, lambda block: block.has(Status.TRIGGER_READY))
    assert not plc.command(Control.TRIGGER, part).isError()
    eventually(plc.read, lambda block: block.has(Status.TRIGGER_ACKNOWLEDGE))
    asked = triggers.taken[-1]
    assert (asked["camera"], asked["part_id"]) == (f"press-{plc.unit}", part.decode())
    plc.command(Control(0), b"the next part")
    if part == b"SN-4711":
        say("ok", 1, "camera", asked["trigger_id"], asked["part_id"])
        block = eventually(lambda: plc.read(MAP_2), lambda block: block.has(Status.RESULTS_VALID))
        assert (block.part_id.rstrip(b"\0"), block.has(Status.GOOD)) == (part, True)


HALVES = b"SN-4711".ljust(32, b"\0") + b"SN-4712"


@pytest.mark.parametrize("part", [b"SN\n4711", b"\0SN-4711", b"SN\xe9", b"SN\x7f", HALVES], ids=repr)
def test_a_part_that_cannot_travel_is_refused_and_nothing_of_the_request_carried_out(
    handshakes: Any, eventually: Any, part: bytes
) -> None:
    take, triggers = handshakes
    plc = handshakes_plc(take)
    taken = len(triggers.taken)
    answer = plc.command(Control.TRIGGER | Control.RESULTS_ACKNOWLEDGE, part)
    assert (answer.isError(), answer.exception_code) == (True, ExceptionCode.ILLEGAL_VALUE)
    block = plc.read()
    assert (block.control, block.has(Status.BUSY), len(triggers.taken)) == (0, False, taken)
    eventually(lambda: triggers.bridge.lines, lambda said: any("cannot stand in a message" in line for line in said))


@pytest.mark.parametrize("count", [2, 1 + PART_REGISTERS - 1, 1 + PART_REGISTERS + 1])
def test_a_part_that_comes_in_pieces_or_is_too_long_is_refused(handshakes: Any, count: int) -> None:
    plc = handshakes_plc(handshakes[0])
    for address in (COMMAND_ADDRESS, COMMAND_ADDRESS + 1):
        answer = plc.client.write_registers(address, [1] + [0x4141] * (count - 1), device_id=plc.unit)
        assert (answer.isError(), answer.exception_code) == (True, ExceptionCode.ILLEGAL_ADDRESS)
    assert plc.read().control == 0


def test_without_a_command_socket_no_trigger_is_ready(fast_plc: Plc) -> None:
    missed = fast_plc.read().missed_acquisitions
    fast_plc.write(Control.TRIGGER)
    block = fast_plc.read()
    fast_plc.write(Control(0))
    assert (block.has(Status.TRIGGER_READY), block.missed_acquisitions) == (False, missed + 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "0.0.0.0:5020"], "--insecure"),
        (["--listen", "[::]:5020"], "--insecure"),
        (["--listen", "5020"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--listen", "192.0.2.1:5020", "--insecure"], "cannot listen"),
        (["--connect", "nowhere"], "cannot connect"),
        (["--commands", "nowhere", "--anyone-may-trigger"], "cannot connect"),
        (["--commands", "ipc:///run/fbft/commands"], "--anyone-may-trigger"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", "modbus", *options]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), words in said) == (1, True)


def test_an_ok_result_that_is_shown_is_not_good_while_the_line_is_gone_and_an_anomalous_one_stays(
    handshakes: Any, eventually: Any
) -> None:
    say, plc = handshakes[0]()
    say("ok", 1)
    say("anomalous", 2)
    eventually(plc.read, lambda block: block.results == 2)
    eventually(plc.read, lambda block: block.has(Status.GOOD))
    say.line.kill()
    block = eventually(plc.read, lambda block: block.has(Status.FAULT))
    assert (block.verdict, block.has(Status.GOOD)) == (FAULT, False)
    plc.acknowledge()
    block = plc.read()
    assert (block.verdict, block.frame_id, block.has(Status.RESULTS_VALID)) == (ANOMALOUS, 2, True)

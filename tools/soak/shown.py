"""What a PLC and an MQTT client see, in; every good that was older than it may be, out: a process of its own.

How old a good is says the line's own clock: each message is heard on the line's socket, too, and the machine has one
monotonic clock. The clients are pymodbus and paho, and know of the bridges what docs/plc.md says. Knows nothing of
faults.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing.synchronize
import os
import signal
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

import zmq
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from tools.soak.board import MODBUS, MQTT, Board
from tools.soak.place import CAMERAS, GOOD, LATE_AFTER_S, SITE, STALE_AFTER_S

PERIODS, PERIODS_STOPPED = 2, 3
LOOK_EVERY_S = 0.02
ROUND_TRIP_S = 0.02  # more than it takes where nobody waits for a core
GOOD_BIT = 1 << 4
HEARD_WITHIN_S = 5.0  # messages come here later than to a bridge, when this process waits for a core
LATEST_S = 1.0  # a broker that runs delivers earlier on a busy machine, too
LEAST_STEP = 0.3  # of a camera's own, between the dates of two pictures
MOST_PROBLEMS = 100


@dataclass(frozen=True)
class Look:
    """One look at one exit: the message that stood there, when it was asked for, and when it was seen."""

    exit: str
    camera: str
    asked_s: float
    seen_s: float
    is_good: bool
    sequence: int
    is_late: bool = False


@dataclass
class Shown:
    """What one exit showed of one camera; ages in ms, of goods alone.

    `late` are those that a broker delivered late, and which a client with a clock that is set refuses.
    """

    looks: int = 0
    late: int = 0
    oldest_late_ms: float = 0.0
    goods: int = 0
    oldest_ms: float = 0.0
    oldest_stopped_ms: float = 0.0
    oldest_picture_ms: float = 0.0
    too_old: int = 0
    problems: list[str] = field(default_factory=list)


class Judge:
    """Holds every good against what the line said."""

    def __init__(self, fps: float, camera_fps: float, board: Board) -> None:
        self._period_s, self._apart_ns, self._board = 1 / fps, round(1e9 * LEAST_STEP / camera_fps), board
        self._said: dict[tuple[str, int], tuple[int, int, str]] = {}
        self._behind_ns: int | None = None
        self._waiting: deque[Look] = deque()
        self._frame_id, self._taken_ns = -1, 0
        self.misdated: list[str] = []
        self.shown = {(exit_, camera): Shown() for exit_ in (MODBUS, MQTT) for camera in CAMERAS}

    def hear(self, header: dict[str, Any], arrived_ns: int) -> None:
        """A message of the line."""
        behind_ns = arrived_ns - header["published_ns"]
        if self._behind_ns is None or behind_ns < self._behind_ns:
            self._behind_ns = behind_ns
            self._board.behind_ns = behind_ns
        said = header["published_ns"], header["captured_ns"] or 0, header["verdict"]
        self._said[header["camera"], header["sequence"]] = said
        if header["camera"] == GOOD and (header["frame_id"] or -1) > self._frame_id:
            self._compare(header["frame_id"], header["captured_ns"])

    def _compare(self, frame_id: int, taken_ns: int) -> None:
        """Pictures that come at once behind a stall were taken one by one."""
        if taken_ns < self._taken_ns + self._apart_ns and len(self.misdated) < MOST_PROBLEMS:
            apart_ms = (taken_ns - self._taken_ns) / 1e6
            self.misdated.append(
                f"{time.strftime('%H:%M:%S')} frame {frame_id} is dated {apart_ms:.0f} ms after the last"
            )
        self._frame_id, self._taken_ns = frame_id, taken_ns

    def look(self, look: Look) -> None:
        """What a client saw."""
        self.shown[look.exit, look.camera].looks += 1
        if look.is_good:
            self._waiting.append(look)
            if not look.is_late:
                self._board.note_good(look.exit, look.camera, look.seen_s)

    def judge(self) -> None:
        """Judge what was seen, as far as the line's own messages have come."""
        while self._waiting:
            look = self._waiting[0]
            said = self._said.get((look.camera, look.sequence))
            if said is None and time.monotonic() < look.seen_s + HEARD_WITHIN_S:
                return
            self._waiting.popleft()
            self._judge(look, said)

    def _judge(self, look: Look, said: tuple[int, int, str] | None) -> None:
        shown = self.shown[look.exit, look.camera]
        about = f"{look.exit} shows {look.camera} good by message {look.sequence}"
        if said is None or self._behind_ns is None:
            self._note(shown, f"{about}, which never came")
            return
        published_ns, captured_ns, verdict = said
        sent_s, taken_s = ((at_ns + self._behind_ns) / 1e9 for at_ns in (published_ns, captured_ns))
        was_stopped, age_s = self._board.was_stopped(sent_s), look.seen_s - sent_s
        if look.is_late:
            shown.late += 1
            shown.oldest_late_ms = max(shown.oldest_late_ms, 1e3 * age_s)
            if age_s > LATEST_S and not self._board.was_stopped(sent_s, broker=True):
                shown.too_old += 1
                self._note(shown, f"{about}, delivered {1e3 * age_s:.0f} ms after it was sent by a broker that ran")
            return
        shown.goods += 1
        # A bridge dates a message when it answers, so the way of the question is not its age.
        slack_s = min(max(look.seen_s - look.asked_s, ROUND_TRIP_S), self._period_s)
        limit_s = PERIODS_STOPPED * self._period_s if was_stopped else PERIODS * self._period_s + slack_s
        name = "oldest_stopped_ms" if was_stopped else "oldest_ms"
        setattr(shown, name, max(getattr(shown, name), 1e3 * age_s))
        shown.oldest_picture_ms = max(shown.oldest_picture_ms, 1e3 * (look.seen_s - taken_s))
        if age_s > limit_s:
            shown.too_old += 1
            self._note(shown, f"{about}, sent {1e3 * age_s:.0f} ms ago; at most {1e3 * limit_s:.0f} ms may it be")
        if look.seen_s - taken_s > max(LATE_AFTER_S, STALE_AFTER_S) + limit_s:
            shown.too_old += 1
            self._note(shown, f"{about}, whose picture was taken {look.seen_s - taken_s:.2f} s ago")
        if verdict != "ok":
            self._note(shown, f"{about}, which says {verdict}")

    def _note(self, shown: Shown, problem: str) -> None:
        if len(shown.problems) < MOST_PROBLEMS:
            shown.problems.append(f"{time.strftime('%H:%M:%S')} {problem}")


class Plc:
    """A Modbus client that reads one block of each camera in turn; an answer later than a period is none."""

    def __init__(self, port: int, period_s: float, looks: SimpleQueue[Look]) -> None:
        self._port, self._period_s, self._looks = port, period_s, looks
        self.unanswered = 0

    def work(self, stop: multiprocessing.synchronize.Event) -> None:
        """Read until the end."""
        while not stop.is_set():
            client = ModbusTcpClient("127.0.0.1", port=self._port, timeout=self._period_s, retries=0)
            with contextlib.suppress(ModbusException, OSError):
                self._read(client, stop)
            client.close()  # type: ignore[no-untyped-call]
            self.unanswered += 1
            time.sleep(LOOK_EVERY_S)

    def _read(self, client: ModbusTcpClient, stop: multiprocessing.synchronize.Event) -> None:
        if not client.connect():  # type: ignore[no-untyped-call]
            return
        while not stop.is_set():
            for unit, camera in enumerate(CAMERAS, 1):
                asked_s = time.monotonic()
                answer = client.read_input_registers(0, count=125, device_id=unit)
                seen_s = time.monotonic()
                if answer.isError() or seen_s > asked_s + self._period_s:
                    return
                registers = answer.registers
                sequence = registers[12] << 16 | registers[13]
                look = Look(MODBUS, camera, asked_s, seen_s, bool(registers[1] & GOOD_BIT), sequence)
                self._looks.put(look)
            time.sleep(LOOK_EVERY_S)


@dataclass
class Heard:
    """The newest that an MQTT client knows of a camera."""

    result: dict[str, Any] = field(default_factory=dict)
    came_s: float = 0.0


class Consumer:
    """An MQTT client that keeps to the four rules of docs/plc.md; what the fourth alone refuses is late."""

    def __init__(self, port: int, period_s: float, looks: SimpleQueue[Look]) -> None:
        self._oldest_ns, self._looks, self._lock = round(PERIODS * period_s * 1e9), looks, threading.Lock()
        self._heard = {camera: Heard() for camera in CAMERAS}
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"fbft/{SITE}/#", qos=1)
        self._client.on_disconnect = lambda *_: self._forget()
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port, keepalive=5)
        self._client.loop_start()

    def _forget(self) -> None:
        with self._lock:
            self._heard = {camera: Heard() for camera in CAMERAS}

    def _on_message(self, client: Client, data: object, message: MQTTMessage) -> None:
        camera, what = message.topic.split("/")[2:]
        now_s = time.monotonic()
        with self._lock:
            heard = self._heard[camera]
            if what == "result":
                heard.result, heard.came_s = json.loads(message.payload), now_s
                heard.result["good"] &= not message.retain

    def look(self) -> None:
        """What the client believes now."""
        for camera in CAMERAS:
            with self._lock:
                result, came_s = self._heard[camera].result, self._heard[camera].came_s
            if result:
                now_s = time.monotonic()
                is_good = result["good"] and now_s < came_s + result["good_for_s"]
                is_late = is_good and time.time_ns() > result["published_ns"] + self._oldest_ns
                self._looks.put(Look(MQTT, camera, now_s, now_s, is_good, result.get("sequence", 0), is_late))

    def close(self) -> None:
        """Leave the broker."""
        self._client.loop_stop()


def watch_exits(
    addresses: tuple[str, int, int | None],
    fps: float,
    camera_fps: float,
    board: Board,
    report: Connection,
    stop: multiprocessing.synchronize.Event,
) -> None:
    """Work of the process; at the end it reports what was seen, by exit and camera.

    Args:
        addresses: The line's publisher, the Modbus bridge's port and the broker's, None without one.
        fps: Messages per second and camera.
        camera_fps: Pictures per second of a camera.
        board: Where faults look.
        report: Where the end is told.
        stop: Set at the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(-10)  # how old a good is when this process sees it must not be this process's own lack of CPU
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    publisher, modbus_port, broker_port = addresses
    looks: SimpleQueue[Look] = SimpleQueue()
    judge = Judge(fps, camera_fps, board)
    plc = Plc(modbus_port, 1 / fps, looks)
    reading = threading.Thread(target=plc.work, args=(stop,))
    consumer = None if broker_port is None else Consumer(broker_port, 1 / fps, looks)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = context.socket(zmq.SUB)
    receiver.setsockopt(zmq.RCVHWM, 100_000)
    receiver.setsockopt(zmq.SUBSCRIBE, b"")
    receiver.connect(publisher)
    reading.start()
    next_s = time.monotonic()
    while not stop.is_set():
        if receiver.poll(max(0, round(1e3 * (next_s - time.monotonic())))):
            parts, arrived_ns = receiver.recv_multipart(), time.monotonic_ns()
            judge.hear(json.loads(parts[1]), arrived_ns)
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + LOOK_EVERY_S
            if consumer is not None:
                consumer.look()
            with contextlib.suppress(Empty):
                while True:
                    judge.look(looks.get_nowait())
            judge.judge()
    reading.join()
    if consumer is not None:
        consumer.close()
    context.destroy(linger=0)
    shown = {f"{exit_}, {camera}": asdict(seen) for (exit_, camera), seen in judge.shown.items() if seen.looks}
    report.send({"shown": shown, "unanswered_plc": plc.unanswered, "misdated": judge.misdated})

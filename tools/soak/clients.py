"""Who acts on what a line shows: a program on its messages, a PLC on Modbus, another on OPC UA, an MQTT client.

Each looks many times a period and tells each time what it believes then. They are fbft-edge's own subscriber, pymodbus,
asyncua and paho, and know of the exits what docs/message.md and docs/plc.md say. Know nothing of faults and of ages.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing.synchronize
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from asyncua import Client as OpcUaClient
from asyncua import ua
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from fbft_edge.bridges.opcua_variables import NAMESPACE
from fbft_edge.errors import MessageError
from fbft_edge.sockets.subscriber import ResultSubscriber
from tools.soak.board import MESSAGES, MODBUS, MQTT, OPCUA
from tools.soak.place import CAMERAS, SITE

PERIODS = 2
LOOK_EVERY_S = 0.02
GOOD_BIT = 1 << 4
BUSY_PERIODS = 3.0  # a program is busy for so long at the most before it looks again


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


Tell = Callable[[Look], None]


def as_watcher() -> None:
    """Begin a process that watches: it must not see late because of its own lack of CPU, and ends by an event."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(-10)
    for library in ("pymodbus", "asyncua"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def read_messages(endpoint: str, period_s: float, looks: Any, stop: multiprocessing.synchronize.Event) -> None:
    """Work of a process: act on messages as docs/message.md has it, busy in between for up to three periods."""
    as_watcher()
    threads = [
        threading.Thread(target=_read_messages, args=(endpoint, camera, period_s, looks.put, stop))
        for camera in CAMERAS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read_messages(
    endpoint: str, camera: str, period_s: float, tell: Tell, stop: multiprocessing.synchronize.Event
) -> None:
    chance = random.Random(camera)
    with ResultSubscriber(endpoint, site=SITE, camera=camera) as results:
        while not stop.is_set():
            try:
                result = results.receive()
            except MessageError:
                result = None
            for busy_s in (0.0, chance.choice((0.0, chance.uniform(0, BUSY_PERIODS * period_s)))):
                time.sleep(busy_s)
                asked_s = time.monotonic()
                is_good = result is not None and result.is_good
                if result is not None:
                    tell(Look(MESSAGES, camera, asked_s, time.monotonic(), is_good, result.sequence))


def read_opcua(port: int, period_s: float, looks: Any, stop: multiprocessing.synchronize.Event) -> None:
    """Work of a process: read the variables of each camera in turn; an answer later than a period is none."""
    as_watcher()
    while not stop.is_set():
        with contextlib.suppress(OSError, asyncio.TimeoutError, ua.UaError, asyncio.CancelledError):
            asyncio.run(_read_opcua(port, period_s, looks.put, stop))
        time.sleep(LOOK_EVERY_S)


async def _read_opcua(port: int, period_s: float, tell: Tell, stop: multiprocessing.synchronize.Event) -> None:
    async with OpcUaClient(opcua_url(port), timeout=2) as client:
        index = await client.get_namespace_index(NAMESPACE)
        nodes = {
            camera: [client.get_node(f"ns={index};s={camera}.{name}") for name in ("Good", "Sequence")]
            for camera in CAMERAS
        }
        while not stop.is_set():
            for camera in CAMERAS:
                asked_s = time.monotonic()
                good, sequence = await client.read_attributes(nodes[camera])
                seen_s = time.monotonic()
                if seen_s < asked_s + period_s:
                    is_good = good.StatusCode.is_good() and good.Value.Value is True
                    tell(Look(OPCUA, camera, asked_s, seen_s, is_good, sequence.Value.Value))
            await asyncio.sleep(2 * LOOK_EVERY_S)


def opcua_url(port: int) -> str:
    """Of the bridge's server."""
    return f"opc.tcp://127.0.0.1:{port}/fbft-edge"


class Plc:
    """A Modbus client that reads one block of each camera in turn; an answer later than a period is none."""

    def __init__(self, port: int, period_s: float, tell: Tell) -> None:
        self._port, self._period_s, self._tell = port, period_s, tell
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
                self._tell(look)
            time.sleep(LOOK_EVERY_S)


@dataclass
class Heard:
    """The newest that an MQTT client knows of a camera."""

    result: dict[str, Any] = field(default_factory=dict)
    came_s: float = 0.0


class Consumer:
    """An MQTT client that keeps to the four rules of docs/plc.md; what the fourth alone refuses is late."""

    def __init__(self, port: int, period_s: float, tell: Tell) -> None:
        self._oldest_ns, self._tell, self._lock = round(PERIODS * period_s * 1e9), tell, threading.Lock()
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
                self._tell(Look(MQTT, camera, now_s, now_s, is_good, result.get("sequence", 0), is_late))

    def close(self) -> None:
        """Leave the broker."""
        self._client.loop_stop()

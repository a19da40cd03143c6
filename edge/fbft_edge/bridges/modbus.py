"""The Modbus TCP server: cameras' states in, a register map per camera out, consistent within each request.

Registers are made anew for every request, inside the one turn of the event loop that answers it: no request sees
halves of two results, and how long the line has been silent is asked at that moment. Knows nothing about ZeroMQ.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from fbft_edge.addresses import is_loopback
from fbft_edge.bridges.camera_state import CameraState
from fbft_edge.bridges.handshake import ResultLatch, SendTriggerOf, Triggers
from fbft_edge.bridges.listening import check_free
from fbft_edge.bridges.modbus_requests import HEADER, MAX_PDU_BYTES, ExceptionCode, RefusedError, Unit, answer_to
from fbft_edge.bridges.registers import (
    COMMAND_ADDRESS,
    MAPS,
    PART_REGISTERS,
    Control,
    Snapshot,
    part_id_from_registers,
)
from fbft_edge.errors import ArgumentError
from fbft_edge.messages.reading import Result
from fbft_edge.sockets.access import LimitedLog

MAX_CONNECTIONS = 16
IDLE_S = 60.0


class Station:
    """One camera as the PLC sees it.

    Args:
        state: What is known of the camera.
        with_handshake: Results wait for their acknowledgement; else the newest message is shown.
        send: Sends a trigger to a camera; None when there is no way to the line.
    """

    def __init__(self, state: CameraState, with_handshake: bool, send: SendTriggerOf | None) -> None:
        self.state = state
        self.latch = ResultLatch(state.clock) if with_handshake else None
        self.triggers = Triggers(send and partial(send, state.camera))
        self._control = Control(0)
        self._lock = threading.Lock()  # a result comes wholly before or wholly after what the PLC writes or reads

    def offer(self, result: Result) -> None:
        """A frame's own result came; what answers the trigger of somebody else is not the PLC's."""
        with self._lock:
            if self.latch is not None and self._is_asked_for(result):
                self.latch.offer(result)
            self.triggers.answer(result.trigger_id)

    def write_control(self, value: int, part_id: str | None = None) -> None:
        """The PLC wrote its register, and with it which part a trigger is about."""
        with self._lock:
            control = Control(value & (Control.TRIGGER | Control.RESULTS_ACKNOWLEDGE))
            if self.latch is not None:
                self.latch.acknowledge(Control.RESULTS_ACKNOWLEDGE in control)
            self._control = control
            line = None if self.state.standing().fault else self.state.line()
            self.triggers.write(Control.TRIGGER in control, line, is_clear=self._is_clear, part_id=part_id)

    def snapshot(self, beats: int) -> Snapshot:
        """Everything the registers say now."""
        with self._lock:
            standing = self.state.standing()
            if standing.message is not None:
                self.triggers.note_missed(standing.message.ledger.missed_triggers)
            if (line := self.state.line()) is not None:
                self.triggers.note_line(line)
            return Snapshot(
                self._control,
                beats,
                standing,
                self.triggers.signals(not standing.fault, is_clear=self._is_clear),
                None if self.latch is None else self.latch.signals(),
            )

    @property
    def _is_clear(self) -> bool:
        return self.latch is None or self.latch.signals().is_clear

    def _is_asked_for(self, result: Result) -> bool:
        if not self.triggers.can_send or self.triggers.is_answer(result.trigger_id):
            return True
        return result.trigger_id is None and not self.triggers.signals(True).is_busy


@contextlib.asynccontextmanager
async def modbus_server(
    stations: Sequence[Station], beats: Callable[[], int], address: tuple[str, int], *, insecure: bool
) -> AsyncIterator[None]:
    """Serve while the context lasts.

    Args:
        stations: One is served to any unit identifier; several as units 1, 2, ... in this order.
        beats: The feed's turns so far.
        address: Host and port.
        insecure: Allow a host beyond loopback: whoever reaches a Modbus server may read and write.

    Raises:
        ArgumentError: The address reaches beyond this machine, or cannot be listened on.
    """
    host, port = address
    if not insecure and not is_loopback(host):
        raise ArgumentError(
            f"{host}:{port} reaches beyond this machine, and Modbus knows no password: anyone there could read and "
            f"acknowledge results; listen on 127.0.0.1, or add --insecure on a network that only the PLC is on"
        )
    check_free(address)
    units = [_CameraUnit(station, beats) for station in stations]
    clients = _Clients(lambda number: _unit_of(number, units))
    server = await asyncio.start_server(clients.serve, host, port)
    try:
        yield
    finally:
        server.close()
        await clients.close()


def _unit_of(number: int, units: Sequence[Unit]) -> Unit | None:
    if len(units) == 1:
        return units[0]
    return units[number - 1] if 1 <= number <= len(units) else None


class _CameraUnit:
    """A station as registers.

    A part is written in one request with the trigger that is about it: halves of two texts cannot meet here, nor a
    trigger the part of another.
    """

    def __init__(self, station: Station, beats: Callable[[], int]) -> None:
        self._station, self._beats = station, beats
        self._log = LimitedLog()

    def holds(self, address: int, count: int) -> bool:
        return any(one.holds(address, count) for one in MAPS)

    def read(self, address: int, count: int) -> Sequence[int]:
        found = next(one for one in MAPS if one.holds(address, count))
        first = address - found.address
        return found.values(self._station.snapshot(self._beats()))[first : first + count]

    def write(self, address: int, values: Sequence[int]) -> None:
        control, *part = values
        is_control = not part and address in {one.address for one in MAPS}
        if not is_control and (address != COMMAND_ADDRESS or len(part) != PART_REGISTERS):
            raise RefusedError(ExceptionCode.ILLEGAL_ADDRESS)
        try:
            part_id = part_id_from_registers(part)
        except ValueError as error:
            self._log.warn(f"Modbus: camera {self._station.state.camera}: {error}")
            raise RefusedError(ExceptionCode.ILLEGAL_VALUE) from error
        self._station.write_control(control, part_id)


class _Clients:
    """Connections: each request is answered, in order, however many of them come at once.

    One more than `MAX_CONNECTIONS` ends the one that has been idle for longest, so that a PLC that was switched off
    and on is let in. pymodbus (3.14 to 3.16) is not used: its server handles one frame for each piece of data that
    arrives, keeps one request at a time, and loses the others without an answer.
    """

    def __init__(self, unit_of: Callable[[int], Unit | None]) -> None:
        self._unit_of = unit_of
        self._heard_s: dict[asyncio.Task[None], float] = {}
        self._log = LimitedLog()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._heard_s[task] = time.monotonic()
        if len(self._heard_s) > MAX_CONNECTIONS:
            longest_idle = min(self._heard_s, key=self._heard_s.__getitem__)
            longest_idle.cancel()
            del self._heard_s[longest_idle]
            self._log.warn(
                f"Modbus: more than {MAX_CONNECTIONS} connections; the one that was idle for longest is ended"
            )
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            task.cancel()
            self._heard_s.pop(task, None)
            writer.close()  # here, as a task that is ended before its first step never comes to its own `finally`

    async def close(self) -> None:
        """End all connections."""
        tasks = list(self._heard_s)
        self._heard_s.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop's turn in which the sockets are closed

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, task = writer.get_extra_info("peername"), asyncio.current_task()
        try:
            # Before Python 3.12 `wait_for` may swallow that the task is cancelled (bpo-37658), so it looks for itself.
            while task in self._heard_s:
                self._heard_s[task] = time.monotonic()
                await asyncio.wait_for(self._exchange(reader, writer), IDLE_S)
                await asyncio.sleep(0)  # requests that are there already must not keep the others waiting
        except asyncio.TimeoutError:
            self._log.warn(f"Modbus: {peer} said nothing for {IDLE_S:g} s and is ended")
        except ValueError as error:
            self._log.warn(f"Modbus: {peer} is ended: {error}")
        except (asyncio.IncompleteReadError, OSError):
            return

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transaction, protocol, length, number = HEADER.unpack(await reader.readexactly(HEADER.size))
        if protocol != 0 or not 2 <= length <= MAX_PDU_BYTES + 1:  # where the next request begins cannot be known
            raise ValueError(f"what it says is not Modbus TCP (protocol {protocol}, length {length})")
        request = await reader.readexactly(length - 1)
        answer = answer_to(request, self._unit_of(number))
        writer.write(HEADER.pack(transaction, 0, len(answer) + 1, number) + answer)
        await writer.drain()

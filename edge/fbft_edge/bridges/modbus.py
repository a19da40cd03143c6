"""The Modbus TCP server: cameras' states in, a register map per camera out, consistent within each request.

Registers are made anew for every request, inside the one turn of the event loop that answers it: no request sees
halves of two results, and how long the line has been silent is asked at that moment. Knows nothing about ZeroMQ.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fbft_edge.addresses import is_loopback
from fbft_edge.bridges.camera_state import CameraState
from fbft_edge.bridges.handshake import ResultLatch, SendTriggerOf, Triggers
from fbft_edge.bridges.listening import check_free
from fbft_edge.bridges.registers import CONTROL_ADDRESS, NUM_REGISTERS, Control, Snapshot, registers_from_snapshot
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_edge.messages.reading import Result

if TYPE_CHECKING:
    from pymodbus.constants import ExcCodes
    from pymodbus.simulator import SimDevice

ANY_UNIT = 0
BIT_FUNCTIONS = (1, 2, 5, 15)


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

    def write_control(self, value: int) -> None:
        """The PLC wrote its register."""
        with self._lock:
            control = Control(value & (Control.TRIGGER | Control.RESULTS_ACKNOWLEDGE))
            if self.latch is not None:
                self.latch.acknowledge(Control.RESULTS_ACKNOWLEDGE in control)
            self._control = control
            line = None if self.state.standing().fault else self.state.line()
            self.triggers.write(Control.TRIGGER in control, line, is_clear=self._is_clear)

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
    require_extra("modbus", "the Modbus bridge")
    from pymodbus.server import ModbusTcpServer

    host, port = address
    if not insecure and not is_loopback(host):
        raise ArgumentError(
            f"{host}:{port} reaches beyond this machine, and Modbus knows no password: anyone there could read and "
            f"acknowledge results; listen on 127.0.0.1, or add --insecure on a network that only the PLC is on"
        )
    check_free(address)
    first_unit = ANY_UNIT if len(stations) == 1 else 1
    devices = [_device(unit, station, beats) for unit, station in enumerate(stations, first_unit)]
    server = ModbusTcpServer(devices, address=address)
    await server.serve_forever(background=True)
    try:
        yield
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


def _device(unit: int, station: Station, beats: Callable[[], int]) -> SimDevice:
    from pymodbus.constants import ExcCodes
    from pymodbus.simulator import DataType, SimData, SimDevice

    async def answer(
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if function in BIT_FUNCTIONS:
            return ExcCodes.ILLEGAL_FUNCTION
        if written is not None:
            station.write_control(written[0])
        registers[:NUM_REGISTERS] = registers_from_snapshot(station.snapshot(beats()))
        return None

    control = SimData(CONTROL_ADDRESS, values=0, datatype=DataType.REGISTERS)
    shown = SimData(CONTROL_ADDRESS + 1, count=NUM_REGISTERS - 1, values=0, datatype=DataType.REGISTERS, readonly=True)
    return SimDevice(unit, [control, shown], action=answer)

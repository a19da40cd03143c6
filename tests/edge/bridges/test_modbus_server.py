"""Many connections and requests at once: each request is answered in order, and nobody keeps a PLC out."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from fbft_edge.bridges import modbus
from fbft_edge.bridges.camera_state import CameraState
from fbft_edge.bridges.modbus import Station, modbus_server
from fbft_edge.bridges.registers import Control

DEADLINE_S = 30.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


def serve(port: int, steps: Callable[[Connect, Station], Awaitable[None]]) -> None:
    """Run a test's steps beside a server of one camera."""

    async def run() -> None:
        station = Station(CameraState("camera"), True, None)
        async with modbus_server([station], lambda: 0, ("127.0.0.1", port), insecure=False):
            writers: list[asyncio.StreamWriter] = []

            async def connect() -> Streams:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writers.append(writer)
                return reader, writer

            await steps(connect, station)
            for writer in writers:
                writer.close()
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


def frame(transaction: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, 1) + pdu


def read_control(transaction: int) -> bytes:
    return frame(transaction, b"\x03" + struct.pack(">HH", 0, 1))


def write_control(transaction: int, value: int) -> bytes:
    return frame(transaction, b"\x06" + struct.pack(">HH", 0, value))


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    transaction, _, length, _ = struct.unpack(">HHHB", await reader.readexactly(7))
    return transaction, await reader.readexactly(length - 1)


async def is_ended(reader: asyncio.StreamReader) -> bool:
    return await reader.read(1) == b""


def test_requests_that_are_sent_at_once_are_all_answered_in_their_order(free_port: Callable[[], int]) -> None:
    async def steps(connect: Connect, station: Station) -> None:
        reader, writer = await connect()
        values = [Control.RESULTS_ACKNOWLEDGE if number % 2 else 0 for number in range(100)]
        sent = [write_control(2 * n, value) + read_control(2 * n + 1) for n, value in enumerate(values)]
        writer.write(b"".join(sent))
        answers = [await answer(reader) for _ in range(200)]
        assert [transaction for transaction, _ in answers] == list(range(200))
        assert [pdu[-1] for _, pdu in answers[1::2]] == values

    serve(free_port(), steps)


def test_a_request_in_many_pieces_is_one(free_port: Callable[[], int]) -> None:
    async def steps(connect: Connect, station: Station) -> None:
        reader, writer = await connect()
        for byte in read_control(7):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        assert (await answer(reader))[0] == 7

    serve(free_port(), steps)


def test_a_function_that_is_not_served_is_an_exception_and_the_connection_goes_on(free_port: Callable[[], int]) -> None:
    async def steps(connect: Connect, station: Station) -> None:
        reader, writer = await connect()
        writer.write(frame(1, b"\x2b\x0e\x01\x00") + frame(2, b"\x03\x00") + read_control(3))
        answers = [await answer(reader) for _ in range(3)]
        assert [pdu[:2] for _, pdu in answers] == [b"\xab\x01", b"\x83\x03", b"\x03\x02"]

    serve(free_port(), steps)


@pytest.mark.parametrize(
    "junk", [struct.pack(">HHHB", 1, 7, 6, 1), struct.pack(">HHHB", 1, 0, 1, 1), b"GET / HTTP/1.1"]
)
def test_what_is_not_modbus_is_ended_and_logged(
    free_port: Callable[[], int], caplog: pytest.LogCaptureFixture, junk: bytes
) -> None:
    async def steps(connect: Connect, station: Station) -> None:
        reader, writer = await connect()
        writer.write(junk)
        assert await is_ended(reader)

    serve(free_port(), steps)
    assert caplog.text.count("is not Modbus TCP") == 1


def test_a_client_that_says_nothing_is_ended(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(modbus, "IDLE_S", 0.05)

    async def steps(connect: Connect, station: Station) -> None:
        silent, (half, writer) = await connect(), await connect()
        writer.write(read_control(1)[:5])
        assert await is_ended(silent[0])
        assert await is_ended(half)

    serve(free_port(), steps)
    assert "said nothing" in caplog.text


def test_one_client_too_many_ends_the_one_that_was_silent_for_longest(
    free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(connect: Connect, station: Station) -> None:
        clients = [await connect() for _ in range(modbus.MAX_CONNECTIONS)]
        for number in (*range(2, modbus.MAX_CONNECTIONS), 0, 1):
            reader, writer = clients[number]
            writer.write(read_control(number))
            await answer(reader)
        clients.extend([await connect(), await connect()])
        assert await is_ended(clients.pop(2)[0])
        assert await is_ended(clients.pop(2)[0])
        for number, (reader, writer) in enumerate(clients):
            writer.write(read_control(number))
            assert (await answer(reader))[0] == number

    serve(free_port(), steps)
    assert caplog.text.count("idle for longest") == 1


def test_connections_that_waited_for_a_bridge_that_was_held_up_are_ended_but_for_the_newest(
    free_port: Callable[[], int],
) -> None:
    port, more = free_port(), 20

    async def steps(connect: Connect, station: Station) -> None:
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(modbus.MAX_CONNECTIONS + more)]
        clients = [await asyncio.open_connection(sock=client) for client in waiting]
        assert [await is_ended(reader) for reader, _ in clients[:more]] == [True] * more
        for _, writer in clients:
            writer.close()

    serve(port, steps)

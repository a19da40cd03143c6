"""Who asks for a picture of a part, as a PLC does, in each of the three ways; what came of it out.

Every part has a number of its own, and each trigger ends in one way: a verdict about this part, a fault about it,
missed, refused, or cut off because line or bridge did not answer. An answer about another part, a picture from before
the trigger, and a trigger of which nobody ever hears are problems. Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing.synchronize
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from asyncua import Client as OpcUaClient
from asyncua import ua
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from fbft_edge.bridges.opcua_variables import NAMESPACE
from fbft_edge.errors import CommandError
from fbft_edge.frames.frame import Verdict
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.subscriber import ResultSubscriber
from tools.soak.board import COMMANDS, HANDSHAKE, METHOD, WAYS, Board
from tools.soak.clients import as_watcher, opcua_url
from tools.soak.place import ASKED, SITE

GOOD, NOT_GOOD, MISSED, REFUSED, CUT_OFF = "good", "not good", "missed", "refused", "cut off"
LOOK_EVERY_S = 0.05
READY_WITHIN_S, ANSWER_WITHIN_S, REQUEST_S = 20.0, 40.0, 3.0
PAUSE_S = (0.5, 2.0)
READY_BIT, ACKNOWLEDGE_BIT, VALID_BIT, GOOD_BIT, MISSED_BIT = (1 << bit for bit in (1, 2, 3, 4, 6))
TRIGGER, TAKEN = 1, 2
PART_WORDS = 32


class AnswerError(Exception):
    """An answer that must not be."""


class UnheardError(Exception):
    """Line or bridge did not answer."""


@dataclass(frozen=True)
class Ways:
    """Addresses by which a picture is asked for, and heard of."""

    publisher: str
    commands: str
    handshake_port: int
    opcua_port: int


class Asker:
    """Asks for pictures of parts.

    Attributes:
        outcomes: By way, how often each came.
        problems: In words.
    """

    def __init__(self, ways: Ways, board: Board) -> None:
        self._ways, self._board = ways, board
        self.outcomes: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
        self.problems: list[str] = []

    def ask(self, way: str, part: str) -> None:
        """Ask for a picture of one part, and wait for what comes of it."""
        steps: dict[str, Callable[[str], str]] = {
            COMMANDS: self._by_command,
            HANDSHAKE: self._by_handshake,
            METHOD: lambda part: asyncio.run(self._by_method(part)),
        }
        asked_s = time.monotonic()
        try:
            outcome = steps[way](part)
        except AnswerError as error:
            outcome = "wrong"
            self._note(f"{way}, part {part}: {error}")
        except ConnectionRefusedError:
            outcome = CUT_OFF  # a bridge that is being started; one that never comes is missed by who killed it
        except (UnheardError, OSError, ModbusException, asyncio.TimeoutError, ua.UaError, CommandError) as error:
            outcome = CUT_OFF
            if not self._board.was_stopped(asked_s):
                self._note(f"{way}, part {part}: {type(error).__name__}: {error}, and nothing was stopped")
        self.outcomes[way][outcome] += 1
        if outcome in (GOOD, NOT_GOOD):
            self._board.note_good(way, ASKED, time.monotonic())

    def _note(self, problem: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(f"{time.strftime('%H:%M:%S')} {problem}")

    def _by_command(self, part: str) -> str:
        ways = self._ways
        with (
            ResultSubscriber(ways.publisher, site=SITE, camera=ASKED, every=True) as results,
            CommandClient(ways.commands) as client,
        ):
            first = results.receive(REQUEST_S)
            if first is None:
                raise UnheardError("no message of the line")
            asked_s = time.monotonic()
            try:
                client.call("trigger", timeout_s=REQUEST_S, camera=ASKED, trigger_id=f"soak {part}", part_id=part)
            except CommandError as error:
                if "no answer" in str(error):
                    raise
                return REFUSED
            end_s = asked_s + ANSWER_WITHIN_S
            while (result := results.receive(end_s - time.monotonic())) is not None:
                if result.session != first.session:
                    return MISSED  # the line's run is over, and with it what was asked
                if result.trigger_id != f"soak {part}":
                    continue
                _require(result.part_id == part, f"answered about part {result.part_id}")
                if result.captured_ns is None or result.verdict is Verdict.FAULT:
                    return MISSED if result.frame_id is None else NOT_GOOD
                early_s = asked_s - (result.captured_ns + self._board.behind_ns) / 1e9
                _require(early_s <= 0, f"by a picture that was taken {early_s:.3f} s before the trigger")
                return GOOD if result.verdict is Verdict.OK else NOT_GOOD
        raise AnswerError(f"the line took it, and nothing was heard of it for {ANSWER_WITHIN_S:g} s")

    def _by_handshake(self, part: str) -> str:
        with contextlib.closing(
            ModbusTcpClient("127.0.0.1", port=self._ways.handshake_port, timeout=REQUEST_S, retries=0)
        ) as plc:
            if not plc.connect():  # type: ignore[no-untyped-call]
                raise ConnectionRefusedError("nobody listens")
            if not _until(plc, lambda status: status & READY_BIT and not status & VALID_BIT, READY_WITHIN_S):
                return REFUSED
            _write(plc, 2000, [TRIGGER, *_words(part)])
            taken = _until(
                plc, lambda s: not s & READY_BIT and s & (ACKNOWLEDGE_BIT | MISSED_BIT), READY_WITHIN_S, False
            )
            _require(taken is not None, "neither taken nor missed")
            _write(plc, 1000, [0])
            block = _until(plc, lambda status: status & (VALID_BIT | MISSED_BIT), ANSWER_WITHIN_S, False)
            if block is None:
                raise AnswerError(f"taken, and nothing was heard of it for {ANSWER_WITHIN_S:g} s")
            if not block[1] & VALID_BIT:
                return MISSED
            told = b"".join(word.to_bytes(2, "big") for word in block[36 : 36 + PART_WORDS]).rstrip(b"\0").decode()
            _require(told == part, f"answered about part {told!r}")
            _write(plc, 1000, [TAKEN])
            _until(plc, lambda status: not status & VALID_BIT, REQUEST_S, False)
            _write(plc, 1000, [0])
            return GOOD if block[1] & GOOD_BIT else MISSED if block[1] & MISSED_BIT else NOT_GOOD

    async def _by_method(self, part: str) -> str:
        async with OpcUaClient(opcua_url(self._ways.opcua_port), timeout=REQUEST_S) as client:
            index = await client.get_namespace_index(NAMESPACE)
            names = "Good", "PartId", "Busy", "Fault"
            nodes = [client.get_node(f"ns={index};s={ASKED}.{name}") for name in names]
            if not await client.get_node(f"ns={index};s={ASKED}").call_method(f"{index}:TriggerPart", part):
                return REFUSED
            end_s = time.monotonic() + ANSWER_WITHIN_S
            while time.monotonic() < end_s:
                good, told, busy, fault = (value.Value.Value for value in await client.read_attributes(nodes))
                _require(not good or told == part, f"good, about part {told!r}")
                if not busy:
                    return GOOD if good else NOT_GOOD if told == part and not fault else MISSED
                await asyncio.sleep(LOOK_EVERY_S)
        raise AnswerError(f"taken, and busy for {ANSWER_WITHIN_S:g} s")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AnswerError(otherwise)


def _words(part: str) -> list[int]:
    text = part.encode().ljust(2 * PART_WORDS, b"\0")
    return [int.from_bytes(text[place : place + 2], "big") for place in range(0, len(text), 2)]


def _write(plc: ModbusTcpClient, address: int, values: list[int]) -> None:
    answer = plc.write_registers(address, values)
    if answer.isError():
        raise UnheardError(f"a write was answered with {answer}")


def _until(
    plc: ModbusTcpClient, holds: Callable[[int], object], within_s: float, taking: bool = True
) -> Sequence[int] | None:
    """The first block whose status is so; results that nobody waits for are taken meanwhile."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        answer = plc.read_input_registers(1000, count=122)
        if answer.isError():
            raise UnheardError(f"a read was answered with {answer}")
        block: Sequence[int] = answer.registers
        if holds(block[1]):
            return block
        if taking and block[1] & VALID_BIT:
            _write(plc, 1000, [TAKEN])
            time.sleep(LOOK_EVERY_S)
            _write(plc, 1000, [0])
        time.sleep(LOOK_EVERY_S)
    return None


def ask(ways: Ways, seed: int, board: Board, report: Connection, stop: multiprocessing.synchronize.Event) -> None:
    """Work of a process: one way after the other, until the end; then it reports.

    Args:
        ways: To ask.
        seed: Of the pauses.
        board: Where answers are noted.
        report: Where the end is told.
        stop: Set at the end, before line and bridges end.
    """
    as_watcher()
    with ResultSubscriber(ways.publisher, site=SITE, camera=ASKED, every=True) as results:
        while results.receive(LOOK_EVERY_S) is None and not stop.is_set():
            pass
    asker, chance, number = Asker(ways, board), random.Random(seed), 0
    while not stop.is_set():
        for way in WAYS:
            number += 1
            asker.ask(way, f"SN-{number:06d}")
            if stop.wait(chance.uniform(*PAUSE_S)):
                break
    told: dict[str, Any] = {way: dict(outcomes) for way, outcomes in asker.outcomes.items()}
    report.send({"asked": told, "asked_problems": asker.problems})

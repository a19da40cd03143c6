"""A part that a PLC writes into registers is the one that a line is asked about, or is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.bridges.registers import PART_REGISTERS, part_id_from_registers
from fbft_edge.names import ID_PATTERN, MAX_ID_LENGTH


def registers(text: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{PART_REGISTERS}H", text.ljust(2 * PART_REGISTERS, b"\0"))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=MAX_ID_LENGTH))
def test_every_part_that_can_stand_in_a_message_fits_the_registers(part_id: str) -> None:
    assert part_id_from_registers(registers(part_id.encode())) == part_id


def test_registers_of_zeros_are_no_part() -> None:
    assert (part_id_from_registers(registers(b"")), part_id_from_registers([])) == (None, None)


@given(st.binary(max_size=2 * PART_REGISTERS))
def test_whatever_a_plc_writes_is_taken_to_the_last_byte_or_refused(text: bytes) -> None:
    try:
        part_id = part_id_from_registers(registers(text))
    except ValueError:
        written = text.rstrip(b"\0")
        assert written
        assert not ID_PATTERN.fullmatch(written.decode("latin-1"))
    else:
        assert (part_id or "").encode() == text.rstrip(b"\0")


def test_a_refused_part_is_named_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"part 'SN\\n\\x00a' cannot stand in a message; use 1 to 64 printable"):
        part_id_from_registers(registers(b"SN\n\0a")[:3])

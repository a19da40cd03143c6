"""Every request of Modbus is carried out whole and answered, or changes nothing and gets an exception."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.bridges.modbus_requests import ExceptionCode, RefusedError, answer_to

FUNCTION, ADDRESS, VALUE = ExceptionCode.ILLEGAL_FUNCTION, ExceptionCode.ILLEGAL_ADDRESS, ExceptionCode.ILLEGAL_VALUE


class Memory:
    """200 registers, of which the first two can be written."""

    def __init__(self) -> None:
        self.registers = list(range(1000, 1200))
        self.writes = 0

    def holds(self, address: int, count: int) -> bool:
        return address + count <= len(self.registers)

    def read(self, address: int, count: int) -> Sequence[int]:
        return self.registers[address : address + count]

    def write(self, address: int, values: Sequence[int]) -> None:
        if address + len(values) > 2:
            raise RefusedError(ADDRESS)
        self.writes += 1
        self.registers[address : address + len(values)] = values


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def write_many(address: int, count: int, num_bytes: int, *values: int) -> bytes:
    return b"\x10" + words(address, count) + bytes([num_bytes]) + words(*values)


def write_and_read(read: tuple[int, int], address: int, count: int, num_bytes: int, *values: int) -> bytes:
    return b"\x17" + words(*read, address, count) + bytes([num_bytes]) + words(*values)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"\x03" + words(7, 2), b"\x03\x04" + words(1007, 1008)),
        (b"\x04" + words(75, 125), b"\x04\xfa" + words(*range(1075, 1200))),
        (b"\x06" + words(1, 9), b"\x06" + words(1, 9)),
        (write_many(0, 2, 4, 8, 9), b"\x10" + words(0, 2)),
        (write_and_read((0, 3), 1, 1, 2, 9), b"\x17\x06" + words(1000, 9, 1002)),
    ],
)
def test_a_request_is_answered_as_the_specification_has_it(request_: bytes, answer: bytes) -> None:
    assert answer_to(request_, Memory()) == answer


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"\x03", VALUE),
        (b"\x03" + words(0, 1) + b"\x00", VALUE),
        (b"\x04" + words(0, 0), VALUE),
        (b"\x04" + words(0, 126), VALUE),
        (b"\x03" + words(200, 1), ADDRESS),
        (b"\x03" + words(199, 2), ADDRESS),
        (b"\x03" + words(65535, 125), ADDRESS),
        (b"\x06" + words(0), VALUE),
        (b"\x06" + words(0, 1, 2), VALUE),
        (b"\x06" + words(2, 1), ADDRESS),
        (b"\x06" + words(999, 1), ADDRESS),
        (b"\x10\x00", VALUE),
        (write_many(0, 0, 0), VALUE),
        (write_many(0, 1, 4, 8, 9), VALUE),
        (write_many(0, 2, 4, 8), VALUE),
        (write_many(0, 3, 6, 7, 8, 9), ADDRESS),
        (write_and_read((0, 126), 0, 1, 2, 9), VALUE),
        (write_and_read((199, 2), 0, 1, 2, 9), ADDRESS),
        (write_and_read((0, 1), 2, 1, 2, 9), ADDRESS),
        (write_and_read((0, 1), 0, 1, 2), VALUE),
        *((bytes([function]) + words(0, 1), FUNCTION) for function in (0, 1, 2, 5, 7, 15, 43, 100, 127)),
    ],
)
def test_what_cannot_be_carried_out_gets_its_exception_and_writes_nothing(request_: bytes, code: ExceptionCode) -> None:
    memory = Memory()
    assert answer_to(request_, memory) == bytes([request_[0] | 0x80, code])
    assert memory.writes == 0


def test_a_unit_that_is_not_there_is_an_exception() -> None:
    assert answer_to(b"\x03" + words(0, 1), None) == bytes([0x83, ExceptionCode.NO_SUCH_UNIT])


def test_a_bug_is_an_exception_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Memory):
        def read(self, address: int, count: int) -> Sequence[int]:
            raise ZeroDivisionError

    assert answer_to(b"\x03" + words(0, 1), Broken()) == bytes([0x83, ExceptionCode.DEVICE_FAILURE])
    assert "ZeroDivisionError" in caplog.text


@given(st.binary(min_size=1, max_size=253))
def test_whatever_comes_is_answered_with_its_own_function(request_: bytes) -> None:
    answer = answer_to(request_, Memory())
    assert answer[0] in (request_[0], request_[0] | 0x80)
    assert len(answer) <= 253

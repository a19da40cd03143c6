"""A request of Modbus in, its answer out: reading and writing registers, and the exceptions that the protocol names.

After the MODBUS Application Protocol Specification V1.1b3 and its Messaging on TCP/IP Implementation Guide V1.0b. Knows
nothing about sockets and what registers mean.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

HEADER = struct.Struct(">HHHB")
MAX_PDU_BYTES = 253
MOST_READ = 125
_MOST_WRITTEN, _MOST_WRITTEN_WHEN_READ = 123, 121
_RANGE, _READ_WRITE, _WRITE_MANY = struct.Struct(">HH"), struct.Struct(">HHHHB"), struct.Struct(">HHB")
_IS_EXCEPTION = 0x80

_logger = logging.getLogger(__name__)


class ExceptionCode(IntEnum):
    """Why a request is refused."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4
    NO_SUCH_UNIT = 11


class RefusedError(Exception):
    """A request cannot be carried out, and was not in any part.

    Attributes:
        code: Why.
    """

    def __init__(self, code: ExceptionCode) -> None:
        super().__init__(code.name)
        self.code = code


class Unit(Protocol):
    """What answers to a unit identifier."""

    def holds(self, address: int, count: int) -> bool:
        """True when these registers can be read in one request."""
        ...

    def read(self, address: int, count: int) -> Sequence[int]:
        """Registers that it holds, as they are at one moment, each from 0 to 65535."""
        ...

    def write(self, address: int, values: Sequence[int]) -> None:
        """Write registers, all or none.

        Raises:
            RefusedError: They cannot be written, or not so.
        """
        ...


def answer_to(request: bytes, unit: Unit | None) -> bytes:
    """Carry out a request.

    Args:
        request: Function code and what follows it, at least one byte.
        unit: None when there is none of that identifier.

    Returns:
        Function code and what follows it: the answer, or the exception.
    """
    function = request[0]
    try:
        if unit is None:
            raise RefusedError(ExceptionCode.NO_SUCH_UNIT)
        if function not in _FUNCTIONS:
            raise RefusedError(ExceptionCode.ILLEGAL_FUNCTION)
        return bytes([function]) + _FUNCTIONS[function](request[1:], unit)
    except RefusedError as refused:
        return bytes([function | _IS_EXCEPTION, refused.code])
    except Exception:
        _logger.exception("Modbus function %d failed", function)
        return bytes([function | _IS_EXCEPTION, ExceptionCode.DEVICE_FAILURE])


def _read(fields: bytes, unit: Unit) -> bytes:
    _require(len(fields) == _RANGE.size, ExceptionCode.ILLEGAL_VALUE)
    address, count = _RANGE.unpack(fields)
    _check_read(address, count, unit)
    return _words(unit.read(address, count))


def _write_one(fields: bytes, unit: Unit) -> bytes:
    _require(len(fields) == _RANGE.size, ExceptionCode.ILLEGAL_VALUE)
    address, value = _RANGE.unpack(fields)
    unit.write(address, [value])
    return fields


def _write_many(fields: bytes, unit: Unit) -> bytes:
    _require(len(fields) >= _WRITE_MANY.size, ExceptionCode.ILLEGAL_VALUE)
    address, count, num_bytes = _WRITE_MANY.unpack_from(fields)
    values = _values(fields[_WRITE_MANY.size :], count, num_bytes)
    _require(0 < count <= _MOST_WRITTEN, ExceptionCode.ILLEGAL_VALUE)
    unit.write(address, values)
    return fields[: _RANGE.size]


def _write_and_read(fields: bytes, unit: Unit) -> bytes:
    _require(len(fields) >= _READ_WRITE.size, ExceptionCode.ILLEGAL_VALUE)
    address, count, written_address, written_count, num_bytes = _READ_WRITE.unpack_from(fields)
    values = _values(fields[_READ_WRITE.size :], written_count, num_bytes)
    _require(0 < written_count <= _MOST_WRITTEN_WHEN_READ, ExceptionCode.ILLEGAL_VALUE)
    _check_read(address, count, unit)
    unit.write(written_address, values)
    return _words(unit.read(address, count))


_FUNCTIONS: Mapping[int, Callable[[bytes, Unit], bytes]] = {
    3: _read,
    4: _read,
    6: _write_one,
    16: _write_many,
    23: _write_and_read,
}


def _require(is_met: bool, code: ExceptionCode) -> None:
    if not is_met:
        raise RefusedError(code)


def _check_read(address: int, count: int, unit: Unit) -> None:
    _require(0 < count <= MOST_READ, ExceptionCode.ILLEGAL_VALUE)
    _require(unit.holds(address, count), ExceptionCode.ILLEGAL_ADDRESS)


def _values(encoded: bytes, count: int, num_bytes: int) -> Sequence[int]:
    _require(len(encoded) == num_bytes == 2 * count, ExceptionCode.ILLEGAL_VALUE)
    return struct.unpack(f">{count}H", encoded)


def _words(values: Sequence[int]) -> bytes:
    return struct.pack(f">B{len(values)}H", 2 * len(values), *values)

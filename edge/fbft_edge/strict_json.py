"""JSON of other programs, read strictly: bytes in, typed and bounded values out.

Every function raises `ValueError` on anything else. Knows nothing about files.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")


def json_from_bytes(raw: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no member twice in one object.

    Raises:
        ValueError: It is not.
        RecursionError: It is nested too deeply.
    """
    return json.loads(raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_members)


def typed(value: Any, kind: type[_T]) -> _T:
    """A value as a dataclass has it, bounds in its `msgspec.Meta` included; members that it does not name are left out.

    Whole numbers pass where numbers are expected, and nothing else is turned into what it is not.

    Args:
        value: From `json_from_bytes`: members that stand twice were refused there, which msgspec would accept.
        kind: What it has to be.

    Raises:
        ValueError: It is not; the text says where.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {value!r:.80}")
    return value


def integer(value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"expected a whole number from {low} to {high}, found {value!r:.80}")
    return value


def number(value: Any, low: float, high: float) -> float:
    """A number from `low` to `high`; never NaN."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ValueError(f"expected a number from {low:g} to {high:g}, found {value!r:.80}")
    return float(value)


def members(value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {value!r:.80}")
    return value


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return found

"""JSON of other programs, read strictly: bytes in, checked values out.

Every function raises `ValueError` on anything else. Knows nothing about files.
"""

from __future__ import annotations

import json
from typing import Any


def json_from_bytes(raw: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no member twice in one object.

    Raises:
        ValueError: It is not.
        RecursionError: It is nested too deeply.
    """
    return json.loads(raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_members)


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

"""JSON of other programs, read strictly: bytes in, typed and bounded values out.

The only place that parses JSON from outside. Knows nothing about files.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from fbft_edge.names import one_line

_T = TypeVar("_T")


def json_from_bytes(raw: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no member twice in one object.

    Raises:
        ValueError: It is not, or it is nested too deeply.
    """
    try:
        return json.loads(raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_members)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def typed(value: Any, kind: type[_T]) -> _T:
    """A value as a dataclass or a `msgspec.Struct` has it, the bounds of its `msgspec.Meta` included.

    Whole numbers pass where numbers are expected, and nothing else is turned into what it is not. Members that are
    not named there are left out, or refused by a `Struct` with `forbid_unknown_fields`.

    Args:
        value: From `json_from_bytes`: members that stand twice were refused there, which msgspec would accept.
        kind: What it has to be.

    Raises:
        ValueError: It is not; the text is one line that says where.
    """
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeError) as error:  # halves of UTF-16 pairs, escaped, have no UTF-8
        raise ValueError(one_line(str(error))) from None


def members(value: Any) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: It is something else.
    """
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

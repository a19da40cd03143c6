"""What both ends of a command socket share: requests and answers to bytes and back, and their limits.

A request is one flat JSON object in UTF-8 of at most 4 KiB, in one ZeroMQ message (DEALER or REQ):

    {"id": 1, "command": "trigger", "camera": "press-1"}

and its answer is `{"id": 1, "ok": true, ...}` or `{"id": 1, "ok": false, "error": "..."}`. Knows nothing about sockets
or what a command does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fbft_edge.names import printable
from fbft_edge.strict_json import json_from_bytes, members

MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 2**20
MAX_MEMBERS = 16
MAX_INTEGER = 2**53 - 1

Number = int | str | None


def request_bytes(number: int, command: str, arguments: Mapping[str, Any]) -> bytes:
    """A request.

    Args:
        number: Comes back in the answer.
        command: To be given.
        arguments: Texts, numbers, true, false or None, by their names.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps({"id": number, "command": command, **arguments}, allow_nan=False).encode()


def request_from_bytes(body: bytes) -> tuple[Number, str, dict[str, Any]]:
    """Number, command and arguments of a request.

    Raises:
        ValueError: It is none, and why.
    """
    try:
        found = json_from_bytes(body)
    except ValueError as error:
        raise ValueError(f"the request is not JSON in UTF-8 ({printable(str(error))}); it is one flat object") from None
    if not isinstance(found, dict) or len(found) > MAX_MEMBERS or not all(map(_is_plain, found.values())):
        raise ValueError(
            f"the request is not an object of at most {MAX_MEMBERS} texts, numbers (to 2^53), true, false or null"
        )
    number, command = found.pop("id", None), found.pop("command", None)
    if not isinstance(number, int | str | None) or not isinstance(command, str):
        raise ValueError('the request lacks "command", a text, or its "id" is neither a whole number nor a text')
    return number, command, found


def answer_bytes(number: Number, outcome: Mapping[str, Any]) -> bytes:
    """An answer to the request of that number.

    Raises:
        TypeError: The outcome is not fit for JSON.
        ValueError: A number in it is not finite.
    """
    return json.dumps({**outcome, "id": number}, allow_nan=False).encode()


def accepted(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The outcome of a command that was carried out."""
    return {**outcome, "ok": True}


def refusal(reason: str) -> dict[str, Any]:
    """The outcome of a command that was not."""
    return {"ok": False, "error": printable(reason)}


def answer_from_bytes(body: bytes) -> dict[str, Any]:
    """The members of an answer, `ok` and `error` among them.

    Raises:
        ValueError: It is none.
    """
    return members(json_from_bytes(body))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and abs(value) <= MAX_INTEGER)

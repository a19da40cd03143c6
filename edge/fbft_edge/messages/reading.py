"""A received result message: multipart bytes in, a typed `Result` out; nothing hostile gets through.

Every field is checked before it is used, every size is bounded before it is allocated, and only
`MessageError` leaves. Knows nothing about sockets.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from fbft_edge.errors import MessageError
from fbft_edge.frames.frame import Bool, Region, Verdict
from fbft_edge.messages.header import MASK_ENCODING, MAX_REGIONS, MAX_SIDE_PX, SCHEMA, Health
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.names import MAX_REASON_LENGTH, NAME_PATTERN, TRIGGER_ID_PATTERN, printable

MAX_TOPIC_BYTES = 256
MAX_HEADER_BYTES = 2**20
MAX_MASK_BYTES = 2**25 + 2**16
MAX_PREVIEW_BYTES = 2**24
MAX_INTEGER = 2**63 - 1
MAX_CAUSES = 32
REQUIRED_CAUSES = ("replaced", "inference_error", "shutdown")

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CAUSE = re.compile("[a-z_]{1,32}")
_SHA256 = re.compile("[0-9a-f]{64}")
_T = TypeVar("_T")
_Checks = Mapping[str, Callable[[Any, str], Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """One message, decoded.

    Attributes:
        site: Where the camera is.
        camera: The camera's name.
        session: UUID of the publisher's run.
        sequence: Counts the messages of a session from 0.
        frame_id: Which frame it is about; None when there is none.
        captured_ns: When that frame left the camera, nanoseconds since the Unix epoch.
        published_ns: When the message was sent, on the same clock.
        verdict: `OK` and `ANOMALOUS` are about a frame, a new one unless `frame_id` is that of the message before;
            `STALE` repeats the last result, `FAULT` says that there is no verdict. Only `OK` means that a part is good.
        score: Image score; None without a detection.
        image_threshold: Scores above it are anomalous.
        regions: Defects, largest peak first, at most 1000.
        mask: (height, width) bool, True where a defect is, owned by the result; None without a detection.
        bundle_sha256: Identifies the bundle.
        ledger: What became of every frame so far.
        health: How the line is doing, and why.
        preview_jpeg: The frame, small, as a JPEG file; None when the publisher sends none.
        lost: Messages of the same session missed just before this one; filled in by the subscriber.
        trigger_id: Of the trigger that asked for the frame; None without one.
    """

    site: str
    camera: str
    session: str
    sequence: int
    frame_id: int | None
    captured_ns: int | None
    published_ns: int
    verdict: Verdict
    score: float | None
    image_threshold: float
    regions: tuple[Region, ...]
    mask: Bool | None
    bundle_sha256: str
    ledger: LedgerSnapshot
    health: Health
    preview_jpeg: bytes | None
    lost: int = 0
    trigger_id: str | None = None


def decode_message(parts: Sequence[bytes]) -> Result:
    """Decode the parts of one message.

    Raises:
        MessageError: The parts are not a valid version 1 message; nothing was decoded.
    """
    site, camera = _checked_envelope(parts)
    header = _object(_parsed_header(parts[1]), "header", _HEADER, _HEADER_ADDITIONS)
    if header.pop("schema") != SCHEMA or header["camera"] != camera:
        raise MessageError(f"the header is not of schema {SCHEMA} or not of the topic's camera {camera!r}")
    shape = header.pop("mask")
    mask = decode_mask(parts[2], *shape) if shape is not None else None
    if shape is None and parts[2]:
        raise MessageError(f"the header says there is no mask, the message carries {len(parts[2])} bytes of one")
    result = Result(site=site, mask=mask, preview_jpeg=parts[3] if len(parts) == 4 else None, **header)
    _check_consistency(result)
    return result


def decode_mask(encoded: bytes, height: int, width: int) -> Bool:
    """Decode a mask; never inflates more than the (height, width) mask needs.

    Returns:
        (height, width) bool, owned by the caller.

    Raises:
        MessageError: The bytes are not exactly one mask of that size.
    """
    row_bytes = -(-width // 8)
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(encoded, height * row_bytes + 1)
    except zlib.error as error:
        raise MessageError(f"the mask is not a zlib stream ({error})") from error
    if len(packed) != height * row_bytes or not inflater.eof or inflater.unused_data:
        raise MessageError(f"the mask does not inflate to the {height * row_bytes} bytes of {height}x{width} pixels")
    rows = np.frombuffer(packed, np.uint8).reshape(height, row_bytes)
    return np.unpackbits(rows, axis=1, count=width).view(np.bool_)


def _checked_envelope(parts: Sequence[bytes]) -> tuple[str, str]:
    if len(parts) not in (3, 4):
        raise MessageError(f"a result message has 3 or 4 parts, this one has {len(parts)}")
    limits = (MAX_TOPIC_BYTES, MAX_HEADER_BYTES, MAX_MASK_BYTES, MAX_PREVIEW_BYTES)
    for what, part, limit in zip(("topic", "header", "mask", "preview"), parts, limits, strict=False):
        if len(part) > limit:
            raise MessageError(f"the {what} has {len(part)} bytes, at most {limit} are allowed")
    names = bytes(parts[0]).decode(errors="replace").split("/")
    if len(names) != 4 or names[0] != "fbft" or names[3] != "result":
        raise MessageError(f"the topic {parts[0]!r} is not fbft/<site>/<camera>/result")
    return _name(names[1], "site"), _name(names[2], "camera")


def _parsed_header(encoded: bytes) -> object:
    try:
        return json.loads(encoded.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_members)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the header is not JSON in UTF-8 ({printable(str(error))})") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return members


def _check_consistency(result: Result) -> None:
    about_frame = (result.frame_id, result.captured_ns)
    detected = (result.score, result.mask)
    is_fresh = result.verdict in (Verdict.OK, Verdict.ANOMALOUS)
    if (
        about_frame.count(None) == 1
        or sum(value is None for value in detected) == 1
        or (result.mask is not None and result.frame_id is None)
        or (is_fresh and result.mask is None)
        or (result.verdict is Verdict.FAULT) != (result.health.state == "fault")
        or (result.health.state == "ok") != (result.health.reason is None)
    ):
        raise MessageError(f"the members of a header with verdict {result.verdict.value!r} contradict each other")


def _object(value: object, where: str, members: _Checks, additions: _Checks = MappingProxyType({})) -> dict[str, Any]:
    """The checked members of an object; additions came later to version 1 and may be missing."""
    if not isinstance(value, dict) or value.keys() - additions.keys() != members.keys():
        raise MessageError(f"{where} is not an object with exactly the members {', '.join(members)}")
    checks = {**members, **additions}
    return {name: checks[name](member, f"{where}.{name}") for name, member in value.items()}


def _integer(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise MessageError(f"{where} is not a whole number from 0 to {MAX_INTEGER}")
    return value


def _side(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_SIDE_PX:
        raise MessageError(f"{where} is not a whole number from 1 to {MAX_SIDE_PX}")
    return value


def _number(value: object, where: str) -> float:
    if type(value) not in (int, float) or not -1e300 <= value <= 1e300:  # type: ignore[operator]
        raise MessageError(f"{where} is not a finite number")
    return float(value)  # type: ignore[arg-type]


def _name(value: object, where: str) -> str:
    return _matching(NAME_PATTERN)(value, where)


def _matching(pattern: re.Pattern[str]) -> Callable[[object, str], str]:
    def check(value: object, where: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise MessageError(f"{where} is not a text of the form {pattern.pattern}")
        return value

    return check


def _reason(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_REASON_LENGTH or not value.isprintable():
        raise MessageError(f"{where} is not one printable line of at most {MAX_REASON_LENGTH} characters")
    return value


def _one_of(*choices: str) -> Callable[[object, str], str]:
    def check(value: object, where: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise MessageError(f"{where} is none of {', '.join(choices)}")
        return value

    return check


def _or_null(check: Callable[[object, str], _T]) -> Callable[[object, str], _T | None]:
    return lambda value, where: None if value is None else check(value, where)


def _list(check: Callable[[object, str], _T], low: int, high: int) -> Callable[[object, str], tuple[_T, ...]]:
    def check_all(value: object, where: str) -> tuple[_T, ...]:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise MessageError(f"{where} is not a list of {low} to {high} elements")
        return tuple(check(element, f"{where}[{index}]") for index, element in enumerate(value))

    return check_all


def _verdict(value: object, where: str) -> Verdict:
    return Verdict(_one_of(*(verdict.value for verdict in Verdict))(value, where))


def _region(value: object, where: str) -> Region:
    return Region(**_object(value, where, _REGION))


def _mask_shape(value: object, where: str) -> tuple[int, int]:
    shape = _object(value, where, _MASK)
    return shape["height"], shape["width"]


def _dropped(value: object, where: str) -> dict[str, int]:
    causes = tuple(value) if isinstance(value, dict) else ()
    if len(causes) > MAX_CAUSES or not set(REQUIRED_CAUSES).issubset(causes) or not all(map(_CAUSE.fullmatch, causes)):
        raise MessageError(
            f"{where} is not an object of at most {MAX_CAUSES} causes, {', '.join(REQUIRED_CAUSES)} among them"
        )
    return _object(value, where, dict.fromkeys(causes, _integer))


def _ledger(value: object, where: str) -> LedgerSnapshot:
    return LedgerSnapshot(**_object(value, where, _LEDGER, _LEDGER_ADDITIONS))


def _health(value: object, where: str) -> Health:
    return Health(**_object(value, where, _HEALTH))


_REGION = {
    "box_xyxy": _list(_integer, 4, 4),
    "area_px": _integer,
    "peak": _number,
    "centroid_xy": _list(_number, 2, 2),
}
_MASK = {"height": _side, "width": _side, "encoding": _one_of(MASK_ENCODING)}
_LEDGER = {
    "captured": _integer,
    "published_fresh": _integer,
    "published_stale": _integer,
    "published_fault": _integer,
    "dropped": _dropped,
    "in_flight": _integer,
}
_LEDGER_ADDITIONS = {"missed_triggers": _integer}
_HEALTH = {"state": _one_of("ok", "degraded", "fault"), "reason": _or_null(_reason)}
_HEADER: _Checks = {
    "schema": _one_of(SCHEMA),
    "session": _matching(_UUID),
    "sequence": _integer,
    "camera": _name,
    "frame_id": _or_null(_integer),
    "captured_ns": _or_null(_integer),
    "published_ns": _integer,
    "verdict": _verdict,
    "score": _or_null(_number),
    "image_threshold": _number,
    "regions": _list(_region, 0, MAX_REGIONS),
    "mask": _or_null(_mask_shape),
    "bundle_sha256": _matching(_SHA256),
    "ledger": _ledger,
    "health": _health,
}
_HEADER_ADDITIONS: _Checks = {"trigger_id": _or_null(_matching(TRIGGER_ID_PATTERN))}

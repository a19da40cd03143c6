"""A valid input in, the same with one to four things wrong out: as a JSON tree, as tokens, as parts, as bytes.

Knows nothing of what a parser makes of it.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tools.fuzzing.inputs import MAX_INPUT_BYTES, Parts
from tools.fuzzing.parsers import Parser

WINDOW_BYTES = 2048


_JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 2**31, 2**53, 2**63, 2**64, 10**400, float("nan"), float("inf")),
    *("", "a", "\0", "\ud800", "\u202e", "../x", "/etc/passwd", "a" * 5000, "0" * 64, [], {}, [[]], [0] * 2000),
    *([None], {"": None}, "fbft.result/1", "fbft.bundle/1", "ok", "fault"),
)
_TOKENS = (
    *b'null true NaN -Infinity 1e999 -0 1e-400 0x10 01 1.0 \'\' { } [ ] , : = " \\ "\\ud800" \xed\xa0\x80 \xff'.split(),
    *b"${env:HOME} ${file:/dev/zero} 1979-05-27 \x1b[2J \0 \xed\xa0\x80 \xef\xbb\xbf".split(),
    *(b"\n", b"\r\n", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|[^\s\w]')


def damaged(parser: Parser, data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """An input with one to four things wrong."""
    parts = parser.parts(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if not parts or (parser.is_multipart and chance.random() < 0.05):
            parts = _other_parts(parts, parser.parts(chance.choice(others)), chance)
        else:
            index = chance.randrange(len(parts))
            parts[index] = _damaged_part(parts[index], chance)
    return parser.joined(parts)[:MAX_INPUT_BYTES]


def _other_parts(parts: Parts, others: Parts, chance: random.Random) -> Parts:
    at = chance.randrange(len(parts) + 1)
    how = chance.randrange(3)
    if how == 0:
        return parts[:at] + parts[at + 1 :]
    spare = chance.choice([*parts, *others, b""])
    return [*parts[:at], spare, *parts[at + how - 1 :]]


def _damaged_part(part: bytes, chance: random.Random) -> bytes:
    if part[:1] == b"x" and chance.random() < 0.5:
        return _damaged_zlib(part, chance)
    how = chance.random()
    if how < 0.5 and part[:1] in (b"{", b"["):
        return _damaged_json(part, chance)
    return _damaged_tokens(part, chance) if how < 0.75 else _damaged_bytes(part, chance)


def _damaged_zlib(part: bytes, chance: random.Random) -> bytes:
    try:
        inflated = zlib.decompressobj().decompress(part, MAX_INPUT_BYTES)
    except zlib.error:
        return _damaged_bytes(part, chance)
    return zlib.compress(_damaged_bytes(inflated, chance), chance.choice((0, 1, 9)))


def _damaged_json(part: bytes, chance: random.Random) -> bytes:
    try:
        tree = [json.loads(part)]
    except (ValueError, RecursionError):
        return _damaged_tokens(part, chance)
    places = list(_places(tree))
    inside, key = chance.choice(places)
    how = chance.randrange(6)
    if how == 0:
        inside[key] = chance.choice(_JSON_VALUES)
    elif how == 1 and inside is not tree:
        del inside[key]
    elif how == 2:
        giver, other = chance.choice(places)
        inside[key] = giver[other]
    elif how == 3:
        inside[key] = [inside[key]] * chance.choice((1, 2, 5))
    elif how == 4 and isinstance(inside, dict):
        inside[chance.choice(("", "a", key + " ", "\ud800", "__class__"))] = inside.pop(key)
    else:
        inside[key] = _nearby(inside[key], chance)
    with contextlib.suppress(ValueError, RecursionError):  # a tree within itself
        return json.dumps(tree[0], ensure_ascii=chance.random() < 0.7).encode(errors="surrogatepass")
    return part


def _places(inside: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
        yield inside, key
        if isinstance(inside[key], (dict, list)):
            yield from _places(inside[key])


def _nearby(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((-value, value + 1, value - 1, value * 2, value << 40, value % 1000 / 7))
    if isinstance(value, float):
        return chance.choice((-value, value * 1e6, value * 1e-6, int(value) if abs(value) < 1e9 else 0, str(value)))
    if isinstance(value, str):
        return chance.choice((value[:-1], value + "a", value.upper(), value * 3, value + "\n", value.replace("e", "é")))
    return chance.choice(_JSON_VALUES)


def _damaged_tokens(part: bytes, chance: random.Random) -> bytes:
    window = chance.randrange(max(1, len(part) - WINDOW_BYTES // 2))
    tokens = [match.span() for match in _TOKEN.finditer(part, window, window + WINDOW_BYTES)]
    if not tokens:
        return chance.choice(_TOKENS)
    start, end = chance.choice(tokens)
    other, other_end = chance.choice(tokens)
    how = chance.randrange(4)
    if how == 0:
        return part[:start] + chance.choice(_TOKENS) + part[end:]
    if how == 1:
        return part[:start] + part[end:]
    if how == 2:
        return part[:start] + part[other:other_end] + part[end:]
    low, high = min(start, other), max(end, other_end)
    return part[:high] + part[low:high] + part[high:]


def _damaged_bytes(part: bytes, chance: random.Random) -> bytes:
    changed = bytearray(part)
    at = chance.randrange(len(changed) + 1)
    how = chance.randrange(5)
    if how == 0:
        del changed[at : at + chance.choice((1, 2, 16, 1 << 20))]
    elif how == 1 or at == len(changed):
        changed[at:at] = chance.choice((chance.randbytes(chance.choice((1, 4, 64))), changed[at : at + 64], bytes(9)))
    elif how == 2:
        changed[at] ^= 1 << chance.randrange(8)
    else:
        changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5C, chance.randrange(256)))
    return bytes(changed)

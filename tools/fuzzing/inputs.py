"""Inputs as bytes: one part or several, each behind its length, and where those that are kept lie.

Knows nothing of what parses them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "fuzz" / "corpus"
MAX_INPUT_BYTES = 1 << 18
Parts = list[bytes]


def parts_from_bytes(data: bytes) -> Parts:
    """Parts of an input, as `bytes_from_parts` joined them."""
    parts, at = [], 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return parts


def bytes_from_parts(parts: Sequence[bytes]) -> bytes:
    """One input of several parts."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def keep_input(corpus: Path, data: bytes) -> str:
    """Add an input to a corpus; returns the file's name."""
    path = corpus / f"broken-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path.name

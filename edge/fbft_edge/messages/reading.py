"""Reading result messages: multipart bytes in, a typed `Result` out; nothing hostile gets through.

Every field is checked before it is used, every size is bounded before it is allocated, and only `MessageError` leaves.
Who acts on a verdict seldom looks at the mask: it is decoded when it is asked for. What a header may hold stands in
`fbft_edge.messages.header`. Knows nothing about sockets.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from msgspec.structs import asdict as members_of

from fbft_edge.errors import MessageError
from fbft_edge.frames.frame import Bool, DecidedBy, Region, Verdict
from fbft_edge.messages.age import oldest_s
from fbft_edge.messages.header import REQUIRED_CAUSES, SCHEMA, Header, Health
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.names import NAME_PATTERN, printable, size_text
from fbft_edge.strict_json import json_from_bytes, typed

MAX_TOPIC_BYTES = 256
MAX_HEADER_BYTES = 2**20
MAX_MASK_BYTES = 2**25 + 2**16
MAX_PREVIEW_BYTES = 2**24

Part = bytes | memoryview


@dataclass(frozen=True)
class EncodedMask:
    """A mask as it travels; nothing but its length was checked.

    Attributes:
        height: Rows of pixels, as the header says.
        width: Columns.
        part: The bytes, which may be those of the socket.
    """

    height: int
    width: int
    part: Part = field(repr=False)

    @cached_property
    def decoded(self) -> Bool:
        """(height, width) bool; decoded once.

        Raises:
            MessageError: The bytes are not exactly one mask of that size.
        """
        return decode_mask(self.part, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Result:
    """One message, read; the mask is decoded when it is asked for.

    Reading a result costs its header alone, however large the frame.

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
        regions: Defects, largest peak first, at most `fbft_edge.frames.frame.MAX_REGIONS`; the mask has all.
        encoded_mask: Where defects are, as it travels; None without a detection. See `mask`.
        bundle_sha256: Identifies the bundle.
        ledger: What became of every frame so far.
        health: How the line is doing, and why.
        preview: The frame, small, as it travels; None when the publisher sends none. See `preview_jpeg`.
        lost: Messages of the same session between the one before and this one, lost on the way or skipped; filled in
            by the subscriber.
        trigger_id: Of the trigger that asked for the frame; None without one.
        pixel_threshold: Map values above it are anomalous; None when the publisher does not tell, as older ones.
        decided_by: Which threshold makes the result anomalous: `image`, exceeded by the score; `pixel`, by the peak; or
            `both`. None when it is not anomalous, or when the publisher does not tell.
        peak: Largest map value; None without a detection, or when the publisher does not tell.
        peak_xy: Where that lies in the frame, x and y; None without it, or when the publisher does not tell.
        part_id: Of the part that the trigger was about, as it was given with it; None without one.
        sent_s: When the message was sent, seconds of `time.monotonic` here; None when that is not known. Filled in by
            the subscriber.
        period_s: Between messages; None when that is not known. Filled in by the subscriber.
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
    encoded_mask: EncodedMask | None
    bundle_sha256: str
    ledger: LedgerSnapshot
    health: Health
    preview: Part | None = field(repr=False)
    lost: int = 0
    trigger_id: str | None = None
    pixel_threshold: float | None = None
    decided_by: DecidedBy | None = None
    peak: float | None = None
    peak_xy: tuple[int, int] | None = None
    part_id: str | None = None
    sent_s: float | None = None
    period_s: float | None = None

    @property
    def mask(self) -> Bool | None:
        """(height, width) bool, True where a defect is, owned by the result; None without a detection.

        Raises:
            MessageError: What came is not a mask of the size that the header says.
        """
        return None if self.encoded_mask is None else self.encoded_mask.decoded

    @property
    def preview_jpeg(self) -> bytes | None:
        """The frame, small, as a JPEG file; None when the publisher sends none."""
        return None if self.preview is None else bytes(self.preview)

    @property
    def age_s(self) -> float:
        """Seconds since the message was sent, at this moment; infinite when that is not known."""
        return math.inf if self.sent_s is None else time.monotonic() - self.sent_s

    @property
    def is_current(self) -> bool:
        """True as long as the message is at most two periods old (at least 0.1 s); asked again, it may have ended."""
        return self.age_s <= oldest_s(self.period_s)

    @property
    def is_good(self) -> bool:
        """True for an `ok` that is current: what an accept output may be set from, at this moment."""
        return self.verdict is Verdict.OK and self.is_current

    def without_pictures(self) -> Result:
        """The same without mask and preview, which would keep the whole message in memory."""
        return replace(self, encoded_mask=None, preview=None)


def decode_message(parts: Sequence[Part]) -> Result:
    """Read the parts of one message: the header at once, the mask when it is asked for.

    Raises:
        MessageError: The parts are not a valid version 1 message; nothing was decoded.
    """
    site, camera = _checked_envelope(parts)
    header = _checked_header(bytes(parts[1]))
    if header.camera != camera:
        raise MessageError(f"the header is of camera {header.camera!r}, the topic of {camera!r}")
    if header.mask is None and len(parts[2]):
        raise MessageError(f"the header says there is no mask, the message carries {len(parts[2])} bytes of one")
    return Result(
        site=site,
        camera=camera,
        session=header.session,
        sequence=header.sequence,
        frame_id=header.frame_id,
        captured_ns=header.captured_ns,
        published_ns=header.published_ns,
        verdict=header.verdict,
        score=header.score,
        image_threshold=header.image_threshold,
        regions=tuple(Region(**members_of(region)) for region in header.regions),
        encoded_mask=None if header.mask is None else EncodedMask(header.mask.height, header.mask.width, parts[2]),
        bundle_sha256=header.bundle_sha256,
        ledger=LedgerSnapshot(**members_of(header.ledger)),
        health=Health(**members_of(header.health)),
        preview=parts[3] if len(parts) == 4 else None,
        trigger_id=header.trigger_id,
        pixel_threshold=header.pixel_threshold,
        decided_by=header.decided_by,
        peak=header.peak,
        peak_xy=header.peak_xy,
        part_id=header.part_id,
    )


def decode_mask(encoded: Part, height: int, width: int) -> Bool:
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
        raise MessageError(
            f"the mask does not inflate to the {height * row_bytes} bytes of {size_text((height, width))}"
        )
    rows = np.frombuffer(packed, np.uint8).reshape(height, row_bytes)
    return np.unpackbits(rows, axis=1, count=width).view(np.bool_)


def _checked_envelope(parts: Sequence[Part]) -> tuple[str, str]:
    if len(parts) not in (3, 4):
        raise MessageError(f"a result message has 3 or 4 parts, this one has {len(parts)}")
    limits = (MAX_TOPIC_BYTES, MAX_HEADER_BYTES, MAX_MASK_BYTES, MAX_PREVIEW_BYTES)
    for what, part, limit in zip(("topic", "header", "mask", "preview"), parts, limits, strict=False):
        if len(part) > limit:
            raise MessageError(f"the {what} has {len(part)} bytes, at most {limit} are allowed")
    topic = bytes(parts[0])
    names = topic.decode(errors="replace").split("/")
    if len(names) != 4 or names[0] != "fbft" or names[3] != "result":
        raise MessageError(f"the topic {topic!r} is not fbft/<site>/<camera>/result")
    for name in names[1:3]:
        if not NAME_PATTERN.fullmatch(name):
            raise MessageError(f"the topic {topic!r} has a name that is not of the form {NAME_PATTERN.pattern}")
    return names[1], names[2]


def _checked_header(encoded: bytes) -> Header:
    try:
        header = typed(json_from_bytes(encoded), Header)
    except ValueError as error:
        raise MessageError(f"the header is no {SCHEMA}: {printable(str(error))}") from error
    missing = [cause for cause in REQUIRED_CAUSES if cause not in header.ledger.dropped]
    if missing:
        raise MessageError(f"the header's ledger lacks the drop cause {missing[0]}")
    if header.health.reason is not None and not header.health.reason.isprintable():
        raise MessageError("the header's reason is not one printable line")
    if not _is_consistent(header):
        raise MessageError(f"the members of a header with verdict {header.verdict.value!r} contradict each other")
    return header


def _is_consistent(header: Header) -> bool:
    has_frame, has_detection = header.frame_id is not None, header.mask is not None
    return (
        has_frame == (header.captured_ns is not None)
        and has_detection == (header.score is not None)
        and (has_frame or not has_detection)
        and (has_detection or header.verdict not in (Verdict.OK, Verdict.ANOMALOUS))
        and (header.verdict is Verdict.FAULT) == (header.health.state == "fault")
        and (header.health.state == "ok") == (header.health.reason is None)
        and (has_detection or (header.peak is None and header.peak_xy is None and header.decided_by is None))
        and (header.decided_by is None or header.verdict is not Verdict.OK)
    )

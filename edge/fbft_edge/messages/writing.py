"""Writing result messages, version 1: detections in, multipart bytes out.

The parts, in this order:

1. topic: `fbft/<site>/<camera>/result`, UTF-8
2. header: JSON in UTF-8, as `fbft_edge.messages.header` defines it and `result.schema.json` beside it tells others
3. mask: empty when the header's `mask` is null
4. preview: a JPEG, only when the publisher was asked for it

The mask in any language: inflate part 3 (a zlib stream, RFC 1950) to exactly `height * ceil(width / 8)`
bytes. Row y starts at byte `y * ceil(width / 8)`; pixel x of it is bit `7 - x % 8` of byte `x / 8`, 1 for a
defect. The last byte of a row is filled up with zeros.

Knows nothing about sockets, ticks or detectors.
"""

from __future__ import annotations

import json
import uuid
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import MAX_REGIONS, Bool, Detection, Frame, Region, Uint8, Verdict
from fbft_edge.messages.header import MASK_ENCODING, SCHEMA, Health, topic_for
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.names import MAX_SIDE_PX, NAME_PATTERN, NAME_RULE, size_text

PREVIEW_WIDTH_PX = 640
_NOTHING_FOUND: dict[str, Any] = {
    "score": None,
    "regions": [],
    "mask": None,
    "peak": None,
    "peak_xy": None,
    "decided_by": None,
}
NO_BUNDLE_SHA256 = "0" * 64


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """One frame's outcome, encoded as far as it can be before its tick.

    Attributes:
        verdict: `OK`, `ANOMALOUS`, or `FAULT` when inference failed.
        captured_ns: When the frame left the camera; None when there is no frame.
        score: The image score; None without a detection.
        error: Why there is no verdict about the frame; None when there is one.
        fields: The result's part of the header: JSON members without the braces.
        mask: Part 3 of the message.
        preview: Part 4 of the message, or None.
        bundle: What `encode_bundle` says of the bundle that the result was made with; empty for the writer's own.
    """

    verdict: Verdict
    captured_ns: int | None
    score: float | None
    error: str | None
    fields: str
    mask: bytes
    preview: bytes | None
    bundle: str = ""


def encode_detection(
    frame: Frame,
    detection: Detection,
    with_preview: bool = False,
    trigger_id: str | None = None,
    bundle: str = "",
    part_id: str | None = None,
) -> EncodedResult:
    """Encode what a detector said about a frame.

    At most `MAX_REGIONS` regions go into the header, those with the largest peaks; the mask has them all.

    Args:
        frame: What was inspected.
        detection: What was found.
        with_preview: Add a small JPEG of the frame.
        trigger_id: Of the trigger that asked for the frame.
        bundle: From `encode_bundle`, when the writer is not to name its own.
        part_id: Of the part that the trigger was about.

    Raises:
        ValueError: A number in the detection is not finite, or its mask is too large for a message.
    """
    verdict = Verdict.ANOMALOUS if detection.is_anomalous else Verdict.OK
    height, width = detection.mask.shape
    if max(height, width) > MAX_SIDE_PX:
        raise ValueError(f"a mask of {size_text((height, width))}; a message holds at most {MAX_SIDE_PX} a side")
    fields = _members(
        frame_id=frame.frame_id,
        captured_ns=frame.captured_ns,
        score=float(detection.score),
        regions=[_region_json(region) for region in detection.regions[:MAX_REGIONS]],
        mask={"height": height, "width": width, "encoding": MASK_ENCODING},
        trigger_id=trigger_id,
        part_id=part_id,
        peak=float(detection.peak),
        peak_xy=None if detection.peak_xy is None else [int(position) for position in detection.peak_xy],
        decided_by=detection.decided_by,
    )
    preview = _preview(frame.rgb) if with_preview else None
    mask = encode_mask(detection.mask)
    return EncodedResult(verdict, frame.captured_ns, float(detection.score), None, fields, mask, preview, bundle)


def encode_no_detection(
    frame: Frame | None = None,
    error: str | None = None,
    trigger_id: str | None = None,
    bundle: str = "",
    part_id: str | None = None,
) -> EncodedResult:
    """Encode a failed inspection of a frame, or, without a frame, that nothing was inspected."""
    frame_id, captured_ns = (None, None) if frame is None else (frame.frame_id, frame.captured_ns)
    about = {"frame_id": frame_id, "captured_ns": captured_ns, "trigger_id": trigger_id, "part_id": part_id}
    fields = _members(**about, **_NOTHING_FOUND)
    return EncodedResult(Verdict.FAULT, captured_ns, None, error, fields, b"", None, bundle)


def encode_bundle(image_threshold: float, bundle_sha256: str, pixel_threshold: float | None = None) -> str:
    """Encode which bundle a result was made with."""
    return _members(image_threshold=image_threshold, pixel_threshold=pixel_threshold, bundle_sha256=bundle_sha256)


def encode_mask(mask: Bool) -> bytes:
    """Pack a (height, width) mask 8 pixels a byte and deflate it; the module docstring says how exactly."""
    return zlib.compress(np.packbits(mask, axis=1).tobytes(), 1)


class MessageWriter:
    """Writes the messages of one session, numbered from 0.

    Args:
        site: Names the place in the topic.
        camera: Names the camera in the topic and the header.
        image_threshold: Scores above it are anomalous; of results that do not name their bundle themselves.
        bundle_sha256: Identifies their bundle, 64 hexadecimal digits.
        pixel_threshold: Map values above it are anomalous, or None when that is not to be told.

    Attributes:
        session: A UUID; a `sequence` never repeats within it.
        sequence: Of the next message.

    Raises:
        ArgumentError: A name cannot stand in a topic.
    """

    def __init__(
        self,
        site: str,
        camera: str,
        image_threshold: float = 0.0,
        bundle_sha256: str = NO_BUNDLE_SHA256,
        pixel_threshold: float | None = None,
    ) -> None:
        for what, name in (("site", site), ("camera", camera)):
            if not NAME_PATTERN.fullmatch(name):
                raise ArgumentError(f"{what} name {name!r} cannot stand in a topic; use {NAME_RULE}")
        self.session = str(uuid.uuid4())
        self._topic = topic_for(site, camera).encode()
        self.sequence = 0
        self._constant = _members(schema=SCHEMA, session=self.session, camera=camera)
        self._bundle = encode_bundle(image_threshold, bundle_sha256, pixel_threshold)

    def write(
        self,
        result: EncodedResult,
        verdict: Verdict,
        published_ns: int,
        ledger: LedgerSnapshot,
        health: Health,
    ) -> list[bytes]:
        """Write the next message; returns its parts."""
        live = _members(
            sequence=self.sequence,
            published_ns=published_ns,
            verdict=verdict.value,
            ledger=ledger.to_json(),
            health={"state": health.state, "reason": health.reason},
        )
        self.sequence += 1
        header = f"{{{self._constant},{result.bundle or self._bundle},{result.fields},{live}}}".encode()
        parts = [self._topic, header, result.mask]
        return parts if result.preview is None else [*parts, result.preview]


def _members(**members: object) -> str:
    return json.dumps(members, allow_nan=False, separators=(",", ":"))[1:-1]


def _region_json(region: Region) -> dict[str, Any]:
    return {
        "box_xyxy": [int(edge) for edge in region.box_xyxy],
        "area_px": int(region.area_px),
        "peak": float(region.peak),
        "centroid_xy": [float(position) for position in region.centroid_xy],
    }


def _preview(pixels: Uint8) -> bytes:
    height, width = pixels.shape[:2]
    scale = min(1.0, PREVIEW_WIDTH_PX / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return bytes(jpeg.tobytes())

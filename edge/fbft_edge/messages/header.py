"""The header of a result message: its members with their bounds, stated once for those who write and who read.

`result.schema.json` beside this file says the same to everyone else; a test compares the two. Knows nothing about
masks, sockets or ticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from fbft_edge.frames.frame import MAX_REGIONS, DecidedBy, Verdict
from fbft_edge.names import ID_PATTERN, MAX_REASON_LENGTH, MAX_SIDE_PX, NAME_PATTERN

_Schema = Literal["fbft.result/1"]
_MaskEncoding = Literal["packbits-zlib"]
SCHEMA: str = get_args(_Schema)[0]
MASK_ENCODING: str = get_args(_MaskEncoding)[0]
MAX_INTEGER = 2**63 - 1
MAX_CAUSES = 32
REQUIRED_CAUSES = ("replaced", "inference_error", "shutdown")


@dataclass(frozen=True, slots=True)
class Health:
    """How the line is doing.

    Attributes:
        state: `ok`; `degraded` when verdicts may still come but something is wrong; `fault` when none can
            be given.
        reason: One line for the operator; None when the state is `ok`.
    """

    state: str
    reason: str | None = None


def topic_for(site: str, camera: str) -> str:
    """The topic of one camera's results."""
    return f"fbft/{site}/{camera}/result"


def _matching(pattern: str) -> Meta:
    return Meta(pattern=rf"\A{pattern}\Z")


_Integer = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
_Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
_Side = Annotated[int, Meta(ge=1, le=MAX_SIDE_PX)]
_Name = Annotated[str, _matching(NAME_PATTERN.pattern)]
_Id = Annotated[str, _matching(ID_PATTERN.pattern)]
_Uuid = Annotated[str, _matching("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")]
_Sha256 = Annotated[str, _matching("[0-9a-f]{64}")]
_Cause = Annotated[str, _matching("[a-z_]{1,32}")]
_Reason = Annotated[str, Meta(max_length=MAX_REASON_LENGTH)]


class HeaderRegion(Struct, frozen=True, forbid_unknown_fields=True):
    """One of `regions`; see `fbft_edge.frames.frame.Region`."""

    box_xyxy: tuple[_Integer, _Integer, _Integer, _Integer]
    area_px: _Integer
    peak: _Number
    centroid_xy: tuple[_Number, _Number]


class HeaderMask(Struct, frozen=True, forbid_unknown_fields=True):
    """`mask`: what part 3 of the message holds."""

    height: _Side
    width: _Side
    encoding: _MaskEncoding


class HeaderLedger(Struct, frozen=True, forbid_unknown_fields=True):
    """`ledger`; see `fbft_edge.messages.ledger.LedgerSnapshot`. `REQUIRED_CAUSES` are among those of `dropped`."""

    captured: _Integer
    published_fresh: _Integer
    published_stale: _Integer
    published_fault: _Integer
    dropped: Annotated[
        dict[_Cause, _Integer],
        Meta(max_length=MAX_CAUSES, extra_json_schema={"required": list(REQUIRED_CAUSES)}),  # for the schema alone
    ]
    in_flight: _Integer
    missed_triggers: _Integer = 0
    lost: _Integer = 0
    refused: _Integer = 0


class HeaderHealth(Struct, frozen=True, forbid_unknown_fields=True):
    """`health`; see `Health`."""

    state: Literal["ok", "degraded", "fault"]
    reason: _Reason | None


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """Part 2 of a message, member by member; see `fbft_edge.messages.reading.Result`.

    Members with a default came later to version 1: older publishers leave them out.
    """

    schema: _Schema
    session: _Uuid
    sequence: _Integer
    camera: _Name
    frame_id: _Integer | None
    captured_ns: _Integer | None
    published_ns: _Integer
    verdict: Verdict
    score: _Number | None
    image_threshold: _Number
    regions: Annotated[tuple[HeaderRegion, ...], Meta(max_length=MAX_REGIONS)]
    mask: HeaderMask | None
    bundle_sha256: _Sha256
    ledger: HeaderLedger
    health: HeaderHealth
    trigger_id: _Id | None = None
    pixel_threshold: _Number | None = None
    decided_by: DecidedBy | None = None
    peak: _Number | None = None
    peak_xy: tuple[_Integer, _Integer] | None = None
    part_id: _Id | None = None

"""The variables of a camera in the OPC UA address space: their table, and their values from a standing.

Knows nothing about servers and node identifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from fbft_edge.bridges.camera_state import DECIDED_BY_NUMBERS, VERDICT_NUMBERS, Fault, Standing
from fbft_edge.frames.frame import Region
from fbft_edge.messages.reading import Result
from fbft_edge.names import MAX_SIDE_PX


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a camera.

    Attributes:
        name: Its browse name.
        kind: OPC UA type; `[]` behind it for an array.
        meaning: Its description.
        about_result: True for what is Bad while there is no verdict; its source time is the frame's.
        unit: Text of the engineering unit; None for none.
        high: End of the range, which begins at 0; None for none.
        states: Names of the numbers from 0; empty for none.
    """

    name: str
    kind: str
    meaning: str
    about_result: bool = True
    unit: str | None = None
    high: float | None = None
    states: tuple[str, ...] = ()

    @property
    def is_array(self) -> bool:
        """True for one value per region."""
        return self.kind.endswith("[]")


NAMESPACE = "urn:fbft-edge:results"
_VERDICTS = tuple(verdict.value for verdict in sorted(VERDICT_NUMBERS, key=VERDICT_NUMBERS.__getitem__))
_FAULTS = tuple(fault.name.lower() for fault in Fault)
_DECIDED_BY = tuple(name or "none" for name in DECIDED_BY_NUMBERS)
_SIDE_PX = float(MAX_SIDE_PX)

VARIABLES = (
    Variable("Verdict", "Int32", "of the newest message", states=_VERDICTS),
    Variable("Good", "Boolean", "true for a frame within both thresholds, repeated for stale_after_s"),
    Variable("Score", "Double", "image score", unit="1", high=4.0),
    Variable("ImageThreshold", "Double", "scores above it are anomalous", unit="1", high=4.0),
    Variable("Peak", "Double", "largest anomaly value of the frame", unit="1", high=4.0),
    Variable("PeakX", "Int64", "where that lies; -1: not told", unit="px", high=_SIDE_PX),
    Variable("PeakY", "Int64", "where that lies; -1: not told", unit="px", high=_SIDE_PX),
    Variable("PixelThreshold", "Double", "anomaly values above it are anomalous; 0: not told", unit="1", high=4.0),
    Variable("DecidedBy", "Int32", "which threshold was exceeded; 0 also when not told", states=_DECIDED_BY),
    Variable("FrameId", "Int64", "which frame; -1: none"),
    Variable("TriggerId", "String", "of the trigger that asked for the frame; empty: none"),
    Variable("PartId", "String", "of the part that the trigger was about; empty: none"),
    Variable("Captured", "DateTime", "when the frame left the camera"),
    Variable("RegionX", "UInt32[]", "left edges of the defects, largest peak first", unit="px", high=_SIDE_PX),
    Variable("RegionY", "UInt32[]", "their top edges", unit="px", high=_SIDE_PX),
    Variable("RegionWidth", "UInt32[]", "their widths", unit="px", high=_SIDE_PX),
    Variable("RegionHeight", "UInt32[]", "their heights", unit="px", high=_SIDE_PX),
    Variable("RegionArea", "UInt32[]", "how many pixels each has", unit="px", high=_SIDE_PX**2),
    Variable("RegionPeak", "Double[]", "the largest anomaly value of each", unit="1", high=4.0),
    Variable("BundleSha256", "String", "identifies the bundle"),
    Variable("Fault", "Int32", "why there is no verdict", about_result=False, states=_FAULTS),
    Variable("Reason", "String", "one line for the operator; empty: nothing to say", about_result=False),
    Variable("Session", "String", "of the publisher's run", about_result=False),
    Variable("Sequence", "Int64", "of the newest message; -1: none", about_result=False),
    Variable("Published", "DateTime", "when that was sent", about_result=False),
    Variable("Period", "Double", "between messages; 0: not known yet", about_result=False, unit="s", high=3600.0),
    Variable("Results", "UInt32", "frames, and triggers without one, with a result so far", about_result=False),
    Variable("Anomalous", "UInt32", "how many of the frames were anomalous", about_result=False),
    Variable("LostMessages", "UInt32", "lost between publisher and bridge", about_result=False),
    Variable("MissedTriggers", "UInt32", "triggers of the publisher's run that brought no frame", about_result=False),
    Variable("Busy", "Boolean", "a trigger of this bridge waits for its answer", about_result=False),
    Variable("Heartbeat", "UInt32", "changes at least 10 times a second while the bridge works", about_result=False),
)
EVENT = "AnomalyEventType"
EVENT_FIELDS = (
    "FrameId",
    "TriggerId",
    "PartId",
    "Score",
    "ImageThreshold",
    "Peak",
    "PeakX",
    "PeakY",
    "PixelThreshold",
    "DecidedBy",
    "BundleSha256",
    *(variable.name for variable in VARIABLES if variable.is_array),
)


def camera_values(standing: Standing, message: Result | None) -> dict[str, object]:
    """Every variable but heartbeat and busy, by name; the message is None when it is not to be believed."""
    return {
        "Verdict": VERDICT_NUMBERS[standing.verdict],
        "Good": standing.is_good,
        "Fault": int(standing.fault),
        "Reason": standing.reason or "",
        "Period": standing.period_s or 0.0,
        "Results": standing.results & 0xFFFFFFFF,
        "Anomalous": standing.anomalous & 0xFFFFFFFF,
        "LostMessages": standing.lost & 0xFFFFFFFF,
        **_message_values(message),
        **result_values(message),
    }


def _message_values(message: Result | None) -> dict[str, object]:
    if message is None:
        return {"Session": "", "Sequence": -1}
    return {
        "Session": message.session,
        "Sequence": message.sequence,
        "Published": time_from_ns(message.published_ns),
        "MissedTriggers": message.ledger.missed_triggers & 0xFFFFFFFF,
    }


def result_values(result: Result | None) -> dict[str, object]:
    """What a result says of its frame, by variable."""
    regions: Sequence[Region] = () if result is None else result.regions
    peak_x, peak_y = (None if result is None else result.peak_xy) or (-1, -1)
    left, top, right, bottom = (
        ([], [], [], []) if not regions else map(list, zip(*(r.box_xyxy for r in regions), strict=True))
    )
    return {
        "Score": 0.0 if result is None else result.score or 0.0,
        "ImageThreshold": 0.0 if result is None else result.image_threshold,
        "Peak": 0.0 if result is None else result.peak or 0.0,
        "PeakX": peak_x,
        "PeakY": peak_y,
        "PixelThreshold": 0.0 if result is None else result.pixel_threshold or 0.0,
        "DecidedBy": DECIDED_BY_NUMBERS[None if result is None else result.decided_by],
        "FrameId": -1 if result is None or result.frame_id is None else result.frame_id,
        "TriggerId": "" if result is None else result.trigger_id or "",
        "PartId": "" if result is None else result.part_id or "",
        "Captured": time_from_ns(0 if result is None else result.captured_ns or 0),
        "RegionX": left,
        "RegionY": top,
        "RegionWidth": [end - start for start, end in zip(left, right, strict=True)],
        "RegionHeight": [end - start for start, end in zip(top, bottom, strict=True)],
        "RegionArea": [region.area_px for region in regions],
        "RegionPeak": [region.peak for region in regions],
        "BundleSha256": "" if result is None else result.bundle_sha256,
    }


def time_from_ns(ns: int) -> datetime:
    """The time that a clock of nanoseconds since 1970 shows."""
    return datetime.fromtimestamp(ns / 1e9, timezone.utc)

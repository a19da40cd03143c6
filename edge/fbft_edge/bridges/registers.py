"""The register maps of the Modbus bridge: a camera's snapshot in, as many registers out as one request reads.

Map 1 never changes. Map 2 lies elsewhere, so that nobody takes one for the other: it has fewer regions, and says which
part was asked about and why the verdict is what it is. Numbers of more than 16 bits stand with their high word first.
Knows nothing about sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntFlag

from fbft_edge.bridges.camera_state import DECIDED_BY_NUMBERS, VERDICT_NUMBERS, Fault, Standing
from fbft_edge.bridges.handshake import MAX_GOOD_S, LatchSignals, TriggerSignals
from fbft_edge.frames.frame import Region, Verdict
from fbft_edge.messages.reading import Result
from fbft_edge.names import ID_PATTERN, ID_RULE, MAX_ID_LENGTH

PART_REGISTERS = MAX_ID_LENGTH // 2
COMMAND_ADDRESS = 2000  # the control register and the part's, written in one request
NOT_TOLD = 0xFFFF  # a place; no frame is so large

_FORMATS = {"uint16": "H", "uint32": "I", "float32": "f", "text": f"{MAX_ID_LENGTH}s"}
_SIZES = {"uint16": 1, "uint32": 2, "float32": 2, "text": PART_REGISTERS}
_LIMITS = {"uint16": 0xFFFF, "uint32": 0xFFFFFFFF}


class Control(IntFlag):
    """What the PLC writes."""

    TRIGGER = 1
    RESULTS_ACKNOWLEDGE = 2


class Status(IntFlag):
    """What the bridge answers."""

    ONLINE = 1
    TRIGGER_READY = 2
    TRIGGER_ACKNOWLEDGE = 4
    RESULTS_VALID = 8
    GOOD = 16
    OVERRUN = 32
    MISSED_ACQUISITION = 64
    FAULT = 128
    DEGRADED = 256
    HANDSHAKE = 512
    BUSY = 1024


@dataclass(frozen=True, slots=True)
class Register:
    """One entry of the map; `address` is that of the request, from 0."""

    name: str
    kind: str
    meaning: str
    address: int = 0

    @property
    def size(self) -> int:
        """Registers that it takes."""
        return _SIZES[self.kind]


_HEADER = (
    Register("control", "uint16", "written by the PLC: bit 0 trigger, bit 1 results acknowledge"),
    Register("status", "uint16", "bits, below"),
    Register("heartbeat", "uint16", "changes at least 10 times a second while the bridge works; wraps"),
    Register("fault", "uint16", "why there is no verdict, below; 0: none"),
    Register("verdict", "uint16", "0 fault, 1 ok, 2 anomalous, 3 stale (no new result)"),
    Register("regions", "uint16", "defects found; those with the largest peaks follow"),
    Register("score", "float32", "image score"),
    Register("image_threshold", "float32", "scores above it are anomalous"),
    Register("frame_id", "uint32", "which frame, modulo 2^32"),
    Register("sequence", "uint32", "of the message, modulo 2^32"),
    Register(
        "trigger_id", "uint32", "which trigger the frame answers, as far as that is a number, modulo 2^32; 0: none"
    ),
    Register("results", "uint32", "frames, and triggers without one, with a result so far; wraps"),
    Register("anomalous", "uint32", "how many of the frames were anomalous; wraps"),
    Register("overruns", "uint16", "results lost because none was acknowledged; wraps"),
    Register("missed_acquisitions", "uint16", "triggers that were refused or brought no frame; wraps"),
    Register("lost_messages", "uint16", "messages lost between publisher and bridge; wraps"),
    Register("period_ms", "uint16", "between messages; 0: not known yet, 65535: that or more"),
    Register("map_version", "uint16", "1 or 2"),
    Register("captured_s", "uint32", "when the frame left the camera, seconds since 1970 UTC; 0: no frame"),
    Register("captured_ns", "uint32", "and nanoseconds"),
)
_EXPLANATION = (
    Register("pixel_threshold", "float32", "anomaly values above it are anomalous; 0: not told"),
    Register("peak", "float32", "largest anomaly value of the frame"),
    Register("peak_x", "uint16", "where that lies, px; 65535: not told"),
    Register("peak_y", "uint16", "px; 65535: not told"),
    Register("decided_by", "uint16", "which threshold was exceeded: 1 image, 2 pixel, 3 both; 0: none, or not told"),
    Register("part_id", "text", "the part that was asked about, 2 characters a register; 0: none"),
)
_REGION = (
    Register("x", "uint16", "left edge, px"),
    Register("y", "uint16", "top edge, px"),
    Register("width", "uint16", "px"),
    Register("height", "uint16", "px"),
    Register("area", "uint16", "px; 65535: that or more"),
    Register("peak", "uint16", "largest anomaly value in thousandths of image_threshold; 65535: that or more"),
)


class RegisterMap:
    """Registers that one request reads.

    Args:
        version: Stands in the map itself.
        address: Of the first register.
        header: Registers before the regions.
        num_regions: How many are shown.

    Attributes:
        registers: In the order of their addresses.
        size: How many registers of 16 bits that are.
    """

    def __init__(self, version: int, address: int, header: Sequence[Register], num_regions: int) -> None:
        self.version, self.address, self.num_regions = version, address, num_regions
        self.registers = tuple(_placed(address, header, num_regions))
        self.size = sum(register.size for register in self.registers)
        self._packed = struct.Struct(">" + "".join(_FORMATS[register.kind] for register in self.registers))
        self._words = struct.Struct(f">{self.size}H")

    def holds(self, address: int, count: int) -> bool:
        """True when all these registers are among its own."""
        return self.address <= address and address + count <= self.address + self.size

    def values(self, snapshot: Snapshot) -> list[int]:
        """Its registers, each from 0 to 65535."""
        values = {**_live_values(snapshot), **_result_values(snapshot.result, self.num_regions)}
        values["map_version"] = self.version
        empty = {"text": b""}
        fitted = (_fitted(values.get(one.name, empty.get(one.kind, 0)), one.kind) for one in self.registers)
        packed = self._packed.pack(*fitted)
        return list(self._words.unpack(packed))


def _placed(address: int, header: Sequence[Register], num_regions: int) -> Iterator[Register]:
    regions = (
        Register(f"region_{number}_{register.name}", register.kind, register.meaning)
        for number in range(1, num_regions + 1)
        for register in _REGION
    )
    for register in (*header, *regions):
        yield Register(register.name, register.kind, register.meaning, address)
        address += register.size


MAP_1 = RegisterMap(1, 0, _HEADER, 16)
MAP_2 = RegisterMap(2, 1000, (*_HEADER, *_EXPLANATION), 9)
MAPS = (MAP_1, MAP_2)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the registers say of one camera at one moment.

    Attributes:
        control: As the PLC wrote it last.
        beats: Of the feed.
        standing: Of the camera.
        triggers: Signals of the trigger half.
        latch: Signals of the result half; None without the handshake, when the newest message is shown.
    """

    control: int
    beats: int
    standing: Standing
    triggers: TriggerSignals
    latch: LatchSignals | None

    @property
    def result(self) -> Result | None:
        """What the result registers are about."""
        if self.latch is not None:
            return self.latch.shown
        return None if self.standing.fault is Fault.SILENCE else self.standing.message

    @property
    def verdict(self) -> Verdict:
        """Never ok while there is a fault, even if the result that is shown was, nor of what is no answer any more."""
        shown, standing = self.result, self.standing
        if self.latch is None:
            is_of_the_part_before = standing.verdict is Verdict.OK and self.triggers.is_unanswered
            return Verdict.STALE if is_of_the_part_before else standing.verdict
        if standing.fault and (shown is None or shown.verdict is Verdict.OK):
            return standing.verdict
        if shown is None or (shown.verdict is Verdict.OK and self._is_old(shown, self.latch)):
            return Verdict.STALE
        return shown.verdict

    def _is_old(self, shown: Result, latch: LatchSignals) -> bool:
        is_of_this_line = self.standing.message is not None and self.standing.message.session == shown.session
        return not is_of_this_line or latch.age_s > MAX_GOOD_S

    @property
    def status(self) -> Status:
        """The status bits."""
        signals = {
            Status.ONLINE: not self.standing.fault,
            Status.TRIGGER_READY: self.triggers.is_ready,
            Status.TRIGGER_ACKNOWLEDGE: self.triggers.is_acknowledged,
            Status.RESULTS_VALID: self._are_results_valid,
            Status.GOOD: self.verdict is Verdict.OK,
            Status.OVERRUN: self.latch is not None and self.latch.has_overrun,
            Status.MISSED_ACQUISITION: self.triggers.is_missed,
            Status.FAULT: bool(self.standing.fault),
            Status.DEGRADED: not self.standing.fault and self.standing.reason is not None,
            Status.HANDSHAKE: self.latch is not None,
            Status.BUSY: self.triggers.is_busy,
        }
        return Status(sum(status for status, is_set in signals.items() if is_set))

    @property
    def _are_results_valid(self) -> bool:
        if self.latch is None:
            return self.verdict in (Verdict.OK, Verdict.ANOMALOUS)
        return self.latch.shown is not None


def part_id_from_registers(values: Sequence[int]) -> str | None:
    """The part that the PLC wrote: two characters a register, the first in the high byte, filled up with zeros.

    Returns:
        None when all are zero.

    Raises:
        ValueError: It cannot stand in a message: other characters, or a zero between them, as halves of two texts have.
    """
    text = struct.pack(f">{len(values)}H", *values).rstrip(b"\0").decode("latin-1")
    if text and not ID_PATTERN.fullmatch(text):
        raise ValueError(f"part {text!r} cannot stand in a message; use {ID_RULE}, then zeros")
    return text or None


def _live_values(snapshot: Snapshot) -> dict[str, float | bytes]:
    return {
        "control": snapshot.control,
        "status": snapshot.status,
        "heartbeat": snapshot.beats,
        "fault": snapshot.standing.fault,
        "verdict": VERDICT_NUMBERS[snapshot.verdict],
        "results": snapshot.standing.results,
        "anomalous": snapshot.standing.anomalous,
        "overruns": 0 if snapshot.latch is None else snapshot.latch.overruns,
        "missed_acquisitions": snapshot.triggers.missed,
        "lost_messages": snapshot.standing.lost,
        "period_ms": min(0xFFFF, round(1000 * (snapshot.standing.period_s or 0))),
    }


def _fitted(value: float | bytes, kind: str) -> float | bytes:
    """Keep a number within its register: whole numbers wrap."""
    if isinstance(value, bytes):
        return value
    return int(value) & _LIMITS[kind] if kind in _LIMITS else max(-3e38, min(3e38, value))


def _result_values(result: Result | None, num_regions: int) -> dict[str, float | bytes]:
    if result is None:
        return {}
    captured_s, captured_ns = divmod(result.captured_ns or 0, 1_000_000_000)
    peak_x, peak_y = result.peak_xy or (NOT_TOLD, NOT_TOLD)
    values: dict[str, float | bytes] = {
        "regions": min(0xFFFF, len(result.regions)),
        "score": result.score or 0.0,
        "image_threshold": result.image_threshold,
        "frame_id": result.frame_id or 0,
        "sequence": result.sequence,
        "trigger_id": _number(result.trigger_id),
        "captured_s": captured_s,
        "captured_ns": captured_ns,
        "pixel_threshold": result.pixel_threshold or 0.0,
        "peak": result.peak or 0.0,
        "peak_x": min(NOT_TOLD, peak_x),
        "peak_y": min(NOT_TOLD, peak_y),
        "decided_by": DECIDED_BY_NUMBERS[result.decided_by],
        "part_id": (result.part_id or "").encode("ascii"),
    }
    for number, region in enumerate(result.regions[:num_regions], 1):
        for name, value in _region_values(region, result.image_threshold).items():
            values[f"region_{number}_{name}"] = min(0xFFFF, max(0, value))
    return values


def _number(trigger_id: str | None) -> int:
    return int(trigger_id) if trigger_id is not None and trigger_id.isdecimal() else 0


def _region_values(region: Region, image_threshold: float) -> dict[str, int]:
    left, top, right, bottom = region.box_xyxy
    relative_peak = region.peak / image_threshold if image_threshold > 0 else 65.535
    return {
        "x": left,
        "y": top,
        "width": right - left,
        "height": bottom - top,
        "area": region.area_px,
        "peak": round(1000 * min(65.535, relative_peak)),
    }

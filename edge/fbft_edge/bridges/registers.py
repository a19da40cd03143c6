"""The register map of the Modbus bridge: a camera's snapshot in, 125 registers out, as much as one request reads.

Numbers of more than 16 bits stand with their high word first. Knows nothing about sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag

from fbft_edge.bridges.camera_state import VERDICT_NUMBERS, Fault, Standing
from fbft_edge.bridges.handshake import MAX_GOOD_S, LatchSignals, TriggerSignals
from fbft_edge.frames.frame import Region, Verdict
from fbft_edge.messages.reading import Result

MAP_VERSION = 1
NUM_REGISTERS = 125
REGIONS_SHOWN = 16
CONTROL_ADDRESS = 0

_FORMATS = {"uint16": "H", "uint32": "I", "float32": "f"}
_SIZES = {"uint16": 1, "uint32": 2, "float32": 2}
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
    Register("regions", "uint16", "defects found; the 16 with the largest peaks follow"),
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
    Register("map_version", "uint16", "1"),
    Register("captured_s", "uint32", "when the frame left the camera, seconds since 1970 UTC; 0: no frame"),
    Register("captured_ns", "uint32", "and nanoseconds"),
)
_REGION = (
    Register("x", "uint16", "left edge, px"),
    Register("y", "uint16", "top edge, px"),
    Register("width", "uint16", "px"),
    Register("height", "uint16", "px"),
    Register("area", "uint16", "px; 65535: that or more"),
    Register("peak", "uint16", "largest anomaly value in thousandths of image_threshold; 65535: that or more"),
)


def _register_map() -> Iterator[Register]:
    address = 0
    regions = (
        Register(f"region_{number}_{register.name}", register.kind, register.meaning)
        for number in range(1, REGIONS_SHOWN + 1)
        for register in _REGION
    )
    for register in (*_HEADER, *regions):
        yield Register(register.name, register.kind, register.meaning, address)
        address += register.size


REGISTERS = tuple(_register_map())
_PACKED = struct.Struct(">" + "".join(_FORMATS[register.kind] for register in REGISTERS))
_WORDS = struct.Struct(f">{NUM_REGISTERS}H")


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


def registers_from_snapshot(snapshot: Snapshot) -> list[int]:
    """The 125 registers, each from 0 to 65535."""
    live = {
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
        "map_version": MAP_VERSION,
    }
    values = {**live, **_result_values(snapshot.result)}
    packed = _PACKED.pack(*(_fitted(values.get(register.name, 0), register.kind) for register in REGISTERS))
    return list(_WORDS.unpack(packed))


def _fitted(value: float, kind: str) -> float:
    """Keep a number within its register: whole numbers wrap."""
    return int(value) & _LIMITS[kind] if kind in _LIMITS else max(-3e38, min(3e38, value))


def _result_values(result: Result | None) -> dict[str, float]:
    if result is None:
        return {}
    captured_s, captured_ns = divmod(result.captured_ns or 0, 1_000_000_000)
    values: dict[str, float] = {
        "regions": min(0xFFFF, len(result.regions)),
        "score": result.score or 0.0,
        "image_threshold": result.image_threshold,
        "frame_id": result.frame_id or 0,
        "sequence": result.sequence,
        "trigger_id": _number(result.trigger_id),
        "captured_s": captured_s,
        "captured_ns": captured_ns,
    }
    for number, region in enumerate(result.regions[:REGIONS_SHOWN], 1):
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

"""Every message of all cameras in, what was missing, invalid or late out: a subscriber in a process of its own.

Knows the message and the grid; nothing of faults or of the line's process.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import time
from array import array
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq
from jsonschema import Draft202012Validator

from fbft_edge.errors import MessageError
from fbft_edge.messages.reading import decode_message
from tools.soak.place import ASKED, CAMERAS

SCHEMA_EVERY = 300


@dataclass
class Received:
    """What the subscriber saw of one camera."""

    messages: int = 0
    missing: int = 0
    sessions: list[str] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # of each session: its first message, and the one behind its last
    next: list[int] = field(default_factory=list)
    missed_triggers: int = 0
    open_ledgers: int = 0
    miscounted: int = 0
    invalid: int = 0
    schema_checked: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    health: dict[str, int] = field(default_factory=dict)
    bundles: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    deviation_ms: dict[str, float] = field(default_factory=dict)
    max_ms_by_minute: list[float] = field(default_factory=list)


class Watcher:
    """Checks every message; keeps 8 bytes of each."""

    def __init__(self, fps: float) -> None:
        self._period_ns = 1e9 / fps
        self.received = {camera: Received() for camera in (*CAMERAS, ASKED)}
        self._offsets_ns: dict[str, list[array[int]]] = {camera: [] for camera in self.received}
        schema = json.loads((files("fbft_edge.messages") / "result.schema.json").read_text())
        self._validator = Draft202012Validator(schema)

    def take(self, parts: list[bytes], arrived_ns: int) -> None:
        """Check one message."""
        camera = parts[0].decode().split("/")[2]
        seen = self.received[camera]
        seen.messages += 1
        try:
            result = decode_message(parts)
        except MessageError as error:
            seen.invalid += 1
            self._note(seen, f"message {seen.messages}: {error}")
            return
        if result.session not in seen.sessions:
            seen.sessions.append(result.session)
            seen.first.append(result.sequence)
            seen.next.append(result.sequence)
            self._offsets_ns[camera].append(array("q"))
        if result.session != seen.sessions[-1] or result.sequence != seen.next[-1]:
            seen.missing += abs(result.sequence - seen.next[-1])
            self._note(seen, f"sequence {result.sequence} after {seen.next[-1] - 1}")
        seen.next[-1] = result.sequence + 1
        seen.missed_triggers = result.ledger.missed_triggers
        seen.open_ledgers += not result.ledger.is_closed
        seen.miscounted += result.ledger.messages != result.sequence + 1
        for counts, key in (
            (seen.verdicts, result.verdict.value),
            (seen.health, result.health.state),
            (seen.bundles, result.bundle_sha256[:12]),
        ):
            counts[key] = counts.get(key, 0) + 1
        self._offsets_ns[camera][-1].append(arrived_ns - round(result.sequence * self._period_ns))
        if result.sequence % SCHEMA_EVERY == 0:
            self._check_schema(seen, parts[1])

    def finish(self) -> dict[str, dict[str, Any]]:
        """What was received, by camera, with deviations from each session's grid, whose phase is the median one."""
        a_minute = max(1, round(60e9 / self._period_ns))
        for camera, seen in self.received.items():
            sessions = [np.array(offsets_ns, dtype=np.float64) for offsets_ns in self._offsets_ns[camera]]
            if not sessions:
                continue
            deviations = np.concatenate([np.abs(each - np.median(each)) for each in sessions]) / 1e6
            quantiles = np.quantile(deviations, (0.5, 0.99, 0.999, 1.0))
            seen.deviation_ms = dict(zip(("p50", "p99", "p99.9", "max"), map(float, quantiles), strict=True))
            minutes = range(0, len(deviations), a_minute)
            seen.max_ms_by_minute = [round(float(deviations[first : first + a_minute].max()), 2) for first in minutes]
        return {camera: asdict(seen) for camera, seen in self.received.items()}

    def _check_schema(self, seen: Received, header: bytes) -> None:
        seen.schema_checked += 1
        for error in self._validator.iter_errors(json.loads(header)):
            seen.invalid += 1
            self._note(seen, f"schema: {error.message}")

    def _note(self, seen: Received, problem: str) -> None:
        if len(seen.problems) < 100:
            seen.problems.append(f"{time.strftime('%H:%M:%S')} {problem}")


def subscribe(endpoint: str, fps: float, report: Connection, stop: multiprocessing.synchronize.Event) -> None:
    """Work of the subscriber's process: report counts every second, and everything at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(-10)  # it must not miss anything because of its own lack of CPU
    watcher = Watcher(fps)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = context.socket(zmq.SUB)
    receiver.setsockopt(zmq.RCVHWM, 100_000)
    receiver.setsockopt(zmq.SUBSCRIBE, b"")
    receiver.connect(endpoint)
    told_s, quiet_s = 0.0, time.monotonic()
    while not stop.is_set() or time.monotonic() < quiet_s + 1.0:
        if receiver.poll(200):
            parts = receiver.recv_multipart()
            watcher.take(parts, time.monotonic_ns())
            quiet_s = time.monotonic()
        if time.monotonic() > told_s + 1.0:
            told_s = time.monotonic()
            report.send({camera: (seen.messages, seen.missing) for camera, seen in watcher.received.items()})
    context.destroy(linger=0)
    report.send(watcher.finish())

"""Acceptance check of the message period: `fbft-edge run` on a video, watched by three subscribers.

    python tools/check_publisher.py --bundle B --video CLIP.mp4 --fps 30 --duration 60 [--busy 2]

One subscriber listens from the start, one joins halfway, one connects and never reads; `--busy` processes do nothing
but use the processor. Prints a table and, as the last line, one JSON object; ends with status 1 when a check failed.
The subscribers go before all else, as if on a machine of their own. Needs the `test` extra (jsonschema).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from jsonschema import Draft202012Validator
from rich.console import Console
from rich.table import Table

from fbft_edge.errors import MessageError
from fbft_edge.messages.reading import decode_message
from fbft_edge.priority import make_real_time, preferring_new_threads

LIMIT_MS = 3.0


@dataclass
class Received:
    """What one subscriber got: decoded headers, when each arrived, and what was wrong with any."""

    headers: list[dict[str, Any]] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, parts: list[bytes]) -> None:
        """Keep one message."""
        self.arrived_ns.append(time.monotonic_ns())
        self.headers.append(json.loads(parts[1]))
        try:
            decode_message(parts)
        except MessageError as error:
            self.errors.append(str(error))

    @property
    def sequences(self) -> list[int]:
        """The sequence numbers, in order of arrival."""
        return [header["sequence"] for header in self.headers]


def main() -> int:
    """Run the check; 0 when everything holds."""
    args = _arguments()
    command = [sys.executable, "-m", "fbft_edge", "run", "--bundle", str(args.bundle), "--bind", args.bind]
    command += ["--camera", f"file://{args.video.resolve()}?loop=true"]
    command += ["--fps", str(args.fps), "--duration", str(args.duration)]
    context = zmq.Context()
    with preferring_new_threads():
        first, late, stalled = (_subscriber(context, queue) for queue in (0, 0, 1))
    first.connect(args.bind)
    stalled.connect(args.bind)
    with _busy(args.busy), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        received, received_late, cpu_share = _watched(first, late, args, process)
        summary = process.communicate()[0]
    context.destroy(linger=0)
    print(summary)
    checks, numbers = _judged(received, received_late, args)
    _show(checks, numbers)
    print(json.dumps({"passed": all(checks.values()), "cpu_share": cpu_share, **numbers, "checks": checks}))
    return 0 if all(checks.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check the period and the ledger of fbft-edge run.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True, help="played in a loop")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compete for the processor")
    parser.add_argument("--duration", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--bind", default="tcp://127.0.0.1:5599", metavar="ENDPOINT")
    return parser.parse_args()


@contextlib.contextmanager
def _busy(number: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _subscriber(context: zmq.Context[zmq.Socket[bytes]], receive_queue: int) -> zmq.Socket[bytes]:
    subscriber = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.RCVHWM, receive_queue)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    return subscriber


def _watched(
    first: zmq.Socket[bytes],
    late: zmq.Socket[bytes],
    args: argparse.Namespace,
    process: subprocess.Popen[str],
) -> tuple[Received, Received, float]:
    """Listen with both until the run ends; also the share of all cores that the machine was busy."""
    make_real_time()
    received, received_late = Received(), Received()
    is_joined = False
    before: tuple[float, float] | None = None
    for subscriber in _ready((first, late), process):
        (received if subscriber is first else received_late).add(subscriber.recv_multipart())
        before = before or _cpu_times()
        if not is_joined and len(received.headers) > args.fps * args.duration / 2:
            late.connect(args.bind)
            is_joined = True
    busy, total = np.subtract(_cpu_times(), before or (0.0, 0.0))
    return received, received_late, round(float(busy / max(total, 1e-9)), 3)


def _ready(sockets: tuple[zmq.Socket[bytes], ...], process: subprocess.Popen[str]) -> Iterator[zmq.Socket[bytes]]:
    """Sockets with a message, until the process has ended and nothing more comes."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    while True:
        ready = dict(poller.poll(200))
        if not ready and process.poll() is not None:
            return
        yield from (socket for socket in sockets if socket in ready)


def _cpu_times() -> tuple[float, float]:
    """Busy and total time of all cores together, in clock ticks."""
    times = [float(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(times) - times[3] - times[4], sum(times)


def _judged(
    received: Received, received_late: Received, args: argparse.Namespace
) -> tuple[dict[str, bool], dict[str, Any]]:
    validator = Draft202012Validator(json.loads((files("fbft_edge.messages") / "result.schema.json").read_text()))
    expected = round(args.fps * args.duration)
    period_ms = 1000 / args.fps
    published_ns = np.array([header["published_ns"] for header in received.headers])
    sent = _deviations_ms(published_ns, period_ms)
    arrived = _deviations_ms(np.array(received.arrived_ns), period_ms)
    everything = received.headers + received_late.headers
    numbers = {
        "messages": len(received.headers),
        "messages_expected": expected,
        "messages_late_subscriber": len(received_late.headers),
        "verdicts": {name: _count(received, name) for name in ("ok", "anomalous", "stale", "fault")},
        "published_p50_ms": _quantile(sent, 0.5),
        "published_p99_ms": _quantile(sent, 0.99),
        "published_max_ms": _quantile(sent, 1.0),
        "received_p50_ms": _quantile(arrived, 0.5),
        "received_p99_ms": _quantile(arrived, 0.99),
        "received_max_ms": _quantile(arrived, 1.0),
        "cores": os.cpu_count(),
        "ledger": received.headers[-1]["ledger"] if received.headers else None,
    }
    checks = {
        "message count": abs(len(received.headers) - expected) <= 1,
        "no gap in sequence": _is_gapless(received) and _is_gapless(received_late),
        "late subscriber served": len(received_late.headers) > 0.3 * expected,
        f"p99 of the published period below {LIMIT_MS:g} ms": numbers["published_p99_ms"] < LIMIT_MS,
        "every header valid under the schema": all(map(validator.is_valid, everything)),
        "every message decodes": not received.errors and not received_late.errors,
        "ledger closes in every message": all(map(_is_closed, everything)),
        "some frame was inspected": _count(received, "ok") + _count(received, "anomalous") > 0,
    }
    return checks, numbers


def _deviations_ms(times_ns: np.ndarray[Any, np.dtype[np.int64]], period_ms: float) -> list[float]:
    return [abs(float(step_ns) / 1e6 - period_ms) for step_ns in np.diff(times_ns)]


def _quantile(values_ms: list[float], fraction: float) -> float:
    return round(float(np.quantile(values_ms, fraction)), 3) if values_ms else float("inf")


def _count(received: Received, verdict: str) -> int:
    return sum(header["verdict"] == verdict for header in received.headers)


def _is_gapless(received: Received) -> bool:
    return all(step == 1 for step in np.diff(received.sequences))


def _is_closed(header: dict[str, Any]) -> bool:
    ledger = header["ledger"]
    frames = ledger["published_fresh"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
    messages = ledger["published_fresh"] + ledger["published_stale"] + ledger["published_fault"]
    return bool(ledger["captured"] == frames and messages == header["sequence"] + 1)


def _show(checks: dict[str, bool], numbers: dict[str, Any]) -> None:
    table = Table("check", "holds")
    for name, holds in checks.items():
        table.add_row(name, "yes" if holds else "[bold red]NO")
    for name, number in numbers.items():
        table.add_row(name, str(number))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())

"""Endurance check of a line: `fbft-edge run --config` for an hour and more, with faults at random, seen from outside.

    python tools/soak.py --minutes 60 --fps 30 [--bundle B --bundle B2] [--out DIR] [--seed N]

Two cameras publish: one good, one that is spoilt now and then. One subscriber, a process of its own, checks every
message of both. Everything is written to DIR: the line's log, each fault with its time, `soak.json` and `soak.md`. Ends
with status 1 when a period is missing, a ledger is open, memory grew by 1 % or more, or anything else was not as it
must be. Linux only. As root, the publishing thread gets real-time priority, and the recorder's disk can be full and
read-only; otherwise those faults are left out. Needs the `test` extra, and without --bundle `calibration`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import multiprocessing.synchronize
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zmq
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fbft_edge.errors import CommandError, MessageError
from fbft_edge.frames.images import write_image
from fbft_edge.messages.reading import decode_message
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.synthetic import render_part

SIZE = (140, 182)
GOOD, SPOILT = "good", "spoilt"
CAMERAS = (GOOD, SPOILT)
NUM_PARTS = 12
SPOILT_FPS = 10
FROZEN_AFTER = 15
SAMPLE_EVERY_S = 10.0
PSS_EVERY = 6
SCHEMA_EVERY = 300
WARM_UP_S = 600.0
CALM_END_S = 60.0
MAX_GROWTH = 0.01
RECORDER_GIB = 0.0156
DISK_MIB = 32


# The subscriber: a process of its own


@dataclass
class Received:
    """What the subscriber saw of one camera."""

    messages: int = 0
    first: int = -1
    next: int = 0
    missing: int = 0
    sessions: list[str] = field(default_factory=list)
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
        self.received = {camera: Received() for camera in CAMERAS}
        self._offsets_ns = {camera: array("q") for camera in CAMERAS}
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
        if seen.first < 0:
            seen.first = seen.next = result.sequence
        if result.sequence != seen.next:
            seen.missing += result.sequence - seen.next
            self._note(seen, f"sequence {result.sequence} after {seen.next - 1}")
        seen.next = result.sequence + 1
        if result.session not in seen.sessions:
            seen.sessions.append(result.session)
        seen.open_ledgers += not result.ledger.is_closed
        seen.miscounted += result.ledger.messages != result.sequence + 1
        for counts, key in (
            (seen.verdicts, result.verdict.value),
            (seen.health, result.health.state),
            (seen.bundles, result.bundle_sha256[:12]),
        ):
            counts[key] = counts.get(key, 0) + 1
        self._offsets_ns[camera].append(arrived_ns - round(result.sequence * self._period_ns))
        if result.sequence % SCHEMA_EVERY == 0:
            self._check_schema(seen, parts[1])

    def finish(self) -> dict[str, dict[str, Any]]:
        """What was received, by camera, with deviations from the grid whose phase is the median one."""
        a_minute = max(1, round(60e9 / self._period_ns))
        for camera, seen in self.received.items():
            offsets_ns = np.array(self._offsets_ns[camera], dtype=np.float64)
            if not len(offsets_ns):
                continue
            deviations = np.abs(offsets_ns - np.median(offsets_ns)) / 1e6
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


# The line and what it stands on


@dataclass(frozen=True)
class Place:
    """Files and addresses of one check."""

    out: Path
    publisher: str
    http_port: int
    bundles: tuple[Path, Path]

    @property
    def images(self) -> Path:
        """Folder that the spoilt camera plays."""
        return self.out / "images"

    @property
    def originals(self) -> Path:
        """What that folder holds when nothing is spoilt."""
        return self.out / "originals"

    @property
    def recordings(self) -> Path:
        """The recorder's folder."""
        return self.out / "disk" / "recordings"

    @property
    def commands(self) -> str:
        """The command socket."""
        return f"ipc://{self.out}/commands"

    @property
    def publisher_port(self) -> int:
        """Port of the publisher."""
        return int(self.publisher.rpartition(":")[2])

    def config(self, fps: float) -> str:
        """The line's configuration."""
        height, width = SIZE
        return f"""\
site = "soak"
bundle = "{self.bundles[0]}"
engine = "openvino"
fps = {float(fps)}

[[cameras]]
name = "{GOOD}"
uri = "synthetic://?fps=30&height={height}&width={width}"

[[cameras]]
name = "{SPOILT}"
uri = "folder://{self.images}?fps={SPOILT_FPS}&loop=true"
frozen_after = {FROZEN_AFTER}
black_below = 5.0

[publish]
bind = "{self.publisher}"

[commands]
bind = "{self.commands}"

[http]
bind = "127.0.0.1:{self.http_port}"

[recorder]
folder = "{self.recordings}"
max_gib = {RECORDER_GIB}
nominal_every = 20

[drift]
window = 200
"""


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def fit(out: Path) -> tuple[Path, Path]:
    """Two small bundles of rendered parts, fitted in the folder unless they are there."""
    from fbft_calibration.fitting.bundling import BundleSettings, fit_bundle
    from fbft_calibration.fitting.students import FitSettings

    nominal = out / "nominal"
    nominal.mkdir(exist_ok=True)
    for seed in range(NUM_PARTS):
        write_image(nominal / f"part{seed:02d}.png", render_part(seed, *SIZE).pixels)
    bundles = out / "one.fbft", out / "two.fbft"
    for bundle, steps in zip(bundles, (20, 40), strict=True):
        if not bundle.exists():
            settings = BundleSettings(tile_px=112, students=FitSettings(steps=steps), prototypes=32)
            fit_bundle(nominal, bundle, settings, Console(stderr=True))
    return bundles


def prepare(out: Path, bundles: Sequence[Path]) -> tuple[Place, bool]:
    """Lay out the folder; the recorder's disk is a small one of its own where this process may mount it."""
    out.mkdir(parents=True, exist_ok=True)
    pair = (bundles[0], bundles[-1]) if bundles else fit(out)
    first, second = (bundle.resolve() for bundle in pair)
    place = Place(out, f"tcp://127.0.0.1:{free_port()}", free_port(), (first, second))
    for folder in (place.images, place.originals):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for seed in range(NUM_PARTS):
            write_image(folder / f"part{seed:02d}.png", render_part(seed, *SIZE).pixels)
    disk = out / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "soak", str(disk)]
    return place, subprocess.run(mount, capture_output=True).returncode == 0


# What is asked of the line while it runs


@dataclass
class Sample:
    """The process at one moment; memory in KiB."""

    elapsed_s: float
    rss_kib: int
    pss_kib: int | None
    threads: int
    files: int


def sampled(pid: int, elapsed_s: float, with_pss: bool) -> Sample:
    """Read a process from /proc.

    Raises:
        OSError: It is gone.
    """
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    pss = re.search(r"^Pss:\s+(\d+)", (process / "smaps_rollup").read_text(), re.MULTILINE) if with_pss else None
    return Sample(
        elapsed_s,
        int(status["VmRSS"].split()[0]),
        int(pss[1]) if pss else None,
        int(status["Threads"]),
        sum(1 for _ in (process / "fd").iterdir()),
    )


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of one page.

    Raises:
        OSError: Nobody answers.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def histograms(metrics: str) -> dict[str, dict[str, dict[str, float]]]:
    """Bounds of the 50th and 99th percentile and of the largest value in ms, by histogram and camera.

    A bound is the upper edge of the bucket that the quantile is in.
    """
    wanted = {"fbft_deviation_seconds": "deviation", "fbft_latency_seconds": "latency"}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name not in wanted:
            continue
        buckets: dict[str, list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                buckets.setdefault(sample.labels["camera"], []).append((float(sample.labels["le"]), sample.value))
        found[wanted[family.name]] = {camera: _quantiles_ms(counts) for camera, counts in buckets.items()}
    return found


def _quantiles_ms(buckets: list[tuple[float, float]]) -> dict[str, float]:
    total = max((count for _, count in buckets), default=0.0)
    return {
        name: 1e3 * next((bound for bound, count in sorted(buckets) if count >= fraction * total), float("nan"))
        for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def counters(metrics: str) -> dict[str, float]:
    """Every counter but those of histograms, by its name and labels."""
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(metrics)
        if family.type == "counter"
        for sample in family.samples
    }


def summaries(printed: str) -> dict[str, dict[str, Any]]:
    """What `fbft-edge run` prints at its end, by camera."""
    found = {}
    for block in re.split(r"^camera\s+", printed, flags=re.MULTILINE)[1:]:
        name, _, text = block.partition("\n")
        lines = dict(line.split(None, 1) for line in text.splitlines() if line.strip())
        counts = {key: int(value) for key, value in re.findall(r"([a-z_]+(?: flight)?) (\d+)", lines["frames"])}
        messages, elapsed = re.fullmatch(r"(\d+) in ([\d.]+) s", lines["messages"]).groups()  # type: ignore[union-attr]
        found[name.strip()] = {
            "messages": int(messages),
            "elapsed_s": float(elapsed),
            "ledger": counts,
            **{key: lines[key] for key in ("session", "inspected", "latency", "deviation", "priority")},
        }
    return found


def is_closed(ledger: Mapping[str, int]) -> bool:
    """Captured frames against what became of them."""
    dropped = sum(ledger.get(cause, 0) for cause in ("replaced", "inference_error", "too_late", "shutdown"))
    return ledger["captured"] == ledger["fresh"] + dropped + ledger["in flight"]


# Faults


class Faults:
    """Does to a running line, at random, what factories do: each kind in a thread of its own, once at a time."""

    def __init__(
        self, place: Place, pid: int, seed: int, every_s: float, has_disk: bool, say: Callable[[str], None]
    ) -> None:
        self._place, self._pid, self._every_s, self._say = place, pid, every_s, say
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._start_s = time.monotonic()
        self._reloads, self._bundle = threading.Lock(), 0
        self._images, self._disk = threading.Lock(), threading.Lock()
        self._running: dict[str, threading.Thread] = {}
        self._kinds: dict[str, Callable[[random.Random], str]] = {
            "subscriber stopped": self._stop_subscriber,
            "subscriber killed": self._kill_subscriber,
            "50 subscribers": self._crowd,
            "garbage to the publisher": self._garbage_publisher,
            "flood of subscriptions": self._flood,
            "garbage to http": self._garbage_http,
            "malformed commands": self._malformed,
            "reload": self._reload,
            "reload by SIGHUP": self._hangup,
            "reload of a damaged bundle": self._reload_damaged,
            "camera: files damaged": self._damaged_files,
            "camera: file of another size": self._other_size,
            "camera: black": self._black,
            "camera: frozen": self._frozen,
            "camera: gone": self._gone,
            "CPU busy": self._busy,
        }
        if has_disk:
            self._kinds |= {"recorder: disk full": self._full_disk, "recorder: disk read-only": self._read_only_disk}
        self._thread = threading.Thread(target=self._work, name="faults")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def rest(self) -> None:
        """Begin nothing more, and undo what is being done."""
        self._stopping.set()

    def stop(self) -> None:
        """`rest`, and wait until everything is as it was."""
        self.rest()
        if self._thread.ident is None:
            return
        self._thread.join()
        for thread in self._running.values():
            thread.join()

    def _work(self) -> None:
        order: list[str] = []
        while not self._stopping.wait(self._random.uniform(0.4, 1.6) * self._every_s):
            if not order:
                order = self._random.sample(list(self._kinds), len(self._kinds))
            kind, chance = order.pop(), random.Random(self._random.random())
            if (last := self._running.get(kind)) is not None and last.is_alive():
                continue
            self._running[kind] = threading.Thread(target=self._inject, args=(kind, chance), name=kind)
            self._running[kind].start()

    def _inject(self, kind: str, chance: random.Random) -> None:
        begun_s = time.monotonic() - self._start_s
        self.counts[kind] += 1
        try:
            outcome = self._kinds[kind](chance)
        except Exception as error:
            outcome = f"PROBLEM: {type(error).__name__}: {error}"
        if outcome.startswith("PROBLEM"):
            self.problems.append(f"{begun_s:.0f} s, {kind}: {outcome}")
        self.outcomes[f"{kind}: {outcome.partition(';')[0]}"] += 1
        lasted_s = time.monotonic() - self._start_s - begun_s
        self.events.append(
            {"at_s": round(begun_s, 1), "lasted_s": round(lasted_s, 1), "kind": kind, "outcome": outcome}
        )
        self._say(f"{time.strftime('%H:%M:%S')} {begun_s:7.1f} s  {kind} ({lasted_s:.1f} s): {outcome}")

    def _wait(self, chance: random.Random, low_s: float, high_s: float) -> None:
        self._stopping.wait(chance.uniform(low_s, high_s))

    # Subscribers

    @contextlib.contextmanager
    def _listener(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "fbft_edge", "listen", "--connect", self._place.publisher]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise RuntimeError("the listener got nothing")
                threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
                yield process
            finally:
                process.kill()

    def _stop_subscriber(self, chance: random.Random) -> str:
        with self._listener() as process:
            self._wait(chance, 1, 3)
            process.send_signal(signal.SIGSTOP)
            self._wait(chance, 3, 40)
            process.send_signal(signal.SIGCONT)
            self._wait(chance, 1, 3)
            return "went on" if process.poll() is None else f"PROBLEM: it ended with {process.returncode}"

    def _kill_subscriber(self, chance: random.Random) -> str:
        with self._listener() as process:
            self._wait(chance, 0.5, 5)
            process.kill()
        return "gone"

    def _crowd(self, chance: random.Random) -> str:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(2)
        try:
            sockets = [context.socket(zmq.SUB) for _ in range(50)]
            for receiver in sockets:
                receiver.setsockopt(zmq.SUBSCRIBE, b"fbft/")
                receiver.connect(self._place.publisher)
            self._wait(chance, 5, 15)
            served = sum(bool(receiver.poll(2000)) for receiver in sockets)
        finally:
            context.destroy(linger=0)
        return "all served" if served == 50 else f"PROBLEM: {served} of 50 served"

    # Garbage

    def _garbage(self, port: int, chance: random.Random, heads: Sequence[bytes]) -> None:
        held = []
        for _ in range(chance.randint(5, 40)):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), 2)
                connection.settimeout(0.5)
                held.append(connection)
                connection.sendall(chance.choice(heads) + chance.randbytes(chance.choice((0, 1, 64, 4096, 65536))))
        self._wait(chance, 0.1, 6)
        for connection in held:
            if chance.random() < 0.5:  # RST instead of FIN
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

    def _garbage_publisher(self, chance: random.Random) -> str:
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
        self._garbage(self._place.publisher_port, chance, (b"", greeting[:10], greeting, b"GET / HTTP/1.1\r\n\r\n"))
        return "sent"

    def _flood(self, chance: random.Random) -> str:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            receiver = context.socket(zmq.SUB)
            receiver.connect(self._place.publisher)
            for number in range(chance.randint(100, 3000)):
                receiver.setsockopt(zmq.SUBSCRIBE, b"x" * chance.randint(1, 400) + str(number).encode())
            self._wait(chance, 1, 5)
        finally:
            context.destroy(linger=0)
        return "sent"

    def _garbage_http(self, chance: random.Random) -> str:
        heads = (
            b"",
            b"GET /metrics HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n",
            b"GET /" + b"a" * 9000,
        )
        self._garbage(self._place.http_port, chance, heads)
        time.sleep(3)
        status, _ = get(self._place.http_port, "/healthz")
        return "healthz answers" if status in (200, 503) else f"PROBLEM: /healthz is {status}"

    def _malformed(self, chance: random.Random) -> str:
        samples = (
            b"", b"{}", b"[" * 4000, b'{"command": 1}', b'{"id": NaN, "command": "status"}', b"\xff\xfe", b"x" * 4096,
            b'{"command": "trigger", "camera": "none"}', b'{"command": "open the doors"}', b'{"command": "reload"}',
            b'{"command": "reload", "bundle": "/nowhere.fbft"}',
        )  # fmt: skip
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            client = context.socket(zmq.DEALER)
            client.connect(self._place.commands)
            for _ in range(chance.randint(10, 200)):
                frames = [chance.choice((chance.randbytes(chance.randint(0, 4096)), chance.choice(samples)))]
                client.send_multipart(frames * chance.choice((1, 1, 1, 3)))
            self._wait(chance, 0.2, 1)
        finally:
            context.destroy(linger=0)
        with CommandClient(self._place.commands) as sane:
            sane.call("status", timeout_s=10)
        return "status answers"

    # Bundles

    def _call_reload(self, bundle: Path) -> dict[str, Any]:
        with CommandClient(self._place.commands) as client:
            return client.call("reload", timeout_s=120, bundle=str(bundle), force=True)

    def _reload(self, chance: random.Random) -> str:
        with self._reloads:
            self._bundle = 1 - self._bundle
            self._call_reload(self._place.bundles[self._bundle])
        return "taken"

    def _hangup(self, chance: random.Random) -> str:
        with self._reloads:
            os.kill(self._pid, signal.SIGHUP)
            self._bundle = 0
            time.sleep(15)
        return "sent"

    def _reload_damaged(self, chance: random.Random) -> str:
        damaged = self._place.out / "damaged.fbft"
        with self._reloads:
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(self._place.bundles[0], damaged)
            file = chance.choice([path for path in damaged.iterdir() if path.is_file() and path.suffix != ".html"])
            content = bytearray(file.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            is_cut = file.suffix == ".json" or chance.random() < 0.5  # no checksum but a signature covers the manifest
            file.write_bytes(content[: len(content) // 2] if is_cut else content)
            try:
                answer = self._call_reload(damaged)
            except CommandError as error:
                return f"refused; {file.name}: {str(error)[:160]}"
            finally:
                shutil.rmtree(damaged, ignore_errors=True)
            return f"PROBLEM: {file.name} was damaged and the bundle was taken: {answer}"

    # The camera

    @contextlib.contextmanager
    def _spoilt_images(self) -> Iterator[list[Path]]:
        """One fault of the camera at a time; afterwards every image is as it was, and a frame of it is inspected."""
        with self._images:
            try:
                yield sorted(self._place.images.iterdir())
            finally:
                for original in self._place.originals.iterdir():
                    _replace(self._place.images / original.name, original.read_bytes())

    def _until_back(self, begun: int) -> str:
        """Wait for an inspected frame of the camera."""
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s:
            if self._fresh() > begun + 2:
                return "came back"
            time.sleep(0.5)
        return "PROBLEM: no inspected frame for 120 s after it was back"

    def _fresh(self) -> int:
        with CommandClient(self._place.commands) as client:
            return int(client.call("status", timeout_s=10)["cameras"][SPOILT]["ledger"]["published_fresh"])

    def _damaged_files(self, chance: random.Random) -> str:
        with self._spoilt_images() as paths:
            for path in chance.sample(paths, chance.randint(1, len(paths))):
                content = path.read_bytes()
                cut = content[: chance.randrange(len(content))]
                _replace(path, chance.choice((cut, b"", chance.randbytes(len(content)))))
            self._wait(chance, 3, 15)
        return self._until_back(self._fresh())

    def _other_size(self, chance: random.Random) -> str:
        with self._spoilt_images() as paths:
            for path in chance.sample(paths, chance.randint(1, len(paths))):
                _replace(path, _png(np.zeros((chance.randint(1, 2000), chance.randint(1, 2000), 3), np.uint8)))
            self._wait(chance, 3, 15)
        return self._until_back(self._fresh())

    def _black(self, chance: random.Random) -> str:
        with self._spoilt_images() as paths:
            for path in paths:
                _replace(path, _png(np.zeros((*SIZE, 3), np.uint8)))
            self._wait(chance, 3, 15)
        return self._until_back(self._fresh())

    def _frozen(self, chance: random.Random) -> str:
        with self._spoilt_images() as paths:
            content = chance.choice(paths).read_bytes()
            for path in paths:
                _replace(path, content)
            self._wait(chance, 3, 25)
        return self._until_back(self._fresh())

    def _gone(self, chance: random.Random) -> str:
        away = self._place.images.with_name("away")
        with self._images:
            self._place.images.rename(away)
            self._wait(chance, 2, 30)
            away.rename(self._place.images)
        return self._until_back(self._fresh())

    # The machine

    def _full_disk(self, chance: random.Random) -> str:
        ballast = self._place.recordings.parent / "ballast"
        with self._disk:
            try:
                with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
                    while True:
                        file.write(bytes(1 << 16))
                self._wait(chance, 5, 30)
            finally:
                ballast.unlink(missing_ok=True)
        return "freed"

    def _read_only_disk(self, chance: random.Random) -> str:
        disk = str(self._place.recordings.parent)
        with self._disk:
            for _ in range(50):  # refused while a file is open for writing
                if subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                return "not possible now"
            try:
                self._wait(chance, 5, 30)
            finally:
                subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        return "writable again"

    def _busy(self, chance: random.Random) -> str:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
        try:
            self._stopping.wait(20)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        return "over"


def _drain(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read(1 << 16):
            pass


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)


# The check


def _last(report: Connection) -> dict[str, dict[str, Any]]:
    """What the subscriber says at its end.

    Raises:
        EOFError: It ended without a word.
    """
    while True:
        told = report.recv()
        if all(isinstance(seen, dict) for seen in told.values()):
            return dict(told)


class Soak:
    """One run of the line, from its start to its judgement."""

    def __init__(self, args: argparse.Namespace, place: Place, has_disk: bool, console: Console) -> None:
        self._args, self._place, self._has_disk, self._console = args, place, has_disk, console
        self._samples: list[Sample] = []
        self._metrics = ""
        self._unanswered: list[str] = []
        self._counts: dict[str, tuple[int, int]] = {}

    def run(self) -> dict[str, Any]:
        """Everything that was seen."""
        place, args = self._place, self._args
        config = place.out / "line.toml"
        config.write_text(place.config(args.fps))
        spawn = multiprocessing.get_context("spawn")
        stop, (report, sender) = spawn.Event(), spawn.Pipe(duplex=False)
        subscriber = spawn.Process(target=subscribe, args=(place.publisher, args.fps, sender, stop), daemon=True)
        subscriber.start()
        sender.close()
        time.sleep(2.0)  # it connects before the first message
        command = [sys.executable, "-m", "fbft_edge", "run", "--config", str(config), "--log", "json"]
        with (place.out / "line.log").open("wb") as log:
            line = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        load = [os.getloadavg()]
        try:
            faults, elapsed_s = self._watch(line, report)
        finally:
            line.send_signal(signal.SIGTERM)
            printed = line.communicate(timeout=120)[0]
            stop.set()
        load.append(os.getloadavg())
        received = _last(report)
        subscriber.join(30)
        (place.out / "line.out").write_text(printed)
        return {
            "seed": args.seed,
            "fps": args.fps,
            "elapsed_s": elapsed_s,
            "status": line.returncode,
            "summaries": summaries(printed) if line.returncode == 0 else {},
            "received": received,
            "histograms": histograms(self._metrics),
            "counters": counters(self._metrics),
            "faults": dict(sorted(faults.counts.items())),
            "outcomes": dict(sorted(faults.outcomes.items())),
            "fault_problems": faults.problems,
            "unanswered": self._unanswered,
            "log": log_counts(place.out / "line.log"),
            "load": load,
            "samples": [asdict(sample) for sample in self._samples],
            "events": faults.events,
        }

    def _watch(self, line: subprocess.Popen[str], report: Connection) -> tuple[Faults, float]:
        self._await_first(line, report)
        begun_s = time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console) as progress:
            args, say = self._args, progress.console.print
            faults = Faults(self._place, line.pid, args.seed, args.every, self._has_disk, say)
            if not args.calm:
                faults.start()
            try:
                self._attend(line, report, faults, progress)
            finally:
                faults.stop()
            self._scrape()
        return faults, time.monotonic() - begun_s

    def _attend(self, line: subprocess.Popen[str], report: Connection, faults: Faults, progress: Progress) -> None:
        begun_s = next_s = time.monotonic()
        duration_s = self._args.minutes * 60
        calm_s = duration_s - min(CALM_END_S, duration_s / 10)
        task, number = progress.add_task("running", total=duration_s), 0
        while (elapsed_s := time.monotonic() - begun_s) < duration_s and line.poll() is None:
            if time.monotonic() >= next_s:
                self._look(line.pid, elapsed_s, number)
                next_s, number = next_s + SAMPLE_EVERY_S, number + 1
            if elapsed_s > calm_s:
                faults.rest()
            self._read(report)
            progress.update(task, completed=elapsed_s, description=self._description(faults))
            time.sleep(0.5)

    def _await_first(self, line: subprocess.Popen[str], report: Connection) -> None:
        deadline_s = time.monotonic() + 120
        while not all(self._counts.get(camera, (0, 0))[0] for camera in CAMERAS):
            if line.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"the line published nothing; see {self._place.out / 'line.log'}")
            self._read(report)
            time.sleep(0.1)

    def _read(self, report: Connection) -> None:
        while report.poll():
            self._counts = report.recv()

    def _look(self, pid: int, elapsed_s: float, number: int) -> None:
        with contextlib.suppress(OSError):
            self._samples.append(sampled(pid, elapsed_s, number % PSS_EVERY == 0))
        self._scrape()

    def _scrape(self) -> None:
        try:
            status, body = get(self._place.http_port, "/metrics")
        except (OSError, http.client.HTTPException) as error:  # 32 connections at a time, and garbage may hold them
            self._unanswered.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
        else:
            if status == 200:
                self._metrics = body

    def _description(self, faults: Faults) -> str:
        counts = "  ".join(
            f"{camera} {count}" + f" ({lost} missing)" * bool(lost) for camera, (count, lost) in self._counts.items()
        )
        memory = f"{self._samples[-1].rss_kib / 1024:.0f} MiB" if self._samples else ""
        return f"{counts}  {memory}  {sum(faults.counts.values())} faults"


def log_counts(path: Path) -> dict[str, int]:
    """Lines of the line's log by level, tracebacks and lines that are no JSON."""
    counts: Counter[str] = Counter()
    for text in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(text)
        except ValueError:
            counts["no JSON"] += 1
            continue
        counts[entry["level"]] += 1
        counts["traceback"] += "traceback" in entry
    return dict(counts)


def growth(samples: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """Median of the last tenth of a run over that of the tenth after a warm-up of 10 minutes, at most a sixth."""
    if not samples:
        return {}
    end_s = samples[-1]["elapsed_s"]
    warm_s, tenth_s = min(WARM_UP_S, end_s / 6), end_s / 10
    values = [(sample["elapsed_s"], sample[key]) for sample in samples if sample[key] is not None]
    early = [value for at_s, value in values if warm_s <= at_s <= warm_s + tenth_s]
    late = [value for at_s, value in values if at_s >= end_s - tenth_s]
    if not early or not late:
        return {}
    before, after = statistics.median(early), statistics.median(late)
    return {"before": before, "after": after, "max": max(value for _, value in values), "growth": after / before - 1}


def judged(seen: dict[str, Any]) -> dict[str, bool]:
    """What must hold."""
    checks = {"the line ended with status 0": seen["status"] == 0}
    for camera in CAMERAS:
        got, said = seen["received"][camera], seen["summaries"].get(camera)
        if said is None:
            checks[f"{camera}: it has a summary"] = False
            continue
        expected = said["elapsed_s"] * seen["fps"]
        checks[f"{camera}: no period is missing"] = (
            got["first"] == 0 and got["missing"] == 0 and got["messages"] == got["next"] == said["messages"]
        )
        checks[f"{camera}: one message a period"] = abs(said["messages"] - expected) <= 2
        checks[f"{camera}: one session"] = got["sessions"] == [said["session"]]
        checks[f"{camera}: every message is valid"] = got["invalid"] == 0
        checks[f"{camera}: every ledger is closed"] = got["open_ledgers"] == 0 and is_closed(said["ledger"])
        checks[f"{camera}: every ledger counts its message"] = got["miscounted"] == 0
    checks["memory grew by less than 1 %"] = seen["memory"]["rss"].get("growth", 0.0) < MAX_GROWTH
    checks["faults went as they must"] = not seen["fault_problems"]
    checks["no traceback in the log"] = not seen["log"].get("traceback")
    return checks


def table(seen: Mapping[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [
        f"{seen['elapsed_s'] / 60:.1f} minutes at {seen['fps']:g} Hz, "
        f"{sum(seen['faults'].values())} faults, seed {seen['seed']}.",
        "",
    ]
    lines += ["| | " + " | ".join(CAMERAS) + " |", "| --- |" + " --- |" * len(CAMERAS)]
    received, said, bounds = seen["received"], seen["summaries"], seen["histograms"]

    def row(name: str, value: Callable[[str], str]) -> None:
        lines.append(f"| {name} | " + " | ".join(value(camera) for camera in CAMERAS if camera in said) + " |")

    row("messages sent", lambda camera: str(said[camera]["messages"]))
    row("received", lambda camera: str(received[camera]["messages"]))
    row("missing", lambda camera: str(received[camera]["missing"]))
    row("sessions", lambda camera: str(len(received[camera]["sessions"])))
    row(
        "invalid; checked against the schema",
        lambda camera: f"{received[camera]['invalid']}; {received[camera]['schema_checked']}",
    )
    row("deviation as published", lambda camera: said[camera]["deviation"].partition(" (")[0])
    row(
        "deviation as received, p50 / p99 / p99.9 / max ms",
        lambda camera: " / ".join(f"{value:.2f}" for value in received[camera]["deviation_ms"].values()),
    )
    row("capture to publish", lambda camera: said[camera]["latency"].partition(" (")[0])
    for name in ("deviation", "latency"):
        row(
            f"{name} by `/metrics`, p50 / p99 / max at most, ms",
            lambda camera, name=name: " / ".join(
                f"{value:g}" for value in bounds.get(name, {}).get(camera, {}).values()
            ),  # type: ignore[misc]
        )
    row("inspected", lambda camera: said[camera]["inspected"])
    row(
        "verdicts",
        lambda camera: ", ".join(f"{key} {count}" for key, count in sorted(received[camera]["verdicts"].items())),
    )
    row("ledger", lambda camera: ", ".join(f"{key} {count}" for key, count in said[camera]["ledger"].items()))
    row("priority", lambda camera: said[camera]["priority"])
    lines += ["", "| of the process | after warm-up | at the end | growth | most |", "| --- | --- | --- | --- | --- |"]
    for name, figures in seen["memory"].items():
        if figures:
            scale = 1024 if name in ("rss", "pss") else 1
            before, after, most = (figures[key] / scale for key in ("before", "after", "max"))
            unit = " MiB" if scale == 1024 else ""
            change = f"{100 * figures['growth']:.2f} %"
            lines.append(f"| {name} | {before:.1f}{unit} | {after:.1f}{unit} | {change} | {most:.1f}{unit} |")
    lines += ["", "| fault | times |", "| --- | --- |"]
    lines += [f"| {outcome} | {count} |" for outcome, count in seen["outcomes"].items()]
    lines += ["", "| check | |", "| --- | --- |"]
    lines += [f"| {check} | {'yes' if holds else 'NO'} |" for check, holds in seen["checks"].items()]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a line for long, with faults at random, and check every message.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument(
        "--bundle", type=Path, action="append", default=[], help="for frames of 140x182; twice: for reloads"
    )
    parser.add_argument("--out", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="from fault to fault, on average")
    parser.add_argument("--calm", action="store_true", help="no faults")
    return parser.parse_args()


def main() -> int:
    """Run the check; 0 when everything holds."""
    args, console = arguments(), Console()
    place, has_disk = prepare(args.out.resolve(), args.bundle)
    try:
        seen = Soak(args, place, has_disk, console).run()
    finally:
        if has_disk:
            subprocess.run(["umount", str(place.out / "disk")], check=False)
    names = {"rss": "rss_kib", "pss": "pss_kib", "threads": "threads", "file descriptors": "files"}
    seen["memory"] = {name: growth(seen["samples"], key) for name, key in names.items()}
    seen["checks"] = judged(seen)
    text = table(seen)
    (place.out / "soak.json").write_text(json.dumps(seen, indent=1))
    (place.out / "soak.md").write_text(text)
    print(text)
    for problem in (*seen["fault_problems"], *(p for got in seen["received"].values() for p in got["problems"])):
        print(problem)
    return 0 if all(seen["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())

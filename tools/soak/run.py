"""One run of the line from its start to its end, everything that was seen of it out.

Knows nothing of what must hold: that is the report's.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tools.soak.faults import Faults
from tools.soak.place import CAMERAS, Place
from tools.soak.samples import Sample, counters, get, histograms, log_counts, sampled, summaries
from tools.soak.schedule import Schedule
from tools.soak.watcher import subscribe

SAMPLE_EVERY_S = 10.0
PSS_EVERY = 6
CALM_END_S = 60.0


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

    def _watch(self, line: subprocess.Popen[str], report: Connection) -> tuple[Schedule, float]:
        self._await_first(line, report)
        begun_s = time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console) as progress:
            args, say = self._args, progress.console.print
            ending = threading.Event()
            kinds = Faults(self._place, line.pid, self._has_disk, ending).kinds
            faults = Schedule(kinds, ending, args.seed, args.every, say)
            if not args.calm:
                faults.start()
            try:
                self._attend(line, report, faults, progress)
            finally:
                faults.stop()
            self._scrape()
        return faults, time.monotonic() - begun_s

    def _attend(self, line: subprocess.Popen[str], report: Connection, faults: Schedule, progress: Progress) -> None:
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

    def _description(self, faults: Schedule) -> str:
        counts = "  ".join(
            f"{camera} {count}" + f" ({lost} missing)" * bool(lost) for camera, (count, lost) in self._counts.items()
        )
        memory = f"{self._samples[-1].rss_kib / 1024:.0f} MiB" if self._samples else ""
        return f"{counts}  {memory}  {sum(faults.counts.values())} faults"


def _last(report: Connection) -> dict[str, dict[str, Any]]:
    """What the subscriber says at its end.

    Raises:
        EOFError: It ended without a word.
    """
    while True:
        told = report.recv()
        if all(isinstance(seen, dict) for seen in told.values()):
            return dict(told)

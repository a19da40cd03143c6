"""One run of a line with its bridges from start to end, everything that was seen of them out.

Knows nothing of what must hold: that is the report's.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tools.soak.asker import Ways, ask
from tools.soak.board import Board
from tools.soak.camera import UNFIT
from tools.soak.faults import Faults
from tools.soak.place import CAMERAS, Place
from tools.soak.programs import LINE, MQTT, Program, programs
from tools.soak.samples import Sample, counters, get, histograms, log_counts, sampled, summaries
from tools.soak.schedule import Schedule
from tools.soak.shown import Addresses, watchers
from tools.soak.watcher import subscribe

SAMPLE_EVERY_S = 10.0
PSS_EVERY = 6
CALM_END_S = 60.0
KILLS_UNTIL = 1 / 4  # of a run: afterwards line and bridges live to the end, and their memory is watched
SAY_EVERY_S = 60.0  # where no terminal shows how far it is


class Soak:
    """One run of a line and its bridges, from their start to everything that was seen of them."""

    def __init__(self, args: argparse.Namespace, place: Place, has_disk: bool, console: Console) -> None:
        self._args, self._place, self._has_disk, self._console = args, place, has_disk, console
        self._samples: dict[str, list[Sample]] = {}
        self._metrics = ""
        self._unanswered: list[str] = []
        self._counts: dict[str, tuple[int, int]] = {}
        self._own: dict[str, Any] = {}
        self._line_kills = 0

    def run(self) -> dict[str, Any]:
        """Everything that was seen."""
        place, args = self._place, self._args
        config = place.out / "line.toml"
        config.write_text(place.config(args.fps))
        spawn = multiprocessing.get_context("spawn")
        stop, asked_all, board, looks = spawn.Event(), spawn.Event(), Board(spawn), spawn.SimpleQueue()
        with programs(place, config) as running:
            broker_port = place.broker_port if MQTT in running else None
            addresses = Addresses(place.publisher, place.modbus_port, place.opcua_port, broker_port)
            ways = Ways(place.publisher, place.commands, place.handshake_port, place.opcua_port)
            messages, told = spawn.Pipe(duplex=False)
            shown, shown_told = spawn.Pipe(duplex=False)
            answers, answers_told = spawn.Pipe(duplex=False)
            asking = args.seed, board, answers_told, asked_all
            self._own = {
                "check: every message": spawn.Process(
                    target=subscribe, args=(place.publisher, args.fps, told, stop), daemon=True
                ),
                **watchers(spawn, addresses, args.fps, place.camera_fps, board, looks, shown_told, stop),
                "check: triggers": spawn.Process(target=ask, args=(ways, *asking), daemon=True),
            }
            for process in self._own.values():
                process.start()
            for end in (told, shown_told, answers_told):
                end.close()
            load = [os.getloadavg()]
            try:
                faults, elapsed_s = self._watch(running, board, messages)
                asked_all.set()
                asked = answers.recv()
            finally:
                status = {name: program.end() for name, program in reversed(running.items())}
                stop.set()
            load.append(os.getloadavg())
            received, seen = _last(messages), {**shown.recv(), **asked}
            for process in self._own.values():
                process.join(30)
            printed, log = running[LINE].out.read_text(), running[LINE].log
        return {
            "seed": args.seed,
            "fps": args.fps,
            "camera_fps": place.camera_fps,
            "size": place.size,
            "elapsed_s": elapsed_s,
            "status": status,
            "summaries": summaries(printed) if status[LINE] == 0 else {},
            "received": received,
            **seen,
            "ages_ms": {
                exit_: [(second + 0.5 - faults.start_s, age_ms) for second, age_ms in ages_ms.items()]
                for exit_, ages_ms in seen["ages_ms"].items()
            },
            "unfit_pictures": self._unfit(),
            "line_kills": self._line_kills,
            "histograms": histograms(self._metrics),
            "counters": counters(self._metrics),
            "faults": dict(sorted(faults.counts.items())),
            "outcomes": dict(sorted(faults.outcomes.items())),
            "fault_problems": faults.problems,
            "unanswered": self._unanswered,
            "log": log_counts(log),
            "load": load,
            "samples": {name: [asdict(sample) for sample in samples] for name, samples in self._samples.items()},
            "events": faults.events,
        }

    def _watch(self, running: Mapping[str, Program], board: Board, report: Connection) -> tuple[Schedule, float]:
        self._await_first(running[LINE], report)
        begun_s = time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console) as progress:
            args, say = self._args, progress.console.print
            ending = threading.Event()
            last_kill_s = begun_s + KILLS_UNTIL * 60 * args.minutes
            every = Faults(self._place, running, board, args.fps, self._has_disk, ending, last_kill_s)
            kinds = {kind: do for kind, do in every.kinds.items() if any(part in kind for part in args.only or [""])}
            faults = Schedule(kinds, every.alone, ending, args.seed, args.every, say)
            if not args.calm:
                faults.start()
            try:
                self._attend(running, report, faults, progress)
            finally:
                faults.stop()
                self._line_kills = every.line_kills
            self._scrape()
        return faults, time.monotonic() - begun_s

    def _attend(self, running: Mapping[str, Program], report: Connection, faults: Schedule, progress: Progress) -> None:
        begun_s = next_s = say_s = time.monotonic()
        duration_s = self._args.minutes * 60
        calm_s = duration_s - min(CALM_END_S, duration_s / 10)
        task, number = progress.add_task("running", total=duration_s), 0
        while (elapsed_s := time.monotonic() - begun_s) < duration_s and self._is_alive(running[LINE]):
            if time.monotonic() >= next_s:
                self._look(running, elapsed_s, number)
                next_s, number = next_s + SAMPLE_EVERY_S, number + 1
            if elapsed_s > calm_s:
                faults.rest()
            self._read(report)
            progress.update(task, completed=elapsed_s, description=self._description(faults))
            if not self._console.is_terminal and time.monotonic() >= say_s:
                say_s += SAY_EVERY_S
                print(f"{elapsed_s / 60:.0f} of {self._args.minutes:g} min: {self._description(faults)}", flush=True)
            time.sleep(0.5)

    def _is_alive(self, line: Program) -> bool:
        """Whether the line runs, or is killed on purpose."""
        return line.lock.locked() or line.process.poll() is None

    def _unfit(self) -> list[int]:
        """Numbers of the pictures that the network camera says nobody may judge."""
        file = self._place.faults / UNFIT
        return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []

    def _await_first(self, line: Program, report: Connection) -> None:
        deadline_s = time.monotonic() + 120
        while not all(self._counts.get(camera, (0, 0))[0] for camera in CAMERAS):
            if line.process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"the line published nothing; see {line.log}")
            self._read(report)
            time.sleep(0.1)

    def _read(self, report: Connection) -> None:
        while report.poll():
            self._counts = report.recv()

    def _look(self, running: Mapping[str, Program], elapsed_s: float, number: int) -> None:
        for name, program in running.items():
            with contextlib.suppress(OSError):
                sample = sampled(program.process.pid, elapsed_s, number % PSS_EVERY == 0)
                self._samples.setdefault(name, []).append(sample)
        own = {name: process.pid for name, process in self._own.items()} | {"check: faults and report": os.getpid()}
        for name, pid in own.items():
            with contextlib.suppress(OSError):
                self._samples.setdefault(name, []).append(sampled(pid or 0, elapsed_s, number % PSS_EVERY == 0))
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
        memory = f"{self._samples[LINE][-1].rss_kib / 1024:.0f} MiB" if LINE in self._samples else ""
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

"""What clients of the line's exits believe, in; every good that was older than it may be, out: a process of its own.

How old a good is says the line's own clock: each message is heard on the line's socket, too, and the machine has one
monotonic clock. The one of the line lies behind it by the smallest difference that any message of its run showed, so
that ages are too small by the shortest journey of a message, a fraction of a millisecond. Knows nothing of faults.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.synchronize
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

import zmq

from tools.soak.board import EXITS, Board
from tools.soak.clients import LOOK_EVERY_S, PERIODS, Consumer, Look, Plc, as_watcher, read_messages, read_opcua
from tools.soak.place import CAMERAS, GOOD, LATE_AFTER_S, STALE_AFTER_S

PERIODS_STOPPED = 3
ROUND_TRIP_S = 0.02  # more than it takes where nobody waits for a core
HEARD_WITHIN_S = 5.0  # messages come here later than to a bridge, when this process waits for a core
KEPT_MESSAGES = 20_000  # what is shown by an older one is wrong anyway
LATEST_S = 1.0  # a broker that runs delivers earlier on a busy machine, too
LEAST_STEP = 0.3  # of a camera's own, between the dates of two pictures
MOST_PROBLEMS = 100


@dataclass(frozen=True)
class Said:
    """What the line said in one message; moments on the machine's monotonic clock, by `behind_ns` of its run."""

    session: str
    published_ns: int
    captured_ns: int
    verdict: str


@dataclass
class Shown:
    """What one exit showed of one camera; ages in ms, of goods alone.

    `late` are those that a broker delivered late, and which a client with a clock that is set refuses.
    """

    looks: int = 0
    late: int = 0
    oldest_late_ms: float = 0.0
    goods: int = 0
    oldest_ms: float = 0.0
    oldest_stopped_ms: float = 0.0
    oldest_picture_ms: float = 0.0
    too_old: int = 0
    problems: list[str] = field(default_factory=list)


class Judge:
    """Holds every good against what the line said.

    Attributes:
        shown: By exit and camera.
        ages_ms: By exit, the oldest good of each second of the machine's monotonic clock.
        judged: Numbers of the good camera's pictures that the line gave a verdict about, by when they were taken.
        misdated: Pictures of it whose date cannot be right.
    """

    def __init__(self, fps: float, camera_fps: float, board: Board) -> None:
        self._period_s, self._camera_fps, self._board = 1 / fps, camera_fps, board
        self._apart_ns = round(1e9 * LEAST_STEP / camera_fps)
        self._said: dict[tuple[str, int], Said] = {}
        self._sessions: dict[str, str] = {}
        self._behind_ns: dict[str, int] = {}
        self._waiting: deque[Look] = deque()
        self._session, self._frame_id, self._taken_ns = "", -1, 0
        self.misdated: list[str] = []
        self.judged: set[int] = set()
        self.shown = {(exit_, camera): Shown() for exit_ in EXITS for camera in CAMERAS}
        self.ages_ms: dict[str, dict[int, float]] = {exit_: {} for exit_ in EXITS}

    def hear(self, header: dict[str, Any], arrived_ns: int) -> None:
        """A message of the line."""
        session, camera = header["session"], header["camera"]
        if self._sessions.get(camera) != session:  # its numbers begin again: what is shown now is of this run
            self._sessions[camera] = session
            self._said = {key: said for key, said in self._said.items() if key[0] != camera}
        behind_ns = arrived_ns - header["published_ns"]
        self._behind_ns[session] = behind_ns = min(behind_ns, self._behind_ns.get(session, behind_ns))
        if camera == GOOD:
            self._board.behind_ns = behind_ns
        self._said[camera, header["sequence"]] = Said(
            session, header["published_ns"], header["captured_ns"] or 0, header["verdict"]
        )
        if len(self._said) > KEPT_MESSAGES:
            del self._said[next(iter(self._said))]
        if camera == GOOD and header["frame_id"] is not None:
            self._note_picture(header, behind_ns)

    def _note_picture(self, header: dict[str, Any], behind_ns: int) -> None:
        """Pictures that come at once behind a stall were taken one by one."""
        frame_id, taken_ns = header["frame_id"], header["captured_ns"]
        if header["session"] != self._session:
            self._session, self._frame_id, self._taken_ns = header["session"], -1, 0
        if frame_id <= self._frame_id:
            return
        if taken_ns < self._taken_ns + self._apart_ns and len(self.misdated) < MOST_PROBLEMS:
            apart_ms = (taken_ns - self._taken_ns) / 1e6
            self.misdated.append(
                f"{time.strftime('%H:%M:%S')} frame {frame_id} is dated {apart_ms:.0f} ms after the last"
            )
        self._frame_id, self._taken_ns = frame_id, taken_ns
        if header["verdict"] in ("ok", "anomalous"):
            self.judged.add(round((taken_ns + behind_ns) / 1e9 * self._camera_fps))

    def look(self, look: Look) -> None:
        """What a client saw."""
        self.shown[look.exit, look.camera].looks += 1
        if look.is_good:
            self._waiting.append(look)
            if not look.is_late:
                self._board.note_good(look.exit, look.camera, look.seen_s)

    def judge(self) -> None:
        """Judge what was seen, as far as the line's own messages have come."""
        while self._waiting:
            look = self._waiting[0]
            said = self._said.get((look.camera, look.sequence))
            if said is None and time.monotonic() < look.seen_s + HEARD_WITHIN_S:
                return
            self._waiting.popleft()
            self._judge(look, said)

    def _judge(self, look: Look, said: Said | None) -> None:
        shown = self.shown[look.exit, look.camera]
        about = f"{look.exit} shows {look.camera} good by message {look.sequence}"
        if said is None:
            self._note(shown, f"{about}, which never came, or long ago")
            return
        behind_ns = self._behind_ns[said.session]
        sent_s, taken_s = ((at_ns + behind_ns) / 1e9 for at_ns in (said.published_ns, said.captured_ns))
        was_stopped, age_s = self._board.was_stopped(sent_s), look.seen_s - sent_s
        if look.is_late:
            shown.late += 1
            shown.oldest_late_ms = max(shown.oldest_late_ms, 1e3 * age_s)
            if age_s > LATEST_S and not self._board.was_stopped(sent_s, broker=True):
                shown.too_old += 1
                self._note(shown, f"{about}, delivered {1e3 * age_s:.0f} ms after it was sent by a broker that ran")
            return
        shown.goods += 1
        # A bridge dates a message when it answers, so the way of the question is not its age.
        slack_s = min(max(look.seen_s - look.asked_s, ROUND_TRIP_S), self._period_s)
        limit_s = PERIODS_STOPPED * self._period_s if was_stopped else PERIODS * self._period_s + slack_s
        name = "oldest_stopped_ms" if was_stopped else "oldest_ms"
        setattr(shown, name, max(getattr(shown, name), 1e3 * age_s))
        shown.oldest_picture_ms = max(shown.oldest_picture_ms, 1e3 * (look.seen_s - taken_s))
        ages_ms, second = self.ages_ms[look.exit], int(look.seen_s)
        ages_ms[second] = max(ages_ms.get(second, 0.0), round(1e3 * age_s, 1))
        if age_s > limit_s:
            shown.too_old += 1
            self._note(shown, f"{about}, sent {1e3 * age_s:.0f} ms ago; at most {1e3 * limit_s:.0f} ms may it be")
        if look.seen_s - taken_s > max(LATE_AFTER_S, STALE_AFTER_S) + limit_s:
            shown.too_old += 1
            self._note(shown, f"{about}, whose picture was taken {look.seen_s - taken_s:.2f} s ago")
        if said.verdict != "ok":
            self._note(shown, f"{about}, which says {said.verdict}")

    def _note(self, shown: Shown, problem: str) -> None:
        if len(shown.problems) < MOST_PROBLEMS:
            shown.problems.append(f"{time.strftime('%H:%M:%S')} {problem}")


@dataclass(frozen=True)
class Addresses:
    """Of a line's exits; the broker's port is None without one."""

    publisher: str
    modbus_port: int
    opcua_port: int
    broker_port: int | None


def watch_exits(
    addresses: Addresses,
    fps: float,
    camera_fps: float,
    board: Board,
    looks: Any,
    report: Connection,
    stop: multiprocessing.synchronize.Event,
) -> None:
    """Work of the process; at the end it reports what was seen, by exit and camera.

    Args:
        addresses: Of the line's exits.
        fps: Messages per second and camera.
        camera_fps: Pictures per second of a camera.
        board: Where faults look.
        looks: A queue of what processes of their own see.
        report: Where the end is told.
        stop: Set at the end.
    """
    as_watcher()
    own_looks: SimpleQueue[Look] = SimpleQueue()
    judge = Judge(fps, camera_fps, board)
    plc = Plc(addresses.modbus_port, 1 / fps, own_looks.put)
    reading = threading.Thread(target=plc.work, args=(stop,))
    consumer = None if addresses.broker_port is None else Consumer(addresses.broker_port, 1 / fps, own_looks.put)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = context.socket(zmq.SUB)
    receiver.setsockopt(zmq.RCVHWM, 100_000)
    receiver.setsockopt(zmq.SUBSCRIBE, b"")
    receiver.connect(addresses.publisher)
    reading.start()
    next_s = time.monotonic()
    while not stop.is_set():
        if receiver.poll(max(0, round(1e3 * (next_s - time.monotonic())))):
            parts, arrived_ns = receiver.recv_multipart(), time.monotonic_ns()
            judge.hear(json.loads(parts[1]), arrived_ns)
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + LOOK_EVERY_S
            if consumer is not None:
                consumer.look()
            with contextlib.suppress(Empty):
                while True:
                    judge.look(own_looks.get_nowait())
            while not looks.empty():
                judge.look(looks.get())
            judge.judge()
    reading.join()
    if consumer is not None:
        consumer.close()
    context.destroy(linger=0)
    shown = {f"{exit_}, {camera}": asdict(seen) for (exit_, camera), seen in judge.shown.items() if seen.looks}
    report.send(
        {
            "shown": shown,
            "unanswered_plc": plc.unanswered,
            "misdated": judge.misdated,
            "judged_pictures": sorted(judge.judged),
            "ages_ms": judge.ages_ms,
        }
    )


def watchers(
    spawn: Any,
    addresses: Addresses,
    fps: float,
    camera_fps: float,
    board: Board,
    looks: Any,
    report: Connection,
    stop: multiprocessing.synchronize.Event,
) -> dict[str, Any]:
    """Processes that look at every exit, not started; the first reports. See `watch_exits`."""
    work = {
        "check: what is shown": (watch_exits, (addresses, fps, camera_fps, board, looks, report, stop)),
        "check: client on messages": (read_messages, (addresses.publisher, 1 / fps, looks, stop)),
        "check: client on OPC UA": (read_opcua, (addresses.opcua_port, 1 / fps, looks, stop)),
    }
    return {name: spawn.Process(target=target, args=args, daemon=True) for name, (target, args) in work.items()}

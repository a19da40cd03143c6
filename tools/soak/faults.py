"""What factories do to a line, kind by kind: each does it, undoes it, and says in words what came of it.

Knows nothing of when, and does not judge beyond "PROBLEM".
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from fbft_edge.errors import CommandError
from fbft_edge.messages.age import oldest_s
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.subscriber import ResultSubscriber
from tools.soak.board import EXITS, Board
from tools.soak.board import MODBUS as MODBUS_EXIT
from tools.soak.board import MQTT as MQTT_EXIT
from tools.soak.place import CAMERAS, FROZEN_AFTER, GOOD, LATE_AFTER_S, SITE, SPOILT, Place, image
from tools.soak.programs import BROKER, CAMERA, LINE, MODBUS, MQTT, Program
from tools.soak.samples import get

SHOWN_BY = {MODBUS: (MODBUS_EXIT,), MQTT: (MQTT_EXIT,), BROKER: (MQTT_EXIT,), LINE: EXITS, CAMERA: EXITS}
BACK_WITHIN_S = 120.0


class Faults:
    """Every kind of fault of one running line.

    Attributes:
        kinds: By its name, what does a fault and undoes it, until it is over or `ending` is set, and says what came
            of it; `PROBLEM` first when something was not as it must be.
    """

    def __init__(
        self,
        place: Place,
        programs: Mapping[str, Program],
        board: Board,
        fps: float,
        has_disk: bool,
        ending: threading.Event,
        last_kill_s: float,
    ) -> None:
        self._place, self._programs, self._board, self._ending = place, programs, board, ending
        self._period_s, self._last_kill_s = 1 / fps, last_kill_s
        self._settled_s = LATE_AFTER_S + 2 / place.camera_fps
        self._reloads, self._bundle = threading.Lock(), 0
        self._images, self._disk = threading.Lock(), threading.Lock()
        self.kinds: dict[str, Callable[[random.Random], str]] = {
            "subscriber stopped": self._stop_subscriber,
            "subscriber killed": self._kill_subscriber,
            "subscriber slow": self._slow_subscriber,
            "50 subscribers": self._crowd,
            "garbage to the publisher": self._garbage_publisher,
            "flood of subscriptions": self._flood,
            "garbage to http": self._garbage_http,
            "malformed commands": self._malformed,
            "reload": self._reload,
            "reload by SIGHUP": self._hangup,
            "reload of a damaged bundle": self._reload_damaged,
            "reload of a blind bundle": self._reload_blind,
            "camera: files damaged": self._damaged_files,
            "camera: file of another size": self._other_size,
            "camera: black": functools.partial(self._flat, 0),
            "camera: white": functools.partial(self._flat, 255),
            "camera: frozen": self._frozen,
            "camera: gone": self._gone,
            "CPU busy": self._busy,
        }
        self.kinds |= {f"{name} stopped": functools.partial(self._stop, name) for name in programs}
        self.kinds |= {f"{name} killed": functools.partial(self._kill, name) for name in programs if name != LINE}
        if has_disk:
            self.kinds |= {"recorder: disk full": self._full_disk, "recorder: disk read-only": self._read_only_disk}

    def _wait(self, chance: random.Random, low_s: float, high_s: float) -> None:
        self._ending.wait(chance.uniform(low_s, high_s))

    def _good_since(self, since_s: float, exits: Sequence[str], cameras: Sequence[str] = CAMERAS) -> str:
        """Where something was good that could not be known, as a problem; nothing if nowhere."""
        seen = {(exit_, camera): self._board.good_s(exit_, camera) - since_s for exit_ in exits for camera in cameras}
        wrong = [f"{exit_} showed {camera} good {late_s:.2f} s after" for (exit_, camera), late_s in seen.items()
                 if late_s > 0]  # fmt: skip
        return f"PROBLEM: {', '.join(wrong)} nobody could know it" if wrong else ""

    # Programs

    def _until_good(self, exits: Sequence[str]) -> str:
        """Wait until the good camera is good everywhere again."""
        begun_s = time.monotonic()
        while time.monotonic() < begun_s + BACK_WITHIN_S:
            if all(self._board.good_s(exit_, GOOD) > begun_s for exit_ in exits):
                return "never good meanwhile, came back"
            time.sleep(0.1)
        return f"PROBLEM: not good again for {BACK_WITHIN_S:g} s"

    def _good_without(self, name: str, begun_s: float) -> str:
        """Where something was good after what is known without a program must have ended; a problem, or nothing."""
        if name == CAMERA:
            return self._good_since(begun_s + self._settled_s, EXITS, (GOOD,))
        return self._good_since(begun_s + 3 * self._period_s, SHOWN_BY[name])

    def _told(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Let the watchers know of a program whose absence may make a good older; a camera's may not."""
        return contextlib.nullcontext() if name == CAMERA else self._board.stopping(is_broker=name == BROKER)

    def _stop(self, name: str, chance: random.Random) -> str:
        program, exits = self._programs[name], SHOWN_BY[name]
        with program.lock:
            with self._told(name), program.stopped():
                begun_s = time.monotonic()
                self._wait(chance, *((2, 8) if name == LINE else (2, 12) if name == CAMERA else (8, 12)))
                problem = self._good_without(name, begun_s)
            return problem or self._until_good(exits)

    def _kill(self, name: str, chance: random.Random) -> str:
        if name in (MODBUS, MQTT) and time.monotonic() > self._last_kill_s:
            return "left out: from here on its memory is watched"
        program, exits = self._programs[name], SHOWN_BY[name]
        with program.lock:
            with self._told(name):
                program.kill()
                begun_s = time.monotonic()
                self._wait(chance, 1, 8)
                problem = self._good_without(name, begun_s)
                program.start()
            return problem or self._until_good(exits)

    # Subscribers

    def _slow_subscriber(self, chance: random.Random) -> str:
        """It takes up to a second a result, and must never be told an old good."""
        end_s, goods, oldest_seen_s = time.monotonic() + chance.uniform(10, 30), 0, 0.0
        with ResultSubscriber(self._place.publisher, site=SITE, camera=GOOD) as results:
            while time.monotonic() < end_s and not self._ending.is_set():
                result = results.receive()
                if result is not None and result.is_good:
                    goods += 1
                    age_ns = time.monotonic_ns() - result.published_ns - self._board.behind_ns
                    oldest_seen_s = max(oldest_seen_s, age_ns / 1e9)
                self._wait(chance, 0.1, 1)
        if oldest_seen_s > oldest_s(self._period_s) + self._period_s / 2:
            return f"PROBLEM: it was handed a good that was {oldest_seen_s:.2f} s old"
        return f"no old good; {goods} goods, the oldest {1e3 * oldest_seen_s:.0f} ms"

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

    def _call_reload(self, bundle: Path, force: bool = True) -> dict[str, Any]:
        with CommandClient(self._place.commands) as client:
            return client.call("reload", timeout_s=120, bundle=str(bundle), force=force)

    def _reload(self, chance: random.Random) -> str:
        with self._reloads:
            self._bundle = 1 - self._bundle
            self._call_reload(self._place.bundles[self._bundle])
        return "taken"

    def _hangup(self, chance: random.Random) -> str:
        with self._reloads:
            self._programs[LINE].process.send_signal(signal.SIGHUP)
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

    def _reload_blind(self, chance: random.Random) -> str:
        """Thresholds that nothing exceeds."""
        blind = self._place.out / "blind.fbft"
        with self._reloads:
            shutil.rmtree(blind, ignore_errors=True)
            shutil.copytree(self._place.bundles[self._bundle], blind)
            manifest = json.loads((blind / "bundle.json").read_text())
            manifest["thresholds"] |= {"image": 3.9, "pixel": 3.9}
            (blind / "bundle.json").write_text(json.dumps(manifest))
            try:
                answer = self._call_reload(blind, force=False)
            except CommandError as error:
                return f"refused; {str(error)[:160]}"
            finally:
                shutil.rmtree(blind, ignore_errors=True)
            return f"PROBLEM: a bundle that finds nothing was taken: {answer}"

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
                _replace(path, image(np.zeros((chance.randint(1, 2000), chance.randint(1, 2000), 3), np.uint8)))
            self._wait(chance, 3, 15)
        return self._until_back(self._fresh())

    def _flat(self, level: int, chance: random.Random) -> str:
        with self._spoilt_images() as paths:
            content = image(np.full((*self._place.size, 3), level, np.uint8))
            for path in paths:
                _replace(path, content)
            problem = self._never_good(chance)
        return problem or self._until_back(self._fresh())

    def _frozen(self, chance: random.Random) -> str:
        with self._spoilt_images() as paths:
            content = chance.choice(paths).read_bytes()
            for path in paths:
                _replace(path, content)
            self._ending.wait(FROZEN_AFTER / self._place.camera_fps)
            problem = self._never_good(chance)
        return problem or self._until_back(self._fresh())

    def _gone(self, chance: random.Random) -> str:
        away = self._place.images.with_name("away")
        with self._images:
            self._place.images.rename(away)
            problem = self._never_good(chance)
            away.rename(self._place.images)
        return problem or self._until_back(self._fresh())

    def _never_good(self, chance: random.Random) -> str:
        """Wait, and say where the spoilt camera was good after what was taken before had been told."""
        begun_s = time.monotonic()
        self._wait(chance, self._settled_s, self._settled_s + 15)
        return self._good_since(begun_s + self._settled_s, EXITS, (SPOILT,))

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
            self._ending.wait(20)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        return "over"


def _drain(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read(1 << 16):
            pass


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)

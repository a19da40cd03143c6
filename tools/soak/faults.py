"""What factories do to a line, kind by kind: each does it, undoes it, and says in words what came of it.

Knows nothing of when, and does not judge beyond "PROBLEM".
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from fbft_edge.errors import CommandError
from fbft_edge.messages.age import oldest_s
from fbft_edge.sockets.command_client import CommandClient
from fbft_edge.sockets.subscriber import ResultSubscriber
from tools.soak import board as exits
from tools.soak import line as engine
from tools.soak.board import Board
from tools.soak.camera import LOSES, UNFIT
from tools.soak.place import (
    ASKED,
    CAMERAS,
    ENGINE_TIMEOUT_S,
    FROZEN_AFTER,
    GOOD,
    LATE_AFTER_S,
    SITE,
    SPOILT,
    Place,
    image,
)
from tools.soak.programs import BROKER, CAMERA, HANDSHAKE, LINE, MODBUS, MQTT, OPCUA, Program
from tools.soak.samples import counters, get

SHOWN_BY = {MODBUS: (exits.MODBUS,), OPCUA: (exits.OPCUA,), MQTT: (exits.MQTT,), BROKER: (exits.MQTT,), HANDSHAKE: ()}
BACK_WITHIN_S = 240.0  # an engine that nobody can prove wrong earlier takes two minutes
ENGINE_PROVED_S = 120.0  # by when the product says that an engine computes nothing
CONNECTIONS, MOST_CONNECTIONS = 40, 16


class Faults:
    """Every kind of fault of one running line.

    Attributes:
        kinds: By its name, what does a fault and undoes it, until it is over or `ending` is set, and says what came
            of it; `PROBLEM` first when something was not as it must be.
        alone: Those of them beside which no other can be.
        line_kills: How often the line was killed.
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
        self._exits = tuple(each for each in exits.EXITS if each != exits.MQTT or MQTT in programs)
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
            "engine hangs": self._engine_hangs,
            "engine is slow": self._engine_slow,
            "engine gives zeros": functools.partial(self._engine_wrong, engine.ZEROS, ENGINE_TIMEOUT_S, "inference"),
            "engine repeats the last frame's values": functools.partial(
                self._engine_wrong, engine.REPEATS, ENGINE_PROVED_S, "does not compute"
            ),
            "wall clock of the line set": self._clock,
            "pipelined Modbus requests": self._pipelined,
            "40 Modbus connections": self._many_connections,
            "garbage to Modbus": functools.partial(self._garbage_bridge, MODBUS, place.modbus_port),
            "garbage to OPC UA": functools.partial(self._garbage_bridge, OPCUA, place.opcua_port),
            "camera: pictures lost on their way": self._lost_pictures,
            "camera: files damaged": self._damaged_files,
            "camera: file of another size": self._other_size,
            "camera: black": functools.partial(self._flat, 0),
            "camera: white": functools.partial(self._flat, 255),
            "camera: frozen": self._frozen,
            "camera: gone": self._gone,
            "CPU busy": self._busy,
        }
        self.kinds |= {f"{name} stopped": functools.partial(self._stop, name) for name in programs}
        self.kinds |= {f"{name} killed": functools.partial(self._kill, name) for name in programs}
        self.alone = {f"{LINE} killed"}
        self.line_kills = 0
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

    def _shown_by(self, name: str) -> Sequence[str]:
        return SHOWN_BY.get(name, self._exits)

    def _until_good(self, name: str = LINE) -> str:
        """Wait until the good camera is good again wherever a program shows it, or triggers are answered."""
        begun_s = time.monotonic()
        awaited = [(exit_, GOOD) for exit_ in self._shown_by(name)] + [(exits.HANDSHAKE, ASKED)] * (name == HANDSHAKE)
        while time.monotonic() < begun_s + BACK_WITHIN_S:
            if all(self._board.good_s(*place) > begun_s for place in awaited):
                return "never good meanwhile, came back"
            time.sleep(0.1)
        return f"PROBLEM: not good again for {BACK_WITHIN_S:g} s"

    def _good_without(self, name: str, begun_s: float) -> str:
        """Where something was good after what is known without a program must have ended; a problem, or nothing."""
        if name == CAMERA:
            return self._good_since(begun_s + self._settled_s, self._exits, (GOOD,))
        return self._good_since(begun_s + 3 * self._period_s, self._shown_by(name))

    def _told(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Let the watchers know of a program whose absence may make a good older; a camera's may not."""
        return contextlib.nullcontext() if name == CAMERA else self._board.stopping(is_broker=name == BROKER)

    def _stop(self, name: str, chance: random.Random) -> str:
        program = self._programs[name]
        with program.lock:
            with self._told(name), program.stopped():
                begun_s = time.monotonic()
                self._wait(chance, *((2, 8) if name == LINE else (2, 12) if name == CAMERA else (8, 12)))
                problem = self._good_without(name, begun_s)
            return problem or self._until_good(name)

    def _kill(self, name: str, chance: random.Random) -> str:
        if name not in (CAMERA, BROKER) and time.monotonic() > self._last_kill_s:
            return "left out: from here on its memory is watched"
        program = self._programs[name]
        self.line_kills += name == LINE
        with program.lock:
            with self._told(name):
                program.kill()
                begun_s = time.monotonic()
                self._wait(chance, 1, 8)
                problem = self._good_without(name, begun_s)
                program.start()
            if name == LINE:
                self._bundle = 0
            return problem or self._until_good(name)

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
            sane.call("status", timeout_s=30)
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
            return int(client.call("status", timeout_s=30)["cameras"][SPOILT]["ledger"]["published_fresh"])

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
        return self._good_since(begun_s + self._settled_s, self._exits, (SPOILT,))

    def _lost_pictures(self, chance: random.Random) -> str:
        """The judge of what is shown knows which pictures were lost, and that those that build on them are unfit."""
        name = f"fbft_camera_lost_total{{{GOOD}}}"
        with self._programs[CAMERA].lock, self._programs[LINE].lock:
            counted, lost = self._counter(name), self._num_lost()
            with self._wrong(LOSES):
                self._wait(chance, 10, 20)
            outcome = self._until_good(CAMERA)
            counted, lost = self._counter(name) - counted, self._num_lost() - lost
        if outcome.startswith("PROBLEM"):
            return outcome
        if not lost <= counted:
            return f"PROBLEM: {lost} pictures were lost, the line counted {counted:g}"
        return f"counted, came back; {lost} pictures lost, {counted:g} counted"

    def _num_lost(self) -> int:
        file = self._place.faults / UNFIT
        return sum(line.endswith("lost") for line in file.read_text().splitlines()) if file.exists() else 0

    def _counter(self, name: str) -> float:
        for _ in range(20):  # garbage may hold all connections
            with contextlib.suppress(OSError, http.client.HTTPException):
                return counters(get(self._place.http_port, "/metrics")[1])[name]
            time.sleep(0.5)
        raise RuntimeError("/metrics does not answer")

    # The engine

    @contextlib.contextmanager
    def _wrong(self, what: str, words: str = "") -> Iterator[None]:
        """A file says what goes wrong, as long as it is there; none is read half-written."""
        file = self._place.faults / what
        file.with_suffix(".next").write_text(words)
        file.with_suffix(".next").rename(file)
        try:
            yield
        finally:
            file.unlink()

    def _engine_hangs(self, chance: random.Random) -> str:
        with self._reloads:
            with self._wrong(engine.HANGS):
                problem = self._never_good_since(time.monotonic() + ENGINE_TIMEOUT_S, chance)
            return problem or self._until_good()

    def _engine_slow(self, chance: random.Random) -> str:
        """More frames than it can inspect; late ones are never good, as at any time."""
        with self._reloads, self._wrong(engine.SLOW, f"{chance.uniform(0.5, 2.5):.1f}"):
            self._wait(chance, 10, 25)
        return self._until_good().replace("never good meanwhile, ", "")

    def _engine_wrong(self, what: str, known_within_s: float, said: str, chance: random.Random) -> str:
        with self._reloads:
            with self._wrong(what):
                begun_s = time.monotonic()
                known_s = self._known_s(begun_s + known_within_s + self._settled_s, said)
                problem = self._never_good_since(known_s, chance)
            return problem or f"{self._until_good()}; known after {known_s - begun_s:.0f} s"

    def _known_s(self, latest_s: float, said: str) -> float:
        """When the line says so of its engine, in words that an earlier fault leaves behind in no message."""
        with CommandClient(self._place.commands) as client:
            while time.monotonic() < latest_s and not self._ending.wait(0.5):
                cameras = client.call("status", timeout_s=20)["cameras"].values()
                if any(said in str(camera["health"]["reason"]) for camera in cameras):
                    return time.monotonic()
        return time.monotonic() if self._ending.is_set() else latest_s

    def _never_good_since(self, known_s: float, chance: random.Random) -> str:
        """Wait, and say where anything was good after what was said before had been told."""
        self._ending.wait(max(0.0, known_s - time.monotonic()) + self._settled_s + chance.uniform(0, 8))
        return self._good_since(known_s + self._settled_s, self._exits)

    def _clock(self, chance: random.Random) -> str:
        with self._programs[LINE].lock, self._wrong(engine.CLOCK, str(chance.choice((-3600, 3600)))):
            self._wait(chance, 5, 15)
            return self._until_good().replace("never good meanwhile, ", "good meanwhile, ")

    # Clients of bridges

    def _modbus_requests(self, numbers: Iterable[int]) -> bytes:
        return b"".join(struct.pack(">HHHBBHH", number, 0, 6, 1, 4, 0, 125) for number in numbers)

    def _pipelined(self, chance: random.Random) -> str:
        """Many requests before the first answer: all are answered, in order."""
        numbers = chance.sample(range(1 << 16), chance.randint(5, 60))
        answer_bytes = 9 + 250
        address = "127.0.0.1", self._place.modbus_port
        with self._programs[MODBUS].lock, socket.create_connection(address, 10) as connection:
            connection.settimeout(10)
            connection.sendall(self._modbus_requests(numbers))
            with connection.makefile("rb") as answers:
                told = [answers.read(answer_bytes) for _ in numbers]
        heads = [struct.unpack(">HHHBBB", answer[:9]) for answer in told]
        wanted = [(number, 0, answer_bytes - 6, 1, 4, 250) for number in numbers]
        return f"all answered in order; {len(numbers)}" if heads == wanted else f"PROBLEM: {wanted} got {heads}"

    def _many_connections(self, chance: random.Random) -> str:
        """The bridge keeps 16 at the most, and those that ask all the time are among them."""
        with self._programs[MODBUS].lock, contextlib.ExitStack() as stack:
            held = []
            for number in range(CONNECTIONS):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", self._place.modbus_port), 10))
                connection.settimeout(0.2)
                with contextlib.suppress(OSError):  # ended already
                    connection.sendall(self._modbus_requests([number]))
                    connection.recv(4096)
                held.append(connection)
            outcome = self._until_good(MODBUS)
            self._wait(chance, 1, 5)
            kept = sum(_is_open(connection) for connection in held)
        if kept > MOST_CONNECTIONS:
            return f"PROBLEM: {kept} of {CONNECTIONS} connections were kept"
        return outcome.replace("never good meanwhile, came back", f"the PLC was answered; {kept} kept")

    def _garbage_bridge(self, name: str, port: int, chance: random.Random) -> str:
        heads = b"", b"\0\1\0\0\0\6\1\4", b"\0\1\0\0\xff\xff\1", b"HELF\x20\0\0\0", b"OPNF\xff\xff\xff\x7f", b"MSGF"
        with self._programs[name].lock:
            self._garbage(port, chance, heads)
            return self._until_good(name).replace("never good meanwhile, ", "")

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


def _is_open(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)

"""The programs of a run, as a factory has them: the line, a network camera, bridges of every kind, a broker.

Each can be stopped, killed and started again. Knows nothing of when, nor of what is seen meanwhile.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tools.soak.place import ASKED, CAMERAS, SITE, Place

LINE, BROKER, CAMERA = "line", "broker", "camera"
MODBUS, HANDSHAKE, OPCUA, MQTT = "Modbus bridge", "Modbus bridge with handshake", "OPC UA bridge", "MQTT bridge"


class Program:
    """One process, which may be started again.

    Args:
        name: For people.
        command: What is run.
        log: What it says on standard error goes there, and `log` with the suffix `.out` has its standard output.

    Attributes:
        process: The newest.
        lock: Held by who does something to it.
    """

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name, self._command, self.log, self.out = name, command, log, log.with_suffix(".out")
        self.lock = threading.Lock()
        for file in (self.log, self.out):
            file.unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, once more perhaps."""
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=log)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It gets no CPU meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> int | None:
        """End it as an operator does; its exit status, None when it did not end within two minutes."""
        self.process.terminate()
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            return None


@contextlib.contextmanager
def programs(place: Place, config: Path) -> Iterator[dict[str, Program]]:
    """All of them by name, running meanwhile; a broker that is not installed is left out with its bridge."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Program] = {}

        def start(name: str, *command: object) -> None:
            log = place.out / f"{name.lower().replace(' ', '-')}.log"
            started[name] = Program(name, [*map(str, command)], log)
            stack.callback(started[name].kill)

        fbft_edge = sys.executable, "-m", "fbft_edge"
        line = ["--connect", place.publisher, "--site", SITE]
        triggers = ["--commands", place.commands, "--anyone-may-trigger"]
        heard = [*line, *(f"--camera={camera}" for camera in CAMERAS)]
        asked = [*line, f"--camera={ASKED}", *triggers, "--handshake", "--listen", f"127.0.0.1:{place.handshake_port}"]
        opcua = [*triggers, "--keys", place.out / "opcua-keys", "--listen", f"127.0.0.1:{place.opcua_port}"]
        start(MODBUS, *fbft_edge, "bridge", "modbus", *heard, "--listen", f"127.0.0.1:{place.modbus_port}")
        start(HANDSHAKE, *fbft_edge, "bridge", "modbus", *asked)
        start(OPCUA, *fbft_edge, "bridge", "opcua", *heard, f"--camera={ASKED}", *opcua)
        if (broker := broker_command(place)) is not None:
            start(BROKER, *broker)
            start(MQTT, *fbft_edge, "bridge", "mqtt", *heard, "--broker", f"mqtt://127.0.0.1:{place.broker_port}")
        camera = sys.executable, "-m", "tools.soak.camera"
        start(CAMERA, *camera, place.camera_port, place.camera_fps, place.untouched, place.faults)
        line_that_fails = sys.executable, "-m", "tools.soak.line", place.faults
        start(LINE, *line_that_fails, "run", "--config", config, "--log", "json")
        yield started


def broker_command(place: Place) -> list[str] | None:
    """mosquitto, which keeps on disk what it retained; None where it is not installed."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    kept = place.out / "broker"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    config = place.out / "mosquitto.conf"
    config.write_text(
        f"listener {place.broker_port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {kept}/\nautosave_interval 1\n"
    )
    return [program, "-c", str(config)]

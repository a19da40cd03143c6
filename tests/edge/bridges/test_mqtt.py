"""On a real broker: the retained result is the truth, or says fault, whoever of line, bridge and broker dies."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.bridges.mqtt import MAX_ANOMALIES
from fbft_edge.cli.main import main

pytest.importorskip("paho.mqtt", reason="the bridge needs the extra mqtt")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
PERIOD_S = 0.02
CAMERAS = ("press-1", "press-2", "press-3")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto; amqtt watches no keepalive")


class Broker:
    """mosquitto, or amqtt, which knows only MQTT 3.1.1, where that is not installed."""

    def __init__(
        self, folder: Path, port: int, settings: str = "allow_anonymous true", program: str | None = MOSQUITTO
    ) -> None:
        self.port, self.folder, self._settings, self._program = port, folder, settings, program
        self.start()

    def start(self) -> None:
        if self._program is not None:
            config = self.folder / "mosquitto.conf"
            config.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{self._settings}\n")
            command = [self._program, "-c", str(config)]
        else:
            config = self.folder / "amqtt.yaml"
            plugin = "amqtt.plugins.authentication.AnonymousAuthPlugin"
            listener = f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{self.port}\n"
            config.write_text(f"{listener}plugins:\n  {plugin}:\n    allow_anonymous: true\n")
            command = [str(Path(sys.executable).with_name("amqtt")), "-c", str(config)]
        quiet = subprocess.DEVNULL
        self.popen = subprocess.Popen(command, cwd=self.folder, stdout=quiet, stderr=quiet)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


class Listener:
    """A second client: everything it received of one camera, by the last part of the topic, with the time it came."""

    def __init__(self, port: int, topic: str, prepare: Callable[[Client], object]) -> None:
        self.received: list[tuple[str, dict[str, Any], bool, float]] = []
        self._lock = threading.Lock()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{topic}/#", qos=1)
        self._client.on_message = self._on_message
        prepare(self._client)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, client: Client, data: object, message: MQTTMessage) -> None:
        what = message.topic.rpartition("/")[2]
        with self._lock:
            self.received.append((what, json.loads(message.payload), message.retain, time.monotonic()))

    def of(self, what: str) -> list[dict[str, Any]]:
        with self._lock:
            return [payload for topic, payload, *_ in self.received if topic == what]

    def result(self) -> dict[str, Any]:
        """The newest; empty before there is one."""
        return (self.of("result") or [{}])[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def start_broker(
    free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Broker]]:
    brokers: list[Broker] = []

    def start(*settings: str, **options: Any) -> Broker:
        brokers.append(Broker(tmp_path_factory.mktemp("broker"), free_port(), *settings, **options))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.kill()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def started(port: int, topic: str, prepare: Callable[[Client], object] = bool) -> Listener:
        listeners.append(Listener(port, topic, prepare))
        return listeners[-1]

    yield started
    for listener in listeners:
        listener.close()


@dataclass
class Scene:
    """A line, a bridge and a broker that tests may kill; each leaves living ones behind."""

    broker: Broker
    endpoint: str
    line: Any
    bridge: Any
    restart: Callable[[], Any]


@pytest.fixture(scope="module")
def scene(start_line: Any, start_bridge: Any, start_broker: Any) -> Scene:
    broker = start_broker()
    endpoint, line = start_line(PERIOD_S, cameras=CAMERAS)
    cameras = [text for camera in CAMERAS for text in ("--camera", camera)]

    def restart() -> Any:
        url = f"mqtt://127.0.0.1:{broker.port}"
        return start_bridge("mqtt", endpoint, "--period", 0.5, "--broker", url, *cameras)

    return Scene(broker, endpoint, line, restart(), restart)


@pytest.fixture
def listener(scene: Scene, listen: Any, eventually: Any) -> Listener:
    """Of the first camera, which is online there."""
    listener = listen(scene.broker.port, f"fbft/site/{CAMERAS[0]}")
    eventually(listener.result, lambda result: result.get("fault") == "none")
    return listener


def test_a_late_client_finds_the_newest_result_and_what_it_means(
    scene: Scene, listener: Listener, listen: Any, eventually: Any
) -> None:
    scene.line.say("anomalous", 20, CAMERAS[0], "camera", "20", "SN-4711")
    eventually(listener.result, lambda result: result.get("frame_id") == 20)
    late = listen(scene.broker.port, f"fbft/site/{CAMERAS[0]}")
    result = eventually(late.result)
    assert (result["score"], result["good"], result["trigger_id"], result["schema"]) == (
        10.0,
        False,
        "20",
        "fbft.mqtt/1",
    )
    assert result["regions"][1] == {"x": 21, "y": 20, "width": 21, "height": 22, "area": 23, "peak": 1.0}
    why = [result[name] for name in ("part_id", "peak", "peak_xy", "pixel_threshold", "decided_by")]
    assert why == ["SN-4711", 1.0, [20, 3], 0.25, "both"]
    birth = eventually(lambda: late.of("birth"))[0]
    assert birth["verdicts"] == ["ok", "anomalous", "stale", "fault"]
    assert late.received[0][2]


def test_every_anomalous_result_is_told_once_and_no_other(scene: Scene, listen: Any, eventually: Any) -> None:
    listener = listen(scene.broker.port, f"fbft/site/{CAMERAS[1]}")
    eventually(listener.result, lambda result: result.get("fault") == "none")
    for frame_id in range(1, 31):
        scene.line.say("ok" if frame_id % 3 else "anomalous", frame_id, CAMERAS[1])
    eventually(listener.result, lambda result: result.get("results") == 30)
    frames = eventually(lambda: [one["frame_id"] for one in listener.of("anomaly")], lambda seen: len(seen) >= 10)
    assert frames == list(range(3, 31, 3))


def test_only_a_new_ok_is_good_and_silence_is_a_fault(
    scene: Scene, listener: Listener, start_line: Any, eventually: Any
) -> None:
    scene.line.say("ok", 21)
    good = eventually(lambda: [one for one in listener.of("result") if one["good"]])
    assert [(one["verdict"], one["frame_id"]) for one in good] == [("ok", 21)]
    eventually(listener.result, lambda result: result["verdict"] == "stale" and not result["good"])
    scene.line.kill()
    result = eventually(listener.result, lambda result: result["fault"] == "silence")
    assert (result["verdict"], result["good"], "frame_id" in result) == ("fault", False, False)
    _, scene.line = start_line(PERIOD_S, endpoint=scene.endpoint, cameras=CAMERAS)
    eventually(listener.result, lambda result: result["fault"] == "none")


def test_the_broker_says_fault_for_a_killed_bridge_and_its_successor_takes_over(
    scene: Scene, listener: Listener, eventually: Any
) -> None:
    scene.bridge.kill()
    result = eventually(listener.result, lambda result: result["fault"] == "bridge")
    assert (result["verdict"], result["good"], result["reason"]) == ("fault", False, "the bridge is gone")
    scene.bridge = scene.restart()
    eventually(listener.result, lambda result: result["fault"] == "none")


def test_a_bridge_that_is_stopped_says_so(scene: Scene, listener: Listener, eventually: Any) -> None:
    scene.bridge.kill(signal.SIGTERM)
    assert scene.bridge.popen.wait(30) == 0
    result = eventually(listener.result, lambda result: result["fault"] == "bridge")
    assert (result["good"], result["reason"]) == (False, "the bridge was stopped")
    scene.bridge = scene.restart()
    eventually(listener.result, lambda result: result["fault"] == "none")


@needs_mosquitto
def test_the_broker_says_fault_for_a_frozen_bridge(scene: Scene, listener: Listener, eventually: Any) -> None:
    scene.bridge.kill(signal.SIGSTOP)
    eventually(listener.result, lambda result: result["fault"] == "bridge")
    scene.bridge.kill(signal.SIGCONT)
    eventually(listener.result, lambda result: result["fault"] == "none")


@needs_mosquitto
def test_a_broker_that_hangs_gets_the_newest_anomalies_later_and_no_old_result(
    scene: Scene, listen: Any, eventually: Any
) -> None:
    listener = listen(scene.broker.port, f"fbft/site/{CAMERAS[2]}")
    eventually(listener.result, lambda result: result.get("fault") == "none")
    num_lines = len(scene.bridge.lines)
    scene.broker.popen.send_signal(signal.SIGSTOP)
    last = MAX_ANOMALIES + 36
    for frame_id in range(1, last + 1):
        scene.line.say("anomalous", frame_id, CAMERAS[2])
    scene.line.say("ok", last + 1, CAMERAS[2])
    eventually(lambda: "".join(scene.bridge.lines[num_lines:]), lambda said: f"fbft/site/{CAMERAS[2]}" in said)
    time.sleep(2 * PERIOD_S * last)
    scene.broker.popen.send_signal(signal.SIGCONT)
    eventually(listener.result, lambda result: result.get("results") == last + 1)
    frames = eventually(lambda: [one["frame_id"] for one in listener.of("anomaly")], lambda seen: last in seen)
    assert sorted(set(frames)) == [1, *range(last - MAX_ANOMALIES + 2, last + 1)]
    assert listener.of("anomaly")[-1]["lost_anomalies"] == 36
    assert not any(result["good"] for result in listener.of("result"))


def test_a_heartbeat_says_every_second_how_the_camera_stands(listener: Listener, eventually: Any) -> None:
    beats = eventually(lambda: listener.of("heartbeat"), lambda seen: len(seen) > 2)
    numbers = [beat["beat"] for beat in beats]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert (beats[-1]["good"], beats[-1]["verdict"]) == (False, "stale")


def test_a_good_ends_by_itself_and_is_said_again_of_each_message_before_that(
    start_line: Any, start_bridge: Any, start_broker: Any, listen: Any, eventually: Any
) -> None:
    broker = start_broker()
    endpoint, line = start_line(0.2, "--repeat")
    start_bridge("mqtt", endpoint, "--broker", f"mqtt://127.0.0.1:{broker.port}")
    listener = listen(broker.port, "fbft/site/camera")
    eventually(listener.result)
    line.say("ok", 1)

    def longest_run() -> int:
        numbers = sorted({one["sequence"] for one in listener.of("result") if one["good"]})
        starts = [number - place for place, number in enumerate(numbers)]
        return max((starts.count(start) for start in starts), default=0)

    eventually(longest_run, lambda length: length >= 5)
    lasting = [(one["good"], one["good_for_s"]) for one in listener.of("result") if "good_for_s" in one]
    assert all(0 < for_s <= 2.1 * 0.2 if is_good else for_s == 0 for is_good, for_s in lasting), lasting


def good_seen(eventually: Any, listener: Listener, line: Any) -> None:
    """Say ok until the listener has seen it."""
    frames = itertools.count(1)

    def look() -> bool:
        line.say("ok", next(frames))
        time.sleep(0.1)
        return bool(listener.result().get("good"))

    eventually(look)


@needs_mosquitto
def test_a_broker_that_comes_back_alone_forgets_a_good_within_seconds(
    start_line: Any, start_bridge: Any, start_broker: Any, listen: Any, eventually: Any
) -> None:
    broker = start_broker("allow_anonymous true\npersistence true\nautosave_interval 1\nautosave_on_changes true")
    endpoint, line = start_line(1.0)
    bridge = start_bridge("mqtt", endpoint, "--broker", f"mqtt://127.0.0.1:{broker.port}")
    good_seen(eventually, listen(broker.port, "fbft/site/camera"), line)
    for process in (broker, bridge, line):
        process.kill()
    broker.start()

    def retained() -> list[dict[str, Any]]:
        asked = listen(broker.port, "fbft/site/camera")
        eventually(lambda: asked.of("birth"))
        time.sleep(0.1)
        return asked.of("result")

    eventually(retained, lambda seen: not any(result["good"] for result in seen))


def test_a_broker_that_cannot_forget_is_not_asked_to_keep_a_good(
    start_line: Any, start_bridge: Any, start_broker: Any, listen: Any, eventually: Any
) -> None:
    broker = start_broker(program=None)
    endpoint, line = start_line(1.0)
    start_bridge("mqtt", endpoint, "--broker", f"mqtt://127.0.0.1:{broker.port}")
    listener = listen(broker.port, "fbft/site/camera")
    good_seen(eventually, listener, line)
    late = listen(broker.port, "fbft/site/camera")
    eventually(lambda: late.of("result"))
    kept = [payload for topic, payload, is_retained, _ in late.received if topic == "result" and is_retained]
    assert {result["good"] for result in kept} == {False}


def test_a_killed_broker_is_found_again(scene: Scene, listener: Listener, eventually: Any) -> None:
    scene.broker.kill()
    scene.broker.start()
    num_before = len(listener.received)
    eventually(
        lambda: [one for one in listener.received[num_before:] if one[0] == "result" and one[1]["fault"] == "none"]
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `broker.pem` for 127.0.0.1, signed by itself, and `broker.key`."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.timezone.utc)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "broker.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "broker.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


def log_in(client: Client, certificates: Path) -> None:
    client.username_pw_set("line", "right")
    client.tls_set(str(certificates / "broker.pem"))


@needs_mosquitto
def test_tls_and_password_are_checked_by_both_sides(
    start_line: Any,
    start_bridge: Any,
    start_broker: Any,
    listen: Any,
    eventually: Any,
    certificates: Path,
    tmp_path: Path,
) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "line", "right"], check=True, capture_output=True)
    files = f"certfile {certificates}/broker.pem\nkeyfile {certificates}/broker.key\npassword_file {passwords}"
    broker = start_broker(f"allow_anonymous false\n{files}")
    endpoint, _ = start_line(0.1)
    url = f"mqtts://127.0.0.1:{broker.port}"
    own = tmp_path / "password"
    own.touch(mode=0o600)
    own.write_text("right\n")
    with_ca = ("--broker", url, "--ca", certificates / "broker.pem", "--user", "line")
    bridge = start_bridge("mqtt", endpoint, *with_ca, "--password-file", own)
    listener = listen(broker.port, "fbft/site/camera", lambda client: log_in(client, certificates))
    assert eventually(listener.result)["camera"] == "camera"
    bridge.close()
    start_bridge("mqtt", endpoint, *with_ca, FBFT_MQTT_PASSWORD="wrong").wait_for("refused")
    start_bridge("mqtt", endpoint, "--broker", url).wait_for("CERTIFICATE_VERIFY_FAILED")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--broker", "mqtt://192.0.2.1"], "--insecure"),
        (["--broker", "127.0.0.1:1883"], "mqtt://HOST:PORT"),
        (["--broker", "http://127.0.0.1:1883"], "mqtt://HOST:PORT"),
        (["--broker", "mqtt://line:secret@127.0.0.1"], "--user"),
        (["--broker", "mqtt://127.0.0.1:99999"], "mqtt://HOST:PORT"),
        (["--ca", "broker.pem"], "mqtts://"),
        (["--broker", "mqtts://127.0.0.1", "--ca", "missing.pem"], "PEM"),
        (["--user", "line"], "has no password"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FBFT_MQTT_PASSWORD", raising=False)
    assert main(["bridge", "mqtt", *options]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), words in said) == (1, True), said


def test_a_password_that_others_may_read_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o644)
    assert main(["bridge", "mqtt", "--user", "line", "--password-file", str(tmp_path / "password")]) == 2
    assert "chmod 600" in capsys.readouterr().err

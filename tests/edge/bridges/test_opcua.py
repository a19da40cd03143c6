"""An OPC UA client sees each camera's variables and events, encrypted, and Bad whenever there is no verdict."""

from __future__ import annotations

import asyncio
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbft_edge.bridges.camera_state import CameraState, Fault
from fbft_edge.bridges.opcua import Access, opcua_server
from fbft_edge.bridges.opcua_variables import EVENT_FIELDS, NAMESPACE, VARIABLES
from fbft_edge.cli.main import main
from fbft_edge.frames.frame import Detection, Frame, Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import decode_message
from fbft_edge.messages.writing import MessageWriter, encode_detection
from fbft_edge.sockets.command_server import CommandServer

pytest.importorskip("asyncua", reason="the bridge needs the extra opcua")
from asyncua import Client, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography.x509.oid import ExtendedKeyUsageOID

_, OK, ANOMALOUS, STALE = range(4)
DEADLINE_S = 30.0
MASK = np.zeros((1, 1), bool)
CLIENT_URI = "urn:fbft-edge:test-client"


@dataclass(frozen=True)
class Scene:
    """A line with five cameras, a bridge with a password, and the keys of a client."""

    url: str
    endpoint: str
    line: Any
    bridge: Any
    keys: Path
    client_keys: Path
    triggers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def scene(start_line: Any, start_bridge: Any, free_port: Any, tmp_path_factory: Any) -> Iterator[Scene]:
    folder, port = tmp_path_factory.mktemp("opcua"), free_port()
    client_keys = tmp_path_factory.mktemp("client")
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    made = setup_self_signed_certificate(client_keys / "key.pem", client_keys / "cert.der", CLIENT_URI, "plc", uses, {})
    asyncio.run(made)
    triggers: list[dict[str, Any]] = []
    endpoint, line = start_line(0.1, cameras=("press-1", "press-2", "press-3", "press-4", "press-5"))
    cameras = [text for number in range(1, 6) for text in ("--camera", f"press-{number}")]
    with CommandServer(
        f"ipc://{folder}/commands", {"trigger": lambda asked: triggers.append(dict(asked)) or {}}
    ) as way:
        bridge = start_bridge(
            "opcua",
            endpoint,
            *("--listen", f"127.0.0.1:{port}", "--keys", folder / "keys", "--user", "plc", *cameras),
            *("--commands", way.endpoint),
            FBFT_OPCUA_PASSWORD="not in ps",
        )
        url = f"opc.tcp://127.0.0.1:{port}/fbft-edge"
        yield Scene(url, endpoint, line, bridge, folder / "keys", client_keys, triggers)


@asynccontextmanager
async def connected(scene: Scene, password: str = "not in ps") -> AsyncIterator[Client]:
    """A client that signs and encrypts, as the PLC's would."""
    client = Client(scene.url)
    client.application_uri = CLIENT_URI
    client.set_user("plc")
    client.set_password(password)
    await client.set_security(
        SecurityPolicyBasic256Sha256,
        certificate=str(scene.client_keys / "cert.der"),
        private_key=str(scene.client_keys / "key.pem"),
        server_certificate=str(scene.keys / "certificate.der"),
    )
    async with client:
        yield client


class Camera:
    """One camera's variables as a client reads them, all in one request."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name

    async def values(self) -> dict[str, ua.DataValue]:
        index = await self.client.get_namespace_index(NAMESPACE)
        nodes = [self.client.get_node(f"ns={index};s={self.name}.{variable.name}") for variable in VARIABLES]
        results = await self.client.read_attributes(nodes, ua.AttributeIds.Value)
        return {variable.name: value for variable, value in zip(VARIABLES, results, strict=True)}

    async def when(self, is_there: Callable[[dict[str, Any]], object]) -> dict[str, ua.DataValue]:
        end_s = time.monotonic() + DEADLINE_S
        while not is_there(plain(seen := await self.values())):
            assert time.monotonic() < end_s, seen
            await asyncio.sleep(0.02)
        return seen


def plain(seen: dict[str, ua.DataValue]) -> dict[str, Any]:
    return {name: value.Value.Value for name, value in seen.items()}


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(steps, DEADLINE_S))


def test_a_result_arrives_with_the_time_of_its_frame(scene: Scene) -> None:
    async def steps() -> None:
        async with connected(scene) as client:
            camera = Camera(client, "press-1")
            await camera.when(lambda values: values["Fault"] == Fault.NONE)
            scene.line.say("anomalous", 20, "press-1")
            seen = await camera.when(lambda values: values["FrameId"] == 20)
            values = plain(seen)
            assert (values["Score"], values["ImageThreshold"], values["TriggerId"]) == (10.0, 0.5, "20")
            assert (values["RegionX"], values["RegionWidth"], values["RegionArea"]) == (
                [20, 21, 22],
                [21] * 3,
                [23] * 3,
            )
            assert (values["RegionPeak"], values["BundleSha256"]) == ([0.5, 1.0, 1.5], "ab" * 32)
            why = [values[name] for name in ("Peak", "PeakX", "PeakY", "PixelThreshold", "DecidedBy", "PartId")]
            assert why == [1.0, 20, 3, 0.25, 3, ""]
            captured = datetime.fromtimestamp(20 * 1.000000007, timezone.utc)
            for name in ("Captured", "Score"):
                source = values["Captured"] if name == "Captured" else seen[name].SourceTimestamp
                assert abs((source.replace(tzinfo=timezone.utc) - captured).total_seconds()) < 1e-3
            assert all(value.StatusCode.is_good() for value in seen.values())

    run(steps())


def test_units_ranges_and_names_stand_in_the_address_space(scene: Scene) -> None:
    async def steps() -> None:
        async with connected(scene) as client:
            index = await client.get_namespace_index(NAMESPACE)
            camera = await client.nodes.objects.get_child([f"{index}:Cameras", f"{index}:press-2"])
            names = [(await node.read_browse_name()).Name for node in await camera.get_variables()]
            assert names == [variable.name for variable in VARIABLES]
            score = await camera.get_child([f"{index}:Score"])
            unit = await (await score.get_child(["0:EngineeringUnits"])).read_value()
            high = (await (await score.get_child(["0:EURange"])).read_value()).High
            assert (await score.read_type_definition()).Identifier == ua.ObjectIds.AnalogItemType
            assert (unit.DisplayName.Text, high) == ("1", 4.0)
            verdict = await camera.get_child([f"{index}:Verdict", "0:EnumStrings"])
            assert [text.Text for text in await verdict.read_value()] == ["fault", "ok", "anomalous", "stale"]
            with pytest.raises(ua.UaStatusCodeError):
                await score.write_value(0.0)

    run(steps())


def test_an_anomalous_result_is_an_event_with_its_regions_and_an_ok_one_is_none(scene: Scene) -> None:
    events: list[Any] = []

    class Handler:
        def event_notification(self, event: Any) -> None:
            events.append(event)

    async def steps() -> None:
        async with connected(scene) as client:
            index = await client.get_namespace_index(NAMESPACE)
            kind = await client.nodes.base_event_type.get_child([f"{index}:AnomalyEventType"])
            subscription = await client.create_subscription(50, Handler())
            await subscription.subscribe_events(evtypes=kind)
            await Camera(client, "press-3").when(lambda values: values["Fault"] == Fault.NONE)
            for verdict, frame_id in (("ok", 18), ("anomalous", 19), ("ok", 20), ("anomalous", 22)):
                scene.line.say(verdict, frame_id, "press-3")
            while len(mine := [event for event in events if event.Camera == "press-3"]) < 2:
                await asyncio.sleep(0.02)
            first = mine[0]
            assert [event.FrameId for event in mine] == [19, 22]
            assert (first.Score, first.RegionX, first.RegionHeight, first.SourceName) == (
                9.5,
                [19, 20],
                [21, 21],
                "press-3",
            )
            assert all(hasattr(first, name) for name in EVENT_FIELDS)

    run(steps())


@dataclass
class FastScene:
    """A line where every message is a new result, and a bridge that lets everybody in."""

    url: str
    endpoint: str
    line: Any
    bridge: Any
    keys: Path
    restart: Callable[[], Any]


@pytest.fixture(scope="module")
def fast_scene(start_line: Any, start_bridge: Any, free_port: Any, tmp_path_factory: Any) -> FastScene:
    endpoint, line = start_line(0.01, "--fast")
    listen, keys = f"127.0.0.1:{free_port()}", tmp_path_factory.mktemp("opcua") / "keys"

    def restart() -> Any:
        return start_bridge("opcua", endpoint, "--listen", listen, "--keys", keys)

    return FastScene(f"opc.tcp://{listen}/fbft-edge", endpoint, line, restart(), keys, restart)


def test_one_request_never_mixes_two_results(fast_scene: FastScene) -> None:
    async def steps() -> None:
        async with Client(fast_scene.url) as client:
            camera = Camera(client, "camera")
            await camera.when(lambda values: (values["FrameId"] or 0) > 0)
            frames = set()
            for _ in range(100):
                values = plain(await camera.values())
                number = values["FrameId"]
                assert (values["Score"], values["TriggerId"]) == (number / 2, str(number))
                assert values["RegionArea"] == [number % 1000 + 3] * (number % 17)
                assert values["Verdict"] == (OK if number % 3 else ANOMALOUS)
                frames.add(number)
            assert len(frames) > 5

    run(steps())


def test_a_request_that_comes_before_the_refresh_reads_no_old_good(free_port: Any, tmp_path: Path) -> None:
    now_s, address = 1000.0, ("127.0.0.1", free_port())
    encoded = encode_detection(Frame("camera", 7, 1, np.zeros((1, 1, 3), np.uint8)), Detection(0, 0, MASK, (), False))
    parts = MessageWriter("site", "camera").write(encoded, Verdict.OK, 5, Ledger().snapshot(), Health("ok"))
    state = CameraState("camera", 1.0, lambda: now_s)
    state.receive(replace(decode_message(parts), sent_s=now_s))

    async def steps() -> None:
        nonlocal now_s
        async with opcua_server([state], address, Access(tmp_path)) as server, Client(url(address)) as client:
            await server.refresh(1)
            camera = Camera(client, "camera")
            assert plain(await camera.values())["Good"] is True
            now_s += 2.1
            seen = await camera.values()
            assert [seen[name].StatusCode.name for name in ("Good", "Verdict", "Score")] == ["BadNoCommunication"] * 3
            assert [seen[name].Value.Value for name in ("Good", "Verdict", "Score")] == [None] * 3

    asyncio.run(steps())


def url(address: tuple[str, int]) -> str:
    return f"opc.tcp://{address[0]}:{address[1]}/fbft-edge"


@pytest.mark.parametrize(
    ("stage", "bad"),
    [
        ("camera", "BadSensorFailure"),
        ("inference", "BadDeviceFailure"),
        ("trigger", "BadDeviceFailure"),
        ("line", "BadDeviceFailure"),
    ],
)
def test_every_fault_is_bad_and_says_why(scene: Scene, stage: str, bad: str) -> None:
    statuses: list[tuple[int, str]] = []

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
            statuses.append((value, data.monitored_item.Value.StatusCode.name))

    async def steps() -> None:
        async with connected(scene) as client:
            camera = Camera(client, "press-4")
            await camera.when(lambda values: values["Fault"] == Fault.NONE)
            index = await client.get_namespace_index(NAMESPACE)
            subscription = await client.create_subscription(20, Handler())
            await subscription.subscribe_data_change(client.get_node(f"ns={index};s=press-4.Verdict"))
            scene.line.say("fault", 5, "press-4", stage)
            while (None, bad) not in statuses:
                await asyncio.sleep(0.02)

    run(steps())


def test_a_trigger_is_a_method(scene: Scene) -> None:
    async def steps() -> None:
        async with connected(scene) as client:
            index = await client.get_namespace_index(NAMESPACE)
            camera = client.get_node(f"ns={index};s=press-2")
            assert await camera.call_method(f"{index}:Trigger") is True
            assert scene.triggers[-1]["camera"] == "press-2"

    run(steps())


def test_a_part_travels_with_its_trigger_and_the_line_answers_about_it_while_the_camera_is_busy(scene: Scene) -> None:
    async def steps() -> None:
        async with connected(scene) as client:
            camera = Camera(client, "press-5")
            await camera.when(lambda values: values["Fault"] == Fault.NONE)
            index = await client.get_namespace_index(NAMESPACE)
            node = client.get_node(f"ns={index};s=press-5")
            assert await node.call_method(f"{index}:TriggerPart", "SN 4711") is True
            asked = scene.triggers[-1]
            values = plain(await camera.values())
            assert (asked["camera"], asked["part_id"], values["Busy"], values["Good"]) == (
                "press-5",
                "SN 4711",
                True,
                False,
            )
            assert await node.call_method(f"{index}:TriggerPart", "SN 4712") is False
            assert scene.triggers[-1] is asked
            scene.line.say("ok", 7, "press-5", "camera", asked["trigger_id"], "SN-4711")
            values = plain(await camera.when(lambda values: values["FrameId"] == 7))
            assert (values["PartId"], values["TriggerId"], values["Busy"]) == ("SN-4711", asked["trigger_id"], False)

    run(steps())


@pytest.mark.parametrize("part", ["", "x" * 65, "SN\n4711", "SN\0", "\u00e9", None, 7, ["SN"]], ids=repr)
def test_a_part_that_cannot_travel_is_refused_and_nothing_triggered(scene: Scene, part: Any) -> None:
    async def steps() -> None:
        async with connected(scene) as client:
            index = await client.get_namespace_index(NAMESPACE)
            node = client.get_node(f"ns={index};s=press-3")
            before = len(scene.triggers)
            with pytest.raises(ua.UaStatusCodeError, match="BadInvalidArgument"):
                await node.call_method(f"{index}:TriggerPart", part)
            busy = await client.get_node(f"ns={index};s=press-3.Busy").read_value()
            assert (len(scene.triggers), busy) == (before, False)

    run(steps())


def test_an_ok_of_the_part_before_is_not_good_from_the_trigger_on_as_long_as_no_answer_comes(
    start_line: Any, start_bridge: Any, free_port: Any, tmp_path: Path
) -> None:
    endpoint, line = start_line(0.1, "--free", "--repeat")
    listen = f"127.0.0.1:{free_port()}"

    async def steps(taken: list[Any]) -> None:
        async with Client(f"opc.tcp://{listen}/fbft-edge", timeout=DEADLINE_S) as client:
            camera = Camera(client, "camera")
            await camera.when(lambda values: values["Fault"] == Fault.NONE)
            line.say("ok", 1)
            await camera.when(lambda values: values["Good"] is True)
            index = await client.get_namespace_index(NAMESPACE)
            assert await client.get_node(f"ns={index};s=camera").call_method(f"{index}:Trigger") is True
            values = plain(await camera.values())  # with no refresh in between, which comes every 20 ms
            assert (values["Good"], values["Verdict"], values["Busy"]) == (False, STALE, True)
            sequence = values["Sequence"]
            values = plain(await camera.when(lambda values: values["Sequence"] > sequence + 5))
            assert (values["Good"], values["Verdict"], values["FrameId"], values["Busy"]) == (False, STALE, 1, True)
            line.kill(signal.SIGSTOP)
            seen = await camera.when(lambda values: values["Fault"] == Fault.SILENCE)
            assert (seen["Good"].StatusCode.name, plain(seen)["Busy"]) == ("BadNoCommunication", True)
            line.kill(signal.SIGCONT)
            values = plain(await camera.when(lambda values: values["Fault"] == Fault.NONE))
            assert (values["Good"], values["Busy"]) == (False, True)
            line.say("ok", 2, "camera", "camera", taken[-1]["trigger_id"])
            assert plain(await camera.when(lambda values: values["Good"] is True))["FrameId"] == 2
            assert await client.get_node(f"ns={index};s=camera").call_method(f"{index}:Trigger") is True
            line.kill()
            start_line(0.1, "--free", "--repeat", endpoint=endpoint)
            values = plain(await camera.when(lambda values: values["Fault"] == Fault.NONE and not values["Busy"]))
            assert (values["Good"], values["FrameId"]) == (False, -1)

    taken: list[Any] = []
    with CommandServer(f"ipc://{tmp_path}/commands", {"trigger": lambda asked: taken.append(dict(asked)) or {}}) as way:
        commands = ("--commands", way.endpoint, "--anyone-may-trigger")
        start_bridge("opcua", endpoint, "--listen", listen, "--keys", tmp_path / "keys", *commands)
        run(steps(taken))


class Told:
    """What a subscription tells of one variable: values with their status, in order."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, str]] = []

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.values.append((value, data.monitored_item.Value.StatusCode.name))

    async def until(self, last: tuple[Any, str], num_before: int = 0) -> None:
        while self.values[num_before:][-1:] != [last]:
            await asyncio.sleep(0.02)


GOOD, NOT_GOOD, SILENT = (True, "Good"), (False, "Good"), (None, "BadNoCommunication")


@pytest.mark.parametrize("now", ["gone", "anomalous", "ok"])
def test_a_subscriber_hears_no_good_that_waited_in_a_bridge_that_was_stopped(
    start_line: Any, start_bridge: Any, free_port: Any, tmp_path: Path, now: str
) -> None:
    endpoint, line = start_line(0.1, "--repeat")
    listen = f"127.0.0.1:{free_port()}"
    bridge = start_bridge("opcua", endpoint, "--listen", listen, "--keys", tmp_path / "keys")

    async def steps() -> None:
        async with Client(f"opc.tcp://{listen}/fbft-edge", timeout=DEADLINE_S) as client:
            camera, told = Camera(client, "camera"), Told()
            await camera.when(lambda values: values["Fault"] == Fault.NONE)
            index = await client.get_namespace_index(NAMESPACE)
            subscription = await client.create_subscription(1000, told)  # long, so that a good waits in the bridge
            await subscription.subscribe_data_change(client.get_node(f"ns={index};s=camera.Good"), queuesize=10)
            frame_id = 0
            while True:
                await told.until(NOT_GOOD)
                line.say("ok", frame_id := frame_id + 1)
                await camera.when(lambda values: values["Good"] is True)
                bridge.kill(signal.SIGSTOP)
                await asyncio.sleep(0.1)  # for what was on its way already
                if told.values[-1] == NOT_GOOD:
                    break
                bridge.kill(signal.SIGCONT)
                line.say("anomalous", frame_id := frame_id + 1)
            line.kill() if now == "gone" else line.say(now, frame_id + 1)
            await asyncio.sleep(1.5)
            num_before = len(told.values)
            bridge.kill(signal.SIGCONT)
            await told.until({"gone": SILENT, "anomalous": NOT_GOOD, "ok": GOOD}[now], num_before)
            first, *rest = told.values[num_before:]
            assert first == SILENT
            assert GOOD not in rest[:-1]

    run(steps())


def test_a_subscriber_is_told_of_a_good_again_after_one_that_became_too_old_to_be_told(
    free_port: Any, tmp_path: Path
) -> None:
    now_s, address, told = 1000.0, ("127.0.0.1", free_port()), Told()
    encoded = encode_detection(Frame("camera", 7, 1, np.zeros((1, 1, 3), np.uint8)), Detection(0, 0, MASK, (), False))
    writer = MessageWriter("site", "camera")
    state = CameraState("camera", 1.0, lambda: now_s)

    def say_ok() -> None:
        parts = writer.write(encoded, Verdict.OK, 5, Ledger().snapshot(), Health("ok"))
        state.receive(replace(decode_message(parts), sent_s=now_s))

    async def steps() -> None:
        nonlocal now_s
        async with opcua_server([state], address, Access(tmp_path)) as server, Client(url(address)) as client:
            await server.refresh(1)
            index = await client.get_namespace_index(NAMESPACE)
            subscription = await client.create_subscription(500, told)
            await subscription.subscribe_data_change(client.get_node(f"ns={index};s=camera.Good"), queuesize=10)
            await told.until((None, "BadWaitingForInitialData"))
            say_ok()
            await server.refresh(2)
            now_s += 2.1
            await told.until(SILENT)
            say_ok()
            await server.refresh(3)
            await told.until(GOOD)

    run(steps())


def test_nobody_gets_in_without_the_password_and_nobody_anonymously(scene: Scene) -> None:
    async def steps() -> None:
        with pytest.raises(ua.UaStatusCodeError):
            async with connected(scene, "guess"):
                pass
        with pytest.raises((ua.UaError, ua.UaStatusCodeError)):
            async with Client(scene.url):
                pass

    run(steps())


def test_the_key_that_was_made_is_its_owners_alone(scene: Scene) -> None:
    assert stat.S_IMODE((scene.keys / "key.pem").stat().st_mode) == 0o600


def test_a_killed_line_is_bad_and_a_killed_bridge_comes_back_with_the_same_certificate(
    fast_scene: FastScene, start_line: Any
) -> None:
    certificate = (fast_scene.keys / "certificate.der").read_bytes()

    async def fault() -> None:
        async with Client(fast_scene.url) as client:
            camera = Camera(client, "camera")
            await camera.when(lambda values: values["Period"] > 0)
            fast_scene.line.kill()
            seen = await camera.when(lambda values: values["Fault"] == Fault.SILENCE)
            for name in ("Verdict", "Good", "Score"):
                assert (seen[name].Value.Value, seen[name].StatusCode.name) == (None, "BadNoCommunication")
            assert seen["Reason"].StatusCode.is_good()
            beats = seen["Heartbeat"].Value.Value
            await camera.when(lambda values: values["Heartbeat"] != beats)

    async def no_fault() -> None:
        async with Client(fast_scene.url) as client:
            await Camera(client, "camera").when(lambda values: values["Fault"] == Fault.NONE)

    run(fault())
    fast_scene.bridge.kill()
    fast_scene.bridge.popen.wait()
    start_line(0.1, endpoint=fast_scene.endpoint)
    fast_scene.restart()
    run(no_fault())
    assert (fast_scene.keys / "certificate.der").read_bytes() == certificate


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "0.0.0.0:4840"], "--insecure"),
        (["--user", "plc"], "has no password"),
        (["--password-file", "missing"], "--user"),
        (["--user", "plc", "--password-file", "missing"], "missing"),
        (["--keys", "/proc/nothing"], "cannot use the keys"),
        (["--commands", "ipc:///run/fbft/commands"], "--anyone-may-trigger"),
        (["--listen", "192.0.2.1:4840", "--insecure"], "cannot listen"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FBFT_OPCUA_PASSWORD", raising=False)
    assert main(["bridge", "opcua", *options]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), words in said) == (1, True), said


def test_a_key_that_others_may_read_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("key.pem", "certificate.der"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).chmod(0o644)
    assert main(["bridge", "opcua", "--keys", str(tmp_path)]) == 2
    assert "chmod 600" in capsys.readouterr().err

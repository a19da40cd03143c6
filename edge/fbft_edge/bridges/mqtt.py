"""The MQTT bridge: cameras' states in, retained JSON on a broker out, which says fault when the bridge is gone.

Per camera one connection, since each has one last will, and four topics under `fbft/<site>/<camera>/`:

- `birth`, retained: what the others hold, said once per connection;
- `result`, retained: how the camera stands; here the broker publishes the last will, the death: verdict fault;
- `anomaly`: each anomalous result, kept until the broker has it, the newest 64 of them;
- `heartbeat`: every second that the bridge lives, and whether the camera is good now.

A broker may outlive line and bridge, or come back alone with what it kept on disk. So a good result says how long it is
one, two periods after its message was sent, and is said again before that ends while it holds; a client counts from
its arrival. Nothing that says good outlives 3 s at the broker: it expires (MQTT 5), and a broker that knows only MQTT
3.1.1 is not asked to keep it.

Birth and death are in the style of Sparkplug; the payloads are JSON, not Sparkplug B. At most one result and one
anomaly are on their way at a time, and each connection starts without what the last one left behind, so nothing old
arrives late. Knows nothing about ZeroMQ.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fbft_edge.addresses import is_loopback
from fbft_edge.bridges.camera_state import CameraState, Fault, Standing
from fbft_edge.clock import now_ns, wait_for
from fbft_edge.closeable import Closeable
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_edge.frames.frame import Region, Verdict
from fbft_edge.messages.reading import Result

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo
    from paho.mqtt.properties import Properties

SCHEMA = "fbft.mqtt/1"
QOS = 1
KEEPALIVE_S = 2
BEAT_S = 1.0
GOOD_EXPIRES_S = 3
CONNECT_TIMEOUT_S = 5.0
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
MAX_ANOMALIES = 64
UNSUPPORTED = "Unsupported protocol version"
JOIN_TIMEOUT_S = 5.0
_OTHER_UNITS = {"score": "1", "peak": "1", "peak_xy": "px", "good_for_s": "s"}
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to publish, and as whom.

    Attributes:
        host: Name or address.
        port: TCP port.
        tls: Checks the broker's certificate; None for clear text.
        user: Who this bridge is; None for nobody.
        password: Of the user.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = None


def broker_from_url(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    insecure: bool = False,
) -> Broker:
    """What the options say about the broker.

    Args:
        url: `mqtt://HOST[:PORT]`, or `mqtts://` for TLS.
        user: Who this bridge is.
        password: Of the user.
        ca: PEM file that the broker's certificate is checked with; None for the system's.
        certificate: PEM file that this bridge shows.
        key: PEM file of its private key.
        insecure: Allow a broker beyond this machine without TLS.

    Raises:
        ArgumentError: The URL is none, a file cannot be used, or results would leave this machine in clear text.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    is_plain = parts.path in ("", "/") and not parts.query and parts.username is None
    if parts.scheme not in DEFAULT_PORTS or not host or not is_plain:
        raise ArgumentError(f"{url!r} is no broker; use mqtt://HOST:PORT or mqtts://HOST:PORT, and --user for a user")
    if parts.scheme == "mqtts":
        return Broker(host, port or DEFAULT_PORTS["mqtts"], _tls(ca, certificate, key), user, password)
    if ca or certificate or key:
        raise ArgumentError(f"{url!r} is without TLS, which --ca, --certificate and --key are for; use mqtts://{host}")
    if not insecure and not is_loopback(host):
        raise ArgumentError(
            f"{url!r} lies beyond this machine, and results and password would travel in clear text; "
            f"use mqtts://{host}, or add --insecure on a network you trust"
        )
    return Broker(host, port or DEFAULT_PORTS["mqtt"], None, user, password)


def _tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ArgumentError(
            f"cannot use the certificates ({error}); --ca, --certificate and --key name files in PEM format"
        ) from error
    return context


class _Connection:
    """What became of one attempt."""

    def __init__(self) -> None:
        self.was_accepted = self.was_refused = False
        self.has_ended = threading.Event()


class Uplink(Closeable):
    """One camera's connection to the broker, found again by itself whenever it is lost.

    Args:
        broker: Where to publish.
        site: Site in the topics.
        state: What is known of the camera.

    Raises:
        ArgumentError: The extra `mqtt` is not installed.
    """

    def __init__(self, broker: Broker, site: str, state: CameraState) -> None:
        require_extra("mqtt", "the MQTT bridge")
        self._broker, self._site, self._state = broker, site, state
        self._topic = f"fbft/{site}/{state.camera}"
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._result: MQTTMessageInfo | None = None
        self._anomaly: MQTTMessageInfo | None = None
        self._published: tuple[object, ...] | None = None
        self._expires = True
        self._beats = 0
        self._renew_s = self._beat_s = 0.0
        self._anomalies: deque[Result] = deque()
        self._num_lost = 0
        self._problem = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"fbft-mqtt-{state.camera}", daemon=True)

    def offer(self, result: Result) -> None:
        """A frame's own result came; from any thread."""
        if result.verdict is not Verdict.ANOMALOUS:
            return
        with self._lock:
            if len(self._anomalies) == MAX_ANOMALIES:
                # The first may be on its way, and is then told to be delivered when the broker has it.
                del self._anomalies[1]
                self._num_lost += 1
            self._anomalies.append(result)

    def refresh(self) -> None:
        """Publish what has changed, as far as the broker took what went before; returns at once."""
        with self._lock:
            if self._client is not None:
                self._refresh_result(self._client)
                self._refresh_anomaly(self._client)
                self._refresh_heartbeat(self._client)

    def close(self) -> None:
        """Say that the bridge stops, and end the connection; may be called twice."""
        self._stopping.set()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            last = client.publish(f"{self._topic}/result", self._death("the bridge was stopped"), QOS, retain=True)
            if not last.rc:
                last.wait_for_publish(1.0)
            client.disconnect()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)

    def __enter__(self) -> Uplink:
        self._thread.start()
        return self

    def _refresh_result(self, client: Client) -> None:
        standing, now_s = self._state.standing(), time.monotonic()
        identity = _identity(standing)
        is_said = identity == self._published and not (standing.is_good and now_s >= self._renew_s)
        if is_said or _is_on_its_way(self._result):
            return
        properties = self._expiry() if standing.is_good else None
        is_kept = self._expires or not standing.is_good
        self._result = client.publish(f"{self._topic}/result", self._payload(standing), QOS, is_kept, properties)
        self._published = None if self._result.rc else identity
        self._renew_s = now_s + standing.current_for_s / 2

    def _refresh_heartbeat(self, client: Client) -> None:
        if (now_s := time.monotonic()) - self._beat_s < BEAT_S:
            return
        self._beat_s, self._beats = now_s, self._beats + 1
        standing = self._state.standing()
        members = {"verdict": standing.verdict.value, "good": standing.is_good, "fault": standing.fault.name.lower()}
        beat = self._json(beat=self._beats, now_ns=now_ns(), **members)
        client.publish(f"{self._topic}/heartbeat", beat, 0, properties=self._expiry())

    def _expiry(self) -> Properties | None:
        """What makes a broker forget a message, one that waits for a client included; None for MQTT 3.1.1."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        if not self._expires:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = GOOD_EXPIRES_S
        return properties

    def _refresh_anomaly(self, client: Client) -> None:
        if _is_on_its_way(self._anomaly):
            return
        if self._anomaly is not None and not self._anomaly.rc:
            self._anomalies.popleft()
        self._anomaly = None
        if self._anomalies:
            self._anomaly = client.publish(f"{self._topic}/anomaly", self._anomaly_payload(self._anomalies[0]), QOS)

    def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._stopping.is_set():
            if self._stay_connected():
                retry_s = FIRST_RETRY_S
            wait_for(self._stopping, retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    def _stay_connected(self) -> bool:
        """Connect and stay so until the connection ends; False when the broker did not let us in."""
        connection = _Connection()
        client = self._new_client(connection)
        try:
            client.connect(self._broker.host, self._broker.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            self._report(str(error))
            return False
        client.loop_start()
        connection.has_ended.wait()
        client.loop_stop()
        if not connection.was_accepted and not connection.was_refused:
            self._expires = not self._expires  # a broker may not answer a version that it does not know
        return connection.was_accepted

    def _new_client(self, connection: _Connection) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fbft-{self._site}-{self._state.camera}",
            userdata=connection,
            reconnect_on_failure=False,
            protocol=MQTTProtocolVersion.MQTTv5 if self._expires else MQTTProtocolVersion.MQTTv311,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.will_set(f"{self._topic}/result", self._death("the bridge is gone"), QOS, retain=True)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls is not None:
            client.tls_set_context(self._broker.tls)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        return client

    def _on_connect(self, client: Client, connection: _Connection, flags: Any, reason: Any, _: Any) -> None:
        if reason.is_failure:
            connection.was_refused = reason.getName() != UNSUPPORTED
            self._report(f"refused: {reason}")
            return
        connection.was_accepted = True
        client.publish(f"{self._topic}/birth", self._birth(), QOS, retain=True)
        with self._lock:
            self._result = self._anomaly = self._published = None
            # What the broker kept is of nobody who lives.
            client.publish(f"{self._topic}/result", self._death("the bridge has just come"), QOS, retain=True)
            self._client = None if self._stopping.is_set() else client
        self._report("")

    def _on_disconnect(self, client: Client, connection: _Connection, flags: Any, reason: Any, _: Any) -> None:
        with self._lock:
            self._client = None
        if connection.was_accepted and not self._stopping.is_set():
            self._report(f"lost: {reason}")
        connection.has_ended.set()

    def _report(self, problem: str) -> None:
        """Say what has changed, not the same at every attempt."""
        if problem != self._problem:
            broker = f"broker {self._broker.host}:{self._broker.port}"
            _logger.warning(
                "%s: %s", broker, f"no connection for {self._topic} ({problem}), trying on" if problem else "back"
            )
        self._problem = problem

    def _payload(self, standing: Standing) -> str:
        message = standing.message if standing.fault is not Fault.SILENCE else None
        return self._json(
            verdict=standing.verdict.value,
            good=standing.is_good,
            good_for_s=round(standing.current_for_s, 3) if standing.is_good else 0,
            fault=standing.fault.name.lower(),
            reason=standing.reason,
            results=standing.results,
            anomalous=standing.anomalous,
            lost_messages=standing.lost,
            **_result_members(message),
        )

    def _anomaly_payload(self, result: Result) -> str:
        members = _result_members(result)
        return self._json(verdict=result.verdict.value, good=False, lost_anomalies=self._num_lost, **members)

    def _death(self, reason: str) -> str:
        return self._json(verdict=Verdict.FAULT.value, good=False, fault="bridge", reason=reason)

    def _birth(self) -> str:
        return self._json(
            version=metadata.version("fbft-edge"),
            born_ns=now_ns(),
            verdicts=[verdict.value for verdict in Verdict],
            faults=[*(fault.name.lower() for fault in Fault), "bridge"],
            units={**dict.fromkeys(("x", "y", "width", "height", "area"), "px"), **_OTHER_UNITS},
        )

    def _json(self, **members: object) -> str:
        about = {"schema": SCHEMA, "site": self._site, "camera": self._state.camera}
        return json.dumps({**about, **members}, allow_nan=False)


def _is_on_its_way(message: MQTTMessageInfo | None) -> bool:
    return message is not None and not message.rc and not message.is_published()


def _identity(standing: Standing) -> tuple[object, ...]:
    """What makes a result worth publishing when it changes; repeats change nothing, nor numbers in a reason."""
    message = standing.message
    about = (message.session, message.frame_id) if message is not None else None
    return standing.verdict, standing.fault, standing.reason is None, standing.results, about


def _result_members(result: Result | None) -> Mapping[str, object]:
    if result is None:
        return {}
    return {
        "session": result.session,
        "sequence": result.sequence,
        "frame_id": result.frame_id,
        "trigger_id": result.trigger_id,
        "part_id": result.part_id,
        "captured_ns": result.captured_ns,
        "published_ns": result.published_ns,
        "score": result.score,
        "image_threshold": result.image_threshold,
        "peak": result.peak,
        "peak_xy": result.peak_xy,
        "pixel_threshold": result.pixel_threshold,
        "decided_by": result.decided_by,
        "regions": [_region_members(region) for region in result.regions],
        "missed_triggers": result.ledger.missed_triggers,
        "bundle_sha256": result.bundle_sha256,
    }


def _region_members(region: Region) -> dict[str, float]:
    left, top, right, bottom = region.box_xyxy
    size = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {**size, "area": region.area_px, "peak": region.peak}

"""The OPC UA server: cameras' states in, variables and events of an address space out, encrypted and signed.

Each camera is an object with the variables of `VARIABLES`. While there is no verdict, those about the result have a
Bad status code; those about the line stay readable. Every anomalous result is an event. Knows nothing about ZeroMQ.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbft_edge.addresses import is_loopback
from fbft_edge.bridges.camera_state import CameraState, Fault, Standing
from fbft_edge.bridges.handshake import SendTriggerOf, Triggers
from fbft_edge.bridges.listening import check_free
from fbft_edge.bridges.opcua_keys import own_keys
from fbft_edge.bridges.opcua_variables import (
    EVENT,
    EVENT_FIELDS,
    NAMESPACE,
    VARIABLES,
    Variable,
    camera_values,
    result_values,
    time_from_ns,
)
from fbft_edge.clock import now_ns
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_edge.frames.explanation import explained
from fbft_edge.frames.frame import MAX_REGIONS, Verdict
from fbft_edge.messages.reading import Result
from fbft_edge.names import ID_PATTERN, ID_RULE
from fbft_edge.sockets.access import LimitedLog

if TYPE_CHECKING:
    from asyncua import Node, Server, ua
    from asyncua.server.address_space import AddressSpace
    from asyncua.server.event_generator import EventGenerator

MAX_EVENTS = 64
SEVERITY = 700

_BAD = {
    Fault.NO_MESSAGE: "BadWaitingForInitialData",
    Fault.SILENCE: "BadNoCommunication",
    Fault.CAMERA: "BadSensorFailure",
    Fault.INFERENCE: "BadDeviceFailure",
    Fault.LINE: "BadDeviceFailure",
    Fault.TRIGGER: "BadDeviceFailure",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect, and how.

    Attributes:
        keys: Folder of `certificate.der` and `key.pem`, made when both are missing.
        user: The only one who may log in; None lets everybody.
        password: Of the user.
        insecure: Allow clients beyond this machine without password and without encryption.
    """

    keys: Path
    user: str | None = None
    password: str | None = None
    insecure: bool = False


class ResultServer:
    """Keeps the address space as the cameras stand.

    Args:
        cameras: Objects in the address space, one per state.
    """

    def __init__(self, cameras: Sequence[_CameraObject]) -> None:
        self._cameras = cameras
        self._by_name = {camera.state.camera: camera for camera in cameras}

    def listener(self, state: CameraState, result: Result) -> None:
        """A frame's own result came; from any thread."""
        self._by_name[state.camera].offer(result)

    async def refresh(self, beats: int) -> None:
        """Write what has changed, and send the events that wait."""
        for camera in self._cameras:
            await camera.refresh(beats)


@contextlib.asynccontextmanager
async def opcua_server(
    states: Sequence[CameraState],
    address: tuple[str, int],
    access: Access,
    send: SendTriggerOf | None = None,
) -> AsyncIterator[ResultServer]:
    """Serve while the context lasts.

    Args:
        states: What is known of each camera.
        address: Host and port.
        access: Who may connect, and how.
        send: Sends a trigger to a camera; None when there is no way to the line.

    Raises:
        ArgumentError: The address lets in everybody beyond this machine or cannot be listened on, or the keys cannot
            be used.
    """
    require_extra("opcua", "the OPC UA bridge")
    from asyncua import Server

    logging.getLogger("asyncua").setLevel(logging.ERROR)
    host, port = address
    _check_access(host, port, access)
    check_free(address)
    uri = f"urn:{socket.gethostname()}:fbft-edge:results"
    certificate, key = own_keys(access.keys, uri, host)
    server = Server(user_manager=_Users(access))
    await server.init()
    server.set_endpoint(f"opc.tcp://[{host}]:{port}/fbft-edge" if ":" in host else f"opc.tcp://{host}:{port}/fbft-edge")
    server.set_server_name("fbft-edge")
    await server.set_application_uri(uri)
    await server.load_certificate(certificate)
    await server.load_private_key(key)
    _restrict(server, host, access)
    cameras = await _address_space(server, states, send)
    async with server:
        yield ResultServer(cameras)


def _check_access(host: str, port: int, access: Access) -> None:
    if is_loopback(host) or access.insecure or access.password is not None:
        return
    raise ArgumentError(
        f"{host}:{port} reaches beyond this machine, and any client could read results; add --user NAME and "
        f"--password-file FILE, or --insecure on a network that you trust"
    )


class _Users:
    """Decides who a client is; asyncua asks it once per session."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get_user(self, server: Any, username: str | None = None, password: Any = None, certificate: Any = None) -> Any:
        """The client's role, or None to refuse it."""
        from asyncua.crypto.permission_rules import User, UserRole

        if self._access.password is not None:
            given = password.decode(errors="replace") if isinstance(password, bytes) else password
            is_known = hmac.compare_digest((username or "").encode(), (self._access.user or "").encode())
            if not (hmac.compare_digest((given or "").encode(), self._access.password.encode()) and is_known):
                return None
        return User(role=UserRole.User, name=username)


def _restrict(server: Server, host: str, access: Access) -> None:
    from asyncua import ua

    policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    if is_loopback(host) or access.insecure:
        policies.append(ua.SecurityPolicyType.NoSecurity)
    server.set_security_policy(policies)
    server.set_identity_tokens([ua.AnonymousIdentityToken if access.password is None else ua.UserNameIdentityToken])


async def _address_space(
    server: Server, states: Sequence[CameraState], send: SendTriggerOf | None
) -> list[_CameraObject]:
    from asyncua import ua

    index = await server.register_namespace(NAMESPACE)
    kinds = {variable.name: variable.kind for variable in VARIABLES}
    fields = [("Camera", ua.VariantType.String), *((name, _variant_type(kinds[name])) for name in EVENT_FIELDS)]
    event_type = await server.create_custom_event_type(index, EVENT, ua.ObjectIds.BaseEventType, fields)
    root = await server.nodes.objects.add_object(ua.NodeId("Cameras", index), ua.QualifiedName("Cameras", index))
    cameras = []
    for state in states:
        name = state.camera
        parent = await root.add_object(ua.NodeId(name, index), ua.QualifiedName(name, index))
        nodes = {variable.name: await _add_variable(parent, index, variable) for variable in VARIABLES}
        triggers = Triggers(send and partial(send, name))
        events = await server.get_event_generator(event_type, ua.ObjectIds.Server)
        events.event.SourceNode, events.event.SourceName = parent.nodeid, name
        events.event.Severity = SEVERITY
        cameras.append(_CameraObject(state, triggers, nodes, events, server.iserver.aspace))
        if triggers.can_send:
            await _add_triggers(parent, index, cameras[-1])
    return cameras


async def _add_variable(parent: Node, index: int, variable: Variable) -> Node:
    from asyncua import ua

    node_id = ua.NodeId(f"{parent.nodeid.Identifier}.{variable.name}", index)
    kind = _variant_type(variable.kind)
    value = _value([] if variable.is_array else ua.get_default_value(kind), variable)
    node = await parent.add_variable(node_id, ua.QualifiedName(variable.name, index), value)
    if variable.is_array:
        await node.write_value_rank(ua.ValueRank.OneDimension)
    await node.write_attribute(
        ua.AttributeIds.Description, ua.DataValue(ua.Variant(ua.LocalizedText(variable.meaning)))
    )
    if variable.states:
        await _set_type(node, ua.ObjectIds.MultiStateDiscreteType)
        await node.add_property(ua.NodeId(), "0:EnumStrings", [ua.LocalizedText(state) for state in variable.states])
    elif variable.high is not None:
        await _set_type(node, ua.ObjectIds.AnalogItemType)
        await node.add_property(ua.NodeId(), "0:EURange", ua.Range(0.0, variable.high))
        unit = ua.EUInformation(NAMESPACE, -1, ua.LocalizedText(variable.unit), ua.LocalizedText(variable.unit))
        await node.add_property(ua.NodeId(), "0:EngineeringUnits", unit)
    return node


async def _set_type(node: Node, type_id: int) -> None:
    from asyncua import ua

    await node.delete_reference(ua.NodeId(ua.ObjectIds.BaseDataVariableType), ua.ObjectIds.HasTypeDefinition)
    await node.add_reference(ua.NodeId(type_id), ua.ObjectIds.HasTypeDefinition)


async def _add_triggers(parent: Node, index: int, camera: _CameraObject) -> None:
    from asyncua import ua, uamethod

    async def trigger(_: Any) -> Any:
        return await camera.trigger()

    async def trigger_part(_: Any, part_id: Any = None) -> Any:
        return await camera.trigger_part(part_id)

    about = ua.LocalizedText(f"part or serial number, {ID_RULE}; comes back as PartId")
    part = ua.Argument("PartId", ua.NodeId(ua.ObjectIds.String), ua.ValueRank.Scalar, Description=about)
    for name, method, inputs in (("Trigger", trigger, []), ("TriggerPart", trigger_part, [part])):
        node_id = ua.NodeId(f"{camera.state.camera}.{name}", index)
        outputs = [ua.VariantType.Boolean]
        await parent.add_method(node_id, ua.QualifiedName(name, index), uamethod(method), inputs, outputs)


class _Trust:
    """How long what was written of a camera may be believed: until the newest message behind it is too old.

    Values ask for it when they are sent, so it holds for a Read and for what waits in a subscription alike, also in a
    bridge that was held up, by SIGSTOP for instance, and answers before it refreshes.
    """

    def __init__(self, state: CameraState) -> None:
        self._state = state
        self.message: Result | None = None

    def is_over(self) -> bool:
        return self.message is not None and not self._state.is_current(self.message)


@functools.cache
def _trusted_value() -> type[ua.DataValue]:
    from asyncua import ua

    class TrustedValue(ua.DataValue):  # type: ignore[misc]
        """A value that is Bad from the moment on at which its trust is over."""

        is_over: Callable[[], bool] = staticmethod(lambda: False)

        def __getattribute__(self, name: str) -> Any:
            if name in ("Value", "StatusCode") and object.__getattribute__(self, "is_over")():
                is_value = name == "Value"
                return ua.Variant() if is_value else ua.StatusCode(ua.StatusCodes.BadNoCommunication)
            return object.__getattribute__(self, name)

        def __deepcopy__(self, memo: object) -> ua.DataValue:
            return ua.DataValue(self.Value, self.StatusCode, self.SourceTimestamp, self.ServerTimestamp)

    return TrustedValue


class _CameraObject:
    """One camera in the address space."""

    def __init__(
        self,
        state: CameraState,
        triggers: Triggers,
        nodes: dict[str, Node],
        events: EventGenerator,
        space: AddressSpace,
    ) -> None:
        self.state, self._triggers = state, triggers
        self._nodes, self._events, self._space = nodes, events, space
        self._trust = _Trust(state)
        self._written: tuple[Standing, bool] | None = None
        self._waiting: deque[Result] = deque(maxlen=MAX_EVENTS)
        self._lock = asyncio.Lock()
        self._log = LimitedLog()

    def offer(self, result: Result) -> None:
        self._triggers.answer(result.trigger_id)
        if result.verdict is Verdict.ANOMALOUS:
            self._waiting.append(result)

    async def trigger(self, part_id: str | None = None) -> bool:
        """Ask the line; true when it took the trigger. From then on nothing is good that it does not answer."""
        loop = asyncio.get_running_loop()
        is_taken: asyncio.Future[bool] = loop.create_future()
        line = None if self.state.standing().fault else self.state.line()
        self._triggers.ask(line, lambda taken: loop.call_soon_threadsafe(is_taken.set_result, taken), part_id)
        await self._refresh_values()
        return await is_taken

    async def trigger_part(self, part_id: object) -> ua.StatusCode | bool:
        """Ask the line for the verdict about a part."""
        from asyncua import ua

        if not isinstance(part_id, str) or not ID_PATTERN.fullmatch(part_id):
            self._log.warn(f"OPC UA: camera {self.state.camera}: part {part_id!r:.80} is refused; use {ID_RULE}")
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        return await self.trigger(part_id)

    async def refresh(self, beats: int) -> None:
        await self._refresh_values()
        await self._write_heartbeat(beats)
        while self._waiting:
            await self._send_event(self._waiting.popleft())

    async def _refresh_values(self) -> None:
        async with self._lock:
            standing, line = self.state.standing(), self.state.line()
            if line is not None:
                self._triggers.note_line(line)
            signals = self._triggers.signals(not standing.fault)
            if signals.is_unanswered and standing.is_good:  # that is about the part before
                standing = replace(standing, verdict=Verdict.STALE)
            if self._trust.is_over() or standing.fault:
                if self._trust.is_over() and not standing.fault:
                    # Who was told so meanwhile hears of what comes now, even if it is the same as before.
                    silent = replace(standing, verdict=Verdict.FAULT, fault=Fault.SILENCE)
                    await self._write(silent, is_busy=signals.is_busy)
                self._trust = _Trust(self.state)
            if (standing, signals.is_busy) != self._written:
                self._written = standing, signals.is_busy
                self._trust.message = None if standing.fault else standing.message
                await self._write(standing, is_busy=signals.is_busy)

    async def _write(self, standing: Standing, *, is_busy: bool) -> None:
        from asyncua import ua

        trusted, message = _trusted_value(), None if standing.fault is Fault.SILENCE else standing.message
        values = {**camera_values(standing, message), "Busy": is_busy}
        captured = time_from_ns((message.captured_ns if message else None) or now_ns())
        published = time_from_ns(message.published_ns if message else now_ns())
        bad = ua.StatusCode(getattr(ua.StatusCodes, _BAD[standing.fault])) if standing.fault else ua.StatusCode()
        for variable in VARIABLES:
            if variable.name in values:
                status = bad if variable.about_result else ua.StatusCode()
                source = captured if variable.about_result else published
                value = trusted(_value(values[variable.name], variable), status, source, time_from_ns(now_ns()))
                if variable.about_result:
                    object.__setattr__(value, "is_over", self._trust.is_over)
                node_id = self._nodes[variable.name].nodeid
                await self._space.write_attribute_value(node_id, ua.AttributeIds.Value, value)

    async def _write_heartbeat(self, beats: int) -> None:
        from asyncua import ua

        value = ua.Variant(beats & 0xFFFFFFFF, ua.VariantType.UInt32)
        now = time_from_ns(now_ns())
        await self._nodes["Heartbeat"].write_attribute(ua.AttributeIds.Value, ua.DataValue(value, ua.StatusCode(), now))

    async def _send_event(self, result: Result) -> None:
        event = self._events.event
        event.Camera = result.camera
        values = result_values(result)
        for name in EVENT_FIELDS:
            setattr(event, name, values[name])
        text = event_text(result)
        await self._events.trigger(time_from_ns(result.captured_ns or result.published_ns), text)


def event_text(result: Result) -> str:
    """What an event says to a person about an anomalous result."""
    peak = result.peak, result.pixel_threshold, result.peak_xy
    numbers = (
        "" if result.score is None else f": {explained(result.score, result.image_threshold, *peak, result.decided_by)}"
    )
    part = "" if result.part_id is None else f" of part {result.part_id!r}"
    num_regions = len(result.regions)
    at_least = "at least " if num_regions == MAX_REGIONS else ""
    regions = f"{at_least}{num_regions} region{'' if num_regions == 1 else 's'}"
    return f"{result.camera}: frame {result.frame_id}{part} is anomalous{numbers}; {regions}"


def _variant_type(kind: str) -> ua.VariantType:
    from asyncua import ua

    return ua.VariantType[kind.removesuffix("[]")]


def _value(value: object, variable: Variable) -> ua.Variant:
    from asyncua import ua

    is_array = variable.is_array
    return ua.Variant(value, _variant_type(variable.kind), is_array=is_array)

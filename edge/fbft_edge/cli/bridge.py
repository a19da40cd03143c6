"""The command `fbft-edge bridge`: arguments in, a running bridge out until a signal comes.

Knows nothing about the protocols; each bridge loads what it needs when it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fbft_edge.cli.options import add_client_keys
from fbft_edge.errors import ArgumentError
from fbft_edge.names import DEFAULT_CAMERA, DEFAULT_SITE, RESULTS_ENDPOINT

if TYPE_CHECKING:
    from fbft_edge.bridges.camera_state import CameraState, Feed, Listener
    from fbft_edge.bridges.handshake import SendTriggerOf
    from fbft_edge.sockets.subscriber import ResultSubscriber

REFRESH_S = 0.02

Commands = argparse._SubParsersAction


def add_bridge(parser: argparse.ArgumentParser) -> None:
    """Declare `bridge` with its three kinds."""
    parser.description = (
        "Read a publisher and show its results to a PLC until SIGINT or SIGTERM comes. Silence of more "
        "than two periods is shown as a fault; only the verdict ok is good."
    )
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_modbus(kinds)
    _add_opcua(kinds)
    _add_mqtt(kinds)


def _add_modbus(kinds: Commands[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser(
        "modbus",
        help="a Modbus TCP server",
        description="Serve 125 registers per camera over Modbus TCP: one camera to any unit, several as 1, 2, ...",
    )
    _add_source(parser)
    _add_commands(parser)
    add = parser.add_argument
    add("--listen", default="127.0.0.1:5020", metavar="HOST:PORT", help="where to serve (default: %(default)s)")
    add("--handshake", action="store_true", help="results wait until the PLC acknowledges them (default: the newest)")
    add("--insecure", action="store_true", help="allow to listen beyond this machine; Modbus knows no password")
    parser.set_defaults(command=_modbus)


def _add_opcua(kinds: Commands[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser(
        "opcua",
        help="an OPC UA server",
        description="Serve each camera's variables and events over OPC UA, signed and encrypted with Basic256Sha256; "
        "on this machine without encryption, too.",
    )
    _add_source(parser)
    _add_commands(parser)
    add = parser.add_argument
    add("--listen", default="127.0.0.1:4840", metavar="HOST:PORT", help="where to serve (default: %(default)s)")
    add(
        "--keys",
        type=Path,
        default=Path("opcua-keys"),
        metavar="DIR",
        help="holds certificate.der and key.pem, made when missing (default: ./%(default)s)",
    )
    add("--user", metavar="NAME", help="who may log in; nobody may without a password then")
    add("--password-file", type=Path, metavar="FILE", help="of the user (default: the variable FBFT_OPCUA_PASSWORD)")
    add("--insecure", action="store_true", help="allow clients beyond this machine without password and encryption")
    parser.set_defaults(command=_opcua)


def _add_mqtt(kinds: Commands[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser(
        "mqtt",
        help="publish to an MQTT broker",
        description="Publish each camera's newest result, retained, to fbft/SITE/CAMERA/result on an MQTT broker, "
        "which says fault there when this bridge is gone; anomalous results go to fbft/SITE/CAMERA/anomaly, too.",
    )
    _add_source(parser)
    add = parser.add_argument
    add(
        "--broker",
        default="mqtt://127.0.0.1:1883",
        metavar="URL",
        help="mqtt://HOST:PORT, or mqtts:// for TLS (default: %(default)s)",
    )
    add("--user", metavar="NAME", help="who this bridge is to the broker")
    add("--password-file", type=Path, metavar="FILE", help="of the user (default: the variable FBFT_MQTT_PASSWORD)")
    add(
        "--ca", type=Path, metavar="FILE", help="certificates that the broker's is checked with (default: the system's)"
    )
    add("--certificate", type=Path, metavar="FILE", help="of this bridge, for brokers that ask for one")
    add("--key", type=Path, metavar="FILE", help="of that certificate")
    add("--insecure", action="store_true", help="allow a broker beyond this machine without TLS")
    parser.set_defaults(command=_mqtt)


def _add_source(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--connect", default=RESULTS_ENDPOINT, metavar="ENDPOINT", help="publisher (default: %(default)s)")
    add("--site", default=DEFAULT_SITE, metavar="NAME", help="site in the topic (default: %(default)s)")
    add(
        "--camera",
        action="append",
        metavar="NAME",
        help=f"camera in the topic; may stand several times (default: {DEFAULT_CAMERA})",
    )
    add(
        "--period",
        type=_period,
        metavar="SECONDS",
        help="between messages; two without one are a fault (default, and at most: learned from the line)",
    )
    add_client_keys(parser)


def _add_commands(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--commands", metavar="ENDPOINT", help="the line's command socket, for triggers (default: none are taken)")
    add(
        "--anyone-may-trigger",
        action="store_true",
        help="pass on triggers of clients that nobody knows: of all who reach this bridge's port, whatever rights the "
        "command socket has",
    )


def _period(text: str) -> float:
    period_s = float(text)
    if not 0.001 <= period_s <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0.001 to 3600")
    return period_s


def _modbus(args: argparse.Namespace) -> int:
    return asyncio.run(_run_modbus(args))


async def _run_modbus(args: argparse.Namespace) -> int:
    from fbft_edge.bridges.listening import address_from_text
    from fbft_edge.bridges.modbus import Station, modbus_server

    address = address_from_text(args.listen)
    with contextlib.ExitStack() as stack:
        send = _send_trigger(args, stack, "Modbus knows no password")
        stations = [Station(state, args.handshake, send) for state in _states(args)]
        by_camera = {station.state.camera: station for station in stations}
        states = [station.state for station in stations]
        feed = stack.enter_context(_feed(args, states, lambda state, result: by_camera[state.camera].offer(result)))
        async with modbus_server(stations, lambda: feed.beats, address, insecure=args.insecure):
            mode = "handshake" if args.handshake else "newest result"
            await _run(feed, f"Modbus TCP on {args.listen}, {mode}; {_cameras(args)}")
    return 0


def _opcua(args: argparse.Namespace) -> int:
    return asyncio.run(_run_opcua(args))


async def _run_opcua(args: argparse.Namespace) -> int:
    from fbft_edge.bridges.listening import address_from_text
    from fbft_edge.bridges.opcua import Access, opcua_server
    from fbft_edge.bridges.passwords import password_from

    address = address_from_text(args.listen)
    password = password_from(args.user, args.password_file, "FBFT_OPCUA_PASSWORD")
    access = Access(args.keys, args.user, password, args.insecure)
    with contextlib.ExitStack() as stack:
        send = _send_trigger(args, stack, "there is no --user with a password" if password is None else None)
        states = _states(args)
        async with opcua_server(states, address, access, send) as server:
            feed = stack.enter_context(_feed(args, states, server.listener))
            about = f"OPC UA on opc.tcp://{args.listen}; {_cameras(args)}"
            await _run(feed, about, lambda: server.refresh(feed.beats))
    return 0


def _mqtt(args: argparse.Namespace) -> int:
    return asyncio.run(_run_mqtt(args))


async def _run_mqtt(args: argparse.Namespace) -> int:
    from fbft_edge.bridges.mqtt import Uplink, broker_from_url
    from fbft_edge.bridges.passwords import password_from

    broker = broker_from_url(
        args.broker,
        user=args.user,
        password=password_from(args.user, args.password_file, "FBFT_MQTT_PASSWORD"),
        ca=args.ca,
        certificate=args.certificate,
        key=args.key,
        insecure=args.insecure,
    )
    states = _states(args)
    with contextlib.ExitStack() as stack:
        uplinks = {state.camera: stack.enter_context(Uplink(broker, args.site, state)) for state in states}
        feed = stack.enter_context(_feed(args, states, lambda state, result: uplinks[state.camera].offer(result)))

        async def refresh() -> None:
            for uplink in uplinks.values():
                uplink.refresh()

        await _run(feed, f"MQTT to {args.broker}; {_cameras(args)}", refresh)
    return 0


async def _run(feed: Feed, about: str, refresh: Callable[[], Awaitable[None]] | None = None) -> None:
    """Receive, and refresh every 20 ms, until a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    feed.start()
    print(f"fbft-edge bridge: {about}", file=sys.stderr, flush=True)
    while not stop.is_set():
        if not feed.is_alive:
            raise RuntimeError("the receiving thread has ended")
        if refresh is not None:
            await refresh()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), REFRESH_S)


def _states(args: argparse.Namespace) -> list[CameraState]:
    from fbft_edge.bridges.camera_state import CameraState

    return [CameraState(camera, args.period) for camera in _names(args)]


def _names(args: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(args.camera or [DEFAULT_CAMERA]))


def _cameras(args: argparse.Namespace) -> str:
    return f"{args.site}/{', '.join(_names(args))} from {args.connect}"


def _feed(args: argparse.Namespace, states: list[CameraState], listener: Listener) -> Feed:
    from fbft_edge.bridges.camera_state import Feed

    return Feed(_subscriber(args), states, listener)


def _subscriber(args: argparse.Namespace) -> ResultSubscriber:
    from fbft_edge.sockets.subscriber import ResultSubscriber

    keys = {"server_key": args.server_key, "secret_key": args.secret_key}
    return ResultSubscriber(args.connect, site=args.site, camera=_names(args), every=True, **keys)


def _send_trigger(
    args: argparse.Namespace, stack: contextlib.ExitStack, why_unknown: str | None
) -> SendTriggerOf | None:
    """The way to the line; `why_unknown` says why the bridge cannot tell who pulls a trigger, None that it can."""
    from fbft_edge.bridges.trigger_sender import TriggerSender

    if args.commands is None:
        return None
    if why_unknown is not None and not args.anyone_may_trigger:
        raise ArgumentError(
            f"--commands would let everybody who reaches {args.listen} trigger the line, other users of this machine "
            f"included: {why_unknown}; leave it out, or add --anyone-may-trigger if only the PLC reaches that port"
        )
    sender = TriggerSender(args.commands, server_key=args.server_key, secret_key=args.secret_key)
    return stack.enter_context(sender).send

"""The commands of a line: arguments in, a running line, its messages, or what would run out.

Knows nothing about how a line works; each command loads what it needs when it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbft_edge.cli.exit_status import refuse
from fbft_edge.cli.options import add_client_keys, add_engine, add_sharpen, count, seconds
from fbft_edge.errors import ConfigError, MessageError
from fbft_edge.names import (
    COMMANDS_ENDPOINT,
    DEFAULT_CAMERA,
    DEFAULT_SITE,
    RELOAD_COMMAND,
    RESULTS_ENDPOINT,
    STATUS_COMMAND,
    TRIGGER_COMMAND,
)
from fbft_edge.ranges import FPS

if TYPE_CHECKING:
    from fbft_edge.config.line_config import LineConfig


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declare `run`."""
    parser.description = (
        "Inspect a camera's frames and publish one message per period until the camera ends, the "
        "duration is over, or SIGINT or SIGTERM comes. Cameras: 0 (an index), v4l2:///dev/video0, "
        "rtsp://..., gige://SERIAL, csi://0, gstreamer:PIPELINE, file:///clip.mp4?loop=true, folder:///images?fps=5, "
        "synthetic://?fps=30&defect_every=3 (docs/cameras.md). "
        "Options win over the configuration file."
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="the line's configuration, TOML (docs/configuration.md)")
    add("--bundle", metavar="B", help="the product's bundle, a folder NAME.fbft; required unless FILE names one")
    add(
        "--camera",
        action="append",
        dest="cameras",
        metavar="[NAME=]URI",
        help="index or URI of a camera, and its name in the topic; required unless FILE has cameras; may be repeated",
    )
    add_engine(parser)
    add_sharpen(parser, argparse.BooleanOptionalAction)
    add("--fps", type=float, help=f"messages per second, {FPS} (default: 30)")
    add("--bind", metavar="ENDPOINT", help=f"tcp:// or ipc:// (default: {RESULTS_ENDPOINT})")
    add("--site", metavar="NAME", help=f"site in the topic (default: {DEFAULT_SITE})")
    add("--camera-name", metavar="NAME", help=f"name of the only --camera in the topic (default: {DEFAULT_CAMERA})")
    add("--duration", type=float, metavar="SECONDS", help="stop after so long (default: go on)")
    flag = argparse.BooleanOptionalAction
    add("--insecure", action=flag, help="allow results to leave this machine in clear text")
    add("--secret-key", metavar="FILE", help="encrypt with this key, made by keygen (default: $FBFT_SECRET_KEY_FILE)")
    add("--clients", metavar="FOLDER", help="the public keys that are let in; the folder commands in it: to command")
    add("--preview", action=flag, help="add a small JPEG of each inspected frame")
    add("--log", choices=("text", "json"), default="text", help="stderr for people or for machines (default: text)")
    parser.set_defaults(command=_run, engine=None, usage_error=parser.error)


def config_from_args(args: argparse.Namespace) -> LineConfig:
    """The configuration of `run`: the file, if there is one, and the options that were given, which win.

    Raises:
        ConfigError: Something cannot be used; the message has all problems.
    """
    from fbft_edge.config.line_config import Override, read_config
    from fbft_edge.sockets.keys import secret_key_file

    secret_key = args.secret_key or (args.clients and secret_key_file(None))
    if args.config is None and (args.bundle is None or args.cameras is None):
        args.usage_error("--bundle and --camera are required, or --config with a file that has both")
    if args.camera_name is not None and len(args.cameras or ()) != 1:
        args.usage_error("--camera-name names the only --camera; write --camera NAME=URI to name several")
    given = (
        Override("bundle", args.bundle, "--bundle"),
        Override("cameras", _camera_tables(args.cameras or (), args.camera_name) or None, "--camera"),
        Override("engine", args.engine, "--engine"),
        Override("sharpen", args.sharpen, "--sharpen"),
        Override("fps", args.fps, "--fps"),
        Override("publish.bind", args.bind, "--bind"),
        Override("publish.insecure", args.insecure, "--insecure"),
        Override("curve.secret_key", secret_key and str(secret_key), "--secret-key"),
        Override("curve.clients", args.clients, "--clients"),
        Override("site", args.site, "--site"),
        Override("duration_s", args.duration, "--duration"),
        Override("preview", args.preview, "--preview"),
    )
    return read_config(args.config, [override for override in given if override.value is not None])


def _camera_tables(texts: Sequence[str], only_name: str | None) -> list[dict[str, str]]:
    """Each `[NAME=]URI` as the file would have it; `=` separates a name where no `/` or `:` stands before it."""
    tables = []
    for number, text in enumerate(texts, 1):
        name, separator, uri = text.partition("=")
        if not separator or "/" in name or ":" in name:
            name, uri = DEFAULT_CAMERA if len(texts) == 1 else f"{DEFAULT_CAMERA}-{number}", text
        tables.append({"name": name if only_name is None else only_name, "uri": uri})
    return tables


def _run(args: argparse.Namespace) -> int:
    from fbft_edge.cli.console import StatusDisplay, say, summaries_text
    from fbft_edge.line.assembly import run_line
    from fbft_edge.service.logs import logging_to_stderr

    read_again = (lambda: config_from_args(args)) if args.config is not None else None
    config, is_read = config_from_args(args), args.log == "text"
    with logging_to_stderr(args.log), StatusDisplay() as shown:
        summaries = run_line(config, read_again, say=say if is_read else None, show=shown.show if is_read else None)
    print(summaries_text(summaries))
    return 0


def add_check_config(parser: argparse.ArgumentParser) -> None:
    """Declare `check-config`."""
    parser.description = (
        "Check a line's configuration, its bundle, keys, folders and endpoints without starting anything, "
        "and show what would run. The status is 2 when something would not."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the line's configuration, TOML")
    parser.set_defaults(command=_check_config)


def _check_config(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.cli.reports import show_config
    from fbft_edge.config.line_config import problem_lines, read_config
    from fbft_edge.jobs.check_config import check_config

    config = read_config(args.file)
    findings = check_config(config)
    show_config(config, findings, Console(highlight=False))
    if problems := [f"{args.file}: {found.key}: {found.problem}" for found in findings if found.problem is not None]:
        raise ConfigError(problem_lines(problems))
    return 0


def add_install_service(parser: argparse.ArgumentParser) -> None:
    """Declare `install-service`."""
    parser.description = (
        "Print a systemd unit for a line, with no more rights than its configuration needs. Nothing is "
        "installed: docs/operations.md says what to do with it."
    )
    add = parser.add_argument
    add("--print", action="store_true", required=True, help="print it on standard output")
    add("--config", type=Path, required=True, metavar="FILE", help="the line's configuration, TOML")
    add("--user", default="fbft", metavar="NAME", help="account that the line runs as (default: %(default)s)")
    parser.set_defaults(command=_install_service)


def _install_service(args: argparse.Namespace) -> int:
    from fbft_edge.config.line_config import read_config
    from fbft_edge.jobs.service_unit import service_unit

    file, program = args.config.absolute(), Path(sys.executable).with_name("fbft-edge")
    command = [str(program)] if program.exists() else [sys.executable, "-m", "fbft_edge"]
    print(service_unit(read_config(file), file, command, args.user), end="")
    return 0


def add_listen(parser: argparse.ArgumentParser) -> None:
    """Declare `listen`."""
    parser.description = "Show one line per message. A message that is not valid is reported on stderr."
    add = parser.add_argument
    add(
        "--connect",
        default=RESULTS_ENDPOINT,
        metavar="ENDPOINT",
        help="publisher's endpoint (default: %(default)s)",
    )
    add("--count", type=count, metavar="N", help="stop after so many messages (default: go on)")
    add(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="give up after so long without one (default: wait)",
    )
    add("--json", action="store_true", help="one JSON object per line, without mask and preview")
    add_client_keys(parser)
    parser.set_defaults(command=_listen)


def _listen(args: argparse.Namespace) -> int:
    from fbft_edge.cli.console import print_result
    from fbft_edge.sockets.subscriber import ResultSubscriber

    received = 0
    keys = {"server_key": args.server_key, "secret_key": args.secret_key}
    with ResultSubscriber(args.connect, every=True, **keys) as results:
        while args.count is None or received < args.count:
            try:
                result = results.receive(args.timeout)
            except MessageError as error:
                refuse("fbft-edge", str(error))
                continue
            if result is None:
                return refuse(
                    "fbft-edge",
                    f"no message from {args.connect} within {args.timeout:g} s after {received} messages; "
                    f"check that fbft-edge run publishes there, and with CURVE its key and whether it knows ours",
                )
            received += 1
            print_result(result, as_json=args.json)
    return 0


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare `command`."""
    parser.description = "Give a running line one command over its command socket and show its answer, a JSON object."
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")
    trigger = verbs.add_parser(TRIGGER_COMMAND, help="let a camera take a frame")
    trigger.add_argument("--camera", required=True, metavar="NAME", help="the camera's name in the topic")
    trigger.add_argument("--trigger-id", metavar="ID", help="comes back in the message that answers")
    trigger.add_argument("--part-id", metavar="ID", help="part or serial number; comes back as well")
    status = verbs.add_parser(STATUS_COMMAND, help="what the line does")
    reload = verbs.add_parser(RELOAD_COMMAND, help="inspect with another bundle from the next frame on")
    reload.add_argument("bundle", metavar="BUNDLE", help="the bundle's path on the line's machine")
    reload.add_argument(
        "--force",
        action="store_true",
        help="take it even if most verdicts differ from those just given, or if there is no frame to try it on: for a "
        "change of product",
    )
    for verb, timeout_s in ((trigger, 5.0), (status, 5.0), (reload, 600.0)):
        add = verb.add_argument
        about = "the line's command socket (default: %(default)s)"
        add("--connect", metavar="ENDPOINT", default=COMMANDS_ENDPOINT, help=about)
        add("--timeout", type=seconds, default=timeout_s, metavar="SECONDS", help="default: %(default)g")
        add_client_keys(verb)
    parser.set_defaults(command=_command)


def _command(args: argparse.Namespace) -> int:
    import json

    from fbft_edge.sockets.command_client import CommandClient

    named = {name: getattr(args, name, None) for name in ("camera", "trigger_id", "part_id", "bundle", "force")}
    arguments = {name: value for name, value in named.items() if value is not None}
    with CommandClient(args.connect, server_key=args.server_key, secret_key=args.secret_key) as line:
        print(json.dumps(line.call(args.verb, timeout_s=args.timeout, **arguments), indent=2))
    return 0

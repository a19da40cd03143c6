"""The command `fbft-edge`: arguments in, an exit status out; each command loads what it needs when it runs.

Exit statuses are those of `fbft_edge.cli.exit_status`; `inspect` also ends with 1 when an image got no verdict (or,
with `--fail-on-anomaly`, an anomalous one).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fbft_edge.cli.bridge import add_bridge
from fbft_edge.cli.exit_status import exit_status, refuse
from fbft_edge.errors import MessageError

if TYPE_CHECKING:
    from fbft_edge.config import LineConfig

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
ENGINES = ("auto", "openvino", "tensorrt", "tensorrt-rtx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = _parser().parse_args(argv)
    return exit_status("fbft-edge", lambda: int(args.command(args)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fbft-edge", description="Visual inspection on the line: frames in, verdicts and masks out."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('fbft-edge')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_demo,
        _add_run,
        _add_check_config,
        _add_install_service,
        _add_inspect,
        _add_listen,
        _add_command,
        _add_bench,
        _add_doctor,
        _add_replay,
        _add_sign,
        _add_verify,
        _add_keygen,
        add_bridge,
    ):
        add(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole job on synthetic parts, no hardware needed",
        description="Render parts, fit a bundle, run a line on a synthetic camera, inspect parts with "
        "defects of 3 to 40 px; a table and a picture show what came of it. A second run uses "
        "the same bundle.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("fbft-demo"), metavar="DIR", help="folder (default: ./%(default)s)")
    add("--seconds", type=float, default=15.0, help="how long the line runs (default: %(default)g)")
    add("--fresh", action="store_true", help="render and fit again in any case")
    parser.set_defaults(command=_demo)


def _demo(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.jobs.demo import run_demo

    print(run_demo(args.out, args.seconds, args.fresh, Console(highlight=False)))
    return 0


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="inspect a camera's frames and publish the results",
        description="Inspect a camera's frames and publish one message per period until the camera ends, the "
        "duration is over, or SIGINT or SIGTERM comes. Cameras: 0 (an index), v4l2:///dev/video0, "
        "rtsp://..., gige://SERIAL, csi://0, gstreamer:PIPELINE, file:///clip.mp4?loop=true, folder:///images?fps=5, "
        "synthetic://?fps=30&defect_every=3 (docs/cameras.md). "
        "Options win over the configuration file.",
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
    _add_engine(parser)
    _add_sharpen(parser, argparse.BooleanOptionalAction)
    add("--fps", type=float, help="messages per second, 0.01 to 1000 (default: 30)")
    add("--bind", metavar="ENDPOINT", help=f"tcp:// or ipc:// (default: {DEFAULT_ENDPOINT})")
    add("--site", metavar="NAME", help="site in the topic (default: site)")
    add("--camera-name", metavar="NAME", help="name of the only --camera in the topic (default: camera)")
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
    from fbft_edge.config import Override, read_config
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
            name, uri = "camera" if len(texts) == 1 else f"camera-{number}", text
        tables.append({"name": name if only_name is None else only_name, "uri": uri})
    return tables


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what infers; auto takes the fastest that the bundle holds and this machine can run, and says why",
    )


def _add_sharpen(parser: argparse.ArgumentParser, action: str | type[argparse.Action]) -> None:
    parser.add_argument(
        "--sharpen",
        action=action,
        help="redraw what is flagged along the frame's own edges; verdicts stay (docs/refinement.md)",
    )


def _run(args: argparse.Namespace) -> int:
    from fbft_edge.cli.console import progress, say, summaries_text
    from fbft_edge.line.assembly import run_line
    from fbft_edge.service.logs import logging_to_stderr

    read_again = (lambda: config_from_args(args)) if args.config is not None else None
    config, is_read = config_from_args(args), args.log == "text"
    with logging_to_stderr(args.log), progress() as shown:
        summaries = run_line(config, read_again, say=say if is_read else None, show=shown.show if is_read else None)
    print(summaries_text(summaries))
    return 0


def _add_check_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check-config",
        help="what a configuration would run, and what would stop it",
        description="Check a line's configuration, its bundle, keys, folders and endpoints without starting anything, "
        "and show what would run. The status is 2 when something would not.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the line's configuration, TOML")
    parser.set_defaults(command=_check_config)


def _check_config(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.config import read_config
    from fbft_edge.jobs.check_config import show_config

    show_config(read_config(args.file), args.file, Console(highlight=False))
    return 0


def _add_install_service(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "install-service",
        help="print a systemd unit for a line",
        description="Print a systemd unit for a line, with no more rights than its configuration needs. Nothing is "
        "installed: docs/operations.md says what to do with it.",
    )
    add = parser.add_argument
    add("--print", action="store_true", required=True, help="print it on standard output")
    add("--config", type=Path, required=True, metavar="FILE", help="the line's configuration, TOML")
    add("--user", default="fbft", metavar="NAME", help="account that the line runs as (default: %(default)s)")
    parser.set_defaults(command=_install_service)


def _install_service(args: argparse.Namespace) -> int:
    from fbft_edge.config import read_config
    from fbft_edge.jobs.service_unit import unit_text

    file, program = args.config.absolute(), Path(sys.executable).with_name("fbft-edge")
    command = [str(program)] if program.exists() else [sys.executable, "-m", "fbft_edge"]
    print(unit_text(read_config(file), file, command, args.user), end="")
    return 0


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="inspect image files",
        description="Inspect image files and folders of them; write masks/, overlays/, results.jsonl (one "
        "line per image) and overview.png. The status is 1 when an image has no verdict.",
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("images", type=Path, nargs="+", metavar="IMAGES", help="image files, or folders of them")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for what is found")
    _add_engine(parser)
    _add_sharpen(parser, "store_true")
    add("--refine", action="store_true", help="redraw what is flagged to the pixel, in seconds (docs/refinement.md)")
    add("--weights", type=Path, metavar="FILE", help="local teacher weights for --refine, .safetensors")
    add("--fail-on-anomaly", action="store_true", help="status 1 when an image is anomalous, too")
    parser.set_defaults(command=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.jobs.inspection import inspect, report

    redraw = {"sharpen": args.sharpen, "refine": args.refine, "weights": args.weights}
    inspection = inspect(args.bundle, args.images, args.out, args.engine, **redraw)
    report(inspection, args.out, Console(highlight=False))
    return inspection.exit_status(args.fail_on_anomaly)


def _add_listen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "listen",
        help="show the messages of a publisher",
        description="Show one line per message. A message that is not valid is reported on stderr.",
    )
    add = parser.add_argument
    add(
        "--connect",
        default=DEFAULT_ENDPOINT,
        metavar="ENDPOINT",
        help="publisher's endpoint (default: %(default)s)",
    )
    add("--count", type=_count, metavar="N", help="stop after so many messages (default: go on)")
    add(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up after so long without one (default: wait)",
    )
    add("--json", action="store_true", help="one JSON object per line, without mask and preview")
    _add_client_keys(parser)
    parser.set_defaults(command=_listen)


def _add_client_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server-key", type=Path, metavar="FILE", help="public key of a line that encrypts, NAME.key")
    parser.add_argument(
        "--secret-key", type=Path, metavar="FILE", help="one's own NAME.key_secret (default: $FBFT_SECRET_KEY_FILE)"
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 1000000")
    return seconds


def _listen(args: argparse.Namespace) -> int:
    from fbft_edge.cli.console import print_result
    from fbft_edge.sockets.subscriber import ResultSubscriber

    received = 0
    with ResultSubscriber(args.connect, server_key=args.server_key, secret_key=args.secret_key) as results:
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


def _add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "command",
        help="trigger a camera, ask a running line for its status, give it another bundle",
        description="Give a running line one command over its command socket and show its answer, a JSON object.",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")
    trigger = verbs.add_parser("trigger", help="let a camera take a frame")
    trigger.add_argument("--camera", required=True, metavar="NAME", help="the camera's name in the topic")
    trigger.add_argument("--trigger-id", metavar="ID", help="comes back in the message that answers")
    status = verbs.add_parser("status", help="what the line does")
    reload = verbs.add_parser("reload", help="inspect with another bundle from the next frame on")
    reload.add_argument("bundle", metavar="BUNDLE", help="the bundle's path on the line's machine")
    reload.add_argument(
        "--force",
        action="store_true",
        help="take it even if it calls most frames anomalous that were ok just now: for a change of product",
    )
    for verb, timeout_s in ((trigger, 5.0), (status, 5.0), (reload, 600.0)):
        add = verb.add_argument
        add("--connect", metavar="ENDPOINT", help="the line's command socket (default: ipc:///run/fbft/commands)")
        add("--timeout", type=_seconds, default=timeout_s, metavar="SECONDS", help="default: %(default)g")
        _add_client_keys(verb)
    parser.set_defaults(command=_command)


def _command(args: argparse.Namespace) -> int:
    import json

    from fbft_edge.sockets.command_client import DEFAULT_ENDPOINT, CommandClient

    named = {name: getattr(args, name, None) for name in ("camera", "trigger_id", "bundle", "force")}
    arguments = {name: value for name, value in named.items() if value is not None}
    endpoint = args.connect or DEFAULT_ENDPOINT
    with CommandClient(endpoint, server_key=args.server_key, secret_key=args.secret_key) as line:
        print(json.dumps(line.call(args.verb, timeout_s=args.timeout, **arguments), indent=2))
    return 0


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="time every stage of a frame",
        description="Time every stage of a frame beside what this machine can do at best; the last line is JSON.",
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("--frame-size", type=_frame_size, metavar="HxW", help="default: the size that the bundle was fitted on")
    add("--repeats", type=int, default=7, metavar="N", help="the median of so many (default: %(default)s)")
    parser.set_defaults(command=_bench)


def _frame_size(text: str) -> tuple[int, int]:
    height, width = (int(part) for part in text.lower().split("x"))
    if not (0 < height <= 16384 and 0 < width <= 16384):
        raise argparse.ArgumentTypeError(f"{text} is not a height and width from 1 to 16384, such as 1036x1036")
    return height, width


def _bench(args: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from fbft_edge.bundle.reading import open_bundle
    from fbft_edge.jobs.bench import run_bench

    bundle = open_bundle(args.bundle)
    height, width = args.frame_size or next(iter(bundle.frame_sizes), (1036, 1036))
    print(json.dumps(run_bench(bundle, height, width, args.repeats, Console(highlight=False))))
    return 0


def _add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "replay",
        help="run recordings through a bundle again",
        description="Run recordings through a bundle and compare verdict, score and mask with what was published; "
        "write results.jsonl and, when some differ, differences.png. On the same engine and machine every bit is the "
        "same. The status is 1 when a recording differs or cannot be replayed.",
    )
    add = parser.add_argument
    add("recordings", type=Path, nargs="+", metavar="RECORDINGS", help="the recorder's folder, a day or camera in it")
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("--out", type=Path, default=Path("fbft-replay"), metavar="DIR", help="folder (default: ./%(default)s)")
    _add_engine(parser)
    _add_sharpen(parser, "store_true")
    add(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="let the score change by this share of the image threshold, and the masks' intersection over union be "
        "this far from 1; for other machines and engines, 0.02 say (default: %(default)g, every bit the same)",
    )
    parser.set_defaults(command=_replay)


def _replay(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.jobs.replay import replayed
    from fbft_edge.jobs.replay_report import report, write_results

    compared = replayed(args.recordings, args.bundle, args.engine, args.tolerance, sharpen=args.sharpen)
    summary = write_results(compared, args.out)
    report(summary, args.out, Console(highlight=False))
    return summary.exit_status


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="what this machine can run, and what is missing",
        description="Show engines, cameras and extras of this machine; what is missing comes with the remedy.",
    )
    parser.add_argument("--bundle", type=Path, metavar="B", help="show this bundle's engines and their memory, too")
    parser.set_defaults(command=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.bundle.reading import open_bundle
    from fbft_edge.jobs.doctor import run_doctor

    run_doctor(Console(highlight=False), open_bundle(args.bundle) if args.bundle else None)
    return 0


def _add_sign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "sign",
        help="sign a bundle for lines that trust your key",
        description="Verify a bundle's files, then sign it with an Ed25519 key: bundle.json.sig has 64 bytes over the "
        "exact bytes of bundle.json, which hold the SHA-256 of every file. Changing the bundle removes the signature.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="a folder NAME.fbft")
    add("--key", type=Path, required=True, metavar="SECRET", help="secret key, PEM, mode 0600: release.key_secret")
    parser.set_defaults(command=_sign)


def _sign(args: argparse.Namespace) -> int:
    from fbft_edge.bundle.sealing import sign_bundle
    from fbft_edge.bundle.signing import secret_fingerprint

    bundle = sign_bundle(args.bundle, args.key)
    print(f"{args.bundle}: {bundle.product}, bundle {bundle.sha256[:16]}, signed by key {secret_fingerprint(args.key)}")
    return 0


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "verify",
        help="check that a bundle is whole, and who signed it",
        description="Check every file of a bundle against its manifest, and the manifest's signature against trusted "
        "keys, as a line does before it takes the bundle. The same signature with openssl: openssl pkeyutl -verify "
        "-pubin -inkey release.pub -rawin -in bundle.json -sigfile bundle.json.sig",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="a folder NAME.fbft")
    add("--key", type=Path, action="append", default=[], metavar="PUBLIC", help="trusted public key; may be repeated")
    parser.set_defaults(command=_verify)


def _verify(args: argparse.Namespace) -> int:
    from fbft_edge.bundle.reading import open_bundle

    bundle = open_bundle(args.bundle, args.key)
    signed = "signed by a trusted key" if args.key else "its signature was not asked for (--key)"
    print(f"{args.bundle}: {bundle.product}, bundle {bundle.sha256[:16]}, {len(bundle.files)} files whole; {signed}")
    return 0


def _add_keygen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "keygen",
        help="make a CURVE key pair for a line or for a program that reads or commands it, or one that signs bundles",
        description="Make a CURVE key pair, NAME.key and NAME.key_secret; with --signing an Ed25519 pair, NAME.pub and "
        "NAME.key_secret. Nothing is overwritten.",
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder; made for its owner alone if it is not there")
    add("--signing", action="store_true", help="keys for fbft-edge sign and [trust], not for a socket")
    add("--name", help="what the keys are called (default: line; with --signing: release)")
    parser.set_defaults(command=_keygen)


def _keygen(args: argparse.Namespace) -> int:
    if args.signing:
        return _signing_keygen(args.out, "release" if args.name is None else args.name)
    from fbft_edge.sockets.keys import write_key_pair

    public, secret = write_key_pair(args.out, "line" if args.name is None else args.name)
    print(f"{secret}: stays on this machine, for --secret-key or FBFT_SECRET_KEY_FILE")
    print(f"{public}: of a line, copy it to those who connect, for --server-key; of anyone else, copy it to the line,")
    print("  into the folder of --clients to let it read results, into the folder commands in that to let it command")
    return 0


def _signing_keygen(out: Path, name: str) -> int:
    from fbft_edge.bundle.signing import fingerprint, write_signing_keys

    secret, public = write_signing_keys(out, name)
    print(f"{secret}: stays with who releases bundles, for fbft-edge sign --key")
    print(f"{public}: key {fingerprint(public)}, copy it to every line, for keys in [trust]")
    return 0

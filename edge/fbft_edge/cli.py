"""The command `fbft-edge`: arguments in, an exit status out; each command loads what it needs when it runs.

Exit statuses are those of `fbft_edge.exit_status`; `inspect` also ends with 1 when an image got no verdict (or,
with `--fail-on-anomaly`, an anomalous one).
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbft_edge.errors import MessageError
from fbft_edge.exit_status import exit_status, refuse

if TYPE_CHECKING:
    from fbft_edge.pipeline import Pipeline, Summary

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
SHOW_EVERY_S = 0.25
ENGINES = ("auto", "openvino", "tensorrt", "tensorrt-rtx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = _parser().parse_args(argv)
    return exit_status("fbft-edge", lambda: int(args.command(args)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fbft-edge", description="Visual inspection on the line: frames in, verdicts and masks out."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_run, _add_inspect, _add_listen, _add_bench, _add_doctor):
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

    from fbft_edge.demo import run_demo

    print(run_demo(args.out, args.seconds, args.fresh, Console(highlight=False)))
    return 0


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="inspect a camera's frames and publish the results",
        description="Inspect a camera's frames and publish one message per period until the camera ends, the "
        "duration is over, or SIGINT or SIGTERM comes. Cameras: 0 (an index), v4l2:///dev/video0, "
        "rtsp://..., file:///clip.mp4?loop=true, folder:///images?fps=5, synthetic://?fps=30&defect_every=3.",
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("--camera", required=True, metavar="URI", help="index or URI of the camera")
    _add_engine(parser)
    add("--fps", type=float, default=30.0, help="messages per second, 0.01 to 1000 (default: %(default)g)")
    add("--bind", default=DEFAULT_ENDPOINT, metavar="ENDPOINT", help="tcp:// or ipc:// (default: %(default)s)")
    add("--site", default="site", metavar="NAME", help="site in the topic (default: %(default)s)")
    add("--camera-name", default="camera", metavar="NAME", help="camera in the topic (default: %(default)s)")
    add("--duration", type=float, metavar="SECONDS", help="stop after so long (default: go on)")
    add("--insecure", action="store_true", help="allow a TCP bind beyond this machine, in clear text")
    add("--preview", action="store_true", help="add a small JPEG of each inspected frame")
    parser.set_defaults(command=_run)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what infers; auto takes the fastest that the bundle holds and this machine can run, and says why",
    )


def _run(args: argparse.Namespace) -> int:
    from fbft_edge.bundle import open_bundle
    from fbft_edge.cameras import open_camera
    from fbft_edge.cameras.video import without_password
    from fbft_edge.console import summary_text
    from fbft_edge.detectors.selection import open_detector
    from fbft_edge.pipeline import Pipeline, Settings
    from fbft_edge.publisher import ResultPublisher

    bundle = open_bundle(args.bundle)
    threshold = bundle.require_thresholds().image
    settings = Settings(args.fps, args.site, threshold, bundle.sha256, args.duration, args.preview)
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(contextlib.closing(open_camera(args.camera, args.camera_name)))
        bundle.require_frame_size(*camera.size, f"camera {without_password(args.camera)}")
        publisher = stack.enter_context(ResultPublisher(args.bind, insecure=args.insecure))
        opened = open_detector(bundle, *camera.size, camera.pixel_format, args.engine)
        detector = stack.enter_context(contextlib.closing(opened.detector))
        pipeline = Pipeline(camera, detector, publisher, settings)
        print(f"engine: {opened.reason}", file=sys.stderr)
        summary = _supervised(pipeline)
    print(summary_text(summary))
    return 0


def _supervised(pipeline: Pipeline) -> Summary:
    """Run a pipeline to its end or to a signal, showing how it goes."""
    from fbft_edge.console import progress

    with _stop_signals() as received:
        pipeline.start()
        try:
            with progress() as shown:
                while not received and not pipeline.wait(SHOW_EVERY_S):
                    shown.show(pipeline.status())
        finally:
            summary = pipeline.stop()
    return summary


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being ended by them."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda number, _: received.append(number)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


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
    add("--fail-on-anomaly", action="store_true", help="status 1 when an image is anomalous, too")
    parser.set_defaults(command=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.inspection import inspect, report

    inspection = inspect(args.bundle, args.images, args.out, args.engine)
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
    add("--count", type=int, metavar="N", help="stop after so many messages (default: go on)")
    add(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up after so long without one (default: wait)",
    )
    add("--json", action="store_true", help="one JSON object per line, without mask and preview")
    parser.set_defaults(command=_listen)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 1000000")
    return seconds


def _listen(args: argparse.Namespace) -> int:
    from fbft_edge.console import print_result
    from fbft_edge.subscriber import ResultSubscriber

    received = 0
    with ResultSubscriber(args.connect) as results:
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
                    f"check that fbft-edge run publishes there",
                )
            received += 1
            print_result(result, as_json=args.json)
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

    from fbft_edge.bench import run_bench
    from fbft_edge.bundle import open_bundle

    bundle = open_bundle(args.bundle)
    height, width = args.frame_size or next(iter(bundle.frame_sizes), (1036, 1036))
    print(json.dumps(run_bench(bundle, height, width, args.repeats, Console(highlight=False))))
    return 0


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

    from fbft_edge.bundle import open_bundle
    from fbft_edge.doctor import run_doctor

    run_doctor(Console(highlight=False), open_bundle(args.bundle) if args.bundle else None)
    return 0

"""`fbft-edge run` and `listen` as a user meets them: exit statuses, streams, signals, and no traceback."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fbft_edge.bundle.reading import Bundle
from fbft_edge.cli.console import result_json, result_line, status_line, summary_text
from fbft_edge.cli.main import main
from fbft_edge.config.line_config import CameraConfig, LineConfig, PublishConfig
from fbft_edge.frames.frame import Detection, Frame, Verdict
from fbft_edge.line.assembly import run_line
from fbft_edge.line.pipeline import Status, Summary
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import DROP_CAUSES, LedgerSnapshot
from fbft_edge.messages.reading import decode_message
from fbft_edge.messages.writing import MessageWriter, encode_detection, encode_no_detection
from fbft_edge.sockets.subscriber import ResultSubscriber

SIDE = 84
LEDGER = LedgerSnapshot(3, 1, 1, 0, {**dict.fromkeys(DROP_CAUSES, 0), "replaced": 2}, 0)


@pytest.fixture(scope="module")
def bundle(bright_bundle: Callable[..., Bundle]) -> Path:
    return bright_bundle(SIDE, frame_sizes=((SIDE, SIDE),)).path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    sink = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (SIDE, SIDE))
    for level in [20] * 15 + [240] * 5:
        sink.write(np.full((SIDE, SIDE, 3), level, np.uint8))
    sink.release()
    return path


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/results"


def command(*arguments: object, program: tuple[str, ...] = ("-m", "fbft_edge")) -> list[str]:
    return [sys.executable, *program, *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60)


@contextlib.contextmanager
def started(*arguments: object, program: tuple[str, ...] = ("-m", "fbft_edge")) -> Iterator[subprocess.Popen[str]]:
    line = command(*arguments, program=program)
    # A shell's background jobs ignore SIGINT and hand that down; a program that a person starts does not.
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# run


def test_a_video_runs_to_its_end(bundle: Path, video: Path, endpoint: str) -> None:
    done = run("run", "--bundle", bundle, "--camera", video, "--fps", "20", "--bind", endpoint)
    assert (done.returncode, "captured 20" in done.stdout) == (0, True), done.stderr


def test_a_line_runs_from_python_in_any_thread_and_prints_nothing(
    bundle: Path, video: Path, endpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    camera = CameraConfig("press-1", f"file://{video}?loop=true")
    config = LineConfig(bundle, (camera,), fps=50, duration_s=0.5, publish=PublishConfig(endpoint))
    with ThreadPoolExecutor() as threads:
        summaries = threads.submit(run_line, config).result()
    assert ({name: summary.ledger.messages for name, summary in summaries.items()}, *capfd.readouterr()) == (
        {"press-1": 25},
        "",
        "",
    )


def test_who_runs_a_line_is_told_what_was_opened_and_how_it_goes(bundle: Path, video: Path, endpoint: str) -> None:
    camera = CameraConfig("press-1", f"file://{video}?loop=true")
    config = LineConfig(bundle, (camera,), fps=50, duration_s=0.5, publish=PublishConfig(endpoint))
    said: list[str] = []
    shown: list[str] = []
    run_line(config, say=said.append, show=shown.extend)
    assert ([line.split(":")[0] for line in said], set(shown)) == (["engine", "results"], {"press-1"})


def test_a_duration_gives_an_exact_number_of_messages(bundle: Path, video: Path, endpoint: str) -> None:
    camera = f"file://{video}?loop=true"
    done = run("run", "--bundle", bundle, "--camera", camera, "--fps", "50", "--duration", "0.5", "--bind", endpoint)
    assert re.search(r"^messages +25 in", done.stdout, re.MULTILINE), done.stdout + done.stderr


def test_verdicts_reach_a_subscriber(bundle: Path, video: Path, endpoint: str) -> None:
    with ResultSubscriber(endpoint, site="hall-3", camera="press-1", every=True) as subscriber:
        names = ("--site", "hall-3", "--camera-name", "press-1", "--bind", endpoint, "--preview")
        with started("run", "--bundle", bundle, "--camera", f"file://{video}?loop=true", *names):
            seen = {}
            while not {Verdict.OK, Verdict.ANOMALOUS} <= seen.keys():
                result = subscriber.receive(30)
                assert result is not None
                seen[result.verdict] = result
    assert (seen[Verdict.OK].mask.sum(), seen[Verdict.ANOMALOUS].mask.shape) == (0, (SIDE, SIDE))
    assert seen[Verdict.ANOMALOUS].preview_jpeg is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_its_summary(bundle: Path, video: Path, endpoint: str, number: int) -> None:
    with started("run", "--bundle", bundle, "--camera", f"file://{video}?loop=true", "--bind", endpoint) as process:
        with ResultSubscriber(endpoint, every=True) as subscriber:
            assert subscriber.receive(30) is not None
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, "in flight 0" in output, "Traceback" in errors) == (0, True, False), errors


def test_a_closed_terminal_does_not_stop_publishing(bundle: Path, video: Path, endpoint: str) -> None:
    chatty = "import sys\nfrom fbft_edge.cli import console, main\nconsole.LOG_EVERY_S = 0.1\nsys.exit(main.main())"
    options = ("--bundle", bundle, "--bind", endpoint, "--camera", f"file://{video}?loop=true")
    with (
        started("run", *options, program=("-c", chatty)) as process,
        ResultSubscriber(endpoint, every=True) as subscriber,
    ):
        assert subscriber.receive(30) is not None
        process.stdout.close()
        process.stderr.close()
        process.stdout = process.stderr = None
        last = [subscriber.receive(5) for _ in range(40)][-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    assert last is not None


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--bundle", "/nowhere.fbft", "/nowhere.fbft is not a bundle"),
        ("--camera", "/nowhere.mp4", "/nowhere.mp4 is not a file"),
        ("--camera", "/dev/null", "is not a file"),
        ("--bind", "tcp://0.0.0.0:5555", "--insecure"),
        ("--fps", "0", "--fps from 0.01 to 1000"),
        ("--duration", "-1", "--duration above 0"),
        ("--site", "a/b", "site name 'a/b' cannot stand in a topic"),
        ("--camera-name", "", "camera name '' cannot stand in a topic"),
    ],
)
def test_a_user_error_is_one_line_and_status_2(
    bundle: Path,
    video: Path,
    endpoint: str,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    words: str,
) -> None:
    options = {"--bundle": str(bundle), "--camera": str(video), "--bind": endpoint, option: value}
    status = main(["run", *(f"{name}={text}" for name, text in options.items())])
    output, errors = capsys.readouterr()
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("fbft-edge: error: ")
    assert words in errors


def test_a_camera_of_another_size_is_refused_before_anything_is_published(
    bundle: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = "synthetic://?height=96&width=112"
    assert main(["run", "--bundle", str(bundle), "--camera", camera, "--bind", endpoint]) == 2
    assert "112x96 pixels" in capsys.readouterr().err


def test_a_bundle_without_thresholds_is_refused(
    bright_bundle: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bright_bundle(SIDE, thresholds=None)
    assert main(["run", "--bundle", str(raw.path), "--camera", "0"]) == 2
    assert "has no thresholds" in capsys.readouterr().err


# listen


@contextlib.contextmanager
def publishing(endpoint: str) -> Iterator[None]:
    """A real publisher in a process of its own, 50 stale messages a second."""
    program = (
        "import sys, time\n"
        "from fbft_edge.frames.frame import Verdict\n"
        "from fbft_edge.messages.ledger import Ledger\n"
        "from fbft_edge.messages.writing import Health, MessageWriter, encode_no_detection\n"
        "from fbft_edge.sockets.publisher import ResultPublisher\n"
        "publisher, ledger = ResultPublisher(sys.argv[1]), Ledger()\n"
        "writer = MessageWriter('hall-3', 'press-1', 0.5, 'ab' * 32)\n"
        "while True:\n"
        "    publisher.send([b'fbft/hall-3/press-1/result', b'{}', b''])\n"
        "    snapshot = ledger.publish_stale()\n"
        "    publisher.send(writer.write(encode_no_detection(), Verdict.STALE, 5, snapshot, Health('ok')))\n"
        "    time.sleep(0.02)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, endpoint])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_listen_shows_one_line_per_message(endpoint: str) -> None:
    with publishing(endpoint):
        done = run("listen", "--connect", endpoint, "--count", "3", "--timeout", "30")
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 3)
    assert all(re.match(r"hall-3/press-1 #\d+  stale", line) for line in lines)


def test_listen_shows_json_on_request(endpoint: str) -> None:
    with publishing(endpoint):
        done = run("listen", "--connect", endpoint, "--count", "2", "--timeout", "30", "--json")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["verdict"] for result in results] == ["stale", "stale"]


def test_listen_reports_invalid_messages_and_goes_on(endpoint: str) -> None:
    with publishing(endpoint):
        done = run("listen", "--connect", endpoint, "--count", "2", "--timeout", "30")
    assert done.stderr.startswith("fbft-edge: error: the header is no fbft.result/1: ")


def test_listen_gives_up_after_its_timeout(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--connect", endpoint, "--timeout", "0.1"]) == 2
    assert "no message from" in capsys.readouterr().err


def test_listen_refuses_an_endpoint_it_can_not_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--connect", "nonsense"]) == 2
    assert "cannot connect to 'nonsense'" in capsys.readouterr().err


def test_listen_ends_quietly_when_its_reader_leaves(endpoint: str) -> None:
    with publishing(endpoint), started("listen", "--connect", endpoint) as process:
        process.stdout.readline()
        process.stdout.close()
        status = process.wait(30)
        errors = process.stderr.read()
        process.stdout = None
    assert (status, "Traceback" in errors, "BrokenPipe" in errors) == (1, False, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_without_a_traceback(endpoint: str) -> None:
    with publishing(endpoint), Path("/dev/full").open("w") as full:
        arguments = command("listen", "--connect", endpoint, "--count", "1", "--timeout", "30")
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, "the disk is full" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


def test_an_interrupted_listen_leaves_no_traceback(endpoint: str) -> None:
    with publishing(endpoint), started("listen", "--connect", endpoint) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (130, False)


# Help and lines


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["listen", "--help"]])
def test_help_is_given(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: fbft-edge" in capsys.readouterr().out


@pytest.mark.parametrize("command_name", ["run", "listen"])
def test_help_names_the_default_endpoint(command_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command_name, "--help"])
    assert "tcp://127.0.0.1:5555" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["fly"], ["run"], ["run", "--bundle=x"]),
        *(["listen", "--count=x"], ["listen", "--count=-1"], ["listen", "--count=0"], ["listen", "--timeout=nan"]),
    ],
)
def test_wrong_arguments_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_loads_neither_opencv_nor_openvino() -> None:
    program = (
        "import sys\nfrom fbft_edge.cli.main import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not re.search(r"'(cv2|openvino|numpy|zmq)'", done.stdout)


@pytest.mark.parametrize("health", [Health("ok"), Health("degraded", "no new result for 6 s")])
def test_the_status_line_says_verdict_score_and_reason(health: Health) -> None:
    line = status_line(Status(Verdict.OK, 0.25, 31.0, health, LEDGER), 12.5).plain
    assert re.match(r"ok +score 0.2500  12.5 frames/s  latency 31 ms  captured 3 .*dropped replaced 2", line)
    assert (health.reason or "in flight 0") in line


def test_a_received_line_says_what_was_lost() -> None:
    parts = MessageWriter("hall-3", "press-1", 0.5, "ab" * 32).write(
        encode_no_detection(), Verdict.FAULT, 5, LEDGER, Health("fault", "camera: [red]gone")
    )
    line = result_line(replace(decode_message(parts), lost=4)).plain
    assert "lost 4" in line
    assert line.endswith("fault: camera: [red]gone")


def test_a_received_line_says_which_threshold_decided_and_where() -> None:
    frame = Frame("press-1", 7, 5, np.zeros((4, 4, 3), np.uint8))
    found = Detection(0.25, 0.9, np.ones((4, 4), bool), (), True, peak_xy=(3, 2), decided_by="pixel")
    encoded = encode_detection(frame, found)
    writer = MessageWriter("hall-3", "press-1", 0.5, "ab" * 32, pixel_threshold=0.75)
    result = decode_message(writer.write(encoded, encoded.verdict, 5, LEDGER, Health("ok")))
    assert "anomalous peak 0.9 above 0.75 at (3, 2)  frame 7" in result_line(result).plain
    told = json.loads(result_json(result))
    assert [told[name] for name in ("pixel_threshold", "decided_by", "peak", "peak_xy")] == [0.75, "pixel", 0.9, [3, 2]]


def test_a_received_json_line_is_json() -> None:
    parts = MessageWriter("hall-3", "press-1", 0.5, "ab" * 32).write(
        encode_no_detection(), Verdict.STALE, 5, LEDGER, Health("ok")
    )
    assert json.loads(result_json(decode_message(parts)))["ledger"]["dropped"]["replaced"] == 2


def test_on_a_terminal_a_run_keeps_to_one_live_line(bundle: Path, video: Path, endpoint: str) -> None:
    shown = on_terminal("run", "--bundle", bundle, "--camera", video, "--fps", "20", "--bind", endpoint)
    live, _, summary = shown.partition("session ")
    assert live.count("\n") <= 5  # endpoint, engine, what proves it, the age that is too late, and the live line
    assert live.count("\r") >= 2
    assert "captured 20" in summary


def test_on_a_terminal_verdicts_are_coloured(endpoint: str) -> None:
    with publishing(endpoint):
        shown = on_terminal("listen", "--connect", endpoint, "--count", "2", "--timeout", "30")
    assert "\x1b[33mstale" in shown


def on_terminal(*arguments: object) -> str:
    """What a command shows on a terminal of its own."""
    reading, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(command(*arguments), stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(reading, 4096):
            shown += block
    os.close(reading)
    process.wait(30)
    return shown.decode()


def test_the_summary_names_every_number() -> None:
    text = summary_text(Summary("id", LEDGER, 2.0, 10.0, (0.1, 0.2, 0.3), (11.0, 12.0, 13.0), "normal"))
    assert "messages    2 in 2.0 s" in text
    assert "p50 0.10  p99 0.20  max 0.30 ms (tick" in text

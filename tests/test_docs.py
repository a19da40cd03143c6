"""What the pages say is so: every command runs, every Python block runs, every TOML block is read, every link leads on.

Each page is worked through from top to bottom in a folder that holds what the pages name: a bundle, images, a
configuration, recordings. A line runs beside it. Where a page means another machine, a port that everybody has, or no
end, `Place.here` and `given_too` put what serves here; what cannot run here at all is in `NOT_RUN`, with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

import fbft_calibration.cli
import fbft_edge.cli.main
import fbft_export.cli
from fbft_edge.config.line_config import read_config
from fbft_edge.frames.images import write_image
from fbft_edge.jobs import service_unit
from fbft_edge.messages.writing import encode_mask
from fbft_edge.synthetic import render_part

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = ("docs/log.md", "docs/benchmarks/", "CHANGELOG.md")  # they say what was so, and stay
PROGRAMS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "fbft-edge": fbft_edge.cli.main.main,
    "fbft-calibrate": fbft_calibration.cli.main,
    "fbft-export": fbft_export.cli.main,
}
SHELL = ("mkdir", "cp", "ls", "openssl", "curl", "sha256sum")  # run as they stand, where the machine has them
DEADLINE_S = 60.0

# A command that begins so is not run here. Those of our own are parsed all the same.
NOT_RUN = {
    "fbft-edge run --bundle part.fbft --camera 0 --engine tensorrt": "an NVIDIA GPU",
    "fbft-edge run --bundle part.fbft --camera gstreamer:": "a camera, and an OpenCV with GStreamer",
    "fbft-export part.fbft --runtime tensorrt --timing-cache": "an NVIDIA GPU",
    "fbft-export part.fbft --runtime tensorrt-rtx": "takes a minute: tests/export/test_tensorrt_builder.py",
    "fbft-calibrate benchmark DATA --category": "fits once more: tests/calibration/benchmark",
    "fbft-calibrate benchmark DATA --peer": "anomalib, which is in no environment of tests",
    "fbft-edge bridge mqtt --broker mqtts://broker.example:8883": "a broker with TLS: tests/edge/bridges/test_mqtt.py",
    "fbft-edge command trigger": "a line with CURVE and [commands]: tests/edge/sockets/test_commands.py",
    "python3 tools/dev.py": "sets up an environment; its verbs are held to its usage below",
    "pre-commit install": "a hook in the checkout",
    "python tools/release.py": "takes minutes: tests/test_release.py",
    "pytest": "this is one",
    "source": "of the shell that a person types into",
    "export": "of the shell that a person types into",
    "nvidia-smi": "an NVIDIA GPU",
    "python3 -c import tensorrt; print(tensorrt.__version__)": "TensorRT, which comes from NVIDIA",
    "python -c import cv2; print(cv2.getBuildInformation())": "the system's OpenCV",
    "grep GStreamer": "the system's OpenCV",
    "python3 -m venv --system-site-packages .venv": "another environment",
    "python3 -m pip wheel": "tests/test_installation.py builds the wheel and installs it",
    "pip install": "another environment; the extras are held to pyproject.toml below",
    "pip uninstall": "another environment",
    "scp": "a second machine",
    "sudo apt install": "root",
    "sudo nvpmodel -m 0": "a Jetson",
    "sudo jetson_clocks": "a Jetson",
    "sudo python3 -m venv": "root",
    "sudo /opt/fbft-edge/bin/pip install": "root",
    "sudo ln": "root",
    "sudo useradd": "root",
    "sudo install": "root",
    "sudo cp": "root",
    "sudo chgrp": "root",
    "sudo tee": "root",
    "sudo systemctl": "systemd",
    "systemctl": "systemd",
    "journalctl": "systemd",
    "jq": "reads what systemd's journal has",
    "mosquitto_sub": "a broker: tests/edge/bridges/test_mqtt.py",
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def said(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def named_tests(cell: str) -> Iterator[tuple[str, str]]:
    """What a cell of docs/safety.md names: `FILE`: words of a test's name; more words; `FILE`, `FILE`: words."""
    names: list[str] = []
    for part in cell.split(";"):
        *said, words = part.split(":")
        names = re.findall(r"`([^`]+)`", part) or names
        yield from ((name, words if said or "`" not in part else "") for name in names)


def is_a_test(name: str, words: str) -> bool:
    """Whether one file of that name or path has a test in whose name these words stand."""
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if file.match(name)]
    slug = "_".join(re.findall(r"\w+", words.lower()))
    return (
        len(files) == 1 and slug != "" and any(slug in test for test in re.findall(r"def (test_\w+)", read(files[0])))
    )


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a bash block, pipes and `&&` taken apart; a here-document is the last word."""
    lines = iter(text.splitlines())
    for line in lines:
        heredoc = re.search(r" <<'(\w+)'$", line)
        if heredoc:
            body = "\n".join(iter(lambda: next(lines), heredoc[1]))
            yield [*shlex.split(line[: heredoc.start()]), body]
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;"):
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def without_sudo(words: list[str]) -> list[str]:
    words = words[1:] if words[0] == "sudo" else words
    return words[2:] if words[0] == "-u" else words


def why_not_run(words: list[str]) -> str | None:
    text = " ".join(words)
    return next((reason for start, reason in NOT_RUN.items() if f"{text} ".startswith(start)), None)


ALL = [
    (page, words)
    for page in PAGES
    for block in blocks(page)
    if block.language == "bash"
    for words in commands(block.text)
]
OURS = {" ".join(words): words for _, given in ALL if (words := without_sudo(given))[0] in PROGRAMS}


# What can be seen without running anything


@pytest.mark.parametrize("words", OURS.values(), ids=" ".join)
def test_every_command_in_the_docs_is_understood(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse complains of an option that it does not know only when it has understood all others."""
    with pytest.raises(SystemExit):
        PROGRAMS[words[0]]([*words[1:], "--no-such-option"])
    assert "error: unrecognized arguments: --no-such-option\n" in capsys.readouterr().err


def test_every_option_that_a_sentence_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = []
    for page in PAGES:
        if said(page).startswith(HISTORY):
            continue
        prose = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
        for text in re.findall(r"`((?:fbft-edge|fbft-calibrate|fbft-export) [a-z][^`]*)`", prose):
            program, *rest = text.split()
            verbs = [] if program == "fbft-export" else verbs_of(rest)
            with pytest.raises(SystemExit) as left:
                PROGRAMS[program]([*verbs, "--help"])
            known = capsys.readouterr().out
            options = [word for word in rest if word.startswith("--")]
            unknown += [(said(page), text) for word in options if word not in known or left.value.code]
    assert unknown == []


def verbs_of(words: Sequence[str]) -> list[str]:
    """The command, and for `bridge` and `command` its kind."""
    return list(words[: 2 if words[0] in ("bridge", "command") else 1])


def test_every_reason_not_to_run_a_command_is_still_needed() -> None:
    starts = [start for start in NOT_RUN if not any(why_not_run(words) == NOT_RUN[start] for _, words in ALL)]
    texts = [" ".join(words) + " " for _, words in ALL]
    assert [start for start in NOT_RUN if not any(text.startswith(start) for text in texts)] == starts == []


@pytest.mark.parametrize("words", [words for _, words in ALL if words[:2] == ["python3", "tools/dev.py"]], ids=" ".join)
def test_every_verb_of_the_set_up_is_in_its_usage(words: list[str]) -> None:
    usage = subprocess.run([sys.executable, str(ROOT / words[1])], capture_output=True, text=True, check=False).stdout
    assert " ".join(words[1:3]) in usage


@pytest.mark.parametrize("page", PAGES, ids=said)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", read(page))
    lost = [link for link, _ in links if not (page.parent / link).exists()]
    for link, heading in links:
        target = page.parent / link if link else page
        if heading and target.suffix == ".md" and heading not in headings(target):
            lost.append(f"{link}#{heading}")
    assert lost == []


def test_every_way_of_being_wrong_names_a_test_that_is_there() -> None:
    page = read(ROOT / "docs/safety.md").partition("## Ways of being wrong")[2].partition("\n## ")[0]
    rows = [row.strip("| ").rsplit(" | ", 2) for row in page.splitlines() if row.startswith("| ")][2:]
    lost = [(way, *test) for way, _, cell in rows for test in named_tests(cell) if not is_a_test(*test)]
    assert (lost, len(rows) > 10) == ([], True)


ARCHITECTURE = ROOT / "docs/architecture.md"
PACKAGES = ("edge/fbft_edge", "export/fbft_export", "calibration/fbft_calibration")


def tree() -> list[Path]:
    """What the tree of docs/architecture.md names, folders and files, from the root."""
    above: list[Path] = []
    named = []
    for line in next(block.text for block in blocks(ARCHITECTURE) if "edge/fbft_edge/" in block.text).splitlines():
        found = re.match(r"((?:    ){0,2})(\S+)(?:  |$)", line)
        if found:
            above[len(found[1]) // 4 :] = [Path(found[2])]
            named.append(ROOT.joinpath(*above))
    return named


def test_the_tree_names_only_what_there_is() -> None:
    assert [path for path in tree() if not path.exists()] == []


def test_the_tree_names_every_folder_of_the_packages_and_tools() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES, "tools"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    folders = {ROOT / folder for file in tracked for folder in Path(file).parents if len(folder.parts) > 1}
    assert {folder for folder in folders if "stubs" not in folder.parts} - set(tree()) == set()


def test_every_module_that_a_page_names_is_there() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = tracked.splitlines()
    lost = [
        (said(page), name)
        for page in PAGES
        if not said(page).startswith(HISTORY)
        for name in re.findall(r"(?<![\w./*-])(?:[\w-]+/)*\w+\.(?:py|cu|schema\.json)\b", read(page))
        if not any(f"/{file}".endswith(f"/{name}") for file in files)
    ]
    assert lost == []


def headings(page: Path) -> set[str]:
    """Of a page, as links name them."""
    titles = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_extra_in_the_docs_exists() -> None:
    named = {
        extra.strip()
        for page in PAGES
        for extras in re.findall(r"pip install [^\n`]*?\[([a-z, -]+)\]", read(page))
        for extra in extras.split(",")
    }
    assert named - set(metadata("fbft-edge").get_all("Provides-Extra") or ()) == set()


def test_no_command_takes_the_project_from_an_index_that_does_not_carry_it() -> None:
    installs = [words for _, words in ALL if "install" in words and any(word.endswith("pip") for word in words)]
    assert [words for words in installs if any(re.match(r"fbft[-_]edge(\[|$)", word) for word in words)] == []


# What is run

CAMERA = "synthetic://?height=140&width=182&fps=5"
SMALL_FIT = ("--steps", "5", "--tile", "112", "--prototypes", "16")
FIT = "fbft-calibrate fit images/good --out part.fbft"
LINE = f"""
bundle = "part.fbft"
fps = 10.0

[[cameras]]
name = "camera"
uri = "{CAMERA}"

[publish]
bind = "ipc://results"
"""
BESIDE = """
[commands]
bind = "ipc://commands"

[http]
bind = "127.0.0.1:{port}"

[recorder]
folder = "recorded"
nominal_every = 1
"""
RECORDING = "recordings/2026-11-21/press-1/14-03-22.512-anomalous-3f2a9c1e-1234"  # as docs/recordings.md has it


class Process:
    """A program of ours that goes on until it is ended; what it says is kept."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._log = folder / f"{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "fbft_edge", *arguments]
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_for(self, is_there: Callable[[], object]) -> None:
        ended = "the program ended"
        seen = wait_until(lambda: is_there() or (self._popen.poll() is not None and ended), "what the page says")
        assert seen != ended, self.said()

    def end(self) -> None:
        """As systemd would; what runs well leaves with status 0."""
        self._popen.terminate()
        try:
            status = self._popen.wait(DEADLINE_S)
        finally:
            self._popen.kill()
        assert status == 0, self.said()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Place:
    """The folder in which a page is worked through, the line beside it, and what the page has started."""

    folder: Path
    line: Path
    http_port: int
    seen: set[str]
    started: list[Process] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    ports: dict[str, int] = field(default_factory=dict)

    def port(self, of: str) -> int:
        """A free port in the place of one that everybody has, the same whenever it is asked for."""
        return self.ports.setdefault(of, free_port())

    def here(self, text: str) -> str:
        """A word of a command, or a Python block, with what serves here in the place of what the page names."""
        for meant, here in (
            ("tcp://127.0.0.1:5555", f"ipc://{self.line}/results"),
            ("ipc:///run/fbft/commands", f"ipc://{self.line}/commands"),
            ("tcp://*:5555", f"tcp://127.0.0.1:{self.port('curve')}"),
            ("tcp://LINE:5555", f"tcp://127.0.0.1:{self.port('curve')}"),
            ("192.168.1.10:502", f"127.0.0.1:{self.port('modbus beyond')}"),
            ("192.168.1.10:4840", f"127.0.0.1:{self.port('opcua beyond')}"),
            ("http://127.0.0.1:9090", f"http://127.0.0.1:{self.http_port}"),
            ("port=5020", f"port={self.port('fbft-edge bridge modbus')}"),
            ("/etc/fbft-edge/", ""),
            ("/srv/bundles/", ""),
            ("timeout_s=1.0", f"timeout_s={DEADLINE_S}"),
            ("duration_s=60.0", "duration_s=0.2"),
        ):
            text = text.replace(meant, here)
        return text


def given_too(words: Sequence[str], place: Place) -> list[str]:
    """Options that make a command end soon, ask for little, and meet the line that runs here."""
    options = {
        "fbft-calibrate fit": SMALL_FIT,
        "fbft-calibrate refine": ("--iterations", "1"),
        "fbft-edge bench": ("--repeats", "1"),
        "fbft-edge listen": ("--count", "1", "--timeout", str(DEADLINE_S), "--connect", f"ipc://{place.line}/results"),
        "fbft-edge command": ("--connect", f"ipc://{place.line}/commands"),
        "fbft-edge run": ("--duration", "0.2", "--bind", f"ipc://{place.folder}/results"),
        "fbft-edge bridge modbus": ("--listen", f"127.0.0.1:{place.port(' '.join(words))}"),
        "fbft-edge bridge opcua": ("--listen", f"127.0.0.1:{place.port(' '.join(words))}"),
    }
    given = next((options[start] for start in options if " ".join(words).startswith(start)), ())
    pairs = zip(given[::2], given[1::2], strict=True)
    ours = [word for option, value in pairs if option not in words for word in (option, value)]
    if words[:2] == ["fbft-edge", "bridge"]:
        ours += ["--connect", f"ipc://{place.line}/results"]
    return ours


def images(folder: Path, seeds: range, defects: tuple[float, ...] = ()) -> None:
    """Rendered parts; the masks of a test folder's lie where a data set has them."""
    for seed in seeds:
        part = render_part(seed, 140, 182, defects)
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{seed}.png", part.pixels)
        if folder.parent.name == "test" and defects:
            masks = folder.parents[1] / "ground_truth" / folder.name
            masks.mkdir(parents=True, exist_ok=True)
            write_image(masks / f"{seed}_mask.png", part.mask.astype(np.uint8) * 255)


@pytest.fixture(scope="module")
def http_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def prepared(http_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the pages name, the bundle made by the README's own command; and a line that runs there."""
    pytest.importorskip("torch", reason="fitting needs the extra calibration")
    folder = tmp_path_factory.mktemp("docs")
    images(folder / "images/good", range(12))
    images(folder / "images/more-good", range(12))  # the held-out ones again, so that no threshold becomes worse
    images(folder / "images/new", range(200, 202), (24.0,))
    images(folder / "DATA/bottle/train/good", range(12))
    images(folder / "DATA/bottle/test/good", range(300, 302))
    images(folder / "DATA/bottle/test/pit", range(400, 402), (24.0,))
    results = ROOT / "docs/benchmarks/2026-11-21-peers"
    shutil.copytree(results / "fbft-edge", folder / "benchmarks/DATA")
    shutil.copytree(results / "fbft-edge-paper-distance", folder / "benchmarks/DATA-paper")
    shutil.copytree(results / "padim", folder / "benchmarks/DATA/peers/padim")
    (folder / "line.toml").write_text(LINE, encoding="utf-8")
    (folder / "beside.toml").write_text(LINE + BESIDE.format(port=http_port), encoding="utf-8")
    (folder / "opcua.password").write_text("secret", encoding="utf-8")
    (folder / "opcua.password").chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert PROGRAMS["fbft-calibrate"]([*FIT.split()[1:], *SMALL_FIT]) == 0
    for name in ("new.fbft", "next.fbft", "part-2.fbft"):
        shutil.copytree(folder / "part.fbft", folder / name, copy_function=os.link)
    line = Process(("run", "--config", "beside.toml"), folder)
    line.wait_for(lambda: sorted(folder.glob("recorded/*/camera/[0-9]*")))
    yield folder
    line.end()


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Commands that leave nothing behind and ran on an earlier page."""
    return set()


@pytest.fixture
def place(
    prepared: Path, http_port: int, seen: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A folder of the page's own, in which it may change what it likes."""
    folder = tmp_path / "page"
    leave = shutil.ignore_patterns("recorded", "results", "commands")
    shutil.copytree(prepared, folder, copy_function=os.link, ignore=leave)
    shutil.copytree(min(prepared.glob("recorded/*/camera/[0-9]*")), folder / RECORDING)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(service_unit, "PRIVATE", ())  # a service could not see this folder, where it lies in /tmp
    made = Place(folder, prepared, http_port, seen)
    yield made
    for process in made.started:
        process.end()


def names_given(page: Path) -> dict[str, Any]:
    """What a page's Python takes as given, where it is not made on the page."""
    part = render_part(7, 140, 182, (24.0,))
    loop = {"is_running": iter([True, True, False]).__next__, "write_output": lambda accept: None}
    if said(page) == "docs/api.md":
        return loop
    if said(page) == "docs/message.md":
        return {"part": encode_mask(part.mask), "height": 140, "width": 182, **loop}
    if said(page) == "docs/refinement.md":
        return {"nominal": [render_part(seed, 140, 182).pixels for seed in range(4)], "pixels": part.pixels}
    return {}


def what_is_left(page: Path, names: Mapping[str, Any]) -> object:
    """What a page's Python has to come to."""
    if said(page) == "docs/message.md":
        mask = render_part(7, 140, 182, (24.0,)).mask
        return np.array_equal(names["mask"], mask) and names["result"] is not None
    if said(page) == "docs/refinement.md":
        return names["refinement"].mask.any()
    return True


def run_ours(words: list[str], place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A command of ours; one without an end goes on until the page ends."""
    if (words[:2] == ["fbft-edge", "run"] and "--config" not in words) or "--camera" in words:
        words = [CAMERA if word in ("0", "synthetic://") else word for word in words]
    is_endless = words[1] == "bridge" or "--clients" in words
    arguments = [place.here(word) for word in words[1:]] + given_too(words, place)
    if is_endless:
        if "--clients" in words:
            arguments = arguments[: arguments.index("--duration")]
        process = Process(arguments, place.folder)
        place.started.append(process)
        process.wait_for(lambda: "fbft-edge bridge: " in process.said() or "results: " in process.said())
        return
    status = PROGRAMS[words[0]](arguments)
    shown = capsys.readouterr()
    expected = (0, 1) if words[1] == "replay" and "--sharpen" in words else (0,)  # 1: it was published without
    assert status in expected, f"{' '.join(words)}: status {status}\n{shown.out}\n{shown.err}"


def run_command(given: list[str], place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One command of a page; an unknown program fails."""
    words = without_sudo(given)
    if why_not_run(given) is not None:
        return
    text = " ".join(words)
    if text == FIT or text in place.seen:
        return  # it made the bundle; another page had the same, which leaves nothing behind
    if words[:2] in (["fbft-edge", "run"], ["fbft-edge", "doctor"]) and "--clients" not in words:
        place.seen.add(text)
    if words[0] in PROGRAMS:
        run_ours(words, place, capsys)
        return
    program = sys.executable if words[0] in ("python", "python3") else shutil.which(words[0])
    assert words[0] in SHELL or words[:2] == ["python3", "-"], f"{' '.join(given)}: neither run nor in NOT_RUN"
    if program is None:
        return
    body = place.here(words.pop()) if words[0] == "python3" else None
    here = [
        path
        for word in words[1:]
        for path in (sorted(map(str, Path().glob(word))) if "*" in word else [place.here(word)])
    ]
    done = subprocess.run(
        [program, *here], cwd=place.folder, input=body, capture_output=True, text=True, errors="replace", timeout=60
    )
    assert done.returncode == 0, f"{' '.join(given)}: {done.stdout}{done.stderr}"


def completed(toml: str) -> str:
    """A configuration with what a block of a page leaves out."""
    bundle = "" if re.search("^bundle", toml, re.MULTILINE) else 'bundle = "part.fbft"\n'
    camera = "" if "[[cameras]]" in toml else '\n[[cameras]]\nname = "press-1"\nuri = "0"\n'
    return bundle + toml + camera


WORKED_THROUGH = [
    page for page in PAGES if {block.language for block in blocks(page)} & {"bash", "python", "toml", "json"}
]


@pytest.mark.parametrize("page", WORKED_THROUGH, ids=said)
def test_a_page_does_what_it_says(page: Path, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.names.update(names_given(page))
    for block in blocks(page):
        if block.language == "bash":
            for words in commands(block.text):
                run_command(words, place, capsys)
        elif block.language == "python":
            exec(compile(place.here(block.text), said(page), "exec"), place.names)
        elif block.language == "toml":
            file = place.folder / "block.toml"
            file.write_text(completed(block.text), encoding="utf-8")
            read_config(file)
        elif block.language == "json":
            json.loads(block.text)
    assert what_is_left(page, place.names)

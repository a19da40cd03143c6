"""Parsers of outside input keep their promises on damaged inputs, and the fuzzer notices those that do not."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzzing.damage import damaged
from tools.fuzzing.inputs import CORPUS
from tools.fuzzing.parsers import PARSERS

ROOT = Path(__file__).resolve().parents[2]
INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.name.startswith(("ok", "bad")))


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_valid_inputs_of_the_corpus_are_accepted_and_bad_ones_refused(path: Path, tmp_path: Path) -> None:
    parser = PARSERS[path.parent.name](tmp_path)
    try:
        parser.parse(parser.parts(path.read_bytes()))
        found = "ok"
    except parser.errors:
        found = "bad"
    assert path.name.startswith(found)


def test_every_parser_has_a_corpus_with_valid_and_bad_inputs() -> None:
    found = {(path.parent.name, path.name.split("-")[0]) for path in INPUTS}
    assert found == {(name, kind) for name in PARSERS for kind in ("ok", "bad")}


def run(*arguments: str | Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """The tool in a process of its own, after some code of ours."""
    program = f"import sys; from tools.fuzzing import __main__, parsers, promises\n{code}\nsys.exit(__main__.main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("name", PARSERS)
def test_hundreds_of_damaged_inputs_break_no_promise(name: str, tmp_path: Path) -> None:
    shutil.copytree(CORPUS / name, tmp_path / name)
    done = run("--parser", name, "--count", "300", "--seed", "1", "--blind", "--corpus", tmp_path)
    found = json.loads(done.stdout)["parsers"][name]
    assert (done.returncode, found["inputs"], found["broken"]) == (0, 300, {}), done.stderr[-3000:]


def test_the_same_seed_gives_the_same_inputs() -> None:
    seeds = [path.read_bytes() for path in INPUTS if path.parent.name == "message"]
    parser = PARSERS["message"](Path())

    def inputs() -> list[bytes]:
        chance = random.Random(5)
        return [damaged(parser, chance.choice(seeds), seeds, chance) for _ in range(200)]

    assert inputs() == inputs()


BROKEN = {
    "another error": ("raise KeyError(1)", "KeyError"),
    "no end": ("while True: pass", "TooSlow"),
    "waits": ("import time; time.sleep(60)", "died"),
    "memory": ("bytearray(1 << 40)", "MemoryError"),
    "a dead process": ("os.kill(os.getpid(), 11)", "died"),
    "terminal codes": (r"raise ValueError('\x1b[2J')", "AssertionError"),
    "an exit": ("raise SystemExit(0)", "SystemExit"),
}


@pytest.mark.parametrize(("statement", "kind"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_noticed_and_its_input_kept(tmp_path: Path, statement: str, kind: str) -> None:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "ok").write_bytes(b"{}")
    code = f"""
import os
promises.HANG_S = {1 if "sleep" in statement else 30}
def parse(parts):
    if parts != [b"{{}}"]:
        {statement}
parsers.PARSERS["key"] = lambda folder: parsers.Parser(parse, (ValueError,), limit_s=0.2)
"""
    done = run("--parser", "key", "--count", "3", "--seed", "1", "--blind", "--corpus", tmp_path, code=code)
    (name,) = (path.name for path in (tmp_path / "key").iterdir() if path.name != "ok")
    assert (done.returncode, name.startswith("broken-"), name in done.stdout, kind in done.stdout) == (1, *[True] * 3)

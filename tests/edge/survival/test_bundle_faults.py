"""Bundles that are damaged below a running line, and bad ones that it is told to load: it keeps the one that it has."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.bundle.reading import Bundle, Thresholds
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.errors import CommandError
from fbft_edge.frames.frame import Verdict
from fbft_edge.sockets.command_client import CommandClient

MODEL, MANIFEST = "model.onnx", "bundle.json"


@dataclass(frozen=True)
class Running:
    """A line and the bundle that it was started with."""

    line: Any
    witness: Any
    bundle: Path

    def reload(self, bundle: Path) -> dict[str, Any]:
        with CommandClient(self.line.commands) as client:
            return client.call("reload", timeout_s=60, bundle=str(bundle))

    def check(self) -> None:
        """It inspects with the bundle that it had."""
        sha256 = self.witness.received[-1].bundle_sha256
        self.witness.goes_on()
        judged = self.witness.next(lambda result: result.verdict is Verdict.ANOMALOUS)
        assert judged.bundle_sha256 == sha256


@pytest.fixture(scope="module")
def running(configure: Any, start_line: Any, watch: Any) -> Iterator[Running]:
    config = configure()
    line = start_line(config)
    running = Running(line, watch(line.results), config.parent / "part.fbft")
    running.witness.goes_on()
    yield running
    running.witness.check()
    assert len(running.witness.sessions("press-1")) == 1
    line.end()


def cut(bundle: Path) -> None:
    os.truncate(bundle / MODEL, 100)


def flip(bundle: Path) -> None:
    raw = bytearray((bundle / MODEL).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / MODEL).write_bytes(raw)


def remove(bundle: Path) -> None:
    shutil.rmtree(bundle)


def scribble(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes(b"\0" * 200)


@pytest.fixture
def spare(running: Running, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Puts the bundle back as it was."""
    shutil.copytree(running.bundle, tmp_path / "spare")

    def put_back() -> None:
        shutil.rmtree(running.bundle, ignore_errors=True)
        shutil.copytree(tmp_path / "spare", running.bundle)

    yield put_back
    put_back()


@pytest.mark.parametrize("damage", [cut, flip, scribble, remove])
def test_a_bundle_that_is_damaged_is_not_loaded_until_it_is_whole_again(
    running: Running, spare: Callable[[], None], damage: Callable[[Path], None]
) -> None:
    damage(running.bundle)
    with pytest.raises(CommandError, match=re.escape(str(running.bundle))):
        running.reload(running.bundle)
    running.check()
    spare()
    assert running.reload(running.bundle)["bundle"] == str(running.bundle)
    running.check()


def test_a_line_with_a_damaged_bundle_goes_on_after_sighup_but_does_not_start_again(
    running: Running, spare: Callable[[], None], start_line: Any
) -> None:
    flip(running.bundle)
    running.line.process.send_signal(signal.SIGHUP)
    running.line.wait_for("not reloaded, the old model goes on: .*was altered")
    second = start_line(running.line.config)
    assert second.wait() == 2
    assert (second.errors.count("\n"), str(running.bundle) in second.errors) == (1, True), second.errors
    running.check()


def empty(folder: Path, good: Bundle) -> Path:
    folder.mkdir()
    return folder


def hanging(folder: Path, good: Bundle) -> Path:
    """Whoever reads a FIFO waits for ever."""
    shutil.copytree(good.path, folder)
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    return folder


def of_another_model(folder: Path, good: Bundle) -> Path:
    """Every hash is right, and the model is none."""
    shutil.copytree(good.path, folder)
    (folder / MODEL).write_bytes(b"no model" * 100)
    seal_bundle(Bundle(folder, good.product, good.created, good.teacher, good.tile, good.frame_sizes, good.thresholds))
    return folder


@pytest.mark.parametrize(
    ("bad", "words"),
    [(empty, "has no bundle.json"), (hanging, "not a regular file"), (of_another_model, "cannot compile")],
)
def test_a_bundle_that_is_none_is_refused(
    running: Running,
    bright_bundle: Callable[..., Bundle],
    tmp_path: Path,
    bad: Callable[[Path, Bundle], Path],
    words: str,
) -> None:
    with pytest.raises(CommandError, match=words):
        running.reload(bad(tmp_path / "bad.fbft", bright_bundle(path=tmp_path / "good.fbft")))
    running.check()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frame_sizes": ((64, 64),)}, "84x84"),
        ({"thresholds": None}, "has no thresholds"),
        ({"thresholds": Thresholds(0.001, 0.001, 0.01, 0.01, 0.05, 100)}, "anomalous that were ok just now"),
        ({"thresholds": Thresholds(4.0, 4.0, 0.01, 0.01, 0.05, 100)}, "ok that were anomalous just now"),
    ],
    ids=["other frames", "no thresholds", "everything anomalous", "nothing anomalous"],
)
def test_a_bundle_that_does_not_fit_is_refused(
    running: Running, bright_bundle: Callable[..., Bundle], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        running.reload(bright_bundle(**settings).path)
    running.check()

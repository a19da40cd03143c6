"""A network camera that is unplugged, sends garbage, or comes back as another one, below a whole line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.reading import Result

SOURCE = (str(Path(__file__).with_name("rtsp_source.py")),)


class Source:
    """A camera that can be pulled and plugged in."""

    def __init__(self, start: Callable[..., Any], port: int, eventually: Callable[..., Any]) -> None:
        self.uri = f"rtsp://127.0.0.1:{port}/live"
        self._start, self._port, self._eventually = start, port, eventually

    def plug_in(self, kind: str, level: int) -> None:
        self._process = self._start(self._port, kind, level, program=SOURCE)
        self._eventually(lambda: self._process.output, lambda said: "ready" in said)

    def pull(self) -> None:
        self._process.kill()


@pytest.fixture(scope="module")
def source(start: Callable[..., Any], free_port: Callable[[], int], eventually: Callable[..., Any]) -> Source:
    source = Source(start, free_port(), eventually)
    source.plug_in("good", 10)
    return source


@pytest.fixture(scope="module")
def witness(
    configure: Any, start_line: Any, watch: Any, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    config = configure(cameras=[{"name": "press-1", "uri": source.uri}])
    line = start_line(config, tmp_path_factory.mktemp("faults"))
    witness = watch(line.results)
    witness.next(is_judged)
    yield witness
    witness.check()
    line.end()


def is_judged(result: Result) -> bool:
    return result.verdict in (Verdict.OK, Verdict.ANOMALOUS) and result.health.state == "ok"


def is_camera_fault(result: Result) -> bool:
    return result.verdict is Verdict.FAULT and (result.health.reason or "").startswith("camera: ")


def test_a_camera_that_is_unplugged_is_a_fault_and_is_found_again(witness: Any, source: Source) -> None:
    before = witness.next(is_judged)
    source.pull()
    fault = witness.next(is_camera_fault)
    source.plug_in("good", 10)
    after = witness.next(is_judged)
    witness.check()
    assert (fault.score, fault.frame_id) == (None, None)
    assert (after.session, after.frame_id > before.frame_id) == (before.session, True)


def test_garbage_and_truncated_frames_are_faults_or_nothing_and_good_ones_are_judged(
    witness: Any, source: Source
) -> None:
    source.pull()
    witness.next(is_camera_fault)
    source.plug_in("broken", 60)
    first = witness.next(is_judged)
    last = witness.next(lambda result: is_judged(result) and result.frame_id > first.frame_id + 45)
    witness.check()
    judged = [each for each in witness.received if first.frame_id <= (each.frame_id or 0) <= last.frame_id]
    assert [each.score for each in judged] == pytest.approx([first.score] * len(judged), abs=0.05)


def test_a_camera_that_comes_back_with_another_size_is_refused_until_the_old_one_is_there(
    witness: Any, source: Source
) -> None:
    source.pull()
    source.plug_in("other-size", 10)
    fault = witness.next(lambda result: is_camera_fault(result) and "240x96" in result.health.reason)
    source.pull()
    source.plug_in("good", 10)
    witness.next(is_judged)
    witness.check()
    assert "the line expects 160x112 pixels" in fault.health.reason

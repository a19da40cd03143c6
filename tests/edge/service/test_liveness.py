"""Alive means messages now; ready means verdicts, too; every no has its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fbft_edge.messages.header import Health
from fbft_edge.service.liveness import Liveness

MessageSource = Callable[[str], Any]


def line(fps: float = 10.0) -> Liveness:
    liveness = Liveness(["press-1", "press-2"], fps)
    liveness.engine = "OpenVINO"
    return liveness


def reason(report: Any) -> str:
    return report.reason or ""


def test_a_line_of_which_every_camera_gives_results_is_alive_and_ready(messages: MessageSource) -> None:
    liveness = line()
    for camera in ("press-1", "press-2"):
        liveness.published(messages(camera).fresh())
    assert (liveness.alive().reason, liveness.ready().reason) == (None, None)


def test_a_camera_that_published_nothing_is_named(messages: MessageSource) -> None:
    liveness = line()
    liveness.published(messages("press-1").fresh())
    assert reason(liveness.alive()) == "camera press-2: no message yet"


@pytest.mark.parametrize(("fps", "silent_ms", "is_alive"), [(10, 250, True), (10, 350, False), (1000, 50, True)])
def test_silence_of_more_than_three_periods_is_not_alive(
    messages: MessageSource, fps: float, silent_ms: int, is_alive: bool
) -> None:
    liveness = Liveness(["press-1"], fps)
    message = messages("press-1").fresh()
    liveness.published(replace(message, published_ns=message.published_ns - silent_ms * 1_000_000))
    assert (liveness.alive().reason is None) is is_alive


def test_a_line_without_an_engine_is_not_ready(messages: MessageSource) -> None:
    liveness = Liveness(["press-1"], 10)
    liveness.published(messages("press-1").fresh())
    assert reason(liveness.ready()) == "no engine is loaded yet"


def test_a_camera_that_waits_for_its_first_trigger_is_ready_unless_it_is_in_fault(messages: MessageSource) -> None:
    liveness = Liveness(["press-1", "press-2"], 10, on_demand=["press-1"])
    liveness.engine = "OpenVINO"
    source = messages("press-1")
    liveness.published(source.stale())
    liveness.published(messages("press-2").fresh())
    assert liveness.ready().reason is None
    fault = replace(source.stale(), health=Health("fault", "camera: gone"))
    liveness.published(fault)
    assert "gone" in reason(liveness.ready())


def test_a_line_that_only_repeats_is_alive_but_was_never_ready(messages: MessageSource) -> None:
    liveness = Liveness(["press-1"], 10)
    liveness.engine = "OpenVINO"
    liveness.published(messages("press-1").stale())
    assert (liveness.alive().reason, reason(liveness.ready())) == (None, "camera press-1: no result yet")


def test_a_result_is_remembered_through_later_repeats(messages: MessageSource) -> None:
    liveness, source = Liveness(["press-1"], 10), messages("press-1")
    liveness.engine = "OpenVINO"
    liveness.published(source.fresh())
    liveness.published(source.stale())
    assert liveness.ready().reason is None


def test_a_fault_is_alive_but_not_ready_and_says_why(messages: MessageSource) -> None:
    liveness, source = Liveness(["press-1"], 10), messages("press-1")
    liveness.engine = "OpenVINO"
    liveness.published(source.fresh())
    liveness.published(source.fault("camera: no frame for 5 s"))
    assert liveness.alive().reason is None
    assert reason(liveness.ready()) == "camera press-1: camera: no frame for 5 s"


def test_degraded_is_ready(messages: MessageSource) -> None:
    liveness = Liveness(["press-1"], 10)
    liveness.engine = "OpenVINO"
    liveness.published(messages("press-1").fresh(health=Health("degraded", "drift")))
    assert liveness.ready().reason is None


def test_the_body_tells_each_camera_apart(messages: MessageSource) -> None:
    liveness = line()
    liveness.published(messages("press-1").fault("gone"))
    cameras = liveness.alive().to_json()["cameras"]
    assert (cameras["press-1"]["verdict"], cameras["press-1"]["reason"], cameras["press-2"]["verdict"]) == (
        "fault",
        "gone",
        None,
    )

"""What Prometheus reads is what the messages said, in memory that does not grow."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fbft_edge.service.telemetry import Telemetry

MessageSource = Callable[[str], Any]


def samples(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the labels' alphabetical order."""
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def telemetry() -> Telemetry:
    telemetry = Telemetry(["press-1", "press-2"])
    telemetry.use_model(0.5, "ab" * 32, "OpenVINO f32 on the CPU (as asked)")
    return telemetry


def test_messages_are_counted_by_verdict_and_camera(telemetry: Telemetry, messages: MessageSource) -> None:
    source = messages("press-1")
    for message in (source.fresh(0.1), source.fresh(0.9), source.stale(), source.stale(), source.fault("gone")):
        telemetry.published(message)
    found = samples(telemetry)
    assert [found["fbft_messages_total", "press-1", verdict] for verdict in ("ok", "anomalous", "stale", "fault")] == [
        1,
        1,
        2,
        1,
    ]
    assert found["fbft_messages_total", "press-2", "ok"] == 0


def test_the_ledger_is_shown_bin_by_bin_and_closes(telemetry: Telemetry, messages: MessageSource) -> None:
    source = messages("press-1")
    for _ in range(3):
        source.ledger.capture()
    source.ledger.drop("replaced")
    source.ledger.drop("inference_error")
    telemetry.published(source.fresh())
    found = samples(telemetry)
    dropped = {key[2]: value for key, value in found.items() if key[:2] == ("fbft_frames_dropped_total", "press-1")}
    assert (dropped["replaced"], dropped["inference_error"]) == (1, 1)
    rest = found["fbft_frames_published_total", "press-1"] + found["fbft_frames_in_flight", "press-1"]
    assert found["fbft_frames_captured_total", "press-1"] == rest + sum(dropped.values()) == 4


def test_missed_triggers_are_counted(telemetry: Telemetry, messages: MessageSource) -> None:
    source = messages("press-1")
    source.ledger.miss_triggers(2)
    telemetry.published(source.stale())
    assert samples(telemetry)["fbft_missed_triggers_total", "press-1"] == 2


@pytest.mark.parametrize(("stage", "below_s"), [("waited", 0.0025), ("inferred", 0.025), ("encoded", 0.001)])
def test_each_stage_has_its_times(telemetry: Telemetry, messages: MessageSource, stage: str, below_s: float) -> None:
    telemetry.published(messages("press-1").fresh())
    found = samples(telemetry)
    buckets = {
        float(key[2]): value
        for key, value in found.items()
        if key[0] == "fbft_stage_seconds_bucket" and (key[1], key[3]) == ("press-1", stage)
    }
    assert min(bound for bound, count in buckets.items() if count) == below_s
    assert buckets[math.inf] == found["fbft_stage_seconds_count", "press-1", stage] == 1


def test_latency_and_deviation_are_in_seconds(telemetry: Telemetry, messages: MessageSource) -> None:
    telemetry.published(messages("press-1").fresh(latency_ns=30_000_000))
    found = samples(telemetry)
    assert found["fbft_latency_seconds_sum", "press-1"] == pytest.approx(0.03)
    assert found["fbft_deviation_seconds_sum", "press-1"] == pytest.approx(40e-6)


def test_a_message_without_a_frame_adds_to_no_histogram_of_frames(
    telemetry: Telemetry, messages: MessageSource
) -> None:
    telemetry.published(messages("press-1").stale())
    found = samples(telemetry)
    assert (found["fbft_latency_seconds_count", "press-1"], found["fbft_deviation_seconds_count", "press-1"]) == (0, 1)


@pytest.mark.parametrize(("score", "is_within"), [(0.5, 1), (0.5000001, 0)])
def test_the_bucket_up_to_one_holds_the_scores_that_do_not_exceed_the_threshold(
    telemetry: Telemetry, messages: MessageSource, score: float, is_within: int
) -> None:
    telemetry.published(messages("press-1").fresh(score))
    assert samples(telemetry)["fbft_score_threshold_ratio_bucket", "press-1", "1.0"] == is_within


def test_scores_after_a_reload_are_measured_by_the_new_threshold(telemetry: Telemetry, messages: MessageSource) -> None:
    telemetry.use_model(0.05, "cd" * 32, "another")
    telemetry.published(messages("press-1").fresh(0.1))
    found = samples(telemetry)
    assert found["fbft_score_threshold_ratio_sum", "press-1"] == pytest.approx(2)
    assert found["fbft_image_threshold",] == 0.05


def test_the_line_says_what_runs(telemetry: Telemetry) -> None:
    (info,) = (key for key in samples(telemetry) if key[0] == "fbft_line_info")
    assert info[1:3] == ("ab" * 32, "OpenVINO f32 on the CPU (as asked)")


@pytest.mark.parametrize("state", ["ok", "degraded", "fault"])
def test_health_is_one_for_the_last_state_alone(telemetry: Telemetry, messages: MessageSource, state: str) -> None:
    from fbft_edge.messages.header import Health

    source = messages("press-1")
    health = Health(state, None if state == "ok" else "why")
    telemetry.published(source.fault("why") if state == "fault" else source.fresh(health=health))
    found = samples(telemetry)
    assert {each: found["fbft_health", "press-1", each] for each in ("ok", "degraded", "fault")} == {
        "ok": state == "ok",
        "degraded": state == "degraded",
        "fault": state == "fault",
    }


def test_what_others_count_is_asked_at_each_scrape(telemetry: Telemetry) -> None:
    reconnects = {"press-1": 0}
    telemetry.add_counter("fbft_camera_reconnects", "Times a camera came back.", lambda: reconnects)
    before = samples(telemetry)["fbft_camera_reconnects_total", "press-1"]
    reconnects["press-1"] = 3
    assert (before, samples(telemetry)["fbft_camera_reconnects_total", "press-1"]) == (0, 3)


def test_how_others_stand_is_asked_at_each_scrape(telemetry: Telemetry) -> None:
    medians = {("press-1", "level"): 111.5}
    telemetry.add_gauge("fbft_drift_median", "Over the window's frames.", lambda: medians, ("camera", "statistic"))
    assert samples(telemetry)["fbft_drift_median", "press-1", "level"] == 111.5
    medians["press-1", "level"] = 98.0
    assert samples(telemetry)["fbft_drift_median", "press-1", "level"] == 98.0


def test_counting_keeps_nothing_of_a_message(telemetry: Telemetry, messages: MessageSource) -> None:
    source = messages("press-1")
    for _ in range(10):
        telemetry.published(source.fresh())
    tracemalloc.start()
    try:
        for _ in range(500):
            telemetry.published(source.fresh())
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 20_000

"""The ledger closes after every step, whatever the steps are and from however many threads they come."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.messages.ledger import DROP_CAUSES, Ledger, LedgerSnapshot

STEPS = ["capture", "fresh", "stale", "fault", "missed", "drop_all", *DROP_CAUSES]


def take(ledger: Ledger, step: str) -> None:
    match step:
        case "capture":
            ledger.capture()
        case "fresh":
            ledger.publish_fresh()
        case "stale":
            ledger.publish_stale()
        case "fault":
            ledger.publish_fault()
        case "missed":
            ledger.miss_triggers()
        case "drop_all":
            ledger.drop_all("shutdown")
        case cause:
            ledger.drop(cause)


@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_the_ledger_closes_after_every_step(steps: list[str]) -> None:
    ledger = Ledger()
    for step in steps:
        if step in ("fresh", *DROP_CAUSES) and ledger.snapshot().in_flight == 0:
            continue
        take(ledger, step)
        assert ledger.snapshot().is_closed


@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_every_captured_frame_ends_in_exactly_one_bin(steps: list[str]) -> None:
    ledger = Ledger()
    counts = dict.fromkeys(STEPS, 0)
    for step in steps:
        if step in ("fresh", *DROP_CAUSES) and ledger.snapshot().in_flight == 0:
            continue
        if step == "drop_all":
            counts["shutdown"] += ledger.snapshot().in_flight
        take(ledger, step)
        counts[step] += 1
    snapshot = ledger.snapshot()
    expected = {cause: counts[cause] for cause in DROP_CAUSES}
    assert (snapshot.captured, snapshot.published_fresh, snapshot.dropped) == (
        counts["capture"],
        counts["fresh"],
        expected,
    )


@given(st.lists(st.sampled_from(["fresh", "stale", "fault"]), max_size=40))
def test_messages_counts_every_message_once(steps: list[str]) -> None:
    ledger = Ledger()
    for step in steps:
        if step == "fresh":
            ledger.capture()
        take(ledger, step)
    assert ledger.snapshot().messages == len(steps)


@pytest.mark.parametrize("step", ["fresh", *DROP_CAUSES])
def test_a_frame_that_was_never_captured_can_not_leave(step: str) -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="no frame is in flight"):
        take(ledger, step)


def test_a_refused_step_changes_nothing() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="no frame"):
        ledger.drop("replaced")
    assert ledger.snapshot() == LedgerSnapshot(0, 0, 0, 0, dict.fromkeys(DROP_CAUSES, 0), 0)


@pytest.mark.parametrize("drop", [Ledger.drop, Ledger.drop_all])
def test_a_cause_must_be_one_of_the_ledgers(drop) -> None:
    ledger = Ledger()
    ledger.capture()
    with pytest.raises(KeyError, match="bad_luck"):
        drop(ledger, "bad_luck")


def test_an_unknown_cause_loses_no_frame() -> None:
    ledger = Ledger()
    ledger.capture()
    with pytest.raises(KeyError):
        ledger.drop("bad_luck")
    assert ledger.snapshot().in_flight == 1


def test_causes_can_be_extended() -> None:
    ledger = Ledger((*DROP_CAUSES, "too_dark"))
    ledger.capture()
    ledger.drop("too_dark")
    assert ledger.snapshot().dropped["too_dark"] == 1


def test_a_snapshot_does_not_change_afterwards() -> None:
    ledger = Ledger()
    ledger.capture()
    before = ledger.snapshot()
    ledger.drop("replaced")
    assert before.dropped["replaced"] == 0


def test_publishing_returns_totals_that_include_the_message_itself() -> None:
    ledger = Ledger()
    ledger.capture()
    assert [
        ledger.publish_stale().messages,
        ledger.publish_fresh().messages,
        ledger.publish_fault().messages,
    ] == [
        1,
        2,
        3,
    ]


def test_the_json_names_what_the_message_names() -> None:
    assert Ledger().snapshot().to_json() == {
        "captured": 0,
        "published_fresh": 0,
        "published_stale": 0,
        "published_fault": 0,
        "dropped": {"replaced": 0, "inference_error": 0, "too_late": 0, "shutdown": 0},
        "in_flight": 0,
        "missed_triggers": 0,
        "lost": 0,
        "refused": 0,
    }


def test_an_open_ledger_is_seen_to_be_open() -> None:
    assert not LedgerSnapshot(3, 1, 0, 0, {"replaced": 1}, 0).is_closed


def test_threads_lose_no_count() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(500):
            ledger.capture()
            ledger.publish_fresh()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.snapshot().captured, ledger.snapshot().published_fresh) == (2000, 2000)


def test_every_snapshot_taken_while_threads_work_is_closed() -> None:
    ledger = Ledger()
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            ledger.capture()
            ledger.drop("replaced")

    thread = threading.Thread(target=work)
    thread.start()
    snapshots = [ledger.snapshot() for _ in range(500)]
    done.set()
    thread.join()
    assert all(snapshot.is_closed for snapshot in snapshots)


def test_missed_triggers_are_counted_beside_the_frames() -> None:
    ledger = Ledger()
    ledger.capture()
    ledger.miss_triggers()
    ledger.miss_triggers(3)
    snapshot = ledger.snapshot()
    assert (snapshot.missed_triggers, snapshot.captured, snapshot.in_flight, snapshot.is_closed) == (4, 1, 1, True)


def test_pictures_that_became_no_frame_are_counted_beside_the_frames_and_never_fewer() -> None:
    ledger = Ledger()
    ledger.capture()
    more = [ledger.note_unseen(*counts) for counts in ((3, 1), (3, 1), (0, 1), (5, 2))]
    snapshot = ledger.snapshot()
    assert (more, snapshot.lost, snapshot.refused, snapshot.is_closed) == ([4, 0, 0, 3], 5, 2, True)

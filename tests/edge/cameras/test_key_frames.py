"""Which pictures of a stream are believed: none behind a loss or damage until the next key frame."""

from __future__ import annotations

import pytest

from fbft_edge.cameras.key_frames import KeyFrames

MS = 1_000_000


def believed(times_ms: list[float | None], keys: set[int], damaged: frozenset[int] = frozenset()) -> list[int]:
    """Numbers of the pictures that are; each comes as one packet."""
    stream, passed = KeyFrames(), []
    for number, time_ms in enumerate(times_ms):
        stream.packet(number in keys)
        source_ns = None if time_ms is None else round(time_ms * MS)
        if stream.refusal(source_ns, number in keys, number not in damaged) is None:
            passed.append(number)
    return passed


def beat(num_pictures: int, *lost: int) -> list[float | None]:
    return [40.0 * number for number in range(num_pictures) if number not in lost]


def test_a_stream_without_a_loss_is_believed_throughout() -> None:
    assert believed(beat(30), {0, 10, 20}) == list(range(30))


def test_nothing_is_believed_before_the_first_key_frame() -> None:
    assert believed(beat(10), {4}) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("lost", [2, 5, 9])
def test_behind_a_lost_picture_nothing_is_believed_until_the_next_key_frame(lost: int) -> None:
    # With one picture lost, the key frame that was number 10 is number 9.
    assert believed(beat(20, lost), {0, 9}) == [*range(lost), *range(9, 19)]


def test_a_picture_lost_before_the_beat_is_known_is_noticed_one_picture_later() -> None:
    assert believed(beat(20, 1), {0, 9}) == [0, 1, *range(9, 19)]


def test_a_damaged_picture_takes_those_behind_it_along() -> None:
    assert believed(beat(20), {0, 10}, frozenset({6})) == [*range(6), *range(10, 20)]


def test_a_damaged_key_frame_restores_nothing() -> None:
    assert believed(beat(30), {0, 10, 20}, frozenset({6, 10})) == [*range(6), *range(20, 30)]


def test_a_key_frame_without_a_time_is_not_believed_where_others_have_one() -> None:
    times_ms = [None if number == 4 else time_ms for number, time_ms in enumerate(beat(10))]
    assert believed(times_ms, {0, 4, 8}) == [0, 1, 2, 3, *range(5, 10)]


def test_a_stream_that_never_tells_a_time_is_believed() -> None:
    assert believed([None] * 10, {0, 4, 8}) == list(range(10))


def test_where_each_picture_is_a_key_frame_only_the_damaged_one_is_refused() -> None:
    assert believed(beat(10, 3), set(range(10)), frozenset({6})) == [0, 1, 2, 3, 4, 5, 7, 8]


def test_a_packet_that_cannot_be_decoded_breaks_the_chain_even_where_no_time_is_missing() -> None:
    stream = KeyFrames()
    stream.packet(True)
    first = stream.refusal(0, True, True)
    stream.packet(False)
    stream.damage()
    after = stream.refusal(40 * MS, False, True)
    assert (first, after) == (None, "a picture was damaged on its way")


def test_a_key_frame_that_was_decoded_before_the_damage_restores_nothing() -> None:
    stream = KeyFrames()
    stream.packet(True)
    stream.damage()
    assert stream.refusal(0, True, True) is not None


def test_times_that_waver_by_a_fifth_are_no_gap() -> None:
    wavering: list[float | None] = [40.0 * number + (8 if number % 3 else 0) for number in range(60)]
    assert believed(wavering, {0}) == list(range(60))


@pytest.mark.parametrize("times_ms", [[0, 40, 40, 80], [0, 40, 20, 60], [0, 40, None, 80]])
def test_times_that_do_not_go_on_are_a_break(times_ms: list[float | None]) -> None:
    assert believed(times_ms, {0}) == [0, 1]


def test_pictures_that_never_came_are_counted() -> None:
    stream = KeyFrames()
    for time_ms in (0, 40, 80, 200, 240, 320):
        stream.refusal(time_ms * MS, True, True)
    assert stream.lost == 3


def test_a_gap_is_told_with_its_size() -> None:
    stream = KeyFrames()
    stream.packet(True)
    said = [stream.refusal(time_ms * MS, time_ms == 0, True) for time_ms in (0, 40, 80, 200)]
    assert said[3] == "a picture was lost: 120 ms lie between two where 40 ms are usual"

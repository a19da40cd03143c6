"""Streams and files that lost a picture: what was decoded behind it is refused, in words, until the next key frame."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from coded_video import h264_stream, write_coded
from rtsp_server import DESCRIPTION, RATE_HZ, SIZE, Packets, RtspServer, flat, rtp_packets, sender_report

from fbft_edge.cameras import Camera, open_watched_camera
from fbft_edge.clock import now_ns
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame, Uint8

NUM_PICTURES, KEY_EVERY, DEFECT_FROM = 50, 20, 26


def part(number: int) -> Uint8:
    """A part on a textured ground; the pictures from one on show a defect."""
    bgr = np.full((*SIZE, 3), 60 + number % 3, np.uint8)
    bgr[::8] = 90
    if number >= DEFECT_FROM:
        bgr[28:84, 56:112] = 250
    return bgr


PARTS = [part(number) for number in range(NUM_PICTURES)]


def read_all(camera: Camera) -> tuple[list[Frame], list[str]]:
    """Frames and refusals, to the end of a file or the cut of a stream."""
    frames, refusals = [], []
    while True:
        try:
            frame = camera.read()
        except CameraError as error:
            if "delivers no frame" in str(error):
                return frames, refusals
            refusals.append(str(error))
            continue
        if frame is None:
            return frames, refusals
        frames.append(frame)


def show_defects(frames: list[Frame]) -> list[bool]:
    return [bool(frame.rgb[50, 80, 1] > 150) for frame in frames]


def streamed(description: str, clip: Iterable[Packets | Uint8]) -> tuple[list[Frame], list[str]]:
    server = RtspServer([clip], description=description)
    try:
        with contextlib.closing(open_watched_camera(f"rtsp://{server.address}/live", "press-1")) as camera:
            return read_all(camera)
    finally:
        server.close()


def test_a_picture_that_is_held_back_until_the_next_begins_has_the_date_of_its_own_beginning() -> None:
    description, clip = h264_stream(PARTS, KEY_EVERY)
    sent_ns: list[int] = []

    def noted() -> Iterator[Packets | Uint8]:
        for picture in clip:
            sent_ns.append(now_ns())
            yield picture

    frames, _ = streamed(description, noted())
    # The first picture is taken to learn the size; the last ones are dated by all that came before.
    late_ns = min(frame.captured_ns - at_ns for frame, at_ns in zip(frames[-10:], sent_ns[-10:], strict=True))
    assert late_ns < 0.5e9 / RATE_HZ


def test_a_stream_that_loses_nothing_is_read_whole() -> None:
    frames, refusals = streamed(*h264_stream(PARTS, KEY_EVERY))
    assert (show_defects(frames), refusals) == ([number >= DEFECT_FROM for number in range(1, NUM_PICTURES)], [])


@pytest.mark.parametrize("how", ["lost", "cut"])
def test_a_defect_that_came_into_view_in_a_lost_picture_is_never_shown_as_absent(how: str) -> None:
    frames, refusals = streamed(*h264_stream(PARTS, KEY_EVERY, **{how: {DEFECT_FROM}}))
    # The first picture is taken to learn the size; from number 40, the next key frame, on all is well again.
    assert show_defects(frames) == [False] * (DEFECT_FROM - 1) + [True] * (NUM_PICTURES - 40)
    assert len(refusals) >= 40 - DEFECT_FROM - 1
    assert all("they are refused until the next key frame" in refusal for refusal in refusals)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_a_file_that_lost_a_picture_is_not_believed_until_its_next_key_frame(tmp_path: Path, codec: str) -> None:
    path = write_coded(tmp_path / "clip.mkv", PARTS, KEY_EVERY, codec, lost={DEFECT_FROM})
    with contextlib.closing(open_watched_camera(str(path), "press-1")) as camera:
        frames, refusals = read_all(camera)
    assert show_defects(frames) == [False] * DEFECT_FROM + [True] * (NUM_PICTURES - 40)
    assert len(refusals) == 40 - DEFECT_FROM - 1
    assert re.search(
        "a picture was (lost: 80 ms lie between two where 40 ms are usual|damaged on its way)", refusals[0]
    )


def test_pictures_that_were_held_up_keep_the_dates_at_which_they_were_taken() -> None:
    held = [packet for number in range(20, 40) for packet in rtp_packets(flat(90), number)]
    clip = [*[flat(40)] * 20, Packets(held, after_s=20 / RATE_HZ)]
    frames, _ = streamed(DESCRIPTION, clip)
    dates = [frame.captured_ns for frame in frames[-20:]]
    np.testing.assert_allclose(np.diff(dates) / 1e6, 1000 / RATE_HZ, atol=2)


@pytest.mark.parametrize(("clock_behind_s", "way_ms"), [(0.4, 400), (30.0, 0)])
def test_a_sender_that_reports_its_wall_clock_shows_what_every_picture_takes_on_its_way(
    clock_behind_s: float, way_ms: int
) -> None:
    reported = (sender_report(number, clock_behind_s) if number == 20 else b"" for number in range(110))
    clip = (part for number, report in enumerate(reported) for part in (report, sent(number)) if part)
    frames, _ = streamed(DESCRIPTION, clip)
    passed_ms = (frames[-1].captured_ns - frames[9].captured_ns) / 1e6
    assert passed_ms == pytest.approx(99 * 1000 / RATE_HZ - way_ms, abs=150)


def sent(number: int) -> Packets:
    return Packets([*rtp_packets(flat(40), number)])

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fbft_edge.cli.main import main
from fbft_edge.cli.reports import show_demo
from fbft_edge.detectors.judge import find_regions
from fbft_edge.errors import ArgumentError, FbftError
from fbft_edge.frames.frame import Detection, Verdict
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.jobs import demo_parts
from fbft_edge.jobs.demo import LineFigures, demo, line_figures, watch_line
from fbft_edge.jobs.demo_outcomes import Outcome, demo_picture, read_outcomes
from fbft_edge.jobs.demo_parts import DEFECT_SIZES_PX, DemoPart, render_set, stamped_parts, write_stamp
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.messages.reading import Result
from fbft_edge.synthetic import render_part

BOX = (40, 20, 50, 30)
FIGURES = LineFigures(messages=150, lost=0, inspected_hz=4.25, latency_ms=(210.0, 390.0))


def part(name: str = "000-pit-8px", size_px: int = 8) -> DemoPart:
    return DemoPart(name, size_px, "pit" if size_px else "nominal", BOX)


def detection(*boxes: tuple[int, int, int, int], is_anomalous: bool | None = None) -> Detection:
    anomaly_map = np.zeros((80, 100), np.float32)
    for left, top, right, bottom in boxes:
        anomaly_map[top:bottom, left:right] = 1
    mask = anomaly_map > 0
    alarmed = bool(boxes) if is_anomalous is None else is_anomalous
    return Detection(0.5, 1.0, mask, find_regions(mask, anomaly_map), alarmed)


def full_set() -> list[Outcome]:
    found = [Outcome(part(f"{size:03}-pit", size), detection(BOX)) for size in DEFECT_SIZES_PX]
    missed = [Outcome(part(f"{size + 500}-pit", size), detection()) for size in DEFECT_SIZES_PX]
    nominal = [Outcome(part(f"90{index}-nominal", 0), detection()) for index in range(3)]
    return [*missed, *found, *nominal, Outcome(part("903-nominal", 0), detection((0, 0, 5, 5)))]


def result(sequence: int, verdict: Verdict, latency_ms: int = 100, lost: int = 0) -> Result:
    published_ns = 10**18 + sequence * 100_000_000
    return Result(
        site="demo",
        camera="camera",
        session="0" * 36,
        sequence=sequence,
        frame_id=sequence,
        captured_ns=published_ns - latency_ms * 1_000_000,
        published_ns=published_ns,
        verdict=verdict,
        score=0.1,
        image_threshold=0.2,
        regions=(),
        encoded_mask=None,
        bundle_sha256="0" * 64,
        ledger=LedgerSnapshot(0, 0, 0, 0, {}, 0),
        health=Health("ok"),
        preview=None,
        lost=lost,
    )


def text_of(outcomes: list[Outcome], figures: LineFigures) -> str:
    console = Console(file=io.StringIO(), width=100)
    show_demo(outcomes, figures, console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def complete_folder(out: Path, parts: list[DemoPart]) -> None:
    for file in ("demo.fbft/bundle.json", *(f"test/{one.name}.png" for one in parts)):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_bytes(b"")
    write_stamp(out, parts)


@pytest.mark.parametrize(
    ("found", "is_found"),
    [
        (detection(BOX), True),
        (detection((63, 43, 70, 70)), True),
        (detection((64, 44, 70, 70)), False),
        (detection(), False),
        (detection(is_anomalous=True), False),
        (detection(BOX, is_anomalous=False), False),
    ],
    ids=["same", "within a patch", "beside", "nothing", "only the score", "only the mask"],
)
def test_a_defect_is_found_when_the_part_is_anomalous_and_the_mask_lies_at_it(found: Detection, is_found: bool) -> None:
    assert Outcome(part(), found).is_found is is_found


def test_a_complete_folder_of_this_version_is_used_again(tmp_path: Path) -> None:
    parts = [part("a"), part("b", 0)]
    complete_folder(tmp_path, parts)

    assert stamped_parts(tmp_path) == parts


@pytest.mark.parametrize("missing", ["demo.json", "demo.fbft/bundle.json", "test/a.png"])
def test_an_incomplete_folder_is_not_used_again(tmp_path: Path, missing: str) -> None:
    complete_folder(tmp_path, [part("a")])
    (tmp_path / missing).unlink()

    assert stamped_parts(tmp_path) is None


def test_a_folder_of_another_generator_version_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete_folder(tmp_path, [part("a")])
    monkeypatch.setattr(demo_parts, "GENERATOR_VERSION", demo_parts.GENERATOR_VERSION + 1)

    assert stamped_parts(tmp_path) is None


@pytest.mark.parametrize("stamp", ["", "{}", "[]", '{"parts": 1}', '{"parts": [{"name": "a"}]}', "\x00"])
def test_a_stamp_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, stamp: str) -> None:
    complete_folder(tmp_path, [part("a")])
    (tmp_path / "demo.json").write_text(stamp)

    assert stamped_parts(tmp_path) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e10])
def test_a_line_that_runs_for_no_time_or_for_ever_is_refused_before_anything_is_made(
    tmp_path: Path, seconds: float
) -> None:
    with pytest.raises(ArgumentError, match="--seconds"):
        demo(tmp_path / "out", seconds, False)

    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_status_2_on_a_user_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["demo", "--out", str(tmp_path), "--seconds", "0"])

    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ArgumentError, match="choose another --out"):
        render_set(tmp_path / "file")


def test_a_line_that_cannot_start_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(FbftError, match="status 2"):
        watch_line(tmp_path / "none.fbft", 1.0)


def test_line_figures_count_messages_and_losses() -> None:
    results = [result(0, Verdict.OK), result(1, Verdict.STALE), result(5, Verdict.OK, lost=3)]
    figures = line_figures(results)

    assert (figures.messages, figures.lost) == (3, 3)


def test_only_fresh_verdicts_count_as_inspected() -> None:
    verdicts = (Verdict.OK, Verdict.STALE, Verdict.ANOMALOUS, Verdict.FAULT, Verdict.OK)
    figures = line_figures([result(index, verdict) for index, verdict in enumerate(verdicts)])

    assert figures.inspected_hz == pytest.approx(3 / 0.4)


def test_latency_is_from_capture_to_publish_of_fresh_verdicts() -> None:
    results = [result(0, Verdict.OK, 100), result(1, Verdict.STALE, 900), result(2, Verdict.ANOMALOUS, 300)]
    latency_ms = line_figures(results).latency_ms

    assert latency_ms == pytest.approx((200, 298))


@pytest.mark.parametrize("verdicts", [[], [Verdict.STALE]])
def test_a_line_without_a_fresh_verdict_has_no_latency(verdicts: list[Verdict]) -> None:
    figures = line_figures([result(index, verdict) for index, verdict in enumerate(verdicts)])

    assert (figures.latency_ms, figures.inspected_hz) == (None, 0)


def test_the_table_tells_what_was_found_of_each_size() -> None:
    text = text_of(full_set(), FIGURES)

    assert [f"defects of {size_px} px found" in text for size_px in DEFECT_SIZES_PX] == [True] * 6
    assert text.count("1 of 2") == 6


def test_the_table_tells_false_alarms_rate_latency_and_losses() -> None:
    text = text_of(full_set(), FIGURES)

    for figure in ("1 of 4", "4.2 per second", "p50 210 ms, p99 390 ms", "150 received, 0 lost"):
        assert figure in text


def test_outcomes_are_read_back_in_order(tmp_path: Path) -> None:
    parts, detections = [part("a"), part("b", 0)], [detection(BOX), detection()]
    (tmp_path / "masks").mkdir()
    with (tmp_path / "results.jsonl").open("w") as file:
        for one, found in zip(parts, detections, strict=True):
            write_image(tmp_path / f"masks/{one.name}.png", found.mask.astype(np.uint8) * 255)
            line = {
                "mask": f"masks/{one.name}.png",
                "peak": found.peak,
                "regions": [
                    {"area_px": 100, "box_xyxy": list(BOX), "centroid_xy": [44.5, 24.5], "peak": 1.0}
                    for _ in found.regions
                ],
                "score": found.score,
                "verdict": "anomalous" if found.is_anomalous else "ok",
            }
            file.write(json.dumps(line) + "\n")
    outcomes = read_outcomes(tmp_path, parts)

    assert [outcome.is_found for outcome in outcomes] == [True, False]
    assert [outcome.detection.regions for outcome in outcomes] == [found.regions for found in detections]


def test_the_picture_prefers_defects_that_were_found(tmp_path: Path) -> None:
    for outcome in full_set():
        shade = 200 if outcome.is_found else 100
        write_image(tmp_path / f"{outcome.part.name}.png", np.full((80, 100, 3), shade, np.uint8))
    picture = demo_picture(full_set(), tmp_path)
    shares = [(picture == shade).all(axis=2).mean() for shade in (200, 100)]

    assert shares[0] > 2 * shares[1] > 0


def test_the_picture_shows_a_missed_size_too(tmp_path: Path) -> None:
    outcomes = [outcome for outcome in full_set() if not outcome.is_found]
    for outcome in outcomes:
        write_image(tmp_path / f"{outcome.part.name}.png", np.full((80, 100, 3), 100, np.uint8))

    assert demo_picture(outcomes, tmp_path).shape[2] == 3


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {
        "_NUM_NOMINAL": 2,
        "_NUM_TEST_NOMINAL": 3,
        "_NUM_PER_SIZE": 1,
        "SIDE_PX": 128,
    }.items():
        monkeypatch.setattr(demo_parts, name, number)


@pytest.mark.usefixtures("small_set")
def test_the_set_has_nominal_parts_and_each_defect_size(tmp_path: Path) -> None:
    parts = render_set(tmp_path)

    assert [one.size_px for one in parts] == [0, 0, 0, *DEFECT_SIZES_PX]
    assert len(list((tmp_path / "nominal").iterdir())) == 2
    assert {path.stem for path in (tmp_path / "test").iterdir()} == {one.name for one in parts}


@pytest.mark.usefixtures("small_set")
def test_no_test_part_is_one_of_the_nominal_parts(tmp_path: Path) -> None:
    render_set(tmp_path)
    pictures = [read_image(path).tobytes() for name in ("nominal", "test") for path in (tmp_path / name).iterdir()]

    assert len(set(pictures)) == len(pictures)


@pytest.mark.usefixtures("small_set")
def test_the_box_of_a_test_part_is_around_its_defect(tmp_path: Path) -> None:
    for seed, one in enumerate(render_set(tmp_path), start=2):
        if one.size_px:
            nominal = render_part(seed, 128, 128).pixels.astype(int)
            changed = np.abs(read_image(tmp_path / f"test/{one.name}.png") - nominal).max(axis=2) > 10
            left, top, right, bottom = one.box_xyxy
            assert changed[top:bottom, left:right].sum() == changed.sum() > 0


@pytest.mark.usefixtures("small_set")
def test_a_set_of_another_size_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_folder(tmp_path, [part("a")])
    monkeypatch.setattr(demo_parts, "SIDE_PX", 256)

    assert stamped_parts(tmp_path) is None


def test_the_picture_shows_the_clearest_of_several(tmp_path: Path) -> None:
    outcomes = full_set()
    faint = replace(detection(BOX), peak=0.1)
    outcomes += [Outcome(part(f"{size + 700}-pit", size), faint) for size in DEFECT_SIZES_PX]
    for outcome in outcomes:
        shade = 50 if outcome.detection is faint else 200
        write_image(tmp_path / f"{outcome.part.name}.png", np.full((80, 100, 3), shade, np.uint8))

    assert not (demo_picture(outcomes, tmp_path) == 50).all(axis=2).any()


def test_table_without_an_inspected_frame_leaves_the_latency_out() -> None:
    text = text_of(full_set(), LineFigures(3, 0, 0.0, None))

    assert "capture to publish" not in text
    assert "0.0 per second" in text


def test_the_table_adds_up_to_the_whole_test_set() -> None:
    outcomes = full_set()
    of_a_size = [sum(one.part.size_px == size_px for one in outcomes) for size_px in (0, *DEFECT_SIZES_PX)]

    assert sum(of_a_size) == len(outcomes)


def test_lost_messages_are_told() -> None:
    assert "148 received, 2 lost" in text_of(full_set(), LineFigures(148, 2, 4.0, None))

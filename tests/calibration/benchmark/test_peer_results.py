"""Peers are measured beside our own run by the same code, in the same form, and none keeps the others from it."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fbft_calibration.benchmark.peer_results import read_peer_runs
from fbft_calibration.benchmark.report import MARKDOWN, REPORT, write_summary
from fbft_calibration.benchmark.result import CategoryResult, Run, read_result
from fbft_calibration.cli import main
from fbft_calibration.peers import NOT_RUN, PEERS, VIT, PeerProcess, Recipe

FAST = ["--steps", "2", "--tile", "112", "--false-alarm-rate", "0.2", "--precision", "f32"]
AGAIN = ["--category", "parts", "--pixel-size-mm", "0.05", *FAST]
TITLE = "Beside other methods"

BRIGHT_PEERS = """
    import numpy as np

    class Bright:
        settings = {
            "model": "Bright", "library": "none", "weights": "none", "image_size": [8, 8], "remarks": "<b>by hand</b>"
        }

        def fit(self, nominal):
            self.level = len(nominal)

        def map_of(self, pixels):
            found = pixels.mean(axis=2).astype(np.float32) / 256 + self.level
            return found, float(found.max())

        def close(self):
            pass

    class Broken(Bright):
        def fit(self, nominal):
            raise ValueError("out of ideas")
"""


@pytest.fixture(scope="module", autouse=True)
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two peers of ten lines, in real processes and without anomalib: `broken` cannot be fitted, `bright` can."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "bright_peers.py").write_text(textwrap.dedent(BRIGHT_PEERS))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import bright_peers  # type: ignore[import-not-found]

        makers = {"bright": bright_peers.Bright, "broken": bright_peers.Broken}
        for name in makers:
            patch.setitem(PEERS, name, Recipe(name, VIT))  # type: ignore[arg-type]
        patch.setattr("fbft_calibration.peers.selection.require_extra", lambda *_: None)
        patch.setattr(
            "fbft_calibration.benchmark.peer_results.open_peer", lambda name, _: PeerProcess(name, makers[name])
        )
        yield


def measure_beside(root: Path, out: Path, *names: str) -> int:
    asked = [part for name in names for part in ("--peer", name)]
    return main(["benchmark", str(root), "--out", str(out), *AGAIN, *asked])


@pytest.fixture(scope="module")
def out(benchmarked: Path, part_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own results, and beside them those of the peer that works; the one that does not was asked for first."""
    folder = tmp_path_factory.mktemp("results") / "beside"
    shutil.copytree(benchmarked, folder)
    assert measure_beside(part_dataset, folder, "broken", "bright") == 2
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> CategoryResult:
    return read_result(out / "peers/bright/parts.json")


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return (out / REPORT).read_text(encoding="utf-8")


def test_a_peer_that_fails_is_said_in_one_line_and_the_others_go_on(
    benchmarked: Path, part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(benchmarked, tmp_path / "beside"))
    status = measure_beside(part_dataset, folder, "broken", "bright")
    error = capsys.readouterr().err
    assert (status, error.count("\n"), "broken on parts: " in error, "out of ideas" in error) == (2, 1, True, True)
    assert [run.name for run in read_peer_runs(folder)] == ["bright"]


def test_a_peer_is_fitted_on_all_nominal_images(result: CategoryResult) -> None:
    assert {int(image.score) for image in result.images} == {result.counts["nominal"]} == {12}


def test_a_peer_sees_the_images_that_ours_saw(result: CategoryResult, benchmarked: Path) -> None:
    ours = read_result(benchmarked / "parts.json")
    assert [image.file for image in result.images] == [image.file for image in ours.images]
    assert result.data_sha256 == ours.data_sha256


def test_figures_of_a_peer_come_from_the_code_that_makes_ours(result: CategoryResult, bright_run: Run) -> None:
    bright = bright_run.results[0].figures
    names = [name for name in bright if "auroc" in name or name in ("aupro_30", "aupro_5")]
    assert {name: result.figures[name] for name in names} == pytest.approx({n: bright[n] for n in names}, abs=0.02)


def test_nothing_is_said_that_a_peer_would_need_thresholds_for(result: CategoryResult) -> None:
    flags = {image.is_flagged for image in result.images} | {image.is_located for image in result.images}
    types = {value for kind in result.figures["types"] for value in (kind["detected"], kind["components_found"])}
    assert (flags, types, result.figures["thresholds"]) == ({None}, {None}, None)


def test_time_and_memory_of_a_peer_are_those_of_its_process(result: CategoryResult) -> None:
    assert result.peak_memory_bytes is not None
    assert 2**24 < result.peak_memory_bytes < 2**30
    assert None not in (result.seconds["fit"], result.seconds["image_median"])


def test_every_picture_of_a_peer_is_a_file_below_its_folder(out: Path, result: CategoryResult) -> None:
    assert result.pictures
    assert all((out / "peers/bright" / picture.file).is_file() for picture in result.pictures)


def test_what_peers_finished_is_kept_and_what_is_missing_is_made(out: Path, part_dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(out, tmp_path / "again"))
    kept = [folder / "parts.json", folder / "peers/bright/parts.json"]
    before = [path.stat().st_mtime_ns for path in kept]
    assert measure_beside(part_dataset, folder, "bright") == 0
    assert [path.stat().st_mtime_ns for path in kept] == before
    kept[1].unlink()
    assert measure_beside(part_dataset, folder, "bright") == 0
    assert (kept[0].stat().st_mtime_ns, kept[1].is_file()) == (before[0], True)


def test_results_of_a_peer_with_other_settings_are_never_overwritten(
    out: Path, part_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (out / "peers/bright/parts.json").read_bytes()
    monkeypatch.setitem(PEERS, "bright", Recipe("bright", VIT, epochs=2))  # type: ignore[arg-type]
    status = measure_beside(part_dataset, out, "bright")
    assert (status, "epochs 1, now 2" in capsys.readouterr().err) == (2, True)
    assert (out / "peers/bright/parts.json").read_bytes() == before


def test_results_of_peers_compare_with_ours_as_any_run_does(out: Path, tmp_path: Path) -> None:
    status = main(["benchmark", "--compare", str(out), str(out / "peers/bright"), "--out", str(tmp_path)])
    rows = (tmp_path / "comparison.md").read_text(encoding="utf-8").splitlines()
    assert (status, [row.split(" ")[1] for row in rows[4:8]]) == (0, ["run", "---", "beside", "bright"])


def test_the_report_has_a_row_for_ours_and_one_for_every_peer(out: Path) -> None:
    section = (out / MARKDOWN).read_text(encoding="utf-8").split(f"## {TITLE}")[1]
    rows = [row for row in section.splitlines() if row.startswith("| ")]
    assert [row.split(" ")[1] for row in rows[2:]] == ["fbft-edge", "bright"]


def test_the_report_says_on_how_many_images_each_was_fitted(page: str) -> None:
    assert "fbft-edge is fitted on 8 of the 12 good images" in page


def test_the_report_lists_what_failed_and_what_was_not_run_with_reasons(
    page: str, read_page: Callable[[str], Any]
) -> None:
    text = read_page(page).text
    assert "broken on parts" in text
    assert [model for model, reason in NOT_RUN.items() if f"{model}{reason}" not in text] == []


def test_peers_that_were_not_asked_for_are_not_listed(page: str) -> None:
    assert [name for name in PEERS if f"<th>{name}<" in page] == ["bright"]


def test_what_a_peer_says_about_itself_is_shown_as_text(page: str) -> None:
    assert ("<b>by hand" in page, "&lt;b&gt;by hand" in page) == (False, True)


def test_nothing_else_changes_in_a_report_with_peers(page: str, benchmarked: Path) -> None:
    alone = (benchmarked / REPORT).read_text(encoding="utf-8")
    assert TITLE not in alone
    assert page.startswith(alone.split("<h2>Words")[0])


def test_peers_without_a_category_in_common_are_said_to_have_none(bright_run: Run, tmp_path: Path) -> None:
    said = {"model": "m", "library": "l", "weights": "w", "image_size": [1, 1], "remarks": ""}
    other = dataclasses.replace(bright_run.results[0], category="other", bundle=said)
    write_summary(bright_run, tmp_path, [Run("bright", bright_run.folder, (other,))])
    assert "no category in common" in (tmp_path / MARKDOWN).read_text(encoding="utf-8")


def test_a_real_peer_is_measured_and_reported(
    benchmarked: Path, part_dataset: Path, resnet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anomalib", reason="peers need the extra peers")
    from fbft_calibration.peers import open_peer

    monkeypatch.setattr("fbft_calibration.benchmark.peer_results.open_peer", open_peer)
    folder = Path(shutil.copytree(benchmarked, tmp_path / "beside"))
    options = ["--peer", "padim", "--peer-weights", str(resnet_weights)]
    assert main(["benchmark", str(part_dataset), "--out", str(folder), *AGAIN, *options]) == 0
    image_auroc = read_result(folder / "peers/padim/parts.json").figures["image_auroc"]
    assert f"{image_auroc:.4f}" in (folder / MARKDOWN).read_text(encoding="utf-8").split(f"## {TITLE}")[1]

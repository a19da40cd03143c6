"""The report shows every engine of its bundle, whenever it was exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fbft_edge.bundle.engines import Sidecar, write_sidecar
from fbft_edge.bundle.reading import ENGINES, GRAPH, REPORT, Bundle, open_bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_export.engine_report import update_report
from fbft_export.engines import export_openvino

FIGURES = {"num_tiles": 24, "map_max": 0.0123, "map_mean": 0.001, "score_max": 0.002}


@pytest.fixture
def copied(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(small_bundle.path, tmp_path / "copy.fbft")
    return open_bundle(tmp_path / "copy.fbft")


def reported(bundle: Bundle, graph_sha256: str, **figures: float) -> str:
    """The report once an engine has come to the bundle."""
    engine = Sidecar(
        name="tensorrt-fp16-sm_87",
        runtime="tensorrt",
        version="10.3.0",
        targets=("sm_87",),
        precision="fp16",
        graph_sha256=graph_sha256,
        parity={"emulated": {**FIGURES, **figures}},
    )
    write_sidecar(bundle, engine)
    sealed = seal_bundle(bundle)
    update_report(sealed)
    return seal_bundle(sealed).file(REPORT).read_text(encoding="utf-8")


def test_a_new_engine_appears_beside_the_old_ones(copied: Bundle) -> None:
    page = reported(copied, copied.files[GRAPH])
    assert [name for name in ("tensorrt-fp16-sm_87", "openvino-", "sm_87", "1.23%") if name not in page] == []


def test_the_first_engine_of_a_bundle_appears_when_it_is_exported(copied: Bundle) -> None:
    shutil.rmtree(copied.path / ENGINES)
    exported, _ = export_openvino(seal_bundle(copied), "f32")
    assert "openvino-f32" in exported.file(REPORT).read_text(encoding="utf-8")


def test_an_engine_is_shown_once_however_often_the_report_is_brought_up_to_date(copied: Bundle) -> None:
    reported(copied, copied.files[GRAPH])
    assert reported(open_bundle(copied.path), copied.files[GRAPH]).count("tensorrt-fp16-sm_87") == 1


def test_a_stale_engine_is_called_so(copied: Bundle) -> None:
    assert "tensorrt-fp16-sm_87, stale" in reported(copied, "0" * 64)


def test_verdicts_that_flip_are_counted_where_they_are_known(copied: Bundle) -> None:
    assert "<td>not known" in reported(copied, copied.files[GRAPH])
    assert "<td>3" in reported(open_bundle(copied.path), copied.files[GRAPH], verdict_flips=3)

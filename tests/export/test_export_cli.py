"""`fbft-export` builds an engine that passes the gate and seals it into the bundle, or says why not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import openvino
import pytest

from fbft_edge.bundle import GRAPH, Bundle, open_bundle, seal_bundle
from fbft_edge.detectors.openvino import accepted_precision
from fbft_edge.errors import EngineError
from fbft_edge.sidecar import sidecars
from fbft_export.cli import main
from fbft_export.engines import export_openvino


@pytest.fixture
def copied(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(small_bundle.path, tmp_path / "copy.fbft")
    return open_bundle(tmp_path / "copy.fbft")


def test_the_module_lists_every_engine_with_its_whole_name(small_bundle: Bundle) -> None:
    command = [sys.executable, "-m", "fbft_export", str(small_bundle.path), "--list"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert [name for name in ("openvino", openvino.__version__.split("-")[0]) if name not in result.stdout] == []


def test_listing_changes_nothing(copied: Bundle) -> None:
    main([str(copied.path), "--list"])
    assert open_bundle(copied.path) == copied


def test_an_exported_engine_stands_in_the_sealed_bundle(copied: Bundle) -> None:
    status = main([str(copied.path), "--precision", "f32"])
    assert (status, "engines/openvino-f32.json" in open_bundle(copied.path).files) == (0, True)


def test_a_sidecar_names_its_graph_and_its_parity(copied: Bundle) -> None:
    exported, parity = export_openvino(copied, "f32")
    sidecar = next(sidecar for sidecar in sidecars(exported) if sidecar.precision == "f32")
    assert (sidecar.graph_sha256, sidecar.parity) == (exported.files[GRAPH], {"device": parity.as_dict()})


def test_an_export_keeps_thresholds_and_files(copied: Bundle) -> None:
    exported, _ = export_openvino(copied, "f32")
    kept = {name: digest for name, digest in exported.files.items() if name in copied.files}
    assert (exported.thresholds, kept) == (copied.thresholds, dict(copied.files))


def with_wrong_students(bundle: Bundle) -> Bundle:
    """The bundle with a graph whose students give other distances than the reference."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(bundle.path / GRAPH)
    weight = next(item for item in graph.graph.initializer if item.name.endswith("forward_student.4.bias"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 1, weight.name))
    onnx.save(graph, bundle.path / GRAPH)
    return seal_bundle(bundle)


def test_an_engine_that_strays_leaves_the_bundle_as_it_was(copied: Bundle) -> None:
    wrong = with_wrong_students(copied)
    with pytest.raises(EngineError, match="strays"):
        export_openvino(wrong, "f32")
    assert open_bundle(wrong.path) == wrong


def test_a_sidecar_of_another_graph_does_not_vouch_for_this_one(copied: Bundle) -> None:
    assert accepted_precision(with_wrong_students(copied)) == "f32"


@pytest.mark.parametrize("name", ["missing.fbft", "empty.fbft"])
def test_what_is_no_bundle_ends_with_status_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "empty.fbft").mkdir()
    status = main([str(tmp_path / name)])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)

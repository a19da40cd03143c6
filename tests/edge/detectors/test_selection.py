"""One engine is chosen at the start, and the user is told which and why."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import pytest

from fbft_edge.bundle.engines import Sidecar, write_sidecar
from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle, open_bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.cli.main import main
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool, open_model
from fbft_edge.detectors.selection import engine_for, open_detector
from fbft_edge.errors import BundleError, EngineError
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat

SIZE = (140, 182)
LAYOUT = FrameLayout(*SIZE)


def with_engine(bundle: Bundle, folder: Path, **changes: object) -> Bundle:
    """A copy of a bundle that also holds an engine for RTX 30 and RTX 40 GPUs."""
    path = folder / "gpu.fbft"
    shutil.copytree(bundle.path, path)
    copy = open_bundle(path)
    sidecar = Sidecar(
        name="tensorrt-rtx-fp16",
        runtime="tensorrt-rtx",
        version="1.7.1",
        targets=("sm_86", "sm_89"),
        precision="fp16",
        graph_sha256=copy.files[GRAPH],
        plan="tensorrt-rtx-fp16.plan",
        batches=(1, 6, 16),
    )
    write_sidecar(copy, dataclasses.replace(sidecar, **changes))  # type: ignore[arg-type]
    (path / ENGINES / "tensorrt-rtx-fp16.plan").write_bytes(b"plan")
    return seal_bundle(copy)


def test_a_bundle_without_gpu_engines_runs_on_openvino(small_bundle: Bundle) -> None:
    opened = open_detector(small_bundle, LAYOUT)
    assert isinstance(opened.detector, OpenVinoDetector)
    assert "holds no GPU engine" in opened.reason


def test_a_mono_camera_gets_no_model_where_nominal_images_have_colour(small_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="is mono: the three channels of every pixel are equal"):
        open_model(small_bundle, [FrameLayout(*SIZE, PixelFormat.MONO8)])


def test_auto_says_why_a_gpu_engine_does_not_run(small_bundle: Bundle, tmp_path: Path) -> None:
    reason = open_detector(with_engine(small_bundle, tmp_path), LAYOUT).reason
    assert reason.startswith("OpenVINO")
    assert "not tensorrt-rtx: " in reason


def test_an_engine_that_was_asked_for_is_never_replaced_by_another(small_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"PyCUDA|NVIDIA|GPU"):
        open_detector(with_engine(small_bundle, tmp_path), LAYOUT, engine="tensorrt-rtx")


def test_an_engine_that_the_bundle_lacks_is_named_with_the_remedy(small_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"holds no tensorrt engine; run fbft-export .* --runtime tensorrt"):
        open_detector(small_bundle, LAYOUT, engine="tensorrt")


def test_a_stale_engine_is_named_and_not_used(small_bundle: Bundle, tmp_path: Path) -> None:
    bundle = with_engine(small_bundle, tmp_path, graph_sha256="0" * 64)
    with pytest.raises(EngineError, match=r"tensorrt-rtx-fp16 in .* is stale"):
        engine_for(bundle, "tensorrt-rtx")


def test_an_engine_for_another_gpu_is_not_used(small_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="for sm_86, sm_89, this GPU is sm_120"):
        engine_for(with_engine(small_bundle, tmp_path), "tensorrt-rtx", "sm_120")


def test_an_engine_for_this_gpu_is_found(small_bundle: Bundle, tmp_path: Path) -> None:
    assert engine_for(with_engine(small_bundle, tmp_path), "tensorrt-rtx", "sm_89").plan == "tensorrt-rtx-fp16.plan"


def test_a_run_with_an_engine_that_cannot_run_ends_with_status_2(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = "synthetic://?height=140&width=182"
    status = main(["run", "--bundle", str(small_bundle.path), "--camera", camera, "--engine", "tensorrt"])
    error = capsys.readouterr().err
    assert (status, error.count("\n"), "holds no tensorrt engine" in error) == (2, 1, True)


def test_a_pool_makes_one_detector_for_each_size(small_bundle: Bundle) -> None:
    with DetectorPool(partial(OpenVinoDetector, small_bundle)) as pool:
        assert pool.of(LAYOUT) is pool.of(FrameLayout(*SIZE))

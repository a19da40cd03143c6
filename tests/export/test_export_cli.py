"""`fbft-export` builds an engine that passes the gate and seals it into the bundle, or says why not."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import openvino
import pytest

from fbft_edge.bundle.engines import Sidecar, sidecars
from fbft_edge.bundle.reading import GRAPH, REPORT, Bundle, open_bundle
from fbft_edge.bundle.sealing import revising, seal_bundle
from fbft_edge.detectors.host import accepted_precision
from fbft_edge.errors import EngineError
from fbft_export.cli import main
from fbft_export.engines import TensorRtSettings, export_openvino, export_tensorrt, profile_batches


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


def test_an_export_seals_the_bundle_once(copied: Bundle, seals_of: Callable[[Path], int]) -> None:
    exported, _ = export_openvino(copied, "f32")
    assert (seals_of(copied.path), open_bundle(copied.path)) == (1, exported)


def test_a_sidecar_names_its_graph_and_its_parity(copied: Bundle) -> None:
    exported, parity = export_openvino(copied, "f32")
    sidecar = next(sidecar for sidecar in sidecars(exported) if sidecar.precision == "f32")
    assert (sidecar.graph_sha256, sidecar.parity) == (exported.files[GRAPH], {"device": parity.as_dict()})


def test_an_export_keeps_thresholds_and_files(copied: Bundle) -> None:
    exported, _ = export_openvino(copied, "f32")
    before, after = dict(copied.files), dict(exported.files)
    del before[REPORT], after[REPORT]  # which tells of the new engine
    assert (exported.thresholds, before.items() <= after.items()) == (copied.thresholds, True)


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


@pytest.fixture(scope="module")
def exported(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, str]:
    """A bundle exported for all desktop GPUs: where it is, the status, what was printed to both streams."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    path = tmp_path_factory.mktemp("exported") / "small.fbft"
    shutil.copytree(small_bundle.path, path)
    command = [sys.executable, "-m", "fbft_export", str(path), "--runtime", "tensorrt-rtx"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return path, result.returncode, result.stdout, result.stderr


def rtx_engine(bundle: Bundle) -> Sidecar:
    """The engine for all desktop GPUs but Turing."""
    return next(sidecar for sidecar in sidecars(bundle) if sidecar.name == "tensorrt-rtx-fp16")


def test_one_command_without_a_gpu_builds_for_the_desktop_gpus(exported: tuple[Path, int, str, str]) -> None:
    path, status, _, _ = exported
    assert (status, {"sm_86", "sm_89", "sm_120"} <= set(rtx_engine(open_bundle(path)).targets)) == (0, True)


def test_the_engine_is_listed_with_its_targets(
    exported: tuple[Path, int, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(exported[0]), "--list"])
    row = next(line for line in capsys.readouterr().out.splitlines() if "tensorrt-rtx-fp16 " in line)
    assert [
        word for word in ("sm_86", "sm_89", "sm_120", "MB", "emulated: map max", "current") if word not in row
    ] == []


def test_progress_goes_to_standard_error_and_the_result_to_standard_output(
    exported: tuple[Path, int, str, str],
) -> None:
    _, _, out, err = exported
    assert ("building the engine for sm_80, sm_86" in err, "building" in out, "tensorrt-rtx-fp16" in out) == (
        True,
        False,
        True,
    )


def test_plan_and_kernels_are_sealed_into_the_bundle(exported: tuple[Path, int, str, str]) -> None:
    files = open_bundle(exported[0]).files
    expected = {"engines/tensorrt-rtx-fp16.plan", "kernels/kernels.json", "kernels/sm_86/score.cubin"}
    assert expected - set(files) == set()


def test_turing_gets_an_engine_of_its_own(exported: tuple[Path, int, str, str]) -> None:
    engines = {sidecar.name: sidecar.targets for sidecar in sidecars(open_bundle(exported[0]))}
    assert engines["tensorrt-rtx-fp16-sm_75"] == ("sm_75",)


def test_every_target_of_an_engine_has_its_kernels(exported: tuple[Path, int, str, str]) -> None:
    bundle = open_bundle(exported[0])
    folders = {name.split("/")[1] for name in bundle.files if name.endswith(".cubin")}
    assert folders == {target for sidecar in sidecars(bundle) if sidecar.plan for target in sidecar.targets}


def test_a_sidecar_says_how_its_plan_was_built(exported: tuple[Path, int, str, str]) -> None:
    bundle = open_bundle(exported[0])
    sidecar = rtx_engine(bundle)
    found = sidecar.version, sidecar.precision, sidecar.batches, sidecar.graph_sha256, set(sidecar.memory_bytes)
    version = pytest.importorskip("tensorrt_rtx").__version__
    assert found == (version, "fp16", (1, 4, 16), bundle.files[GRAPH], {"activation", "weights"})


def test_the_arithmetic_of_a_tensorrt_engine_is_held_to_float32(exported: tuple[Path, int, str, str]) -> None:
    parity = rtx_engine(open_bundle(exported[0])).parity["emulated"]
    assert 0 < parity["map_max"] < 0.02


def test_the_best_batch_is_a_frame_and_the_largest_takes_any_frame_of_the_bundle(small_bundle: Bundle) -> None:
    sizes = dataclasses.replace(small_bundle, frame_sizes=((140, 182), (560, 728)))
    assert profile_batches(sizes) == (1, 4, 48)


def test_a_bundle_of_any_frame_size_gets_a_modest_largest_batch(small_bundle: Bundle) -> None:
    assert profile_batches(dataclasses.replace(small_bundle, frame_sizes=())) == (1, 1, 16)


def test_a_new_engine_takes_the_place_of_those_for_the_same_gpu_alone_and_the_bundle_is_sealed_once(
    exported: tuple[Path, int, str, str], tmp_path: Path, seals_of: Callable[[Path], int]
) -> None:
    shutil.copytree(exported[0], tmp_path / "copy.fbft")
    settings = TensorRtSettings("f32", ("sm_86",))
    bundle, _ = export_tensorrt(open_bundle(tmp_path / "copy.fbft"), "tensorrt-rtx", settings)
    plans = [name for name in bundle.files if name.endswith(".plan")]
    assert seals_of(bundle.path) == 1
    assert plans == ["engines/tensorrt-rtx-f32-sm_86.plan", "engines/tensorrt-rtx-fp16-sm_75.plan"]


def test_a_float16_engine_that_strays_is_not_built(copied: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    wrong = with_wrong_students(copied)
    with pytest.raises(EngineError, match="strays"), revising(wrong) as draft:
        export_tensorrt(draft, "tensorrt-rtx", TensorRtSettings(targets=("sm_86",)))
    assert open_bundle(wrong.path) == wrong


def test_a_stale_engine_is_named_with_what_to_do(copied: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(with_wrong_students(copied).path), "--list"])
    assert f"is stale and is not used: the graph has changed since it was made; run fbft-export {copied.path}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--precision fp16", "--runtime openvino has no precision fp16; it has bf16 and f32"),
        (
            "--runtime tensorrt-rtx --precision bf16",
            "--runtime tensorrt-rtx has no precision bf16; it has fp16 and f32",
        ),
        ("--target sm_86", "--runtime openvino takes no --target; leave it out, or use --runtime tensorrt or"),
        ("--runtime tensorrt-rtx --timing-cache x", "--runtime tensorrt-rtx takes no --timing-cache; leave it out"),
        ("--runtime tensorrt --timing-cache no/x", "no of --timing-cache is no folder; make it first"),
        ("--runtime tensorrt-rtx --workspace-mib 0", "--workspace-mib 0 is no amount of memory; it takes 1 or more"),
        ("--runtime tensorrt-rtx --target sm_86,sm_87", "does not build fp16 engines for sm_87 here, only for sm_75,"),
        ("--runtime tensorrt-rtx --target sm_75 --precision f32", "choose among these, or use --precision fp16"),
        ("--runtime tensorrt", "TensorRT cannot be imported"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_line(
    small_bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    reason: str,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    status = main([str(small_bundle.path), *options.split()])
    error = capsys.readouterr().err
    assert (status, error.count("\n"), reason in error) == (2, 1, True)


def test_what_is_no_target_is_refused(small_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(small_bundle.path), "--runtime", "tensorrt-rtx", "--target", "ampere"])
    assert "'ampere' is not of the form sm_86,sm_89" in capsys.readouterr().err


def test_building_needs_no_torch(copied: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    code = (
        "import sys; sys.modules.update(torch=None, timm=None, onnxscript=None); from fbft_export.cli import main; "
        f"sys.exit(main([{str(copied.path)!r}, '--runtime', 'tensorrt-rtx', '--target', 'sm_86']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (result.returncode, "tensorrt-rtx-fp16-sm_86" in result.stdout) == (0, True), result.stderr


@pytest.mark.parametrize("name", ["missing.fbft", "empty.fbft"])
def test_what_is_no_bundle_ends_with_status_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "empty.fbft").mkdir()
    status = main([str(tmp_path / name)])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from fbft_export.cli import command_line; command_line().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {"cv2", "numpy", "onnx", "openvino", "rich", "torch", "zmq"} == set()

"""NVIDIA's own builder, on a machine without GPU: the bundle's graph becomes a plan, or the message says why not."""

from __future__ import annotations

import io
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
from rich.console import Console

from fbft_edge.bundle.reading import GRAPH, GRAPH_INPUT, GRAPH_OUTPUT, Bundle
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.detectors.tensorrt_library import log_of
from fbft_edge.errors import EngineError
from fbft_export.half_precision import half_graph
from fbft_export.tensorrt_builder import Plan, build_plan, offered_targets, require_targets, targets_by_plan

rtx = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")

TARGETS = ("sm_86", "sm_89", "sm_120")
TILE_PX = 112


@pytest.fixture(scope="module")
def graph(small_bundle: Bundle) -> bytes:
    """The bundle's graph in float16."""
    serialized: bytes = half_graph(onnx.load(small_bundle.file(GRAPH))).SerializeToString()
    return serialized


@pytest.fixture(scope="module")
def plan(graph: bytes) -> Plan:
    return built(graph)


@pytest.fixture
def tensorrt_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TensorRT's libraries are not on the package index; TensorRT for RTX has the same interface and stands in."""
    if find_spec("tensorrt") is not None:
        pytest.skip("TensorRT itself is here")
    monkeypatch.setitem(sys.modules, "tensorrt", rtx)
    return rtx


def built(graph: bytes, runtime: str = "tensorrt-rtx", **changes: Any) -> Plan:
    settings = {"tile_px": TILE_PX, "batches": (1, 4, 16), "targets": TARGETS}
    return build_plan(runtime, graph, **{**settings, **changes})


def test_the_desktop_gpus_of_three_generations_are_offered() -> None:
    assert {"sm_75", *TARGETS} <= set(offered_targets("tensorrt-rtx", "fp16"))


def test_turing_is_not_offered_in_float32() -> None:
    fp16, f32 = (offered_targets("tensorrt-rtx", precision) for precision in ("fp16", "f32"))
    assert set(fp16) - set(f32) == {"sm_75"}


def test_turing_is_not_offered_in_float32_because_the_library_refuses_it(small_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="FP32 GEMM is not supported"):
        built(small_bundle.file(GRAPH).read_bytes(), targets=("sm_75",))


def test_a_target_that_is_not_offered_is_refused_with_those_that_are() -> None:
    with pytest.raises(EngineError, match=r"for sm_87 here, only for sm_75, .*sm_120.*--runtime tensorrt,"):
        require_targets("tensorrt-rtx", "fp16", ("sm_86", "sm_87"))


def test_tensorrt_recognises_the_plan_as_its_own(plan: Plan) -> None:
    runtime = rtx.Runtime(log_of("tensorrt-rtx").logger)
    _, diagnostics = runtime.get_engine_validity(plan.data)
    assert diagnostics & int(rtx.EngineInvalidityDiagnostics.MALFORMED_ENGINE) == 0


def test_a_plan_with_anything_before_it_is_no_plan(plan: Plan) -> None:
    runtime = rtx.Runtime(log_of("tensorrt-rtx").logger)
    _, diagnostics = runtime.get_engine_validity(b"prefix" + plan.data)
    assert diagnostics & int(rtx.EngineInvalidityDiagnostics.MALFORMED_ENGINE) != 0


def test_a_plan_names_the_library_that_built_it(plan: Plan) -> None:
    assert plan.version == rtx.__version__


def test_a_plan_carries_the_weights_in_float16(plan: Plan, small_bundle: Bundle) -> None:
    assert plan.memory_bytes["weights"] < 0.6 * small_bundle.file(GRAPH).stat().st_size


def test_one_plan_serves_all_targets_at_the_cost_of_one(graph: bytes, plan: Plan) -> None:
    alone = built(graph, targets=TARGETS[:1])
    assert len(plan.data) < 1.1 * len(alone.data)


def test_turing_has_a_plan_of_its_own() -> None:
    assert targets_by_plan("tensorrt-rtx", ("sm_75", *TARGETS)) == [TARGETS, ("sm_75",)]


def test_tensorrt_builds_for_the_gpu_of_its_machine_even_if_that_is_turing() -> None:
    assert targets_by_plan("tensorrt", ("sm_75",)) == [("sm_75",)]


def test_larger_batches_take_more_memory(graph: bytes, plan: Plan) -> None:
    larger = built(graph, batches=(1, 4, 32))
    assert larger.memory_bytes["activation"] > plan.memory_bytes["activation"]


@pytest.mark.parametrize("precision", ["fp16", "f32"])
def test_the_library_sees_tiles_as_bytes_and_distances_as_floats(
    small_bundle: Bundle, graph: bytes, precision: str
) -> None:
    log = log_of("tensorrt-rtx")
    builder = rtx.Builder(log.logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, log.logger)
    is_parsed = parser.parse(graph if precision == "fp16" else small_bundle.file(GRAPH).read_bytes())
    seen = [
        (tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in (network.get_input(0), network.get_output(0))
    ]
    expected = [(GRAPH_INPUT, rtx.DataType.UINT8, (-1, 112, 112, 3)), (GRAPH_OUTPUT, rtx.DataType.FLOAT, (-1, 8, 8))]
    assert (is_parsed, network.num_inputs, network.num_outputs, seen) == (True, 1, 1, expected)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"graph": b"no graph"}, "Failed to parse the ONNX model"),
        ({"tile_px": 126}, r"\(-1, 112, 112, 3\).* expected uint8 tiles of 126x126"),
        ({"batches": (4, 2, 1)}, "MIN<=OPT<=MAX"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_built_says_why(graph: bytes, changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(EngineError, match=cause):
        built(**{"graph": graph, **changes})


def test_the_phases_of_the_builder_are_shown_on_a_terminal(graph: bytes) -> None:
    screen = io.StringIO()
    built(graph, progress=TerminalProgress(Console(file=screen, force_terminal=True)))
    assert "Building engine" in screen.getvalue()


def test_nothing_is_written_where_there_is_no_terminal(graph: bytes) -> None:
    stream = io.StringIO()
    built(graph, progress=TerminalProgress(Console(file=stream)))
    assert stream.getvalue() == ""


def test_ctrl_c_ends_a_build(graph: bytes) -> None:
    class Screen(io.StringIO):
        """Ctrl-C is pressed as soon as something is to be seen."""

        def write(self, text: str) -> int:
            signal.raise_signal(signal.SIGINT)
            return super().write(text)

    with pytest.raises(KeyboardInterrupt):
        built(graph, progress=TerminalProgress(Console(file=Screen(), force_terminal=True)))


def test_ctrl_c_means_again_after_a_build_what_it_meant_before(graph: bytes) -> None:
    before = signal.getsignal(signal.SIGINT)
    built(graph)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_engine_can_be_built_in_any_thread(graph: bytes) -> None:
    plans: list[Plan] = []
    thread = threading.Thread(target=lambda: plans.append(built(graph)))
    thread.start()
    thread.join()
    assert len(plans) == 1


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
@pytest.mark.usefixtures("tensorrt_module")
def test_a_timing_cache_is_made_and_taken_again(graph: bytes, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    for _ in range(2):
        built(graph, "tensorrt", timing_cache=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["timing.cache"]


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_the_timing_cache_of_another_gpu_is_refused(
    graph: bytes, tensorrt_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tensorrt_module.IBuilderConfig, "set_timing_cache", lambda *_, **__: False)
    with pytest.raises(EngineError, match=r"timing cache .* is of another GPU or another TensorRT"):
        built(graph, "tensorrt", timing_cache=tmp_path / "timing.cache")


def test_tensorrt_without_a_gpu_says_where_to_build(tensorrt_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(logger: Any) -> None:
        logger.log(rtx.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(tensorrt_module, "Builder", refuse)
    with pytest.raises(EngineError, match=r"finds none here \(CUDA initialization failure with error: 35\); run fbft-"):
        offered_targets("tensorrt", "fp16")

"""The float16 graph is the float32 graph but for rounding, whatever the ViT, and a CPU shows every rounding."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper, parser
from timm.layers import RmsNorm, SwiGLUPacked
from timm.models import VisionTransformer

from fbft_edge.bundle.reading import GRAPH, GRAPH_INPUT, Bundle
from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.images import image_paths, read_image
from fbft_export.float32_islands import DEFAULT, NONE, Kept, Wiring
from fbft_export.graph import PatchDistanceModel, write_graph
from fbft_export.half_precision import EmulatedHalfEngine, half_graph
from fbft_export.parity import TOLERANCES, compare_distances, measure_parity
from fbft_export.students import Students
from fbft_export.teacher import Teacher

DEPTH = 2
TILE_PX = 56
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "modern": {"reg_tokens": 4, "init_values": 0.1, "mlp_layer": SwiGLUPacked, "qk_norm": True},
    "rms_norm": {"norm_layer": RmsNorm, "pre_norm": True},
}
HEADER = '<ir_version: 10, opset_import: ["" : 20]>'


@pytest.fixture(scope="module", params=SHAPES)
def vit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The float32 graph of a small ViT with random weights."""
    torch.manual_seed(0)
    shape = SHAPES[request.param]
    model = VisionTransformer(TILE_PX, 14, embed_dim=48, depth=DEPTH, num_heads=3, num_classes=0, **shape)
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    path = tmp_path_factory.mktemp("vits") / f"{request.param}.onnx"
    write_graph(PatchDistanceModel(Teacher(model, request.param, (0, DEPTH - 1), TILE_PX), Students(48)), path)
    return onnx.load(path)


@pytest.fixture(scope="module")
def bundled(small_bundle: Bundle) -> onnx.ModelProto:
    """The float32 graph of the offline teacher."""
    return onnx.load(small_bundle.file(GRAPH))


def random_tiles(count: int) -> Uint8:
    return np.random.default_rng(5).integers(0, 256, (count, TILE_PX, TILE_PX, 3), np.uint8)


def distances(graph: onnx.ModelProto, tiles: Uint8) -> Float32:
    side = tiles.shape[1] // 14
    out = np.full((len(tiles), side, side), np.nan, np.float32)
    EmulatedHalfEngine(graph.SerializeToString()).infer(tiles, out)
    return out


def results(graph: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def types_read(graph: onnx.ModelProto, *operators: str) -> set[int]:
    """Element types of what some operators read first."""
    types = Wiring(graph).types
    return {types[node.input[0]] for node in graph.graph.node if node.op_type in operators}


def toy(text: str) -> onnx.ModelProto:
    return parser.parse_model(f"{HEADER} toy {text}")


# The float16 graph


@pytest.mark.parametrize("kept", [DEFAULT, NONE], ids=["default", "none"])
def test_the_float16_graph_is_valid_onnx(vit: onnx.ModelProto, kept: Kept) -> None:
    assert onnx.checker.check_model(half_graph(vit, kept), full_check=True) is None


@pytest.mark.parametrize("kept", [DEFAULT, NONE], ids=["default", "none"])
def test_nvidias_parser_and_builder_take_it_strongly_typed(vit: onnx.ModelProto, kept: Kept) -> None:
    tensorrt = pytest.importorskip("tensorrt_rtx", reason="building needs the extra tensorrt-rtx")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert tensorrt.OnnxParser(network, logger).parse(half_graph(vit, kept).SerializeToString())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(GRAPH_INPUT, *((batch, TILE_PX, TILE_PX, 3) for batch in (1, 4, 16)))
    config.add_optimization_profile(profile)
    targets = (tensorrt.ComputeCapability.SM86, tensorrt.ComputeCapability.SM89, tensorrt.ComputeCapability.SM120)
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(target, index)
    assert builder.build_serialized_network(network, config) is not None


def test_every_matrix_product_is_float16(vit: onnx.ModelProto) -> None:
    assert types_read(half_graph(vit), "MatMul", "Gemm", "Conv") == {TensorProto.FLOAT16}


def test_every_norm_and_softmax_is_float32(vit: onnx.ModelProto) -> None:
    norms = ("LayerNormalization", "Softmax", "ReduceMean", "ReduceL2", "Pow", "Sqrt", "Reciprocal")
    assert types_read(half_graph(vit), *norms) == {TensorProto.FLOAT}


def test_every_addition_to_the_residual_stream_is_float32(vit: onnx.ModelProto) -> None:
    graph = half_graph(vit)
    wiring = Wiring(graph)
    additions = [
        index
        for index, node in enumerate(wiring.nodes)
        if node.op_type == "Add" and not wiring.constants.keys() & set(node.input) and "distance" not in node.name
    ]
    assert (len(additions), {wiring.types[wiring.nodes[index].input[0]] for index in additions}) == (
        2 * DEPTH,
        {TensorProto.FLOAT},
    )


def test_without_islands_only_the_ends_are_float32(vit: onnx.ModelProto) -> None:
    graph = half_graph(vit, NONE)
    wiring = Wiring(graph)
    wide = {node.op_type for node in wiring.nodes if wiring.is_activation.intersection(wiring.floats(node.output))}
    assert wide == {"Cast", "Transpose"}  # of the tiles, and to the output


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("kept", [DEFAULT, NONE], ids=["default", "none"])
def test_inputs_and_outputs_stay_as_they_are(vit: onnx.ModelProto, kept: Kept, emulated: bool) -> None:
    graph = half_graph(vit, kept, emulated=emulated).graph
    assert ([*graph.input], [*graph.output]) == ([*vit.graph.input], [*vit.graph.output])


def test_the_bytes_feed_nothing_but_a_cast(vit: onnx.ModelProto) -> None:
    assert [node.op_type for node in half_graph(vit).graph.node if GRAPH_INPUT in node.input] == ["Cast"]


def test_integers_stay_as_they_are(vit: onnx.ModelProto) -> None:
    def integers(graph: onnx.ModelProto) -> dict[str, bytes]:
        return {item.name: item.raw_data for item in graph.graph.initializer if item.data_type == TensorProto.INT64}

    assert integers(half_graph(vit)) == integers(vit)


def test_the_float32_graph_is_not_altered(vit: onnx.ModelProto) -> None:
    before = vit.SerializeToString()
    half_graph(vit, NONE, emulated=True)
    assert vit.SerializeToString() == before


def test_weights_take_half_the_space(bundled: onnx.ModelProto) -> None:
    assert half_graph(bundled).ByteSize() < 0.51 * bundled.ByteSize()


def test_every_node_says_which_part_it_belongs_to(vit: onnx.ModelProto) -> None:
    assert {node.name.split("/")[0] for node in half_graph(vit).graph.node} == {"teacher", "students", "distance"}


def test_no_two_values_and_no_two_nodes_share_a_name(vit: onnx.ModelProto) -> None:
    graph = half_graph(vit, NONE, emulated=True).graph
    values, nodes = (
        Counter(name for node in graph.node for name in node.output),
        Counter(node.name for node in graph.node),
    )
    assert max(values.values()) == max(nodes.values()) == 1


def test_a_constant_read_by_both_precisions_is_there_in_both() -> None:
    model = toy("""(float[1,2] x) => (float[1,2] y) <float[2] w = {0.1, 0.2}, float[2,2] eye = {1, 0, 0, 1}> {
        a = MatMul(x, eye)
        b = LayerNormalization(a, w)
        y = Mul(b, w)
    }""")
    graph = half_graph(model, dataclasses.replace(NONE, layer_norm=True)).graph
    found = {item.name: item.data_type for item in graph.initializer if item.name.startswith("w")}
    assert found == {"w": TensorProto.FLOAT, "w/half": TensorProto.FLOAT16}


def test_an_epsilon_below_float16_still_keeps_a_division_finite() -> None:
    model = toy("""(float[1,2] x) => (float[1,2] y) <float least = {1e-12}, int64[1] last = {-1}> {
        length = ReduceL2(x, last)
        safe = Clip(length, least)
        y = Div(x, safe)
    }""")
    assert results(half_graph(model, NONE), x=np.zeros((1, 2), np.float32)).tolist() == [[0, 0]]


def test_a_node_with_a_constant_beyond_float16_stays_float32() -> None:
    model = toy("""(float[1,2] x) => (float[1,2] y) <float[2] large = {1e5, 1}> {
        a = Sqrt(x)
        b = Mul(a, large)
        y = Sqrt(b)
    }""")
    graph = half_graph(model, NONE)
    assert (types_read(graph, "Mul"), types_read(graph, "Sqrt")) == ({TensorProto.FLOAT}, {TensorProto.FLOAT16})


def test_numbers_computed_from_shapes_stay_float32() -> None:
    model = toy("""(float[N,4099] x) => (float[N,4099] y) {
        shape = Shape<start = 1>(x)
        size = Cast<to = 1>(shape)
        root = Sqrt(size)
        y = Div(x, root)
    }""")
    graph = half_graph(model, NONE)
    assert (types_read(graph, "Sqrt"), types_read(graph, "Div")) == ({TensorProto.FLOAT}, {TensorProto.FLOAT16})


def test_control_flow_is_refused() -> None:
    model = toy("""(bool c, float[1] x) => (float[1] y) {
        y = If(c) <then_branch = t () => (float[1] a) { a = Neg(x) }, else_branch = e () => (float[1] b) { b = Abs(x) }>
    }""")
    with pytest.raises(EngineError, match="control flow"):
        half_graph(model)


# Its emulation


@pytest.mark.parametrize("batch", [1, 3])
def test_with_the_default_islands_float16_is_float32_but_for_rounding(vit: onnx.ModelProto, batch: int) -> None:
    tiles = random_tiles(batch)
    expected = distances(vit, tiles)
    np.testing.assert_allclose(distances(half_graph(vit, emulated=True), tiles), expected, atol=1e-3 * expected.max())


def test_the_float16_graph_itself_computes_the_same(vit: onnx.ModelProto) -> None:
    tiles = random_tiles(2)
    expected = distances(vit, tiles)
    np.testing.assert_allclose(distances(half_graph(vit), tiles), expected, atol=2e-3 * expected.max())


def test_the_islands_bring_it_nearer(vit: onnx.ModelProto) -> None:
    tiles = random_tiles(2)
    expected = distances(vit, tiles)
    kept, bare = (np.abs(distances(half_graph(vit, kept, emulated=True), tiles) - expected) for kept in (DEFAULT, NONE))
    assert kept.mean() < bare.mean() / 2


def with_outlier(graph: onnx.ModelProto, size: float) -> onnx.ModelProto:
    """The same teacher with one large activation in its first token, as large ViTs have them."""
    altered = onnx.ModelProto()
    altered.CopyFrom(graph)
    positions = next(item for item in altered.graph.initializer if item.name.endswith("pos_embed"))
    values = numpy_helper.to_array(positions).copy()
    values[0, 0, 7] = size
    positions.CopyFrom(numpy_helper.from_array(values, positions.name))
    return altered


@pytest.mark.parametrize(
    ("kept", "is_right"), [(DEFAULT, True), (dataclasses.replace(DEFAULT, layer_norm=False), False)]
)
def test_a_large_activation_needs_layer_norm_in_float32(
    bundled: onnx.ModelProto, small_bundle: Bundle, kept: Kept, is_right: bool
) -> None:
    graph = with_outlier(bundled, 400)
    tiles = np.random.default_rng(2).integers(0, 256, (1, 112, 112, 3), np.uint8)
    expected, found = distances(graph, tiles), distances(half_graph(graph, kept, emulated=True), tiles)
    assert compare_distances(expected, found, small_bundle.tile).is_within(TOLERANCES["fp16"]) == is_right


def test_a_product_is_rounded_to_float16() -> None:
    model = toy("(float[1,2] x) => (float[1,2] y) <float[2,2] w = {1, 0.1, 3, 7.7}> { y = MatMul(x, w) }")
    x = np.array([[0.3, 1.7]], np.float32)
    half_x, half_w = (value.astype(np.float16).astype(np.float32) for value in (x, np.float32([[1, 0.1], [3, 7.7]])))
    expected = (half_x @ half_w).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(results(half_graph(model, NONE, emulated=True), x=x), expected)


def test_what_float16_cannot_hold_overflows() -> None:
    model = toy("""(float[1,2] x) => (float[1,2] y)
    <float[2,2] w = {300, 0, 0, 1}, float up = {300}, float down = {0.001}> {
        a = MatMul(x, w)
        b = Mul(a, up)
        y = Mul(b, down)
    }""")
    x = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(results(half_graph(model, NONE, emulated=True), x=x), [[np.inf, 0.3]], rtol=1e-3)


def test_softmax_without_its_island_is_rounded_at_every_step() -> None:
    model = toy("(float[1,3] x) => (float[1,3] y) { y = Softmax(x) }")
    x = np.array([[0.1, 0.7, 2.2]], np.float16)
    powers = np.exp(x - x.max())
    expected = powers / powers.astype(np.float32).sum().astype(np.float16)
    found = results(half_graph(model, NONE, emulated=True), x=x.astype(np.float32))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_graph_that_cannot_be_loaded_says_why() -> None:
    with pytest.raises(EngineError, match="cannot load the graph"):
        EmulatedHalfEngine(b"no graph")


def test_a_missing_onnx_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install"):
        EmulatedHalfEngine(b"")


# The offline teacher


@pytest.fixture(scope="module")
def emulated(bundled: onnx.ModelProto) -> EmulatedHalfEngine:
    return EmulatedHalfEngine(half_graph(bundled, emulated=True).SerializeToString())


def test_the_offline_teacher_passes_the_parity_gate(small_bundle: Bundle, emulated: EmulatedHalfEngine) -> None:
    assert measure_parity(small_bundle, emulated.infer).is_within(TOLERANCES["fp16"])


@pytest.mark.parametrize("product", ["mvtec_bottle", "hazelnut_toy"])
def test_the_offline_teacher_passes_on_real_images(
    small_bundle: Bundle, bundled: onnx.ModelProto, emulated: EmulatedHalfEngine, shared_data: Path, product: str
) -> None:
    paths = [path for kind in sorted((shared_data / product / "test").iterdir()) for path in image_paths(kind)]
    tiles = np.stack([centre(read_image(path)) for path in paths[:: len(paths) // 20]])
    expected, found = distances(bundled, tiles), np.empty((len(tiles), 8, 8), np.float32)
    emulated.infer(tiles, found)
    parity = compare_distances(expected, found, small_bundle.tile)
    assert parity.num_tiles >= 20
    assert parity.is_within(TOLERANCES["fp16"])


def centre(pixels: Uint8) -> Uint8:
    top, left = (pixels.shape[0] - 112) // 2, (pixels.shape[1] - 112) // 2
    return pixels[top : top + 112, left : left + 112]


@pytest.mark.parametrize("module", ["half_precision", "float32_islands", "parity"])
def test_neither_torch_nor_timm_is_needed(module: str) -> None:
    program = f"import sys, fbft_export.{module}; sys.exit(bool({{'torch', 'timm'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

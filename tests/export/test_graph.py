"""The graph is the torch model, in one file, with nothing of this machine in it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from fbft_edge.bundle.reading import GRAPH, GRAPH_INPUT, GRAPH_OUTPUT, Bundle
from fbft_edge.detectors.host import OpenVinoEngine, openvino_core
from fbft_edge.frames.frame import Uint8
from fbft_edge.synthetic import render_part
from fbft_export.parity import PARITY_FILE


@pytest.fixture(scope="module")
def graph(small_bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(small_bundle.file(GRAPH))


def real_tiles(count: int) -> Uint8:
    return np.stack([render_part(seed, 112, 112).pixels for seed in range(70, 70 + count)])


def shape_of(value: onnx.ValueInfoProto) -> list[Any]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


def test_openvino_in_float32_is_the_torch_model(small_bundle: Bundle, small_model: torch.nn.Module) -> None:
    tiles = real_tiles(4)
    found = np.empty((4, 8, 8), np.float32)
    OpenVinoEngine(small_bundle.read(GRAPH), 112, "f32").infer(tiles, found)
    with torch.inference_mode():
        np.testing.assert_allclose(found, small_model(torch.from_numpy(tiles)).numpy(), rtol=1e-4, atol=1e-4)


def test_the_stored_reference_is_the_torch_model(small_bundle: Bundle, small_model: torch.nn.Module) -> None:
    stored = load_file(small_bundle.file(PARITY_FILE))
    with torch.inference_mode():
        expected = small_model(torch.from_numpy(stored["tiles"])).numpy()
    np.testing.assert_allclose(stored["distances"], expected, rtol=1e-4, atol=1e-5)


def test_normalisation_is_inside(small_model: torch.nn.Module) -> None:
    tiles = torch.from_numpy(real_tiles(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = small_model.teacher(((tiles / 255 - mean) / std).permute(0, 3, 1, 2))
        torch.testing.assert_close(small_model.features(tiles), expected, rtol=1e-3, atol=1e-4)


def test_tiles_go_in_as_bytes_and_distances_come_out_as_floats(graph: onnx.ModelProto) -> None:
    (tiles,), (distances,) = graph.graph.input, graph.graph.output
    types = tiles.type.tensor_type.elem_type, distances.type.tensor_type.elem_type
    assert (tiles.name, distances.name, types) == (
        GRAPH_INPUT,
        GRAPH_OUTPUT,
        (onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT),
    )


def test_only_the_batch_is_free(graph: onnx.ModelProto) -> None:
    shapes = shape_of(graph.graph.input[0]), shape_of(graph.graph.output[0])
    assert shapes == (["batch", 112, 112, 3], ["batch", 8, 8])


def test_the_bytes_feed_nothing_but_a_cast(graph: onnx.ModelProto) -> None:
    assert [node.op_type for node in graph.graph.node if GRAPH_INPUT in node.input] == ["Cast"]


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_any_batch_gives_the_distances_of_its_tiles(small_bundle: Bundle, batch: int) -> None:
    compiled = openvino_core().compile_model(small_bundle.file(GRAPH), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    tiles = real_tiles(batch)
    apart = np.concatenate([compiled([tile[None]])[0] for tile in tiles])
    np.testing.assert_allclose(compiled([tiles])[0], apart, rtol=1e-4, atol=1e-5)


def test_every_node_says_which_part_it_belongs_to(graph: onnx.ModelProto) -> None:
    assert {node.name.split("/")[0] for node in graph.graph.node} == {"teacher", "students", "prototypes", "distance"}


def test_everything_is_in_one_file(graph: onnx.ModelProto, small_bundle: Bundle) -> None:
    external = [item.name for item in graph.graph.initializer if item.external_data]
    assert (external, [name for name in small_bundle.files if name.startswith(GRAPH)]) == ([], [GRAPH])


@pytest.mark.parametrize("pattern", [r"/(home|root|tmp|usr|work|opt)/", "site-packages", r"\.py\b", r"[A-Z]:\\"])
def test_no_path_of_this_machine_is_in_the_file(graph: onnx.ModelProto, pattern: str) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    assert re.findall(pattern.encode(), bare.SerializeToString()) == []


def test_the_graph_is_valid_onnx(graph: onnx.ModelProto) -> None:
    assert onnx.checker.check_model(graph, full_check=True) is None


def test_the_graph_uses_only_standard_operators(graph: onnx.ModelProto) -> None:
    assert {node.domain for node in graph.graph.node} == {""}

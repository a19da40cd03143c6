"""Which nodes of a graph compute in float16: the float32 islands, found by structure, so that any ViT will do.

Knows nothing about how the graph is rewritten, nor about runtimes or images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Float32

HALF = np.finfo(np.float16)

# Move values without changing them: they keep the precision of what they read.
# fmt: off
MOVING = frozenset({
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape", "Slice",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
# Their float output or one of their float inputs must stay float32 by the operator's definition.
_FLOAT32_ONLY = frozenset({"Cast", "CastLike", "ConstantOfShape", "EyeLike", "OneHot", "Range", "Resize"})
_MATRIX_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_NORMS = frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"})
_MEANS = frozenset({"ReduceL2", "ReduceMean", "ReduceSumSquare"})
_POWERS = frozenset({"Mul", "Pow"})


@dataclass(frozen=True, slots=True)
class Kept:
    """The islands that stay float32.

    Attributes:
        pixels: Normalisation of the tiles, up to the patch projection.
        residual: The residual stream, with position embedding and LayerScale.
        layer_norm: LayerNorm and its kin.
        softmax: Softmax of the attention.
        distance: L2 norms and the patch distance.
    """

    pixels: bool = True
    residual: bool = True
    layer_norm: bool = True
    softmax: bool = True
    distance: bool = True


NONE = Kept(pixels=False, residual=False, layer_norm=False, softmax=False, distance=False)
DEFAULT = Kept()


class Wiring:
    """A graph that can be asked who makes and who reads a value.

    Attributes:
        nodes: In execution order; constants are taken out.
        constants: Initialisers and constants by name.
        types: Element type of every value.
        maker: Index of the node that makes a value.
        inputs: Names of the graph's inputs.
        outputs: Names of the graph's outputs.
        is_activation: Values that depend on the contents of the tiles, not on their shape alone.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            if any(item.HasField("g") or item.graphs for item in node.attribute):
                raise EngineError(
                    f"the graph has control flow ({node.op_type} {node.name}), which has no float16 form here; "
                    "export the bundle with --precision f32"
                )
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            else:
                self.nodes.append(node)
        self.types = _value_types(model, self.constants)
        self.maker = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.inputs = [value.name for value in graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in graph.output]
        self.is_activation = set(self.inputs)
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and self.is_activation.intersection(node.input):
                self.is_activation.update(node.output)

    def is_float(self, name: str) -> bool:
        """True for float32 values."""
        return bool(name) and self.types[name] == TensorProto.FLOAT

    def floats(self, names: Iterable[str]) -> list[str]:
        """The float32 values among some."""
        return [name for name in names if self.is_float(name)]

    def activations(self, index: int) -> list[str]:
        """The float32 activations that a node reads."""
        return [name for name in self.floats(self.nodes[index].input) if name in self.is_activation]

    def above(self, name: str, stops: Callable[[NodeProto], bool] = lambda node: False) -> Iterator[int]:
        """Nodes that a value comes from, through activations, up to those that stop the search, without them."""
        waiting, seen = [name], set()
        while waiting:
            index = self.maker.get(waiting.pop())
            if index is not None and index not in seen and not stops(self.nodes[index]):
                seen.add(index)
                yield index
                waiting.extend(self.activations(index))


def _value_types(model: onnx.ModelProto, constants: dict[str, TensorProto]) -> dict[str, int]:
    """Element type of every value, inferred on the graph without its weights, whose size has a limit."""
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.CopyFrom(onnx.GraphProto(name="bare", node=model.graph.node, input=model.graph.input))
    bare.graph.output.extend(model.graph.output)
    known = {value.name for value in bare.graph.input}
    bare.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name not in known
    )
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {name: tensor.data_type for name, tensor in constants.items()}


def half_nodes(wiring: Wiring, kept: Kept) -> set[int]:
    """Indices of the nodes that compute in float16."""
    islands = _islands(wiring, kept)
    half: set[int] = set()
    half_values: set[str] = set()
    for index, node in enumerate(wiring.nodes):
        sources = wiring.activations(index)
        if index in islands or not sources or _needs_float32(wiring, node):
            continue
        if node.op_type not in MOVING or half_values.issuperset(sources):
            half.add(index)
            half_values.update(node.output)
    return half


def _needs_float32(wiring: Wiring, node: NodeProto) -> bool:
    """True where float16 is not allowed, or cannot hold one of the node's constants."""
    if node.op_type in _FLOAT32_ONLY:
        return True
    constants = [wiring.constants[name] for name in wiring.floats(node.input) if name in wiring.constants]
    return any(_overflows(numpy_helper.to_array(tensor)) for tensor in constants)


def _overflows(values: Float32) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size) and float(np.abs(finite).max()) > float(HALF.max)


def _islands(wiring: Wiring, kept: Kept) -> set[int]:
    """Indices of the nodes that are kept in float32; moving nodes among and after them follow by themselves."""
    pixels, distance = _ends(wiring)
    parts: list[tuple[bool, Iterable[int]]] = [
        (kept.pixels, pixels),
        (kept.residual, _residual_nodes(wiring)),
        (kept.layer_norm, _norm_nodes(wiring) - distance),
        (kept.softmax, _nodes_of(wiring, frozenset({"Softmax"}))),
        (kept.distance, distance),
    ]
    return {index for is_kept, part in parts if is_kept for index in part}


def _nodes_of(wiring: Wiring, operators: frozenset[str]) -> set[int]:
    return {index for index, node in enumerate(wiring.nodes) if node.op_type in operators}


def _ends(wiring: Wiring) -> tuple[set[int], set[int]]:
    """Nodes before the first matrix product, and nodes after the last one."""
    pixels: set[int] = set()
    distance: set[int] = set()
    learned: set[str] = set()
    for index, node in enumerate(wiring.nodes):
        if node.op_type in _MATRIX_PRODUCTS or learned.intersection(node.input):
            learned.update(node.output)
        elif wiring.is_activation.intersection(node.input):
            pixels.add(index)
    for name in wiring.outputs:
        distance.update(wiring.above(name, lambda node: part_of(node) != "distance"))
    return pixels, distance - pixels


def _residual_nodes(wiring: Wiring) -> set[int]:
    """The stream's additions `x + f(x)`, the LayerScale of f, and all that makes the first x."""
    found: set[int] = set()
    for index, node in enumerate(wiring.nodes):
        sources = wiring.activations(index)
        if node.op_type != "Add" or len(sources) != 2:
            continue
        for x, branch in (sources, sources[::-1]):
            start = wiring.maker.get(x)
            if start is not None and start in wiring.above(branch):
                found.add(index)
                found.update(_layer_scale(wiring, branch))
                if start not in found:
                    found.update(wiring.above(x, lambda node: node.op_type in _MATRIX_PRODUCTS))
    return found


def _layer_scale(wiring: Wiring, branch: str) -> set[int]:
    """The multiplication by a constant that ends a branch, if it has one."""
    index = wiring.maker[branch]
    is_scale = wiring.nodes[index].op_type == "Mul" and len(wiring.activations(index)) == 1
    return {index} if is_scale else set()


def _norm_nodes(wiring: Wiring) -> set[int]:
    """Norms that are one node, and those the exporter took apart: from the square to the division by the mean."""
    found = _nodes_of(wiring, _NORMS)
    narrow: set[str] = set()
    for index, node in enumerate(wiring.nodes):
        sources = wiring.activations(index)
        if node.op_type in _MEANS and sources:
            squares = wiring.maker.get(sources[0])
            found.update({squares} if squares is not None and wiring.nodes[squares].op_type in _POWERS else ())
            narrow.update(node.output)
            found.add(index)
        elif narrow.intersection(sources) and node.op_type not in _MATRIX_PRODUCTS:
            found.add(index)
            narrow.update(node.output if narrow.issuperset(sources) else ())
    return found


def part_of(node: NodeProto) -> str:
    """`teacher`, `students`, `prototypes` or `distance`."""
    return str(node.name).split("/", 1)[0]

"""The float16 graph: a bundle's float32 graph in, the same with float16 tensors and float32 islands out.

Surgery on the ONNX file, so neither torch nor the teacher's weights are needed. Knows nothing about images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_export.float32_islands import DEFAULT, HALF, MOVING, Kept, Wiring, half_nodes, part_of

# ONNX Runtime and TensorRT 10.3 read no newer file format.
_IR_VERSION = 10
# Their result is no float whatever they read, so they read either precision.
_UNTYPED = frozenset({"Cast", "Shape", "Size"})


def half_graph(graph: onnx.ModelProto, kept: Kept = DEFAULT, *, emulated: bool = False) -> onnx.ModelProto:
    """Put a float32 graph into float16, but for the islands.

    Args:
        graph: As `fbft_export.graph.write_graph` writes it; not altered. Integers, shapes and the names and types of
            inputs and outputs stay as they are.
        kept: The islands.
        emulated: Make the same arithmetic for a CPU: all tensors float32, each float16 one rounded to float16 by a
            pair of casts. Runtimes on CPUs carry float16 graphs out in float32 and would show neither rounding nor
            overflow. Sums of matrix products and means are exact until they are rounded, as tensor cores have them;
            norms and softmax outside the islands are taken apart and rounded at every step, as a float16 kernel may.

    Returns:
        A valid ONNX model of the same opset; strongly typed unless emulated.

    Raises:
        EngineError: The graph has control flow.
    """
    wiring = Wiring(graph)
    half = half_nodes(wiring, kept)
    writer = _Writer(wiring, emulated)
    for index, node in enumerate(wiring.nodes):
        parts = _steps(wiring, node) if emulated and index in half else [node]
        for part in parts:
            writer.add(part, index in half)
    return writer.model(graph)


class EmulatedHalfEngine:
    """An emulated graph on this CPU, with every rounding where it was written.

    Attributes:
        version: Of ONNX Runtime, which carries it out.
    """

    def __init__(self, graph: Path | bytes) -> None:
        """Load what `half_graph(..., emulated=True)` gives, from a file or serialised; a float32 graph runs too.

        Raises:
            EngineError: ONNX Runtime is not installed or does not take the graph.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                "the float16 graph is tried out with ONNX Runtime, which this installation lacks; "
                'pip install "fbft-edge[tensorrt]"'
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        # Basic optimisations leave every rounding where it is; the extended ones fuse over some.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises several types of its own
            cause = str(error).strip().splitlines()[-1]
            raise EngineError(f"ONNX Runtime {onnxruntime.__version__} cannot load the graph: {cause}") from error
        self.version: str = onnxruntime.__version__
        self._input: str = self._session.get_inputs()[0].name

    def infer(self, tiles: Uint8, out: Float32) -> None:
        """Patch distances of tiles.

        Args:
            tiles: (tiles, tile_px, tile_px, 3) uint8 RGB.
            out: (tiles, rows, columns) float32, overwritten.
        """
        for index in range(len(tiles)):
            distances = self._session.run(None, {self._input: tiles[index : index + 1]})[0]
            out[index] = np.asarray(distances, np.float32)[0]


def _steps(wiring: Wiring, node: NodeProto) -> list[NodeProto]:
    """A float16 norm or softmax as the steps of its definition; any other node as it is."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if attributes.get("axis", -1) == -1:
        if node.op_type == "LayerNormalization" and len(node.output) == 1:
            return _layer_norm_steps(wiring, node, attributes.get("epsilon", 1e-5))
        if node.op_type == "Softmax":
            return _softmax_steps(wiring, node)
    if node.op_type == "ReduceL2":
        return _norm_steps(wiring, node)
    return [node]


class _Steps:
    """Builds the nodes that take the place of one."""

    def __init__(self, wiring: Wiring, node: NodeProto) -> None:
        self.nodes: list[NodeProto] = []
        self._wiring = wiring
        self._name = node.name

    def add(self, operator: str, *inputs: str, out: str = "") -> str:
        """Append a node; returns the name of its result."""
        name = f"{self._name}/{len(self.nodes)}"
        out = out or name
        self.nodes.append(helper.make_node(operator, inputs, [out], name))
        self._wiring.types[out] = TensorProto.FLOAT
        return out

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store a constant; returns its name."""
        name = f"{self._name}/{name}"
        self._wiring.constants[name] = numpy_helper.from_array(value, name)
        self._wiring.types[name] = self._wiring.constants[name].data_type
        return name


def _layer_norm_steps(wiring: Wiring, node: NodeProto, epsilon: float) -> list[NodeProto]:
    steps = _Steps(wiring, node)
    last = steps.constant("axes", np.array([-1]))
    centred = steps.add("Sub", node.input[0], steps.add("ReduceMean", node.input[0], last))
    variance = steps.add("ReduceMean", steps.add("Mul", centred, centred), last)
    deviation = steps.add(
        "Sqrt", steps.add("Add", variance, steps.constant("epsilon", np.array([epsilon], np.float32)))
    )
    value = steps.add("Div", centred, deviation)
    factors = [("Mul", name) for name in node.input[1:2]] + [("Add", name) for name in node.input[2:3] if name]
    for operator, name in factors:
        value = steps.add(operator, value, name)
    steps.nodes[-1].output[0] = node.output[0]
    return steps.nodes


def _softmax_steps(wiring: Wiring, node: NodeProto) -> list[NodeProto]:
    steps = _Steps(wiring, node)
    last = steps.constant("axes", np.array([-1]))
    scores = steps.add("Sub", node.input[0], steps.add("ReduceMax", node.input[0], last))
    powers = steps.add("Exp", scores)
    steps.add("Div", powers, steps.add("ReduceSum", powers, last), out=node.output[0])
    return steps.nodes


def _norm_steps(wiring: Wiring, node: NodeProto) -> list[NodeProto]:
    steps = _Steps(wiring, node)
    squares = steps.add("Mul", node.input[0], node.input[0])
    total = steps.add("ReduceSum", squares, *node.input[1:])
    steps.nodes[-1].attribute.extend(node.attribute)
    steps.add("Sqrt", total, out=node.output[0])
    return steps.nodes


class _Writer:
    """Writes nodes one after another, with the casts and constants that their precisions call for."""

    def __init__(self, wiring: Wiring, emulated: bool) -> None:
        self._wiring = wiring
        self._emulated = emulated
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._half_values: set[str] = set()
        self._casts: dict[tuple[str, int], str] = {}

    def add(self, source: NodeProto, is_half: bool) -> None:
        """Append a node that computes in float16 or in float32."""
        node = NodeProto()
        node.CopyFrom(source)
        for slot, name in enumerate(source.input):
            node.input[slot] = self._read(source, name, is_half)
        self._nodes.append(node)
        if is_half:
            floats = self._wiring.floats(source.output)
            self._half_values.update(floats)
            if self._emulated and source.op_type not in MOVING:
                self._round_outputs(node, floats)

    def model(self, source: onnx.ModelProto) -> onnx.ModelProto:
        """What was written, with the inputs and outputs of the source."""
        self._restore_outputs()
        model = onnx.ModelProto(
            ir_version=min(source.ir_version, _IR_VERSION),
            opset_import=source.opset_import,
            producer_name=source.producer_name,
            producer_version=source.producer_version,
        )
        graph = model.graph
        graph.name = source.graph.name
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())
        graph.input.extend(value for value in source.graph.input if value.name in self._wiring.inputs)
        graph.output.extend(source.graph.output)
        return model

    def _read(self, node: NodeProto, name: str, is_half: bool) -> str:
        """The name under which a node finds a value in its own precision."""
        if name in self._wiring.constants:
            return self._constant(name, is_half and self._wiring.is_float(name))
        if not self._wiring.is_float(name) or node.op_type in _UNTYPED or is_half == (name in self._half_values):
            return name
        return self._cast(node, name, is_half)

    def _constant(self, name: str, is_half: bool) -> str:
        tensor = self._wiring.constants[name]
        new_name = f"{name}/half" if is_half else name
        if new_name not in self._constants:
            values = numpy_helper.to_array(tensor)
            if is_half:
                values = _rounded(values).astype(np.float32 if self._emulated else np.float16)
            self._constants[new_name] = numpy_helper.from_array(values, new_name)
        return new_name

    def _cast(self, node: NodeProto, name: str, is_half: bool) -> str:
        """A cast of a value, written before its first reader and shared by the others."""
        if self._emulated and not is_half:
            return name
        wanted = TensorProto.FLOAT16 if is_half else TensorProto.FLOAT
        if (name, wanted) not in self._casts:
            out = f"{name}/{'half' if is_half else 'float'}"
            self._casts[name, wanted] = out
            if self._emulated:
                self._round(part_of(node), name, out)
            else:
                self._nodes.append(_cast_node(part_of(node), name, out, wanted))
        return self._casts[name, wanted]

    def _round_outputs(self, node: NodeProto, floats: list[str]) -> None:
        for slot, name in enumerate(node.output):
            if name in floats:
                node.output[slot] = f"{name}/exact"
                self._round(part_of(node), f"{name}/exact", name)

    def _round(self, part: str, name: str, out: str) -> None:
        self._nodes.append(_cast_node(part, name, f"{out}/bits", TensorProto.FLOAT16))
        self._nodes.append(_cast_node(part, f"{out}/bits", out, TensorProto.FLOAT))

    def _restore_outputs(self) -> None:
        """Give the graph's float16 outputs their float32 back, under their own names."""
        for name in self._half_values.intersection([] if self._emulated else self._wiring.outputs):
            for node in self._nodes:
                for names in (node.input, node.output):
                    names[:] = [f"{name}/half" if item == name else item for item in names]
            self._nodes.append(_cast_node("distance", f"{name}/half", name, TensorProto.FLOAT))


def _cast_node(part: str, source: str, out: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [out], f"{part}/cast_{out}", to=to)


def _rounded(values: Float32) -> Float32:
    """To the nearest float16, but a lone constant never to zero: an epsilon keeps a division finite."""
    rounded = values.astype(np.float16)
    if values.size == 1 and values.any() and not rounded.any():
        return np.copysign(np.full_like(values, HALF.smallest_subnormal), values)
    return np.asarray(rounded, np.float32)

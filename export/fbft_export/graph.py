"""One ONNX graph from teacher, students and prototypes: uint8 tiles in, patch distances out.

Normalisation, teacher, students, prototypes and distance are inside, so no runtime has preprocessing of its own.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from fbft_edge.bundle.reading import GRAPH_INPUT, GRAPH_OUTPUT
from fbft_export.prototypes import Prototypes
from fbft_export.students import Students, patch_distance
from fbft_export.teacher import Teacher

_OPSET = 20
_TINY = 1e-12  # keeps the root's gradient finite at 0, adds at most 1e-6; torch's exporter takes it for 0


class PatchDistanceModel(nn.Module):
    """(batch, tile, tile, 3) uint8 RGB to (batch, rows, columns) float32 patch distance.

    With prototypes it is sqrt(d_F d_B) d_N, in [0, 4]: the geometric mean of forward and backward distance, times the
    distance to the nearest prototype (docs/benchmarks/ablation.md says why). Without them it is the paper's, d_F d_B,
    in [0, 4] too.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, teacher: Teacher, students: Students, prototypes: Prototypes | None = None) -> None:
        super().__init__()
        self.teacher = teacher
        self.students = students
        self.prototypes = prototypes
        self.register_buffer("mean", 255 * torch.tensor(teacher.mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(teacher.std).view(1, 3, 1, 1)))
        self.eval()

    def features(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f_j and f_k of uint8 tiles, each (batch, patches, embed_dim)."""
        # TensorRT lets a UINT8 input feed only a cast, so cast comes before permute.
        pixels = tiles.to(self.mean.dtype).permute(0, 3, 1, 2)
        f_j, f_k = self.teacher((pixels - self.mean) * self.scale)
        return f_j, f_k

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Patch distances of uint8 tiles."""
        side = self.teacher.tile_px // self.teacher.patch_px
        f_j, f_k = self.features(tiles)
        distance = patch_distance(self.students, f_j, f_k).flatten()
        if self.prototypes is not None:
            # One root, so one place with an infinite slope. The product is not clamped there: a runtime may clamp a NaN
            # to the bound, which looks nominal.
            squared = 2 * self.prototypes(f_k.flatten(0, -2)).clamp_min(0)
            distance = (distance * squared + _TINY).sqrt()
        return distance.float().reshape(-1, side, side)


def write_graph(model: PatchDistanceModel, path: Path) -> None:
    """Write the model as ONNX, batch size free, everything in one file."""
    tile_px = model.teacher.tile_px
    example = torch.zeros(2, tile_px, tile_px, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns about itself
        program = torch.onnx.export(
            model,
            (example,),
            input_names=[GRAPH_INPUT],
            output_names=[GRAPH_OUTPUT],
            dynamic_shapes={"tiles": {0: torch.export.Dim("batch", min=1, max=1024)}},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    graph = program.model_proto
    _name_nodes_by_module(graph)
    _feed_input_to_cast_alone(graph)
    onnx.save(graph, path)


def _feed_input_to_cast_alone(graph: onnx.ModelProto) -> None:
    """Let whatever else reads the uint8 input, such as its shape, read the cast's output: TensorRT insists."""
    cast = next(node for node in graph.graph.node if node.op_type == "Cast" and node.input[0] == GRAPH_INPUT)
    for node in graph.graph.node:
        if node is not cast:
            for index, name in enumerate(node.input):
                if name == GRAPH_INPUT:
                    node.input[index] = cast.output[0]
    first = onnx.NodeProto()
    first.CopyFrom(cast)
    graph.graph.node.remove(cast)
    graph.graph.node.insert(0, first)


def _name_nodes_by_module(graph: onnx.ModelProto) -> None:
    """Prefix each node with the part that it belongs to, and drop the exporter's notes, which hold local paths."""
    for node in graph.graph.node:
        scopes = next((item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), "")
        owner = next((name for name in ("teacher", "students", "prototypes") if f"'{name}'" in scopes), "distance")
        node.name = f"{owner}/{node.name}"
        del node.metadata_props[:]
    del graph.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]

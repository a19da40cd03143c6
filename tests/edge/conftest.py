"""What tests of the line share: bundles that find bright patches, and so need no teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle, TeacherIdentity, Thresholds
from fbft_edge.bundle.sealing import seal_bundle

PATCH_PX = 14
NO_NOTES = Notes()
THRESHOLDS = Thresholds(0.5, 0.6, 0.01, 0.01, 0.05, 100)
BrightBundle = Callable[..., Bundle]


def write_brightness(path: Path, tile_px: int) -> None:
    """A model whose patch distance is the mean brightness of the patch, in [0, 1]."""
    import onnx
    from onnx import TensorProto, helper

    pooling = {"kernel_shape": [PATCH_PX] * 2, "strides": [PATCH_PX] * 2}
    nodes = [
        helper.make_node("Cast", ["tiles"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["patches"], **pooling),
        helper.make_node("ReduceMean", ["patches"], ["level"], axes=[1], keepdims=0),
        helper.make_node("Div", ["level", "white"], ["distance"]),
    ]
    rows = tile_px // PATCH_PX
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["batch", tile_px, tile_px, 3])],
        [helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch", rows, rows])],
        [helper.make_tensor("white", TensorProto.FLOAT, [], [255.0])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture(scope="session")
def bright_bundle(tmp_path_factory: pytest.TempPathFactory) -> BrightBundle:
    """Makes a sealed bundle of its own; frames of any size may be inspected unless sizes are named."""

    def made(
        tile_px: int = 84,
        thresholds: Thresholds | None = THRESHOLDS,
        frame_sizes: tuple[tuple[int, int], ...] = (),
        path: Path | None = None,
        notes: Notes = NO_NOTES,
    ) -> Bundle:
        path = path or tmp_path_factory.mktemp("bundles") / "bright.fbft"
        path.mkdir(parents=True)
        write_brightness(path / "model.onnx", tile_px)
        return seal_bundle(
            Bundle(
                path=path,
                product="bright",
                created="2026-01-01T00:00:00Z",
                teacher=TeacherIdentity("none", "0" * 64, 1, (0, 1)),
                tile=TileGeometry(tile_px, PATCH_PX, 0),
                frame_sizes=frame_sizes,
                thresholds=thresholds,
                notes=notes,
            )
        )

    return made

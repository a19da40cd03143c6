"""The teacher: normalised tiles in, patch features after blocks j and k out.

Any timm ViT, frozen, run only up to block k. Knows nothing about students or products.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import timm
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import nn

from fbft_edge.errors import TeacherError
from fbft_export.offline_weights import offline_weights


@dataclass(frozen=True, slots=True)
class NamedTeacher:
    """A teacher known by name: its timm architecture and pretrained tag, and its blocks (j, k)."""

    timm_name: str
    blocks: tuple[int, int]


OFFLINE_TEACHER = "dinov2-small-offline"

NAMED_TEACHERS = {
    OFFLINE_TEACHER: NamedTeacher("vit_small_patch14_dinov2", (5, 8)),
    "dinov2-small-reg": NamedTeacher("vit_small_patch14_reg4_dinov2.lvd142m", (7, 11)),
    "dinov2-base-reg": NamedTeacher("vit_base_patch14_reg4_dinov2.lvd142m", (7, 11)),
}


class Teacher(nn.Module):
    """A frozen ViT cut after block k.

    Attributes:
        name: As the user gave it.
        blocks: (j, k), zero-based.
        patch_px: Side of a patch.
        tile_px: Side of the square tiles that it takes.
        embed_dim: Length of a patch's feature vector.
        mean: Per-channel mean of its input normalisation, for values in [0, 1].
        std: Per-channel deviation of the same.
        weights_sha256: Identity of the weights, positions at this tile size included.
    """

    def __init__(self, vit: VisionTransformer, name: str, blocks: tuple[int, int], tile_px: int) -> None:
        super().__init__()
        self.name = name
        self.blocks = blocks
        self.tile_px = tile_px
        self.patch_px = int(vit.patch_embed.patch_size[0])
        self.embed_dim = int(vit.embed_dim)
        config = cast(dict[str, tuple[float, float, float]], vit.pretrained_cfg)
        self.mean, self.std = config["mean"], config["std"]
        vit.prune_intermediate_layers(list(blocks), prune_norm=False, prune_head=True)
        self.vit = vit.eval().requires_grad_(False)
        self.weights_sha256 = _state_sha256(self.vit)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patch features after blocks j and k, the final LayerNorm applied to both.

        Args:
            tiles: (batch, 3, tile_px, tile_px) float, normalised RGB.

        Returns:
            f_j and f_k, each (batch, patches, embed_dim), patches row by row.
        """
        f_j, f_k = self.vit.forward_intermediates(
            tiles, indices=list(self.blocks), norm=True, stop_early=True, output_fmt="NLC", intermediates_only=True
        )
        return cast(torch.Tensor, f_j), cast(torch.Tensor, f_k)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode, whatever the parent module does."""
        return super().train(False)


def load_teacher(
    name: str = OFFLINE_TEACHER,
    *,
    tile_px: int,
    blocks: tuple[int, int] | None = None,
    weights: Path | None = None,
    pretrained: bool = True,
) -> Teacher:
    """Make a teacher for one tile size.

    Args:
        name: A key of `NAMED_TEACHERS`, or any timm ViT by its timm name, which then needs `blocks`.
        tile_px: A multiple of the patch size; positions are resampled to it.
        blocks: (j, k); the named teachers have their own.
        weights: A local `.safetensors` with the architecture's timm state dict.
        pretrained: False leaves the weights random, for timing.

    Raises:
        TeacherError: Unknown name, unfit blocks or tile size, or weights that cannot be had.
    """
    if tile_px < 1:
        raise TeacherError(f"a tile of {tile_px} px holds no patch; choose a multiple of the patch, such as 518")
    known = NAMED_TEACHERS.get(name)
    timm_name = known.timm_name if known else name
    chosen = blocks or (known.blocks if known else None)
    if chosen is None:
        raise TeacherError(f"teacher {name!r} has no blocks of its own; name them, for example --blocks 7,11")
    from_hub = pretrained and weights is None and name != OFFLINE_TEACHER
    vit = _create_vit(timm_name, tile_px, from_hub)
    _check_fit(vit, name, chosen, tile_px)
    if weights is not None:
        _load_state(vit, _read_safetensors(weights), str(weights))
    elif pretrained and name == OFFLINE_TEACHER:
        _load_state(vit, offline_weights(), "the offline weights")
    return Teacher(vit, name, chosen, tile_px)


def _create_vit(timm_name: str, tile_px: int, from_hub: bool) -> VisionTransformer:
    if not timm.is_model(timm_name.split(".")[0]):
        raise TeacherError(
            f"there is no teacher {timm_name!r}; choose {', '.join(NAMED_TEACHERS)}, or a ViT from "
            "timm.list_models('vit*')"
        )
    try:
        model = timm.create_model(timm_name, pretrained=from_hub, img_size=tile_px, num_classes=0)
    except (OSError, RuntimeError) as error:
        if not from_hub:
            raise TeacherError(
                f"timm cannot make {timm_name}: {error}; choose from timm.list_models('vit*')"
            ) from error
        raise TeacherError(_hub_message(timm_name, error)) from error
    except TypeError as error:
        raise TeacherError(f"{timm_name} does not take a tile size ({error}); choose a plain ViT") from error
    if not isinstance(model, VisionTransformer):
        raise TeacherError(f"{timm_name} is a {type(model).__name__}, not a ViT; choose from timm.list_models('vit*')")
    return model


def _hub_message(timm_name: str, error: Exception) -> str:
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"the weights of {timm_name} could not be had from the model hub ({cause}); connect this machine and try "
        f"again, pass a local file with --weights FILE.safetensors, or use --teacher {OFFLINE_TEACHER}, "
        "which needs no hub"
    )


def _check_fit(vit: VisionTransformer, name: str, blocks: tuple[int, int], tile_px: int) -> None:
    depth, patch_px = len(vit.blocks), int(vit.patch_embed.patch_size[0])
    j, k = blocks
    if not 0 <= j < k < depth:
        raise TeacherError(f"blocks {j},{k} do not fit {name}, which has blocks 0 to {depth - 1}; choose 0 <= j < k")
    if tile_px < patch_px or tile_px % patch_px:
        raise TeacherError(
            f"a tile of {tile_px} px does not divide into {name}'s patches of {patch_px} px; "
            f"choose a multiple, for example {max(1, round(tile_px / patch_px)) * patch_px}"
        )
    if tile_px // patch_px != vit.patch_embed.grid_size[0]:
        raise TeacherError(f"{name} does not map patches of {patch_px} px to tokens one by one; choose a plain ViT")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        raise TeacherError(f"{path} is not a .safetensors file; convert it (pickled weights are never loaded)")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises several types of its own
        raise TeacherError(f"{path} cannot be read as safetensors: {error}; download it again") from error


def _load_state(vit: VisionTransformer, state: dict[str, torch.Tensor], source: str) -> None:
    try:
        filtered = timm.models.vision_transformer.checkpoint_filter_fn(state, vit)
        result = vit.load_state_dict(filtered, strict=False)
    except (RuntimeError, KeyError) as error:
        cause = str(error).strip().splitlines()[-1].strip()
        raise TeacherError(f"{source} does not fit the teacher: {cause}; use weights of this architecture") from error
    unexpected = [key for key in result.unexpected_keys if not key.startswith("head")]
    if result.missing_keys or unexpected:
        raise TeacherError(
            f"{source} does not fit the teacher: {len(result.missing_keys)} tensors missing "
            f"{result.missing_keys[:3]}, {len(unexpected)} unknown {unexpected[:3]}; use weights of this architecture"
        )


def _state_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()

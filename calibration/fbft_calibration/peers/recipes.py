"""Which of anomalib's models are run, how each is set, and why the others are not.

Knows nothing about weights on disk, processes or data sets, and imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEED = 0
RESNET = "resnet18"
VIT = "vit_small_patch14_dinov2"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of anomalib's models is run. What is not said here is anomalib's default.

    Attributes:
        model: Class in `anomalib.models`.
        weights: timm architecture of the pretrained network, whichever anomalib asks for.
        options: Arguments of the class that differ from its defaults, mostly because the weights do.
        epochs: Passes over the nominal images; 1 where the model only collects features. anomalib has no default.
        batch_images: Likewise; anomalib's data modules take 32.
        block: ViT block, zero-based, in the place of the last one; None for models that name their own.
        is_padded: The model pads images to squares, centred, before it resizes them.
        scale: Applied to maps, with `offset` after it, where they would leave the range in which figures tell values
            apart; ranks, and so all figures, stay as they are.
        offset: See `scale`.
        remarks: How it differs from what anomalib's users get, in words.
    """

    model: str
    weights: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 1
    batch_images: int = 32
    block: int | None = None
    is_padded: bool = False
    scale: float = 1.0
    offset: float = 0.0
    remarks: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All that decides what it finds, except the weights; fit for JSON."""
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()}
        return {
            "model": self.model,
            "options": options,
            "block": self.block,
            "epochs": self.epochs,
            "batch_images": self.batch_images,
            "seed": SEED,
        }


_OFFLINE_VIT = "the offline ViT-S/14, very probably fine-tuned for saliency, in the place of DINOv2"

PEERS: Mapping[str, Recipe] = {
    "patchcore": Recipe(
        "Patchcore",
        RESNET,
        {"backbone": RESNET},
        remarks="ResNet-18 in the place of WideResNet-50, whose weights are not at hand",
    ),
    "padim": Recipe("Padim", RESNET),
    "l2bt": Recipe(
        "L2BT",
        VIT,
        {"layers": (5, 8)},
        epochs=50,
        batch_images=4,
        is_padded=True,
        remarks=f"{_OFFLINE_VIT} ViT-B/14, with our blocks 5 and 8; epochs and batches are the paper's",
    ),
    "anomaly-dino": Recipe(
        "AnomalyDINO",
        VIT,
        block=8,
        remarks=f"{_OFFLINE_VIT} ViT-S/14, block 8 in the place of the last, which serves poorly with these weights",
    ),
    "stfpm": Recipe(
        "Stfpm",
        RESNET,
        epochs=100,
        scale=2.0**8,
        remarks="the paper's 100 epochs to the end; early stopping would read the test images' truth",
    ),
}

_WIDE_RESNET = "its WideResNet-50 weights cannot be had offline"
_PLAIN_DINO = "its DINOv2 or DINOv3 weights cannot be had offline"
_LANGUAGE = "its vision-language weights cannot be had offline"
_NO_MAP = "it says nothing about pixels"

# Every image model of anomalib 2.7 that is not among PEERS.
NOT_RUN: Mapping[str, str] = {
    "EfficientAd": "its pretrained teacher and the ImageNette images that it is trained with cannot be had offline",
    "AnomalyVFM": "the weights of its foundation model cannot be had offline",
    "CFM": "it compares colour with point clouds, and its DINO and Point-MAE weights cannot be had offline",
    "Cfa": _WIDE_RESNET,
    "Cflow": _WIDE_RESNET,
    "Csflow": "its EfficientNet-B5 weights cannot be had offline",
    "Dfkde": _NO_MAP,
    "Dfm": "its ResNet-50 weights cannot be had offline",
    "Dinomaly": _PLAIN_DINO,
    "Draem": "the texture images (DTD) that it makes defects from cannot be had offline",
    "Dsr": "its pretrained quantised autoencoder cannot be had offline",
    "Fastflow": "its paper trains it for 500 epochs, too long without a GPU; its ResNet-18 weights are at hand",
    "FoundAD": _PLAIN_DINO,
    "Fre": "its ResNet-50 weights cannot be had offline",
    "Ganomaly": _NO_MAP,
    "GeneralAD": _PLAIN_DINO,
    "Glass": f"{_WIDE_RESNET}, nor can the texture images (DTD) that it makes defects from",
    "InpFormer": _PLAIN_DINO,
    "MHPatchcore": _WIDE_RESNET,
    "Patchflow": "its EfficientNet-B5 weights cannot be had offline",
    "Rad": _PLAIN_DINO,
    "ReverseDistillation": _WIDE_RESNET,
    "SuperADD": _PLAIN_DINO,
    "Supersimplenet": _WIDE_RESNET,
    "Uflow": "its MCait weights cannot be had offline",
    "UniNet": _WIDE_RESNET,
    "VlmAd": _LANGUAGE,
    "WinClip": _LANGUAGE,
}

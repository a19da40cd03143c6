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
        image_px: Side of the squares that whole images are resized to, where the model's default is another or would
            crop them; None for the default.
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
    image_px: int | None = None
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
            **({} if self.image_px is None else {"image_px": self.image_px}),  # so results without it stay valid
        }


_OFFLINE_VIT = "the offline ViT-S/14, very probably fine-tuned for saliency, in the place of DINOv2"
_SMALLER_RESNET = "ResNet-18 in the place of WideResNet-50, whose weights are not at hand"

PEERS: Mapping[str, Recipe] = {
    "patchcore": Recipe(
        "Patchcore",
        RESNET,
        {"backbone": RESNET},
        remarks=_SMALLER_RESNET,
    ),
    "padim": Recipe("Padim", RESNET),
    "dfm": Recipe(
        "Dfm",
        RESNET,
        {"backbone": RESNET},
        remarks="ResNet-18 in the place of ResNet-50, whose weights are not at hand; its maps have 4x4 cells",
    ),
    "mh-patchcore": Recipe(
        "MHPatchcore",
        RESNET,
        {"backbone": RESNET},
        epochs=3,
        image_px=224,
        scale=2.0**-8,
        remarks=f"{_SMALLER_RESNET}; whole images at 224 px rather than the inner 224 of 256",
    ),
    "fre": Recipe(
        "Fre",
        RESNET,
        {"backbone": RESNET, "input_dim": 256 * 8 * 8},
        epochs=6,
        remarks="ResNet-18 in the place of ResNet-50, whose weights are not at hand; 6 epochs, as in the configuration "
        "that came to anomalib with it: with fewer than 33 images that is 6 steps",
    ),
    "cfa": Recipe(
        "Cfa",
        RESNET,
        {"backbone": RESNET},
        epochs=30,
        batch_images=4,
        image_px=224,
        remarks=f"{_SMALLER_RESNET}; epochs, batches and 224 px as in its authors' code, but of whole images",
    ),
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

_PLAIN_DINO = "its DINOv2 or DINOv3 weights cannot be had offline"
_LANGUAGE = "its vision-language weights cannot be had offline"
_NO_MAP = "it says nothing about pixels"


def _too_long(training: str, minutes: float) -> str:
    """Measured with ResNet-18 on one core, images at the model's default size."""
    return f"{training} take about {minutes:g} minutes of a core for each good image; ResNet-18 would serve it"


# Every image model of anomalib 2.7 that is not among PEERS.
NOT_RUN: Mapping[str, str] = {
    "EfficientAd": "its pretrained teacher and the ImageNette images that it is trained with cannot be had offline",
    "AnomalyVFM": "the weights of its foundation model cannot be had offline",
    "CFM": "it compares colour with point clouds, and its DINO and Point-MAE weights cannot be had offline",
    "Cflow": _too_long("its authors' 25 times 8 epochs", 2),
    "Csflow": "its EfficientNet-B5 weights cannot be had offline",
    "Dfkde": _NO_MAP,
    "Dinomaly": _PLAIN_DINO,
    "Draem": "the texture images (DTD) that it makes defects from cannot be had offline",
    "Dsr": "its pretrained quantised autoencoder cannot be had offline",
    "Fastflow": _too_long("its paper's 500 epochs", 2.5),
    "FoundAD": _PLAIN_DINO,
    "Ganomaly": _NO_MAP,
    "GeneralAD": _PLAIN_DINO,
    "Glass": "the texture images (DTD) that it makes defects from cannot be had offline",
    "InpFormer": _PLAIN_DINO,
    "Patchflow": "its EfficientNet-B5 weights cannot be had offline",
    "Rad": _PLAIN_DINO,
    "ReverseDistillation": _too_long("its authors' 200 epochs", 1),
    "SuperADD": _PLAIN_DINO,
    "Supersimplenet": _too_long("the 300 epochs that anomalib recommends", 5),
    "Uflow": "its MCait weights cannot be had offline",
    "UniNet": "its WideResNet-50 weights cannot be had offline, and it takes no ResNet-18",
    "VlmAd": _LANGUAGE,
    "WinClip": _LANGUAGE,
}

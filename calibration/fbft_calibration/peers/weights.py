"""The pretrained networks that peers stand on: from a local file, the offline teacher or the model hub.

Knows nothing about anomalib, except that it asks timm or torchvision for its networks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbft_calibration.peers.recipes import RESNET, VIT
from fbft_edge.errors import PeerError
from fbft_edge.plain_file import file_sha256

if TYPE_CHECKING:
    import torch

_REMEDY = f"name a .safetensors file of {RESNET}, as timm names its tensors, with --peer-weights"


def require_weights(architecture: str, resnet_weights: Path | None) -> None:
    """Load a pretrained network once, so that what is missing shows before anything long begins.

    Args:
        architecture: `RESNET` or `VIT`.
        resnet_weights: ResNet-18 pretrained on ImageNet in timm's naming, .safetensors; None asks the model hub.

    Raises:
        PeerError: The weights cannot be had.
        TeacherError: Those of the offline teacher cannot.
    """
    import timm

    with pretrained(architecture, resnet_weights):
        timm.create_model(architecture, pretrained=True, num_classes=0)


def weights_in_words(architecture: str, resnet_weights: Path | None) -> str:
    """Which weights a network gets; a file by its name and SHA-256 rather than where it lies."""
    if architecture == VIT:
        return f"{architecture}, the offline teacher's"
    if resnet_weights is None:
        return f"{architecture}, from the model hub"
    return f"{architecture}, {resnet_weights.name}, SHA-256 {file_sha256(resnet_weights)}"


@contextlib.contextmanager
def pretrained(architecture: str, resnet_weights: Path | None) -> Iterator[None]:
    """Within it, networks that are asked of timm with pretrained weights are of this architecture, with those at hand.

    What is asked of torchvision stays of its own architecture, and gets weights at hand as well.

    Raises:
        PeerError: The weights cannot be had.
        TeacherError: Those of the offline teacher cannot.
    """
    import timm
    from torchvision.models import WeightsEnum

    create, state = timm.create_model, _state(architecture, resnet_weights)
    download = WeightsEnum.get_state_dict

    def create_pretrained(name: str, **options: Any) -> Any:
        if not options.get("pretrained"):
            return create(name, **options)
        overlay: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
        return create(architecture, **options, **overlay)

    def state_at_hand(weights: WeightsEnum, *args: Any, **options: Any) -> Any:
        return download(weights, *args, **options) if state is None else _with_classifier(state)

    timm.create_model = create_pretrained  # type: ignore[assignment]  # a narrower signature serves anomalib's calls
    WeightsEnum.get_state_dict = state_at_hand
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        source = "the model hub" if state is None else resnet_weights or "the offline teacher"
        raise PeerError(f"weights of {architecture} cannot be had from {source} ({cause}); {_REMEDY}") from error
    finally:
        timm.create_model = create
        WeightsEnum.get_state_dict = download


def _with_classifier(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """torchvision loads all of a network or nothing; the classifier of zeros is cut off again by those who ask."""
    import torch

    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


def _state(architecture: str, resnet_weights: Path | None) -> dict[str, torch.Tensor] | None:
    """Pretrained weights, None for those of the hub."""
    if architecture == VIT:
        from fbft_export.offline_weights import offline_weights

        return offline_weights()
    return None if resnet_weights is None else _resnet_state(resnet_weights)


def _resnet_state(path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors, all of the network's among them: timm itself would leave missing ones random."""
    import timm
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except Exception as error:  # safetensors raises several types of its own
        raise PeerError(f"{path} cannot be read as safetensors: {error}; {_REMEDY}") from error
    wanted = timm.create_model(RESNET, num_classes=0).state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise PeerError(f"{path} lacks {len(missing)} of {RESNET}'s tensors, {missing[0]} for one; {_REMEDY}")
    return state

"""PaDiM, PatchCore and CFLOW-AD as detectors to refine: anomalib's models, and their energies with gradients.

anomalib takes features without gradients, so an energy goes through the parts of a model; what is measured is the same.
Knows nothing about how masks are refined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fbft_calibration.fitting.thresholds import peak_threshold
from fbft_calibration.peers.anomalib_peer import AnomalibPeer
from fbft_calibration.peers.recipes import PEERS, RESNET, Recipe
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.images import read_image

# No peer, as its authors' 200 epochs take hours; what refinement changes shows after 8.
_CFLOW = Recipe(
    "Cflow",
    RESNET,
    {"backbone": RESNET},
    epochs=8,
    batch_images=4,
    remarks="ResNet-18 in the place of WideResNet-50, 8 epochs",
)
_RECIPES: Mapping[str, Recipe] = {"padim": PEERS["padim"], "patchcore": PEERS["patchcore"], "cflow": _CFLOW}
NAMES = tuple(_RECIPES)


class AnomalibDetector:
    """See `fbft_calibration.refinement.detector.RefinableDetector`. The energy is the sum of the map that it flags by.

    Args:
        name: One of `NAMES`.
        resnet_weights: ResNet-18 in timm's naming, .safetensors; None asks the model hub.

    Raises:
        PeerError: The weights cannot be had.
    """

    def __init__(self, name: str, resnet_weights: Path | None = None) -> None:
        self._peer = AnomalibPeer(_RECIPES[name], resnet_weights)
        self._distances = _DISTANCES[name]
        self._threshold = float("inf")

    def fit(self, nominal: Sequence[Path], held_out: Sequence[Path], false_alarm_rate: float) -> None:
        """Learn from nominal images, and find the pixel threshold on others.

        Args:
            nominal: Image files.
            held_out: Image files that are not among them, at least one.
            false_alarm_rate: Of images with a pixel above the threshold; see `peak_threshold`.
        """
        self._peer.fit(nominal)
        self._peer.network.requires_grad_(False)
        self._threshold = 1.0
        peaks = np.array([self.relative_map(read_image(path)).max() for path in held_out], np.float64)
        self._threshold = peak_threshold(peaks, false_alarm_rate)

    def patch_px(self, height: int, width: int) -> float:
        """See `RefinableDetector`: the stride of the finest features, back in image pixels, mean of both axes."""
        with torch.inference_mode():
            rows, columns = self._distances(self._peer, torch.zeros(1, 3, height, width)).shape[-2:]
        return (height / rows + width / columns) / 2

    def relative_map(self, pixels: Uint8) -> Float32:
        """See `RefinableDetector`: distances, bilinearly at the image's size."""
        image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255
        with torch.inference_mode():
            distances = self._distances(self._peer, image[None])
            found = functional.interpolate(distances, image.shape[-2:], mode="bilinear", align_corners=False)
        return np.asarray(found[0, 0].numpy() / np.float32(self._threshold), np.float32)

    def energy(self, image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `RefinableDetector`. The whole image is inferred, at the model's own small size; nothing is drawn."""
        distances = self._distances(self._peer, image[None])
        shares = functional.interpolate(weights[None, None], distances.shape[-2:], mode="area")
        return torch.as_tensor((distances * shares).sum())


def _padim(peer: AnomalibPeer, images: torch.Tensor) -> torch.Tensor:
    """Mahalanobis distance of each position, (1, 1, rows, columns)."""
    network = peer.network
    features = network.feature_extractor.feature_extractor(peer.transformed(images))
    embedding = network.generate_embedding(_by_layer(network.layers, features))
    delta = (embedding.flatten(2) - network.gaussian.mean).permute(2, 0, 1)
    squared = (delta @ network.gaussian.inv_covariance * delta).sum(2)
    return torch.as_tensor(squared.clamp_min(_TINY).sqrt().reshape(1, 1, *embedding.shape[-2:]))


def _patchcore(peer: AnomalibPeer, images: torch.Tensor) -> torch.Tensor:
    """Distance to the nearest feature in memory, (1, 1, rows, columns)."""
    network = peer.network
    features = network.feature_extractor.feature_extractor(peer.transformed(images))
    pooled = {layer: network.feature_pooler(values) for layer, values in _by_layer(network.layers, features).items()}
    embedding = network.generate_embedding(pooled)
    flat = network.reshape_embedding(embedding)
    with torch.no_grad():
        _, nearest = network.nearest_neighbors(embedding=flat.detach(), n_neighbors=1)
    squared = (flat - network.memory_bank[nearest.reshape(-1)]).square().sum(1)
    return torch.as_tensor(squared.clamp_min(_TINY).sqrt().reshape(1, 1, *embedding.shape[-2:]))


def _cflow(peer: AnomalibPeer, images: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood per dimension, summed over layers at the finest one's size, (1, 1, rows, columns).

    anomalib's own map is scaled by each image's largest likelihood: no threshold would hold from image to image.
    """
    from anomalib.models.image.cflow.utils import get_logp, positional_encoding_2d

    network = peer.network
    features = _by_layer(network.pool_layers, network.encoder.feature_extractor(peer.transformed(images)))
    finest = features[network.pool_layers[0]].shape[-2:]
    total = torch.zeros(1, 1, *finest)
    for layer, decoder in zip(network.pool_layers, network.decoders, strict=True):
        values = features[layer]
        channels, rows, columns = values.shape[1:]
        position = positional_encoding_2d(network.condition_vector, rows, columns).flatten(1).T
        latent, log_jacobian = decoder(values[0].flatten(1).T, [position])
        unlikely = -get_logp(channels, latent, log_jacobian) / channels
        layer_map = unlikely.reshape(1, 1, rows, columns)
        total = total + functional.interpolate(layer_map, finest, mode="bilinear", align_corners=False)
    return total


_TINY = 1e-12
_DISTANCES: Mapping[str, Callable[[AnomalibPeer, torch.Tensor], torch.Tensor]] = {
    "padim": _padim,
    "patchcore": _patchcore,
    "cflow": _cflow,
}


def _by_layer(layers: Sequence[str], features: Any) -> dict[str, torch.Tensor]:
    """Features by the layer's name, however the extractor returns them."""
    return features if isinstance(features, dict) else dict(zip(layers, features, strict=True))

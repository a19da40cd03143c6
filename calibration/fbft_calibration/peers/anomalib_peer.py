"""One of anomalib's models as a peer: nominal images in, then anomaly maps at the images' size and scores.

Imports anomalib and torch when a model is made, not before. Knows nothing about processes, figures or reports.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fbft_calibration.peers.recipes import SEED, Recipe
from fbft_calibration.peers.weights import pretrained, weights_in_words
from fbft_edge.errors import ImageError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.images import read_image

if TYPE_CHECKING:
    import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as glibc's malloc.h numbers them


class AnomalibPeer:
    """One of anomalib's models, float32 in torch, on the CPU.

    Args:
        recipe: How it is run.
        resnet_weights: As `open_peer` takes it.

    Raises:
        PeerError: The weights cannot be had.
    """

    def __init__(self, recipe: Recipe, resnet_weights: Path | None = None) -> None:
        import anomalib.models
        import torch

        torch.manual_seed(SEED)
        self._recipe = recipe
        model, size_px = getattr(anomalib.models, recipe.model), recipe.image_px
        pre_processor = True if size_px is None else model.configure_pre_processor((size_px, size_px))
        make = partial(model, pre_processor=pre_processor, **recipe.options)
        with pretrained(recipe.weights, resnet_weights):
            self._model = make(evaluator=False, visualizer=False, post_processor=False)
        self._transform, self._image_size = self._model.pre_processor.transform, self._model.input_size
        self._model.pre_processor.transform = None  # images are transformed one by one, as sizes may differ
        if recipe.block is not None:
            _read_block(self._model.model, recipe.block)
        self._weights = weights_in_words(recipe.weights, resnet_weights)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Peer`."""
        return {
            **self._recipe.as_dict(),
            "weights": self._weights,
            "library": f"anomalib {metadata.version('anomalib')}, torch {metadata.version('torch')}, float32",
            "image_size": list(self._image_size),
            "remarks": self._recipe.remarks,
        }

    def fit(self, nominal: Sequence[Path]) -> None:
        """See `Peer`."""
        from anomalib.data import ImageBatch
        from lightning.pytorch import Trainer
        from torch.utils.data import DataLoader

        images = _NominalImages([path for path in nominal if _is_readable(path)], self._transformed)
        batches: Any = DataLoader(
            images,  # type: ignore[arg-type]  # a length and items are all that is asked of it
            batch_size=self._recipe.batch_images,
            shuffle=True,
            collate_fn=ImageBatch.collate,
        )
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        arguments = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": self._recipe.epochs,
            **dict.fromkeys(quiet, False),
        }
        with _large_blocks_apart():
            Trainer(**{**arguments, **self._model.trainer_arguments}).fit(self._model, datamodule=_data_module(batches))
        self._model.eval()

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """See `Peer`."""
        import torch

        with torch.inference_mode():
            found = self._model.model(self._transformed(pixels)[None])
            anomaly_map = at_original_size(found.anomaly_map, pixels.shape[:2], is_padded=self._recipe.is_padded)
            return anomaly_map * self._recipe.scale + self._recipe.offset, float(found.pred_score.reshape(-1)[0])

    def close(self) -> None:
        """See `Peer`."""
        del self._model

    @property
    def network(self) -> Any:
        """The torch module within anomalib's model: what `fit` taught, and how it is applied."""
        return self._model.model

    def transformed(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the network takes them, (count, 3, height, width) float32 RGB in [0, 1]; differentiable."""
        import torch

        return torch.as_tensor(self._transform(images))

    def _transformed(self, pixels: Uint8) -> torch.Tensor:
        """(3, rows, columns) float32 as the network takes it."""
        import torch

        return self.transformed(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]


def at_original_size(found: torch.Tensor, size: tuple[int, ...], *, is_padded: bool) -> Float32:
    """A model's map, bilinearly at the size of the image that it was made of.

    Args:
        found: (..., rows, columns) float, one map.
        size: (height, width) of the image.
        is_padded: The map is that of the image padded to a square, centred.

    Returns:
        (height, width) float32, owned by the caller.
    """
    from torch.nn.functional import interpolate

    height, width = size
    shown = (max(size), max(size)) if is_padded else (height, width)
    maps = found.reshape(1, 1, *found.shape[-2:]).float()
    whole = interpolate(maps, size=shown, mode="bilinear", align_corners=False)[0, 0].numpy()
    top, left = (shown[0] - height) // 2, (shown[1] - width) // 2
    return np.array(whole[top : top + height, left : left + width], np.float32)


class _NominalImages:
    """Nominal images as anomalib's data loaders take them, read anew each epoch."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Uint8], torch.Tensor]) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        import torch
        from anomalib.data import ImageItem

        image = self._transform(read_image(self._paths[index]))
        nowhere = torch.zeros(image.shape[-2:], dtype=torch.bool)
        return ImageItem(image=image, gt_label=torch.tensor(0), gt_mask=nowhere)


def _data_module(batches: Any) -> Any:
    """Batches where anomalib 2.7's Cfa looks for them; the other models do not mind."""
    from lightning.pytorch import LightningDataModule

    data = LightningDataModule()
    data.train_dataloader = lambda: batches  # Lightning finds it on the instance too
    return data


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageError:
        return False
    return True


def _read_block(model: Any, block: int) -> None:
    """Let AnomalyDINO take its features after another block than the last."""
    model.last_layer = f"blocks.{block}"
    model.feature_encoder.layers, model.feature_encoder.idx = [model.last_layer], [block]


@contextlib.contextmanager
def _large_blocks_apart() -> Iterator[None]:
    """Keep glibc from placing small blocks in the gaps of large ones.

    anomalib 2.7's coreset selection keeps one tiny tensor per step between temporaries of 26 MB and more, and none of
    their places can be used again: 22 GB were gone after 870 of 2,866 steps. Blocks of their own pages go back whole.
    """
    allocator = ctypes.CDLL(None)
    if not hasattr(allocator, "mallopt"):  # not glibc
        yield
        return
    allocator.mallopt(_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:  # what glibc itself would have come to, so that inspection does not pay for it
        allocator.mallopt(_MMAP_THRESHOLD, 2**25)
        allocator.mallopt(_TRIM_THRESHOLD, 2**26)

"""The teacher's features of nominal images, each computed once and kept on disk while a fit runs.

A fit that was killed goes on from them. Knows nothing about students or thresholds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fbft_calibration.data.nominal import NominalImage, pixels_sha256
from fbft_calibration.fitting.features import image_features, on_frame
from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.host import native_precision
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import ArgumentError
from fbft_edge.progress import SILENT, Progress
from fbft_export.graph import PatchDistanceModel

_MAX_BYTES_IN_MEMORY = 2 << 30
_SUFFIX = ".npy"


class FeatureCache:
    """Features of images under the SHA-256 of their pixels, for one teacher and one way of cutting tiles.

    On disk a patch takes 4 * embed_dim bytes, an image of 1036x1036 pixels 9 MB with the offline teacher.

    Args:
        folder: Made if it is not there; features that another teacher or geometry left in it are removed.
        model: Its teacher.
        geometry: How frames are cut into tiles.
        progress: Told what an earlier fit left.

    Raises:
        ArgumentError: The folder cannot be written to.
    """

    def __init__(
        self, folder: Path, model: PatchDistanceModel, geometry: TileGeometry, progress: Progress = SILENT
    ) -> None:
        self._model, self._geometry, self._progress = model, geometry, progress
        self._plans: dict[tuple[int, int], TilePlan] = {}
        self._folder = folder / _settings_sha256(model, geometry)[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            others = [path for path in folder.iterdir() if path != self._folder]
            for path in others:
                shutil.rmtree(path)
            for path in self._folder.iterdir():
                if path.suffix != _SUFFIX:
                    path.unlink()
        except OSError as error:
            raise ArgumentError(
                f"the teacher's features cannot be kept in {folder}: {error.strerror}; remove that folder, or choose "
                "another --out"
            ) from error
        if others:
            progress.say(f"removed the features that an interrupted fit with other settings left in {folder}")

    def plan(self, size: tuple[int, int]) -> TilePlan:
        """The tiles of images of (height, width)."""
        return self._plans.setdefault(size, TilePlan(self._geometry, *size))

    def fill(self, images: Sequence[NominalImage]) -> None:
        """Compute what is not there yet.

        Raises:
            ArgumentError: The disk has no room for it, or an image has changed since it was scanned.
        """
        missing = [image for image in images if self._stored(image) is None]
        if kept := len(images) - len(missing):
            self._progress.say(f"going on from the features of {kept} images, which an interrupted fit left")
        self._require_room(missing)
        for image in self._progress.track(missing, "teacher features"):
            self._compute(image)

    def of(self, image: NominalImage) -> np.ndarray[Any, np.dtype[np.int16]]:
        """(2, patches, embed_dim) int16, the bits of bfloat16 (`from_bits`): f_j, then f_k; mapped from disk.

        Rows are in the order of `on_frame`. Computes what is not there yet.
        """
        found = self._stored(image)
        if found is None:
            self._compute(image)
            found = self._stored(image)
        assert found is not None
        return found

    def sample(self, images: Sequence[NominalImage], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features to fit on; beyond 2 GiB an equal random share of each image.

        Returns:
            f_j and f_k, each (patches, embed_dim) bfloat16, matching rows.
        """
        generator = np.random.default_rng(seed)
        most = _MAX_BYTES_IN_MEMORY // (len(images) * 2 * 2 * self._model.teacher.embed_dim)
        parts = []
        for image in images:
            bits = self.of(image)
            chosen = np.arange(bits.shape[1])
            if len(chosen) > most:
                chosen = np.sort(generator.choice(chosen, most, replace=False))
            parts.append(from_bits(bits[:, chosen]))
        f_j, f_k = (torch.cat([part[side] for part in parts]) for side in (0, 1))
        return f_j, f_k

    def _path(self, image: NominalImage) -> Path:
        return self._folder / f"{image.pixels_sha256}{_SUFFIX}"

    def _shape(self, image: NominalImage) -> tuple[int, int, int]:
        return 2, int(on_frame(self.plan(image.size)).sum()), self._model.teacher.embed_dim

    def _stored(self, image: NominalImage) -> np.ndarray[Any, np.dtype[np.int16]] | None:
        """What lies on disk; None when it is not there, or not whole."""
        with contextlib.suppress(OSError, ValueError, EOFError):
            found: np.ndarray[Any, np.dtype[np.int16]] = np.load(self._path(image), mmap_mode="r")
            if found.shape == self._shape(image) and found.dtype == np.int16:
                return found
        return None

    def _compute(self, image: NominalImage) -> None:
        pixels = image.read()
        if pixels_sha256(pixels) != image.pixels_sha256:
            raise ArgumentError(f"{image.path} changed while it was fitted on; fit again when nothing writes there")
        found = image_features(self._model, self.plan(image.size), pixels)
        path = self._path(image)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, found.view(torch.int16).numpy())
            os.fsync(file.fileno())
        partial.replace(path)

    def _require_room(self, images: Sequence[NominalImage]) -> None:
        needed = sum(2 * int(np.prod(self._shape(image))) for image in images)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise ArgumentError(
                f"the teacher's features of {len(images)} images take {needed / 1e9:.1f} GB beside the bundle while "
                f"it is fitted, {free / 1e9:.1f} GB are free there; make room, choose another --out, or give a "
                "smaller --scale"
            )


@contextlib.contextmanager
def cache_folder(out: Path) -> Iterator[Path]:
    """Where a bundle's features lie while it is fitted; stays only when the fit is killed or interrupted.

    Args:
        out: The bundle, held by its lock.
    """
    # Not eight letters behind the name: that is what drafts of bundles have, which are cleared.
    out = Path(os.path.realpath(out))
    folder = out.with_name(f".{out.name}.feature-cache")
    try:
        yield folder
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def from_bits(bits: np.ndarray[Any, np.dtype[np.int16]]) -> torch.Tensor:
    """A bfloat16 tensor of the same shape, a copy."""
    return torch.from_numpy(np.array(bits)).view(torch.bfloat16)


def _settings_sha256(model: PatchDistanceModel, geometry: TileGeometry) -> str:
    """Of whatever else than the pixels decides what the features are."""
    teacher, tile = model.teacher, geometry
    settings = [
        *(teacher.name, teacher.weights_sha256, teacher.blocks),
        *(tile.tile_px, tile.patch_px, tile.overlap_patches, tile.scale),
        *(native_precision(), torch.__version__),
    ]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

"""The float32 reference of a bundle: real tiles in, a file with them and their patch distances out.

Knows nothing about engines or tolerances; `fbft_export.parity` reads the file, without torch.
"""

from __future__ import annotations

from pathlib import Path

import torch

from fbft_edge.frames.frame import Uint8
from fbft_export.graph import PatchDistanceModel
from fbft_export.tensor_file import write_tensors


def write_reference(model: PatchDistanceModel, tiles: Uint8, path: Path) -> None:
    """Store tiles and their float32 patch distances.

    Args:
        model: The torch model, float32.
        tiles: (tiles, tile_px, tile_px, 3) uint8 RGB, cut from real images.
        path: Where to; `fbft_export.parity.PARITY_FILE` in the bundle.
    """
    with torch.inference_mode():
        distances = torch.cat([model(torch.from_numpy(tile[None])) for tile in tiles]).numpy()
    write_tensors({"tiles": tiles, "distances": distances}, path)

"""Named tensors in, a safetensors file that any user of the machine may read out.

Knows nothing about what the tensors are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def write_tensors(
    tensors: Mapping[str, np.ndarray[Any, Any]], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays of any shape and type under their names, and text beside them."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, path, None if metadata is None else dict(metadata))
    path.chmod(0o644)  # safetensors writes 0600, and the line may run as another user

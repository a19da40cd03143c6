"""A folder of nominal images, checked: what can be used, what cannot, and why.

Knows nothing about tiles or models.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fbft_edge.errors import ArgumentError, ImageError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import about_dark_16_bit, image_paths, peak_of_dark_16_bit, read_image
from fbft_edge.names import size_text
from fbft_edge.progress import SILENT, Progress

MIN_IMAGES = 8
_MOST_SIZES = 6  # named in one line


@dataclass(frozen=True, slots=True)
class NominalImage:
    """One usable image; `pixels_sha256` identifies its content whatever the file is called."""

    path: Path
    pixels_sha256: str
    size: tuple[int, int]

    def read(self) -> Uint8:
        """(height, width, 3) uint8 RGB."""
        return read_image(self.path)


@dataclass(frozen=True, slots=True)
class NominalSet:
    """What a folder holds.

    Attributes:
        images: Usable images, by name.
        left_out: Path and reason of every file that is not used.
    """

    images: tuple[NominalImage, ...]
    left_out: tuple[tuple[Path, str], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[NominalImage]:
        return iter(self.images)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Different (height, width) among the images, most common first."""
        return [size for size, _ in Counter(image.size for image in self.images).most_common()]

    def split(self, held_out: float, seed: int) -> tuple[list[NominalImage], list[NominalImage]]:
        """Images to fit on and images to calibrate on, drawn at random, disjoint in content."""
        order = np.random.default_rng(seed).permutation(len(self.images))
        count = min(max(1, round(held_out * len(self.images))), len(self.images) - 1)
        chosen = set(order[:count].tolist())
        fit = [image for index, image in enumerate(self.images) if index not in chosen]
        return fit, [self.images[index] for index in sorted(chosen)]


def pixels_sha256(pixels: Uint8) -> str:
    """Identity of an image's content, in hexadecimal; (height, width, 3) uint8 RGB."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def scan_nominal(folder: Path, progress: Progress = SILENT, *, mixed_sizes: bool = False) -> NominalSet:
    """Read every image of a folder once; leave out the unreadable, the duplicate and the odd-sized.

    Args:
        folder: Images directly inside are used.
        progress: Told what is left out, and why.
        mixed_sizes: Use images of every size; otherwise those of the most common one.

    Raises:
        ImageError: No such folder, or no image in it.
    """
    images: list[NominalImage] = []
    left_out: list[tuple[Path, str]] = []
    first_with: dict[str, Path] = {}
    dark: dict[Path, int] = {}
    for path in progress.track(image_paths(folder), "checking images"):
        try:
            pixels = read_image(path)
        except ImageError as error:
            left_out.append((path, f"unreadable: {error}"))
            continue
        if (peak := peak_of_dark_16_bit(path, pixels)) is not None:
            dark[path] = peak
        digest = pixels_sha256(pixels)
        if digest in first_with:
            left_out.append((path, f"duplicate of {first_with[digest].name}"))
            continue
        first_with[digest] = path
        images.append(NominalImage(path, digest, (pixels.shape[0], pixels.shape[1])))
    sizes = Counter(image.size for image in images)
    if not mixed_sizes:
        images = _of_common_size(images, sizes, left_out)
    found = NominalSet(tuple(images), tuple(left_out))
    _report(found, folder, progress)
    if len(sizes) > 1:
        progress.say(f"  {_about_sizes(sizes, mixed_sizes)}", "plain" if mixed_sizes else "caution")
    if dark:
        progress.say(f"  {about_dark_16_bit(dark)}", "caution")
    return found


def require_enough(nominal: NominalSet, least: int = MIN_IMAGES) -> None:
    """Stop when there are too few images to go on.

    Raises:
        ArgumentError: Fewer than `least` usable images.
    """
    if len(nominal) < least:
        raise ArgumentError(
            f"{len(nominal)} usable nominal images, at least {least} are needed "
            f"({len(nominal.left_out)} were left out); add images of good parts, a few dozen serve well"
        )


def _of_common_size(
    images: list[NominalImage], sizes: Counter[tuple[int, int]], left_out: list[tuple[Path, str]]
) -> list[NominalImage]:
    if len(sizes) < 2:
        return images
    common, count = sizes.most_common(1)[0]
    left_out += [
        (image.path, f"{size_text(image.size)}, {count} others are {size_text(common)}")
        for image in images
        if image.size != common
    ]
    return [image for image in images if image.size == common]


def _about_sizes(sizes: Counter[tuple[int, int]], mixed_sizes: bool) -> str:
    """How many images are of which size, and what to do about it."""
    most = sizes.most_common()
    counts = [f"{count} of {width}x{height}" for (height, width), count in most[:_MOST_SIZES]]
    if len(most) > _MOST_SIZES:
        counts.append(f"{len(most) - _MOST_SIZES} more sizes")
    said = f"images of {len(most)} sizes, in pixels (width x height): {', '.join(counts)}"
    if mixed_sizes:
        return f"{said}; all are used"
    (height, width), _ = most[0]
    return (
        f"{said}. A line of one frame size needs the others cut to {width}x{height}, at the same scale, or taken out; "
        "a line that sends all these sizes takes --mixed-sizes"
    )


def _report(nominal: NominalSet, folder: Path, progress: Progress) -> None:
    sizes = f" of {size_text(*nominal.sizes[:4])}" if nominal.images else ""
    progress.say(f"{len(nominal)} nominal images in {folder}{sizes}, {len(nominal.left_out)} left out")
    for path, reason in nominal.left_out[:20]:
        progress.say(f"  left out {path.name}: {reason}", "caution")
    if len(nominal.left_out) > 20:
        progress.say(f"  and {len(nominal.left_out) - 20} more", "caution")

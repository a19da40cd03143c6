"""A data set folder in, its categories out: nominal images to fit on, test images with their masks.

Five layouts are told apart by their folders; MPDD and plain folders are laid out as MVTec AD is:

    layout      nominal images           test images             masks
    mvtec-ad    train/good               test/<type>             ground_truth/<type>
    mvtec-loco  train/good               test/<type>             ground_truth/<type>/<image>/, several each
    mvtec-ad-2  train/good               test_public/<type>      test_public/ground_truth/<type>
    btad        train/ok                 test/<type>             ground_truth/<type>
    visa        as split_csv/1cls.csv says, for every category

Each is the folder of a category; the data set is the folder above, or one category alone. A mask is named like its
image, with or without `_mask`, and ends in any image suffix, or is a folder of that name whose masks count together.
MVTec AD 2's private test images have no masks here, and its and MVTec LOCO's validation images are not fitted on;
neither is read.
Knows nothing about detectors or figures.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fbft_edge.errors import ArgumentError, ImageError
from fbft_edge.frames.frame import Bool, Uint8
from fbft_edge.frames.images import IMAGE_SUFFIXES, read_image
from fbft_edge.names import size_text

VISA_SPLIT = Path("split_csv", "1cls.csv")
HALF = 127

_GOOD_NAMES = frozenset({"good", "ok", "normal"})
_VISA_GOOD = "normal"
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TestImage:
    """One test image and what is known about it.

    Attributes:
        path: The image.
        defect_type: Name of its folder, or its label in the split; `good` (BTAD: `ok`, VisA: `normal`) is nominal.
        is_defective: False for nominal images.
        mask: Of a defective image, a file or a folder of them; None where the data set has none.
        mask_floor: Largest 8-bit mask value that is still nominal: half of full scale; 0 in VisA and in folders of
            masks (MVTec LOCO), whose values number the defects or their kinds.
    """

    path: Path
    defect_type: str
    is_defective: bool
    mask: Path | None
    mask_floor: int = HALF

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """What the mask is made of; none where there is none."""
        if self.mask is None:
            return ()
        return tuple(_images(self.mask)) if self.mask.is_dir() else (self.mask,)

    def truth(self, size: tuple[int, int]) -> tuple[Bool | None, str | None]:
        """Where this image is defective, or why that is not known.

        Args:
            size: (height, width) of the image as read.

        Returns:
            (height, width) bool, all False for a nominal image, and None; or, where the mask is missing, unreadable,
            of another size or empty, None and a line that says so. Such an image counts for image figures only.
        """
        if not self.is_defective:
            return np.zeros(size, np.bool_), None
        try:
            return self._read_mask(size), None
        except ImageError as error:
            return None, f"{error}; {self.path.name} counts for image figures only"

    def _read_mask(self, size: tuple[int, int]) -> Bool:
        if self.mask is None:
            raise ImageError(
                f"{self.path} has no mask; add one of its name, with or without _mask (VisA: name it in {VISA_SPLIT})"
            )
        largest, truth = 0, np.zeros(size, np.bool_)
        for path in self.mask_files:
            levels = self._levels(path, size)
            largest = max(largest, int(levels.max()))
            truth |= levels > self.mask_floor
        if not truth.any():
            raise ImageError(
                f"mask {self.mask} marks nothing: its largest value is {largest}, "
                f"defects are above {self.mask_floor}; write defects as 255, or move the image to the good ones"
            )
        return truth

    def _levels(self, path: Path, size: tuple[int, int]) -> Uint8:
        levels = np.asarray(read_image(path).max(axis=2), np.uint8)
        if levels.shape != size:
            raise ImageError(
                f"mask {path} has {size_text(levels.shape[:2])}, its image {size_text(size)}; write it in that size"
            )
        return levels


@dataclass(frozen=True, slots=True)
class Category:
    """One product of a data set.

    Attributes:
        name: Of its folder.
        layout: `mvtec-ad`, `mvtec-loco`, `mvtec-ad-2`, `btad` or `visa`.
        nominal: Images to fit on, by name; empty when there is none, and then a problem says so.
        tests: Test images, by type and name; likewise.
        problems: A line for what is missing, left over or likely a mistake. Files are not opened here: what cannot
            be read shows when they are.
    """

    name: str
    layout: str
    nominal: tuple[Path, ...]
    tests: tuple[TestImage, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Folders:
    """Where a layout keeps what, relative to the folder of a category."""

    layout: str
    test: str
    ground_truth: str
    nominal_type: str

    def fit(self, folder: Path) -> bool:
        """Whether a folder is a category of this layout, be it an incomplete one."""
        has_nominal, has_test = (folder / "train" / self.nominal_type).is_dir(), (folder / self.test).is_dir()
        if self.layout == "mvtec-loco":
            kinds = _subfolders(folder / self.ground_truth)
            return has_nominal and has_test and any(_subfolders(kind) for kind in kinds)
        if self.layout == "mvtec-ad":
            return has_nominal or (has_test and (folder / "train").is_dir())
        return has_nominal and has_test


_FOLDERS = (
    _Folders("mvtec-ad-2", "test_public", "test_public/ground_truth", "good"),
    _Folders("mvtec-loco", "test", "ground_truth", "good"),
    _Folders("btad", "test", "ground_truth", "ok"),
    _Folders("mvtec-ad", "test", "ground_truth", "good"),
)


def categories(root: Path) -> list[Category]:
    """The categories of a data set, by name; or the one that `root` itself is.

    Incomplete ones are among them, with their problems, as long as one is complete.

    Raises:
        ArgumentError: The folder is no data set of a known layout, or its split is not VisA's.
    """
    if not root.is_dir():
        raise ArgumentError(f"{root} is not a folder; name the folder of a data set")
    if (root / VISA_SPLIT).is_file():
        return _visa(root)
    folders_of_root = _folders_of(root)
    places = _subfolders(root) if folders_of_root is None else [root]
    found = [_category(path, folders) for path in places if (folders := _folders_of(path)) is not None]
    if not any(category.nominal and category.tests for category in found):
        lacking = "; ".join(problem for category in found for problem in category.problems[-2:]) or "none was found"
        raise ArgumentError(
            f"{root} is no data set ({lacking}): looked there and in each folder in it ({len(_subfolders(root))}) for "
            "train/good and test (MVTec AD, MVTec LOCO, MPDD, plain folders), train/good and test_public "
            f"(MVTec AD 2), train/ok and test (BTAD), and for {VISA_SPLIT} (VisA); name the "
            "folder that holds the categories"
        )
    return found


def _folders_of(folder: Path) -> _Folders | None:
    return next((folders for folders in _FOLDERS if folders.fit(folder)), None)


def _category(folder: Path, folders: _Folders) -> Category:
    nominal = tuple(_images(folder / "train" / folders.nominal_type))
    ground_truth = folder / folders.ground_truth
    kinds = [path for path in _subfolders(folder / folders.test) if path != ground_truth]
    tests: list[TestImage] = []
    problems: list[str] = []
    for kind in kinds:
        is_defective = kind.name != folders.nominal_type
        masks = _masks(ground_truth / kind.name) if is_defective else {}
        images = _images(kind)
        own = [_test_image(path, kind.name, is_defective, masks) for path in images]
        tests += own
        problems += _left_over(masks, images, ground_truth / kind.name)
        problems += _without_masks(own, ground_truth / kind.name)
    problems += _about_good(tests, folders.nominal_type, str(folder / folders.test))
    if not nominal:
        problems.append(f"{folder / 'train' / folders.nominal_type} holds no image to fit on")
    if not tests:
        problems.append(f"{folder / folders.test} holds no folder of test images")
    return Category(folder.resolve().name, folders.layout, nominal, tuple(tests), tuple(problems))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _images(folder: Path) -> list[Path]:
    """Image files directly in a folder, by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _masks(folder: Path) -> dict[str, Path]:
    """Masks by the name of their image; folders of masks where an image has several."""
    folders = _subfolders(folder)
    return {path.stem if path.is_file() else path.name: path for path in (*_images(folder), *folders)}


def _test_image(path: Path, kind: str, is_defective: bool, masks: Mapping[str, Path]) -> TestImage:
    mask = _mask_of(path, masks)
    return TestImage(path, kind, is_defective, mask, 0 if mask and mask.is_dir() else HALF)


def _mask_of(image: Path, masks: Mapping[str, Path]) -> Path | None:
    return masks.get(f"{image.stem}_mask", masks.get(image.stem))


def _left_over(masks: Mapping[str, Path], images: Sequence[Path], folder: Path) -> list[str]:
    """A line if masks have no image: it was lost, or goes by another name."""
    used = {_mask_of(image, masks) for image in images}
    unused = sorted(path.name for path in masks.values() if path not in used)
    if not unused:
        return []
    names = ", ".join(unused[:_NAMES_SHOWN]) + (", ..." if len(unused) > _NAMES_SHOWN else "")
    return [f"{len(unused)} masks in {folder} have no test image ({names}); is the data set complete?"]


def _without_masks(tests: Sequence[TestImage], folder: Path) -> list[str]:
    """A line if a type of defects has no mask at all; what is likely one of good images is told by `_about_good`."""
    defective = [test for test in tests if test.is_defective and test.defect_type.lower() not in _GOOD_NAMES]
    if not defective or any(test.mask_files for test in defective):
        return []
    return [
        f"none of the {len(defective)} images of type {defective[0].defect_type} has a mask in {folder}; they count "
        "for image figures only"
    ]


def _about_good(tests: Sequence[TestImage], nominal_type: str, where: str) -> list[str]:
    """A line for each type that is likely one of good images, and one if there is no good image."""
    types = Counter(test.defect_type for test in tests if test.is_defective)
    lines = [
        f"{number} images of type {name} in {where} count as defective: good ones are of type {nominal_type}; "
        f"if they are good, rename the type to {nominal_type}"
        for name, number in types.items()
        if name.lower() in _GOOD_NAMES
    ]
    if tests and all(test.is_defective for test in tests):
        lines.append(
            f"{where} holds no good image: false alarms, image AUROC and whatever else compares with good images are "
            f"not known; add good images as type {nominal_type}"
        )
    return lines


def _visa(root: Path) -> list[Category]:
    """The categories of VisA, as its split for one-class methods has them."""
    rows = _visa_rows(root / VISA_SPLIT)
    found = []
    for name in sorted({row["object"] for row in rows}):
        own = [row for row in rows if row["object"] == name]
        nominal = tuple(sorted(root / row["image"] for row in own if row["split"] == "train"))
        tests = sorted(
            (_visa_test(root, row) for row in own if row["split"] == "test"),
            key=lambda image: (image.defect_type, image.path),
        )
        problems = [
            f"{VISA_SPLIT} names no {name} image for {split}"
            for split in ("train", "test")
            if all(row["split"] != split for row in own)
        ]
        problems += _about_good(tests, _VISA_GOOD, f"{name} of {VISA_SPLIT}")
        found.append(Category(name, "visa", nominal, tuple(tests), tuple(problems)))
    return found


def _visa_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [{column: row.get(column) or "" for column in _VISA_COLUMNS} for row in reader]
            missing = [column for column in _VISA_COLUMNS if column not in (reader.fieldnames or ())]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(f"{path} is not a table: {error}; take it from the data set again") from error
    if missing or not rows:
        raise ArgumentError(
            f"{path} has {len(rows)} rows and lacks columns {', '.join(missing) or 'none'}; "
            f"VisA's split has {', '.join(_VISA_COLUMNS)}; take it from the data set again"
        )
    return rows


def _visa_test(root: Path, row: Mapping[str, str]) -> TestImage:
    is_defective = row["label"] != _VISA_GOOD
    mask = root / row["mask"] if is_defective and row["mask"] else None
    return TestImage(root / row["image"], row["label"], is_defective, mask, mask_floor=0)

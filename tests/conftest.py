"""What several folders of tests stand on: a real bundle, and the real data sets where they are at hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fbft_edge.bundle.reading import MANIFEST, Bundle
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part

if TYPE_CHECKING:
    from fbft_export.graph import PatchDistanceModel

pytest_plugins = ("quick",)

SMALL_SIZE = (140, 182)
NUM_PARTS = 12


_SEALED: list[Path] = []


def _note_seal(event: str, arguments: tuple[object, ...]) -> None:
    """Python tells of every rename; a seal ends with that of a manifest."""
    if event == "os.rename" and str(arguments[1]).endswith(f"/{MANIFEST}"):
        _SEALED.append(Path(str(arguments[1])))


sys.addaudithook(_note_seal)


@pytest.fixture(scope="session")
def seals_of() -> Callable[[Path], int]:
    """How often a bundle was sealed since the tests began, where it lies or as the draft that took its place."""

    def count(bundle: Path) -> int:
        folders = [path.parent for path in _SEALED if path.parent.parent == bundle.parent]
        return sum(folder == bundle or folder.name.startswith(f".{bundle.name}.") for folder in folders)

    return count


@pytest.fixture(scope="session")
def nominal_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rendered parts of 140x182 pixels as PNG; tests only read them."""
    folder = tmp_path_factory.mktemp("nominal")
    for seed in range(NUM_PARTS):
        write_image(folder / f"part{seed:02d}.png", render_part(seed, *SMALL_SIZE).pixels)
    return folder


@pytest.fixture(scope="session")
def small_bundle(nominal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real bundle of the offline teacher, four tiles of 112 px a frame; tests that alter it copy it first."""
    pytest.importorskip("torch", reason="fitting needs the extra calibration")
    from fbft_calibration.fitting.bundling import fit_bundle
    from fbft_calibration.fitting.settings import BundleSettings
    from fbft_calibration.fitting.students import FitSettings

    out = tmp_path_factory.mktemp("bundles") / "small.fbft"
    settings = BundleSettings(tile_px=112, students=FitSettings(steps=20), prototypes=32)
    return fit_bundle(nominal_folder, out, settings)


@pytest.fixture(scope="session")
def small_model(small_bundle: Bundle) -> PatchDistanceModel:
    """The torch model behind `small_bundle`, float32, from the bundle's own students."""
    from fbft_edge.bundle.reading import PROTOTYPES, STUDENTS
    from fbft_export.graph import PatchDistanceModel
    from fbft_export.prototypes import load_prototypes
    from fbft_export.students import load_students
    from fbft_export.teacher import load_teacher

    teacher = load_teacher(small_bundle.teacher.name, tile_px=small_bundle.tile.tile_px)
    prototypes = load_prototypes(small_bundle.file(PROTOTYPES))
    return PatchDistanceModel(teacher, load_students(small_bundle.file(STUDENTS)), prototypes)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets (`mvtec_bottle`, `bsdata`, ...)."""
    shared = os.environ.get("FBFT_SHARED", Path(__file__).parents[2] / "shared")
    data = Path(shared) / "data"
    if not data.is_dir():
        pytest.skip(f"the real data sets are not at {data}; FBFT_SHARED names the folder that holds data/")
    return data

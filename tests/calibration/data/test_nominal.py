"""What cannot be used is named with its reason and never used."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fbft_calibration.data.nominal import MIN_IMAGES, NominalSet, require_enough, scan_nominal
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.errors import ArgumentError, ImageError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import write_image


def picture(seed: int, height: int = 40, width: int = 50) -> Uint8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four usable images, and one of each kind that is not."""
    for index in range(4):
        write_image(tmp_path / f"good{index}.png", picture(index))
    write_image(tmp_path / "renamed.bmp", picture(2))
    write_image(tmp_path / "wide.png", picture(9, 40, 60))
    (tmp_path / "cut.png").write_bytes((tmp_path / "good0.png").read_bytes()[:500])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "notes.txt").write_text("not an image, not asked for")
    return tmp_path


def scanned(folder: Path, **options: bool) -> tuple[NominalSet, str]:
    out = io.StringIO()
    found = scan_nominal(folder, TerminalProgress(Console(file=out, width=300)), **options)
    return found, out.getvalue()


def names(nominal: NominalSet) -> list[str]:
    return [image.path.name for image in nominal]


def test_only_usable_images_are_used(folder: Path) -> None:
    assert names(scanned(folder)[0]) == ["good0.png", "good1.png", "good2.png", "good3.png"]


def test_every_image_is_either_used_or_left_out(folder: Path) -> None:
    nominal, _ = scanned(folder)
    left_out = {path.name for path, _ in nominal.left_out}
    assert left_out == {"renamed.bmp", "wide.png", "cut.png", "empty.jpg", "folder.png"}


def test_every_reason_is_said(folder: Path) -> None:
    reasons = {path.name: reason.split(":")[0].split(",")[0] for path, reason in scanned(folder)[0].left_out}
    assert reasons == {
        "renamed.bmp": "duplicate of good2.png",
        "wide.png": "60x40 pixels (width x height)",
        "cut.png": "unreadable",
        "empty.jpg": "unreadable",
        "folder.png": "unreadable",
    }


def test_the_counts_and_every_name_are_printed(folder: Path) -> None:
    nominal, text = scanned(folder)
    assert "4 nominal images" in text
    assert "5 left out" in text
    assert [path.name for path, _ in nominal.left_out if path.name not in text] == []


def test_a_name_with_brackets_is_printed_as_it_is(tmp_path: Path) -> None:
    write_image(tmp_path / "good.png", picture(0))
    (tmp_path / "part[red].png").touch()
    assert "part[red].png" in scanned(tmp_path)[1]


def test_mixed_sizes_are_used_only_when_asked(folder: Path) -> None:
    nominal, _ = scanned(folder, mixed_sizes=True)
    assert (len(nominal), nominal.sizes) == (5, [(40, 50), (40, 60)])


@pytest.mark.parametrize(("mixed_sizes", "advice"), [(False, "takes --mixed-sizes"), (True, "all are used")])
def test_images_of_several_sizes_are_counted_by_size_with_what_to_do(
    folder: Path, mixed_sizes: bool, advice: str
) -> None:
    text = scanned(folder, mixed_sizes=mixed_sizes)[1]
    line = next(line for line in text.splitlines() if "images of 2 sizes" in line)
    assert ("in pixels (width x height): 4 of 50x40, 1 of 60x40" in line, advice in line) == (True, True)


def test_images_of_one_size_need_no_advice(folder: Path) -> None:
    (folder / "wide.png").unlink()
    assert "sizes" not in scanned(folder)[1]


def test_images_are_read_as_they_are(folder: Path) -> None:
    np.testing.assert_array_equal(scanned(folder)[0].images[1].read(), picture(1))


def test_the_same_content_has_the_same_identity_in_any_format(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "a" / "x.png", picture(0))
    write_image(tmp_path / "b" / "y.bmp", picture(0))
    first, second = (scanned(tmp_path / name)[0].images[0].pixels_sha256 for name in ("a", "b"))
    assert first == second


def test_the_same_bytes_in_another_shape_are_another_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    write_image(tmp_path / "b.png", np.zeros((30, 20, 3), np.uint8))
    assert len(scanned(tmp_path, mixed_sizes=True)[0]) == 2


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError):
        scanned(tmp_path / name)


def test_too_few_images_are_refused_with_both_counts(folder: Path) -> None:
    with pytest.raises(ArgumentError, match=rf"4 usable .* at least {MIN_IMAGES} .*5 were left out"):
        require_enough(scanned(folder)[0])


# Dark images of 16 bits


def dark(path: Path, peak: int, kind: type[np.unsignedinteger] = np.uint16) -> Path:
    values = np.random.default_rng(len(path.name)).integers(0, peak, (8, 9), kind)
    values[4, 5] = peak
    cv2.imwrite(str(path), values)
    return path


def test_ten_or_twelve_bits_in_sixteen_are_told_with_their_largest_value(tmp_path: Path) -> None:
    dark(tmp_path / "a.png", 1023)
    dark(tmp_path / "bb.tif", 4095)
    assert "2 16-bit images are very dark: none has a value above 4095 of 65535 (bb.tif)" in scanned(tmp_path)[1]


@pytest.mark.parametrize(("peak", "kind"), [(20, np.uint8), (65535, np.uint16), (8192, np.uint16)])
def test_images_that_use_their_range_or_have_eight_bits_are_not_told(
    tmp_path: Path, peak: int, kind: type[np.unsignedinteger]
) -> None:
    dark(tmp_path / "a.png", peak, kind)
    assert "16-bit" not in scanned(tmp_path)[1]


# The split


@pytest.fixture(scope="module")
def nominal(tmp_path_factory: pytest.TempPathFactory) -> NominalSet:
    folder = tmp_path_factory.mktemp("nominal")
    for index in range(20):
        write_image(folder / f"{index:02d}.png", picture(index, 8, 8))
    return scan_nominal(folder)


@given(st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_a_split_is_disjoint_and_complete(nominal: NominalSet, held_out: float, seed: int) -> None:
    fit, calibrate = nominal.split(held_out, seed)
    assert sorted(image.path for image in [*fit, *calibrate]) == [image.path for image in nominal]


@given(st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_neither_side_of_a_split_is_empty(nominal: NominalSet, held_out: float, seed: int) -> None:
    assert min(len(side) for side in nominal.split(held_out, seed)) >= 1


@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_split(nominal: NominalSet, seed: int) -> None:
    assert nominal.split(1 / 3, seed) == nominal.split(1 / 3, seed)


def test_every_image_is_held_out_by_some_seed(nominal: NominalSet) -> None:
    held_out = {image.path for seed in range(40) for image in nominal.split(1 / 3, seed)[1]}
    assert held_out == {image.path for image in nominal}


def test_a_third_is_held_out_when_a_third_is_asked_for(nominal: NominalSet) -> None:
    assert [len(side) for side in nominal.split(1 / 3, 0)] == [13, 7]

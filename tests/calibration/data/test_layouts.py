"""Every layout is read as its data set means it, and what is wrong with a file is a line, never a number."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fbft_calibration.data import layouts
from fbft_calibration.data.layouts import Category, categories
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.images import write_image

SIZE = (12, 16)
FOLDERS = {
    "mvtec-ad": ("train/good", "test/good", "test/{}", "ground_truth/{}"),
    "mvtec-ad-2": ("train/good", "test_public/good", "test_public/{}", "test_public/ground_truth/{}"),
    "btad": ("train/ok", "test/ok", "test/{}", "ground_truth/{}"),
}
# Folder layout, categories, defect types, image and mask names as the data sets have them.
DATA_SETS = {
    "MVTec AD": ("mvtec-ad", ("bottle", "zipper"), ("broken_large", "contamination"), "{}.png", "{}_mask.png"),
    "MPDD": ("mvtec-ad", ("bracket_black", "tubes"), ("hole", "scratches"), "{}.png", "{}_mask.png"),
    "MVTec AD 2": ("mvtec-ad-2", ("can", "vial"), ("bad",), "{}_regular.png", "{}_regular_mask.png"),
    "BTAD 01": ("btad", ("01", "02"), ("ko",), "{}.bmp", "{}.png"),
    "BTAD 03": ("btad", ("03",), ("ko",), "{}.bmp", "{}.bmp"),
    "plain folders": ("mvtec-ad", ("part",), ("pit",), "{}.JPG", "{}.tif"),
}


def picture(path: Path, level: int = 90, size: tuple[int, int] = SIZE) -> Path:
    """A uniform picture with a square of `level` in it; suffixes in capitals are kept."""
    pixels = np.zeros(size, np.uint8)
    pixels[2:5, 3:7] = level
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path.with_suffix(path.suffix.lower()), pixels)
    return path.with_suffix(path.suffix.lower()).rename(path)


def write_category(folder: Path, layout: str, types: tuple[str, ...], image: str, mask: str) -> None:
    """Three nominal images, two good test images, two of each type with masks."""
    train, good, defective, ground_truth = FOLDERS[layout]
    for number in range(3):
        picture(folder / train / image.format(f"{number:03d}"))
    for number in range(2):
        picture(folder / good / image.format(f"{number:03d}"))
        for kind in types:
            picture(folder / defective.format(kind) / image.format(f"{number:03d}"))
            picture(folder / ground_truth.format(kind) / mask.format(f"{number:03d}"), 255)


@pytest.fixture(params=DATA_SETS)
def data_set(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Name and root of a small data set, with things beside the categories that are none."""
    layout, names, types, image, mask = DATA_SETS[request.param]
    for name in names:
        write_category(tmp_path / name, layout, types, image, mask)
        (tmp_path / name / "license.txt").write_text("of the data set")
    (tmp_path / "readme.txt").write_text("of the data set")
    picture(tmp_path / "figures" / "overview.png")
    return request.param, tmp_path


def only(root: Path) -> Category:
    (category,) = categories(root)
    return category


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """One category of plain folders."""
    write_category(tmp_path / "part", "mvtec-ad", ("pit",), "{}.png", "{}_mask.png")
    return tmp_path / "part"


def truth_of(part: Path) -> tuple[np.ndarray | None, str | None]:
    """Of the first defective image."""
    return next(image for image in only(part).tests if image.is_defective).truth(SIZE)


# Layouts


def test_every_data_set_shows_its_categories_and_layout(data_set: tuple[str, Path]) -> None:
    name, root = data_set
    layout, names, *_ = DATA_SETS[name]
    assert [(found.name, found.layout) for found in categories(root)] == [(category, layout) for category in names]


def test_nominal_images_are_those_to_train_on(data_set: tuple[str, Path]) -> None:
    name, root = data_set
    layout, names, _, image, _ = DATA_SETS[name]
    expected = [root / names[0] / FOLDERS[layout][0] / image.format(f"{number:03d}") for number in range(3)]
    assert list(categories(root)[0].nominal) == expected


def test_test_images_are_told_by_type(data_set: tuple[str, Path]) -> None:
    name, root = data_set
    layout, _, types, *_ = DATA_SETS[name]
    good = Path(FOLDERS[layout][1]).name
    expected = sorted([(good, False)] * 2 + [(kind, True) for kind in types for _ in range(2)])
    assert sorted((image.defect_type, image.is_defective) for image in categories(root)[0].tests) == expected


def test_every_defective_image_has_its_own_mask(data_set: tuple[str, Path]) -> None:
    name, root = data_set
    *_, image_name, mask_name = DATA_SETS[name]
    defective = [image for image in categories(root)[0].tests if image.is_defective]
    found = [image.mask and (image.mask.parent.name, image.mask.name) for image in defective]
    number = len(image_name.removeprefix("{}"))
    assert found == [(image.defect_type, mask_name.format(image.path.name[:-number])) for image in defective]


def test_a_whole_data_set_has_no_problems(data_set: tuple[str, Path]) -> None:
    assert [problem for found in categories(data_set[1]) for problem in found.problems] == []


def test_one_category_is_a_data_set_too(data_set: tuple[str, Path]) -> None:
    first = categories(data_set[1])[0]
    assert categories(data_set[1] / first.name) == [first]


def test_nominal_images_have_no_mask_even_where_there_is_one(part: Path) -> None:
    picture(part / "ground_truth" / "good" / "000_mask.png", 0)
    assert {image.mask for image in only(part).tests if not image.is_defective} == {None}


@pytest.mark.parametrize("left_out", ["test_private", "test_private_mixed", "validation/good"])
def test_mvtec_ad_2_is_not_read_where_it_says_nothing(tmp_path: Path, left_out: str) -> None:
    write_category(tmp_path / "can", "mvtec-ad-2", ("bad",), "{}_regular.png", "{}_regular_mask.png")
    before = categories(tmp_path)
    picture(tmp_path / "can" / left_out / "000_regular.png")
    assert categories(tmp_path) == before


def test_categories_of_several_layouts_stand_side_by_side(part: Path) -> None:
    write_category(part.parent / "01", "btad", ("ko",), "{}.bmp", "{}.png")
    assert [found.layout for found in categories(part.parent)] == ["btad", "mvtec-ad"]


# VisA


def visa_split(root: Path, rows: list[str], header: str = "object,split,label,image,mask") -> None:
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv" / "1cls.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    """Two categories; masks number the defects from 1."""
    rows = []
    for name in ("candle", "pcb1"):
        data = tmp_path / name / "Data"
        for number in range(4):
            picture(data / "Images" / "Normal" / f"{number:04d}.JPG")
            split = "train" if number < 3 else "test"
            rows.append(f"{name},{split},normal,{name}/Data/Images/Normal/{number:04d}.JPG,")
        picture(data / "Images" / "Anomaly" / "000.JPG")
        picture(data / "Masks" / "Anomaly" / "000.png", 1)
        rows.append(f"{name},test,anomaly,{name}/Data/Images/Anomaly/000.JPG,{name}/Data/Masks/Anomaly/000.png")
    visa_split(tmp_path, rows)
    return tmp_path


def test_visa_is_split_as_its_table_says(visa: Path) -> None:
    found = [(c.name, c.layout, len(c.nominal), [t.defect_type for t in c.tests]) for c in categories(visa)]
    assert found == [("candle", "visa", 3, ["anomaly", "normal"]), ("pcb1", "visa", 3, ["anomaly", "normal"])]


def test_visa_tells_defective_from_normal(visa: Path) -> None:
    assert [image.is_defective for image in categories(visa)[0].tests] == [True, False]


def test_visa_masks_are_defective_wherever_they_are_not_zero(visa: Path) -> None:
    truth, _ = categories(visa)[0].tests[0].truth(SIZE)
    assert truth is not None
    assert truth.sum() == 12


def test_visa_images_named_but_not_there_are_found_out_when_read(visa: Path) -> None:
    shutil.rmtree(visa / "pcb1" / "Data" / "Masks")
    truth, problem = categories(visa)[1].tests[0].truth(SIZE)
    assert truth is None
    assert "000.png cannot be read" in str(problem)


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (["a,train,normal,a.JPG"], "object,split,label,image", "lacks columns mask"),
        ([], "object,split,label,image,mask", "0 rows"),
        (["\0"], "\0", "1cls.csv"),
    ],
)
def test_a_split_that_is_not_visas_is_refused(tmp_path: Path, rows: list[str], header: str, words: str) -> None:
    visa_split(tmp_path, rows, header)
    with pytest.raises(ArgumentError, match=words):
        categories(tmp_path)


def test_a_split_that_is_no_text_is_refused(visa: Path) -> None:
    (visa / "split_csv" / "1cls.csv").write_bytes(b"\xff\xfe\x00object")
    with pytest.raises(ArgumentError, match="is not a table"):
        categories(visa)


def test_a_category_without_training_images_in_the_split_says_so(tmp_path: Path) -> None:
    visa_split(tmp_path, ["candle,test,normal,candle/0.JPG,"])
    assert "no candle image for train" in only(tmp_path).problems[0]


# Masks


def test_the_truth_of_a_defective_image_is_its_mask(part: Path) -> None:
    expected = np.zeros(SIZE, np.bool_)
    expected[2:5, 3:7] = True
    np.testing.assert_array_equal(truth_of(part)[0], expected)


def test_the_truth_of_a_nominal_image_is_nowhere(part: Path) -> None:
    truth, problem = next(image for image in only(part).tests if not image.is_defective).truth(SIZE)
    assert truth is not None
    assert (truth.any(), truth.shape, problem) == (False, SIZE, None)


@pytest.mark.parametrize(("level", "pixels"), [(128, 12), (255, 12), (127, None), (1, None), (0, None)])
def test_masks_are_defective_above_half(part: Path, level: int, pixels: int | None) -> None:
    picture(part / "ground_truth" / "pit" / "000_mask.png", level)
    truth, _ = truth_of(part)
    assert (None if truth is None else int(truth.sum())) == pixels


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_masks_of_any_colour_are_masks(part: Path, channel: int) -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:3, :3, channel] = 255
    write_image(part / "ground_truth" / "pit" / "000_mask.png", pixels)
    truth, _ = truth_of(part)
    assert truth is not None
    assert truth.sum() == 9


@pytest.mark.parametrize("name", ["000_mask.png", "000.png", "000_mask.tif", "000.bmp"])
def test_a_mask_is_named_like_its_image_with_or_without_mask(part: Path, name: str) -> None:
    (part / "ground_truth" / "pit" / "000_mask.png").unlink()
    picture(part / "ground_truth" / "pit" / name, 255)
    assert truth_of(part)[1] is None


def missing(mask: Path) -> None:
    mask.unlink()


def of_another_size(mask: Path) -> None:
    picture(mask, 255, (9, 7))


def corrupt(mask: Path) -> None:
    mask.write_bytes(mask.read_bytes()[:60])


def empty(mask: Path) -> None:
    picture(mask, 1)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (missing, "has no mask; add one of its name"),
        (
            of_another_size,
            "has 7x9 pixels (width x height), its image 16x12 pixels (width x height)",
        ),
        (corrupt, "is not a readable image"),
        (empty, "marks nothing: its largest value is 1, defects are above 127; write defects as 255"),
    ],
)
def test_a_mask_that_cannot_serve_is_a_line_and_no_truth(part: Path, harm: object, words: str) -> None:
    assert callable(harm)
    harm(part / "ground_truth" / "pit" / "000_mask.png")
    truth, problem = truth_of(part)
    assert (truth, words in str(problem), "counts for image figures only" in str(problem)) == (None, True, True)


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    """A category as MVTec LOCO has it: masks in a folder for each image, their values number kinds of defects."""
    for name in ("train/good/000", "validation/good/000", "test/good/000"):
        picture(tmp_path / "juice" / f"{name}.png")
    for number in range(2):
        for kind in ("logical_anomalies", "structural_anomalies"):
            picture(tmp_path / "juice/test" / kind / f"{number:03d}.png")
            for part, top in enumerate((0, 8)):
                mask = np.zeros(SIZE, np.uint8)
                mask[top : top + 2, 4:9] = 90 + part
                file = tmp_path / "juice/ground_truth" / kind / f"{number:03d}" / f"{part:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                write_image(file, mask)
    return tmp_path


def test_masks_of_one_image_in_a_folder_of_its_name_count_together(loco: Path) -> None:
    found = only(loco)
    truth, problem = next(test for test in found.tests if test.is_defective).truth(SIZE)
    assert truth is not None
    assert (found.layout, found.problems, problem) == ("mvtec-loco", (), None)
    assert np.flatnonzero(truth.any(axis=1)).tolist() == [0, 1, 8, 9]
    assert int(truth.sum()) == 20


def test_validation_images_are_neither_fitted_on_nor_tested(loco: Path) -> None:
    found = only(loco)
    assert not any("validation" in path.parts for path in (*found.nominal, *(test.path for test in found.tests)))


def test_a_mask_of_another_size_among_several_is_named(loco: Path) -> None:
    picture(loco / "juice/ground_truth/logical_anomalies/000/001.png", 255, (9, 7))
    truth, problem = next(test for test in only(loco).tests if test.is_defective).truth(SIZE)
    assert truth is None
    assert "logical_anomalies/000/001.png has 7x9 pixels" in str(problem)


def test_folders_of_masks_without_an_image_are_counted(loco: Path) -> None:
    (loco / "juice/test/logical_anomalies/001.png").unlink()
    assert "1 masks in" in only(loco).problems[0]


def test_a_type_without_a_single_mask_is_told(part: Path) -> None:
    for path in (part / "ground_truth/pit").iterdir():
        path.rename(path.with_name(f"mask_of_{path.name}"))
    left_over, without = only(part).problems
    assert "2 masks" in left_over
    assert without.startswith("none of the 2 images of type pit has a mask in")


def test_masks_without_an_image_are_counted(part: Path) -> None:
    (part / "test" / "pit" / "001.png").unlink()
    assert "1 masks" in only(part).problems[0]


def test_a_missing_image_is_not_replaced_by_another(part: Path) -> None:
    (part / "test" / "pit" / "000.png").unlink()
    assert [image.mask and image.mask.name for image in only(part).tests if image.is_defective] == ["001_mask.png"]


# What is likely a mistake


@pytest.mark.parametrize("name", ["OK", "Good", "normal"])
def test_a_type_of_defects_that_is_called_good_is_told(part: Path, name: str) -> None:
    picture(part / "test" / name / "000.png")
    (problem,) = only(part).problems
    assert f"1 images of type {name} in {part / 'test'} count as defective" in problem


def test_good_images_of_another_layout_are_told(tmp_path: Path) -> None:
    write_category(tmp_path / "01", "btad", ("ko",), "{}.bmp", "{}.png")
    (tmp_path / "01/test/ok").rename(tmp_path / "01/test/good")
    first, second = only(tmp_path).problems
    assert ("2 images of type good" in first, "no good image" in second) == (True, True)


def test_a_category_without_good_test_images_says_what_is_not_known(part: Path) -> None:
    shutil.rmtree(part / "test/good")
    (problem,) = only(part).problems
    assert "holds no good image: false alarms, image AUROC" in problem


def test_visa_without_good_test_images_says_so_too(visa: Path) -> None:
    split = visa / "split_csv/1cls.csv"
    split.write_text(split.read_text().replace("candle,test,normal", "candle,test,Good"))
    first, second = categories(visa)[0].problems
    assert ("1 images of type Good" in first, "no good image" in second) == (True, True)


# What is no data set


@pytest.mark.parametrize("name", ["missing", "empty", "pictures"])
def test_what_is_no_data_set_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "pictures" / "a.png")
    with pytest.raises(ArgumentError, match=name):
        categories(tmp_path / name)


def test_the_refusal_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError) as refusal:
        categories(tmp_path)
    assert [name for name in ("MVTec AD", "MPDD", "MVTec AD 2", "BTAD", "VisA") if name not in str(refusal.value)] == []


LACKS = [("train/good", "holds no image to fit on"), ("test", "holds no folder of test images")]


@pytest.mark.parametrize(("folder", "words"), LACKS)
def test_an_incomplete_category_is_listed_with_what_it_lacks(part: Path, folder: str, words: str) -> None:
    shutil.copytree(part, part.parent / "whole")
    shutil.rmtree(part / folder)
    assert words in categories(part.parent)[0].problems[-1]


@pytest.mark.parametrize(("folder", "words"), LACKS)
def test_an_incomplete_category_alone_is_refused_with_what_it_lacks(part: Path, folder: str, words: str) -> None:
    shutil.rmtree(part / folder)
    with pytest.raises(ArgumentError, match=words):
        categories(part)


def test_a_type_without_any_mask_folder_keeps_its_images(part: Path) -> None:
    shutil.rmtree(part / "ground_truth")
    assert [image.mask for image in only(part).tests if image.is_defective] == [None, None]


def test_the_mask_floor_is_that_of_the_layout(part: Path) -> None:
    assert {image.mask_floor for image in only(part).tests} == {layouts.HALF}

"""What a tally says of maps and masks is what scikit-learn, anomalib and the definitions say, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fbft_calibration.metrics import CategoryFigures, CategoryTally
from fbft_calibration.metrics.components import MOST_KEPT, components_of
from fbft_calibration.metrics.figures import LIMITS_PERCENT
from fbft_calibration.metrics.tally import SIZE_CLASSES_PX, score_bins
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.frames.frame import Bool, Float32

THRESHOLD = 0.12
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Case:
    """One image as a tally sees it."""

    anomaly_map: Float32
    truth: Bool
    defect_type: str = "pit"

    @property
    def is_defective(self) -> bool:
        return bool(self.truth.any())

    @property
    def score(self) -> float:
        return float(self.anomaly_map.max())

    @property
    def mask(self) -> Bool:
        return np.asarray(self.anomaly_map > THRESHOLD)


Cases = tuple[Case, ...]


def tallied(cases: Cases, tally: CategoryTally | None = None) -> CategoryTally:
    tally = tally or CategoryTally()
    for case in cases:
        tally.add(
            case.anomaly_map,
            case.truth,
            case.score,
            is_defective=case.is_defective,
            is_flagged=bool(case.mask.any()),
            mask=case.mask,
            defect_type=case.defect_type,
        )
    return tally


@cache
def figures(cases: Cases) -> CategoryFigures:
    return tallied(cases).figures()


def discs(generator: np.random.Generator, height: int, width: int, count: int, largest: float) -> Bool:
    truth = np.zeros((height, width), np.uint8)
    for _ in range(count):
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        cv2.circle(truth, centre, int(largest ** generator.random()), 1, -1)
    return truth > 0


def random_cases(seed: int) -> Cases:
    """Noise that rises a little where the truth is, in images of two sizes; every other one is nominal."""
    generator = np.random.default_rng(seed)
    cases: Cases = ()
    for index in range(8):
        height, width = (60, 90) if index < 4 else (75, 58)
        truth = discs(generator, height, width, 4 * (index % 2), 9)
        noise = generator.gamma(2, 0.03, (height, width)) + 0.1 * truth * generator.random((height, width))
        cases += (Case(noise.astype(np.float32), truth, f"type{index % 4}"),)
    return cases


def real_like_cases(seed: int) -> Cases:
    """Patch distances through the product's own map operator: smooth, skewed, brighter over most defects."""
    generator = np.random.default_rng(seed)
    operator = MapOperator(grid=(14, 16), patch_px=14, scaled_size=(196, 224), frame_size=(196, 224))
    cases: Cases = ()
    for index in range(6):
        truth = discs(generator, 196, 224, 5 * (index % 2), 30)
        cover = cv2.resize(truth.astype(np.float32), (16, 14), interpolation=cv2.INTER_AREA)
        distance = generator.gamma(3, 0.02, (14, 16)) + 0.4 * cover * generator.random((14, 16))
        anomaly_map = np.empty((196, 224), np.float32)
        operator.apply(distance.astype(np.float32), anomaly_map)
        cases += (Case(anomaly_map, truth, f"type{index % 4}"),)
    return cases


def squeeze(cases: Cases, factor: float) -> Cases:
    """The same maps in a narrow range above 1."""
    return tuple(Case(1 + np.float32(factor) * case.anomaly_map, case.truth) for case in cases)


CASES = {
    "random 0": random_cases(0),
    "random 1": random_cases(1),
    "real-like 0": real_like_cases(0),
    "real-like 1": real_like_cases(1),
}
every_case = pytest.mark.parametrize("cases", CASES.values(), ids=CASES.keys())
every_limit = pytest.mark.parametrize("percent", LIMITS_PERCENT)


def pixels(cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate([case.truth.ravel() for case in cases]),
        np.concatenate([case.anomaly_map.ravel() for case in cases]),
    )


# Agreement


@every_case
def test_image_auroc_is_that_of_scikit_learn(cases: Cases) -> None:
    expected = roc_auc_score([case.is_defective for case in cases], [case.score for case in cases])
    assert figures(cases).image_auroc == pytest.approx(expected, abs=1e-12)


@every_case
def test_pixel_auroc_is_that_of_scikit_learn(cases: Cases) -> None:
    assert figures(cases).pixel_auroc == pytest.approx(roc_auc_score(*pixels(cases)), abs=TOLERANCE)


@every_case
def test_pixel_ap_is_that_of_scikit_learn(cases: Cases) -> None:
    assert figures(cases).pixel_ap == pytest.approx(average_precision_score(*pixels(cases)), abs=TOLERANCE)


def best_f1(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


@every_case
def test_pixel_f1_max_is_that_of_scikit_learn(cases: Cases) -> None:
    assert figures(cases).pixel_f1_max == pytest.approx(best_f1(*pixels(cases)), abs=TOLERANCE)


@every_case
def test_image_f1_max_is_that_of_scikit_learn(cases: Cases) -> None:
    expected = best_f1(np.array([case.is_defective for case in cases]), np.array([case.score for case in cases]))
    assert figures(cases).image_f1_max == pytest.approx(expected, abs=1e-12)


@cache
def component_scores(cases: Cases) -> list[np.ndarray]:
    """The map values of every component, ascending; 8 neighbours."""
    found = []
    for case in cases:
        labels, count = ndimage.label(case.truth, np.ones((3, 3)))
        found += [np.sort(case.anomaly_map[labels == label]) for label in range(1, count + 1)]
    return found


def above(threshold: float, components: list[np.ndarray]) -> float:
    return float(np.mean([(scores > threshold).mean() for scores in components]))


def plain_area(fpr: list[float], pro: list[float], limit: float) -> float:
    """Trapezoids, one after the other, the last one cut at the limit."""
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        if x0 >= limit:
            break
        end = min(x1, limit)
        y_end = y1 if end == x1 else y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@cache
def plain_aupro(cases: Cases, limit: float, largest_area: float = np.inf) -> float:
    """AUPRO from its definition: every distinct value a threshold, slow and plain."""
    nominal = np.sort(np.concatenate([case.anomaly_map[~case.truth] for case in cases]))
    components = [scores for scores in component_scores(cases) if len(scores) <= largest_area]
    fpr, pro = [0.0], [0.0]
    every = np.unique(np.concatenate([nominal, *components]))[::-1]
    at_or_above = [len(scores) - np.searchsorted(scores, every) for scores in components]
    overlaps = np.mean([count / len(scores) for count, scores in zip(at_or_above, components, strict=True)], axis=0)
    fpr += ((len(nominal) - np.searchsorted(nominal, every)) / len(nominal)).tolist()
    pro += overlaps.tolist()
    return plain_area(fpr, pro, limit)


@cache
def plain_paper_aupro(cases: Cases, limit: float, largest_area: float = np.inf) -> float:
    """AUPRO from 99 thresholds at equidistant ranks of the nominal pixels, and (1, 1)."""
    nominal = np.sort(np.concatenate([case.anomaly_map[~case.truth] for case in cases]))
    components = [scores for scores in component_scores(cases) if len(scores) <= largest_area]
    points = [(1.0, 1.0)]
    for rank in np.linspace(0, len(nominal) - 1, 99, dtype=int):
        points.append((1 - (rank + 1) / len(nominal), above(nominal[rank], components)))
    fpr, pro = zip(*reversed(points), strict=True)
    return plain_area(list(fpr), list(pro), limit)


@every_limit
@every_case
def test_aupro_is_that_of_its_definition(cases: Cases, percent: int) -> None:
    assert figures(cases).aupro[percent] == pytest.approx(plain_aupro(cases, percent / 100), abs=TOLERANCE)


@every_limit
@every_case
def test_the_papers_aupro_is_that_of_its_definition(cases: Cases, percent: int) -> None:
    assert figures(cases).aupro_paper[percent] == pytest.approx(plain_paper_aupro(cases, percent / 100), abs=TOLERANCE)


@every_limit
@every_case
@pytest.mark.filterwarnings("ignore")  # of other projects' imports
def test_aupro_is_that_of_anomalib(cases: Cases, percent: int) -> None:
    metrics = pytest.importorskip("anomalib.metrics.aupro", reason="comparing with anomalib needs the extra peers")
    torch = pytest.importorskip("torch")
    alike = tuple(case for case in cases if case.truth.shape == cases[0].truth.shape)
    metric = metrics._AUPRO(fpr_limit=percent / 100)
    for case in alike:
        metric.update(torch.from_numpy(case.anomaly_map)[None], torch.from_numpy(case.truth)[None].int())
    assert figures(alike).aupro[percent] == pytest.approx(float(metric.compute()), abs=TOLERANCE)


# Size


@every_limit
@every_case
def test_aupro_of_a_size_bin_ignores_larger_components_and_keeps_the_axis(cases: Cases, percent: int) -> None:
    areas = [len(scores) for scores in component_scores(cases)]
    expected = [plain_aupro(cases, percent / 100, np.quantile(areas, share)) for share in (0.25, 0.5, 0.75, 1)]
    found = [part.aupro[percent] for part in figures(cases).size_bins]
    assert found == pytest.approx(expected, abs=TOLERANCE)


@every_limit
@every_case
def test_the_papers_aupro_of_a_size_bin_likewise(cases: Cases, percent: int) -> None:
    areas = [len(scores) for scores in component_scores(cases)]
    expected = [plain_paper_aupro(cases, percent / 100, np.quantile(areas, share)) for share in (0.25, 0.5, 0.75, 1)]
    found = [part.aupro_paper[percent] for part in figures(cases).size_bins]
    assert found == pytest.approx(expected, abs=TOLERANCE)


@every_case
def test_size_bins_are_cumulative_quartiles_of_the_component_area(cases: Cases) -> None:
    areas = np.array([len(scores) for scores in component_scores(cases)])
    quartiles = [float(np.quantile(areas, share)) for share in (0.25, 0.5, 0.75, 1)]
    expected = [(f"Q{i}", quartile, int((areas <= quartile).sum())) for i, quartile in enumerate(quartiles, start=1)]
    assert [(part.name, part.largest_area_px, part.components) for part in figures(cases).size_bins] == expected


@every_limit
@every_case
@pytest.mark.parametrize("version", ["", "_paper"])
def test_rho_is_the_mean_over_the_bins_times_the_ratio_of_its_ends(cases: Cases, percent: int, version: str) -> None:
    found = figures(cases)
    q1, q2, q3, q4 = (getattr(part, f"aupro{version}")[percent] for part in found.size_bins)
    expected = (q1 + q2 + q3 + q4) / 4 * min(q1, q4) / max(q1, q4) if max(q1, q4) else 0
    assert getattr(found, f"rho{version}")[percent] == pytest.approx(expected)


def test_components_that_touch_at_a_corner_are_one() -> None:
    truth = np.eye(6, dtype=np.bool_)
    assert figures((Case(np.ones((6, 6), np.float32), truth),)).thresholds.components == 1


def test_components_of_different_images_are_different() -> None:
    case = Case(np.ones((6, 6), np.float32), np.eye(6, dtype=np.bool_))
    assert figures((case, case, case)).thresholds.components == 3


# Thresholds


@pytest.fixture(scope="module")
def seven() -> CategoryFigures:
    """Two nominal images, one flagged; a found and a missed defect; one image with both; one whose mask is missing."""
    dark, bright = np.full((64, 64), 0.1, np.float32), np.full((64, 64), 0.1, np.float32)
    bright[2:4, 2:5] = 0.5
    small, large, both = (np.zeros((64, 64), np.bool_) for _ in range(3))
    small[3, 4] = True
    large[20:60, 20:60] = True
    both[3, 4] = both[20:60, 20:60] = True
    nowhere = np.zeros((64, 64), np.bool_)
    tally = tallied(
        (
            Case(dark, nowhere),
            Case(bright, nowhere),
            Case(bright, small, "dot"),
            Case(dark, large, "blob"),
            Case(bright, both, "both"),
            Case(bright, large, "blob"),
        ),
        CategoryTally(pixel_size_mm=0.5),
    )
    tally.add(bright, None, 0.5, is_defective=True, is_flagged=True, mask=bright > 0.4, defect_type="dot")
    return tally.figures()


def test_false_alarms_are_nominal_images_that_are_flagged(seven: CategoryFigures) -> None:
    assert (seven.thresholds.nominal_images, seven.thresholds.false_alarms) == (2, 1)


def test_detected_images_are_defective_ones_that_are_flagged(seven: CategoryFigures) -> None:
    assert (seven.thresholds.defective_images, seven.thresholds.detected) == (5, 4)


def test_components_are_found_where_the_mask_touches_them(seven: CategoryFigures) -> None:
    assert (seven.thresholds.components, seven.thresholds.components_found) == (5, 2)


def test_regions_that_touch_no_component_are_false(seven: CategoryFigures) -> None:
    assert seven.thresholds.false_regions == 2


def test_recall_is_told_by_diameter(seven: CategoryFigures) -> None:
    found = {part.from_px: (part.components_found, part.components) for part in seven.thresholds.sizes}
    assert found == {0: (2, 2), 4: (0, 0), 8: (0, 0), 16: (0, 0), 32: (0, 3), 64: (0, 0), 128: (0, 0)}


def test_images_are_told_by_the_diameter_of_their_largest_component(seven: CategoryFigures) -> None:
    found = {part.from_px: (part.images_found, part.images) for part in seven.thresholds.sizes if part.images}
    assert found == {0: (1, 1), 32: (2, 3)}


def test_false_regions_are_told_by_their_own_diameter(seven: CategoryFigures) -> None:
    assert {part.from_px: part.false_regions for part in seven.thresholds.sizes if part.false_regions} == {0: 2}


def test_the_ends_of_what_was_found_and_missed_are_told(seven: CategoryFigures) -> None:
    ends = (seven.thresholds.smallest_found_px, seven.thresholds.largest_missed_px)
    assert ends == pytest.approx((np.sqrt(4 / np.pi), np.sqrt(4 * 1600 / np.pi)))


@pytest.mark.parametrize(("marked", "count"), [((2, 8, 9), 2), ((2, 4, 8, 9), 4), ((2,), 0), ((), 0)])
def test_defects_larger_than_the_largest_that_was_missed_are_counted(marked: tuple[int, ...], count: int) -> None:
    truth, anomaly_map = np.zeros((40, 40), np.bool_), np.zeros((40, 40), np.float32)
    for row, side in enumerate((2, 4, 8, 9)):
        truth[10 * row : 10 * row + side, :side] = True
        anomaly_map[10 * row, 0] = float(side in marked)
    assert figures((Case(anomaly_map, truth),)).thresholds.components_larger == count


def test_millimetres_are_pixels_times_the_pixel_size(seven: CategoryFigures) -> None:
    assert [part.from_mm for part in seven.thresholds.sizes] == [edge / 2 for edge in SIZE_CLASSES_PX]


def test_there_are_no_millimetres_without_a_pixel_size() -> None:
    thresholds = figures(CASES["random 0"]).thresholds
    assert {thresholds.smallest_found_mm, *(part.from_mm for part in thresholds.sizes)} == {None}


def test_a_defective_image_without_truth_counts_for_image_figures_only(seven: CategoryFigures) -> None:
    counts = (
        seven.images_without_truth,
        seven.thresholds.defective_images,
        sum(s.images for s in seven.thresholds.sizes),
    )
    assert counts == (1, 5, 4)


@every_case
def test_an_image_without_truth_leaves_pixel_figures_as_they_are(cases: Cases) -> None:
    tally = tallied(cases)
    before = tally.figures()
    tally.add(
        np.ones((9, 9), np.float32), None, 0.0, is_defective=True, is_flagged=False, mask=np.ones((9, 9), np.bool_)
    )
    after = tally.figures()
    assert (after.pixel_ap, after.aupro, after.thresholds.false_regions) == (
        before.pixel_ap,
        before.aupro,
        before.thresholds.false_regions,
    )


# Types


def test_every_type_is_counted_on_its_own(seven: CategoryFigures) -> None:
    counted = {t.defect_type: (t.images, t.detected, t.components, t.components_found) for t in seven.types}
    assert counted == {"blob": (2, 1, 2, 0), "both": (1, 1, 2, 1), "dot": (2, 2, 1, 1)}


@every_case
def test_a_types_figures_are_those_of_the_data_set_without_other_types_components(cases: Cases) -> None:
    of_type = [case for case in cases if not case.is_defective or case.defect_type == "type1"]
    expected = roc_auc_score([case.is_defective for case in of_type], [case.score for case in of_type])
    found = {part.defect_type: part.image_auroc for part in figures(cases).types}
    assert found["type1"] == pytest.approx(expected)


# Bins


@given(st.lists(st.floats(2**-20, 4095, width=32), min_size=2, max_size=40))
def test_bins_rise_with_the_value(values: list[float]) -> None:
    bins = score_bins(np.sort(np.array([values], np.float32)))
    assert (np.diff(bins) >= 0).all()


@given(st.floats(2**-20, 2**11, width=32))
def test_values_that_differ_by_more_than_a_bin_never_share_one(value: float) -> None:
    low, high = score_bins(np.array([[value, value * (1 + 2**-15)]], np.float32))[0]
    assert low < high


@pytest.mark.parametrize(
    ("value", "expected"), [(-3.0, 0), (0.0, 0), (2.0**-20, 0), (2.0**12, 2**21 - 1), (1e30, 2**21 - 1)]
)
def test_what_lies_outside_the_bins_falls_into_the_outer_ones(value: float, expected: int) -> None:
    assert score_bins(np.array([[value]], np.float32)).tolist() == [[expected]]


@every_case
def test_the_stated_quantisation_error_is_below_one_in_ten_thousand(cases: Cases) -> None:
    assert figures(cases).quantisation_error < TOLERANCE


@pytest.mark.parametrize("coarser", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("cases", [CASES["random 0"], CASES["real-like 0"]], ids=["random", "real-like"])
def test_the_stated_quantisation_errors_hold_when_bins_are_too_wide_for_the_maps(cases: Cases, coarser: float) -> None:
    squeezed = squeeze(cases, coarser)
    found = figures(squeezed)
    dense = [abs(found.aupro[percent] - plain_aupro(squeezed, percent / 100)) for percent in LIMITS_PERCENT]
    paper = [abs(found.aupro_paper[percent] - plain_paper_aupro(squeezed, percent / 100)) for percent in LIMITS_PERCENT]
    assert (max(dense) <= found.quantisation_error, max(paper) <= found.paper_quantisation_error) == (True, True)


def test_maps_that_bins_cannot_tell_apart_say_so() -> None:
    assert figures(squeeze(CASES["random 0"], 1e-6)).quantisation_error > 0.01


@pytest.mark.parametrize("scale", [0.01, 1000.0])
@every_case
def test_figures_do_not_depend_on_the_scale_of_the_maps(cases: Cases, scale: float) -> None:
    scaled = figures(tuple(Case(np.float32(scale) * case.anomaly_map, case.truth) for case in cases))
    assert [scaled.pixel_auroc, *scaled.rho.values()] == pytest.approx(
        [figures(cases).pixel_auroc, *figures(cases).rho.values()], abs=TOLERANCE
    )


@pytest.mark.parametrize("area", [(100, 100), (128, 128), (300, 400)], ids=str)
def test_thinning_moves_no_share_by_more_than_it_says(area: tuple[int, int]) -> None:
    bins = np.random.default_rng(0).integers(0, 5000, area).astype(np.int32)
    whole = np.ones(area, np.bool_)
    part = components_of(whole, bins, whole, 0)
    share = np.cumsum(part.overlap(np.array([True]), 5000))
    exact = np.cumsum(np.bincount(bins.ravel(), minlength=5000)) / bins.size
    assert np.abs(share - exact).max() <= part.thinning_error(np.array([True])) + 1e-12


def test_a_component_keeps_at_most_64_kilobytes() -> None:
    whole = np.ones((1024, 1024), np.bool_)
    part = components_of(whole, np.zeros((1024, 1024), np.int32), whole, 0)
    assert (part.bins.nbytes, MOST_KEPT) == (65_536, 16_384)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    case = Case(np.random.default_rng(0).random((256, 256), np.float32), np.zeros((256, 256), np.bool_))
    tally = tallied((case,))
    tracemalloc.start()
    tallied((case,) * 20, tally)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < case.anomaly_map.nbytes / 4


# The edges


@every_case
def test_the_order_of_the_images_does_not_matter(cases: Cases) -> None:
    forward, backward = figures(cases).as_dict(), figures(cases[::-1]).as_dict()
    assert forward.pop("aupro_30") == pytest.approx(backward.pop("aupro_30"))
    assert forward["thresholds"] == backward["thresholds"]


def test_figures_of_no_image_are_none() -> None:
    found = CategoryTally().figures()
    assert {found.image_auroc, found.image_f1_max, found.pixel_auroc, found.pixel_ap, *found.rho.values()} == {None}


def test_figures_of_nominal_images_alone_are_none() -> None:
    found = figures(tuple(case for case in CASES["random 0"] if not case.is_defective))
    assert {found.image_auroc, found.pixel_f1_max, *found.aupro.values(), *found.aupro_paper.values()} == {None}


def test_pixel_figures_of_defective_images_alone_stand_on_their_nominal_pixels() -> None:
    defective = tuple(case for case in CASES["random 0"] if case.is_defective)
    found = figures(defective)
    assert (found.image_auroc, found.aupro[30]) == (None, pytest.approx(plain_aupro(defective, 0.3), abs=TOLERANCE))


def test_nominal_images_need_no_truth() -> None:
    case = CASES["random 0"][0]
    tally = CategoryTally()
    tally.add(case.anomaly_map, None, case.score, is_defective=False, is_flagged=False, mask=case.mask)
    assert tally.figures().images_without_truth == 0


@every_case
def test_figures_are_ready_for_strict_json(cases: Cases) -> None:
    found = figures(cases)
    flat = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert (flat["aupro_30"], flat["rho_paper_1"], flat["size_bins"][0]["aupro_5"]) == (
        found.aupro[30],
        found.rho_paper[1],
        found.size_bins[0].aupro[5],
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truth": np.zeros((3, 4), np.bool_)}, "shapes differ"),
        ({"mask": np.zeros((3, 4), np.bool_)}, "shapes differ"),
        ({"anomaly_map": np.full((4, 4), np.nan, np.float32)}, "not finite"),
        ({"score": float("inf")}, "not finite"),
        ({"truth": np.zeros((4, 4), np.bool_)}, "0 pixels are defective"),
        ({"is_defective": False}, "16 pixels are defective"),
    ],
)
def test_what_would_give_a_wrong_number_is_refused(change: dict[str, object], words: str) -> None:
    whole = np.ones((4, 4), np.bool_)
    image = {
        "anomaly_map": np.ones((4, 4), np.float32),
        "truth": whole,
        "score": 1.0,
        "is_defective": True,
        "mask": whole,
    }
    with pytest.raises(ValueError, match=words):
        CategoryTally().add(**(image | change), is_flagged=True)  # type: ignore[arg-type]

"""An engine that strays from float32 is never shipped; one that does not, is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from fbft_edge.bundle.manifest import Thresholds, TileGeometry
from fbft_edge.bundle.reading import GRAPH, Bundle
from fbft_edge.detectors.host import OpenVinoEngine
from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_export.parity import TOLERANCES, Parity, compare_distances, measure_parity

TILE = TileGeometry(112, 14, 2)
EXACT = Parity(num_tiles=4, map_max=0.0, map_mean=0.0, score_max=0.0)

WRONG: dict[str, Callable[[Float32], Float32]] = {
    "scaled up": lambda found: 1.2 * found,
    "scaled down": lambda found: found / 1.2,
    "not a number": lambda found: np.full_like(found, np.nan),
    "one not a number": lambda found: np.where(np.arange(found.size).reshape(found.shape) == 9, np.nan, found),
    "infinite": lambda found: np.full_like(found, np.inf),
    "zero": np.zeros_like,
    "constant": lambda found: np.full_like(found, found.mean()),
    "transposed": lambda found: np.ascontiguousarray(found.swapaxes(1, 2)),
    "mirrored": lambda found: np.ascontiguousarray(found[:, ::-1]),
    "another tile's": lambda found: np.roll(found, 1, axis=0),
}


@pytest.fixture(scope="module")
def engine(small_bundle: Bundle) -> OpenVinoEngine:
    return OpenVinoEngine(small_bundle.read(GRAPH), 112, "f32")


def random_distances(seed: int = 0) -> Float32:
    return np.random.default_rng(seed).random((4, 8, 8), np.float32)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_engine_is_refused(small_bundle: Bundle, engine: OpenVinoEngine, kind: str) -> None:
    def infer(tiles: Uint8, out: Float32) -> None:
        engine.infer(tiles, out)
        out[:] = WRONG[kind](out)

    with pytest.raises(EngineError, match="strays from the float32 reference"), np.errstate(invalid="ignore"):
        measure_parity(small_bundle, infer).require_accepted("a wrong engine")


def test_an_engine_that_writes_nothing_is_refused(small_bundle: Bundle) -> None:
    with pytest.raises(EngineError), np.errstate(invalid="ignore"):
        measure_parity(small_bundle, lambda tiles, out: None).require_accepted("an idle engine")


def test_the_float32_engine_is_accepted_with_differences_of_rounding_only(
    small_bundle: Bundle, engine: OpenVinoEngine
) -> None:
    parity = measure_parity(small_bundle, engine.infer)
    assert max(parity.map_max, parity.map_mean, parity.score_max) < 1e-4


def test_every_figure_is_finite(small_bundle: Bundle, engine: OpenVinoEngine) -> None:
    assert all(math.isfinite(figure) for figure in measure_parity(small_bundle, engine.infer).as_dict().values())


def test_equal_distances_do_not_differ() -> None:
    assert compare_distances(random_distances(), random_distances(), TILE) == EXACT


@pytest.mark.parametrize("factor", [0.9, 1.03, 2.0])
def test_differences_are_fractions_of_the_largest_reference_value(factor: float) -> None:
    parity = compare_distances(random_distances(), np.float32(factor) * random_distances(), TILE)
    assert parity.map_max == pytest.approx(abs(factor - 1), rel=1e-4)


def flat_distances(*values: float) -> Float32:
    """One tile for each value, the same all over; its map has the value away from the borders."""
    return np.stack([np.full((8, 8), value, np.float32) for value in values])


def thresholds(image: float = 1.0, pixel: float = 1.0) -> Thresholds:
    return Thresholds(image, pixel, requested_rate=0.01, supported_rate=0.01, upper_rate=0.05, num_images=99)


def test_without_thresholds_nothing_is_said_about_them() -> None:
    assert EXACT.as_dict() == {"num_tiles": 4, "map_max": 0.0, "map_mean": 0.0, "score_max": 0.0}


def test_with_thresholds_every_figure_is_a_number() -> None:
    parity = compare_distances(random_distances(), random_distances(), TILE, thresholds())
    assert {"map_max_of_threshold": 0.0, "verdict_flips": 0}.items() <= parity.as_dict().items()


def test_the_bundle_s_thresholds_are_the_ones_that_count(small_bundle: Bundle, engine: OpenVinoEngine) -> None:
    parity = measure_parity(small_bundle, engine.infer)
    assert (parity.verdict_flips, parity.map_max_of_threshold is not None) == (0, True)


def test_the_map_s_difference_is_also_a_fraction_of_the_image_threshold() -> None:
    parity = compare_distances(flat_distances(0.5), flat_distances(0.6), TILE, thresholds(image=2.0))
    assert parity.map_max_of_threshold == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("expected", "found", "flips"),
    [
        ((0.5, 1.5), (0.6, 1.4), 0),
        ((0.5, 1.5), (1.1, 1.4), 1),
        ((0.5, 1.5), (0.6, 0.9), 1),
        ((0.5, 1.5), (1.5, 0.5), 2),
        ((0.99, 1.01), (1.01, 0.99), 0),
    ],
    ids=["none", "to anomalous", "to ok", "both", "both stand on the threshold"],
)
def test_flips_are_tiles_with_another_verdict(
    expected: tuple[float, ...], found: tuple[float, ...], flips: int
) -> None:
    parity = compare_distances(flat_distances(*expected), flat_distances(*found), TILE, thresholds())
    assert parity.verdict_flips == flips


def test_a_pixel_beyond_its_threshold_is_a_verdict_too() -> None:
    parity = compare_distances(flat_distances(0.5), flat_distances(0.7), TILE, thresholds(image=4.0, pixel=0.6))
    assert parity.verdict_flips == 1


def test_a_flip_is_refused_however_small_the_difference() -> None:
    with pytest.raises(EngineError, match="verdict flips: 1"):
        dataclasses.replace(EXACT, map_max_of_threshold=0.0, verdict_flips=1).require_accepted("an engine", "fp16")


@pytest.mark.parametrize("figure", ["map_max", "map_mean", "score_max", "map_max_of_threshold"])
def test_every_difference_has_a_limit(figure: str) -> None:
    assert not dataclasses.replace(EXACT, **{figure: 0.1}).is_within(TOLERANCES["bf16"])


@pytest.mark.parametrize("figure", ["map_max", "map_mean", "score_max", "map_max_of_threshold"])
def test_no_difference_may_be_unknown(figure: str) -> None:
    assert not dataclasses.replace(EXACT, **{figure: math.nan}).is_within(TOLERANCES["bf16"])


def test_what_is_good_enough_for_bf16_is_not_for_fp16() -> None:
    parity = dataclasses.replace(EXACT, map_max=0.03)
    assert [parity.is_within(TOLERANCES[precision]) for precision in ("bf16", "fp16")] == [True, False]


@pytest.mark.parametrize(("precision", "remedy"), [("fp16", "--precision f32"), ("f32", "update the runtime")])
def test_a_refusal_says_what_to_do(precision: str, remedy: str) -> None:
    with pytest.raises(EngineError, match=remedy):
        dataclasses.replace(EXACT, map_max=1.0).require_accepted("an engine", precision)

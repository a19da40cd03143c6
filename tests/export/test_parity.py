"""An engine that strays from float32 is never shipped; one that does not, is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fbft_edge.bundle import GRAPH, Bundle
from fbft_edge.detectors.openvino import OpenVinoEngine
from fbft_edge.errors import EngineError
from fbft_edge.frame import Float32, Uint8
from fbft_edge.tiling import TileGeometry
from fbft_export.parity import Parity, compare_distances, measure_parity

TILE = TileGeometry(112, 14, 2)

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
    return OpenVinoEngine(small_bundle.file(GRAPH), 112, "f32")


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
    assert compare_distances(random_distances(), random_distances(), TILE) == Parity(4, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("factor", [0.9, 1.03, 2.0])
def test_differences_are_fractions_of_the_largest_reference_value(factor: float) -> None:
    parity = compare_distances(random_distances(), np.float32(factor) * random_distances(), TILE)
    assert parity.map_max == pytest.approx(abs(factor - 1), rel=1e-4)

"""The detector's map is the reference formula on the reference model, for every frame size, without seams."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fbft_edge.bundle.reading import GRAPH, Bundle, Thresholds, open_bundle
from fbft_edge.detectors.host import OpenVinoDetector, OpenVinoEngine, accepted_precision, native_precision
from fbft_edge.errors import BundleError, EngineError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.images import image_paths, read_image
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.synthetic import render_part

torch = pytest.importorskip("torch", reason="the reference model is torch's")
functional = torch.nn.functional


def reference_map(distances: Float32, size: tuple[int, int], patch_px: int = 14) -> Float32:
    image = torch.from_numpy(distances).double()[None, None]
    whole = [length * patch_px for length in distances.shape]
    image = functional.interpolate(image, size=whole, mode="bilinear", align_corners=False)
    for width in (5, 5, 5, 5, 5, 7, 7, 7):
        kernel = torch.full((1, 1, width, width), 1 / width**2, dtype=torch.float64)
        image = functional.conv2d(image, kernel, padding=width // 2)
    return image[0, 0, : size[0], : size[1]].numpy()


def distances_of(detector: OpenVinoDetector, pixels: Uint8) -> Float32:
    """The stitched patch grid of a frame."""
    plan = detector.plan
    side, patches = plan.geometry.tile_px, plan.geometry.tile_patches
    tiles = np.empty((plan.num_tiles, side, side, 3), np.uint8)
    out = np.empty((plan.num_tiles, patches, patches), np.float32)
    plan.cut(pixels, tiles)
    detector.engine.infer(tiles, out)
    return plan.stitch(out)


def seam_ratio(detector: OpenVinoDetector, pictures: Sequence[Uint8]) -> float:
    """Mean absolute step between neighbouring patches across the ends of tiles, over that elsewhere."""
    patches, patch_px = detector.plan.geometry.tile_patches, detector.plan.geometry.patch_px
    across, elsewhere = [], []
    for axis, origins in enumerate(zip(*detector.plan.origins_px(), strict=True)):
        starts = sorted({origin // patch_px for origin in origins})
        ends = {start - 1 for start in starts[1:]} | {start + patches - 1 for start in starts[:-1]}
        for pixels in pictures:
            steps = np.abs(np.diff(distances_of(detector, pixels), axis=axis)).mean(axis=1 - axis)
            for index, step in enumerate(steps):
                (across if index in ends else elsewhere).append(step)
    return float(np.mean(across) / np.mean(elsewhere))


def part(height: int, width: int, seed: int = 50) -> Uint8:
    return render_part(seed, height, width).pixels


# The map


@pytest.mark.parametrize("size", [(112, 112), (100, 112), (64, 64), (105, 71)])
def test_on_a_frame_of_one_tile_the_map_is_the_reference_formula_on_the_torch_model(
    small_bundle: Bundle, small_model: torch.nn.Module, size: tuple[int, int]
) -> None:
    pixels = part(*size)
    tile = np.pad(pixels, ((0, 112 - size[0]), (0, 112 - size[1]), (0, 0)), mode="edge")
    with torch.inference_mode():
        distances = small_model(torch.from_numpy(tile[None]))[0].numpy()
    rows, columns = -(-size[0] // 14), -(-size[1] // 14)
    expected = reference_map(np.ascontiguousarray(distances[:rows, :columns]), size)
    found = OpenVinoDetector(small_bundle, FrameLayout(*size), "f32").map_of(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (100, 333), (140, 182), (300, 211)])
def test_every_frame_gets_a_finite_positive_map_of_its_own_size(small_bundle: Bundle, size: tuple[int, int]) -> None:
    anomaly_map = OpenVinoDetector(small_bundle, FrameLayout(*size)).map_of(part(*size))
    assert (anomaly_map.shape, bool(np.isfinite(anomaly_map).all()), bool(anomaly_map.min() > 0)) == (size, True, True)


@pytest.mark.parametrize(
    "shape", [(182, 140, 3), (140, 183, 3), (140, 182), (140, 182, 4), (1, 140, 182, 3), (0, 0, 3)]
)
def test_a_frame_of_another_shape_is_refused(small_bundle: Bundle, shape: tuple[int, ...]) -> None:
    detector = OpenVinoDetector(small_bundle, FrameLayout(140, 182))
    with pytest.raises(BundleError, match="182x140"):
        detector.detect(np.zeros(shape, np.uint8))


def test_the_same_frame_always_gets_the_same_detection(small_bundle: Bundle) -> None:
    detector = OpenVinoDetector(small_bundle, FrameLayout(140, 182))
    first = detector.map_of(part(140, 182)).copy()
    detector.map_of(part(140, 182, seed=51))
    np.testing.assert_array_equal(detector.map_of(part(140, 182)), first)


def test_a_frame_is_not_written_to(small_bundle: Bundle) -> None:
    pixels = part(140, 182)
    pixels.flags.writeable = False
    before = pixels.copy()
    OpenVinoDetector(small_bundle, FrameLayout(140, 182)).detect(pixels)
    np.testing.assert_array_equal(pixels, before)


def test_a_view_of_a_larger_picture_is_inspected_like_its_copy(small_bundle: Bundle) -> None:
    detector, large = OpenVinoDetector(small_bundle, FrameLayout(140, 182)), part(200, 200)
    view = large[20:160, 10:192]
    expected = detector.map_of(view.copy()).copy()
    np.testing.assert_array_equal(detector.map_of(view), expected)


# The detection


@pytest.fixture(scope="module")
def calibrated(small_bundle: Bundle) -> OpenVinoDetector:
    """A detector whose thresholds, 0.5 and 0.75, are exact in float32."""
    bundle = dataclasses.replace(small_bundle, thresholds=Thresholds(0.5, 0.75, 0.01, 0.02, 0.05, 49))
    return OpenVinoDetector(bundle, FrameLayout(140, 182))


def flat_map(level: float) -> Float32:
    return np.full((140, 182), level, np.float32)


def test_a_map_at_both_thresholds_is_nominal(calibrated: OpenVinoDetector) -> None:
    anomaly_map = flat_map(0.25)
    anomaly_map[0, 0] = 0.75
    detection = calibrated.judge(anomaly_map)
    assert (detection.score <= 0.5, detection.is_anomalous, detection.regions) == (True, False, ())


def test_one_pixel_above_the_pixel_threshold_is_anomalous(calibrated: OpenVinoDetector) -> None:
    anomaly_map = flat_map(0)
    anomaly_map[7, 9] = 0.7501
    detection = calibrated.judge(anomaly_map)
    assert (detection.is_anomalous, detection.regions[0].box_xyxy) == (True, (9, 7, 10, 8))


@pytest.mark.parametrize(("level", "is_anomalous"), [(0.5, False), (0.5001, True), (0.75, True)])
def test_a_score_above_the_image_threshold_is_anomalous_without_any_mask(
    calibrated: OpenVinoDetector, level: float, is_anomalous: bool
) -> None:
    detection = calibrated.judge(flat_map(level))
    assert (detection.is_anomalous, bool(detection.mask.any())) == (is_anomalous, False)


@pytest.mark.parametrize("share", [1.0, 0.01])
def test_a_map_that_is_not_a_number_is_never_called_nominal(calibrated: OpenVinoDetector, share: float) -> None:
    anomaly_map = flat_map(0.1)
    anomaly_map.reshape(-1)[: int(anomaly_map.size * share)] = np.nan
    with contextlib.suppress(EngineError):
        assert calibrated.judge(anomaly_map).is_anomalous


def test_a_detection_owns_its_arrays(calibrated: OpenVinoDetector) -> None:
    first = calibrated.detect(np.zeros((140, 182, 3), np.uint8))
    mask = first.mask.copy()
    calibrated.detect(part(140, 182))
    np.testing.assert_array_equal(first.mask, mask)


# The engine


def test_a_precision_that_the_bundle_was_not_exported_for_is_not_used(small_bundle: Bundle) -> None:
    assert accepted_precision(small_bundle) == native_precision()


def test_bf16_and_float32_agree_on_the_map(small_bundle: Bundle) -> None:
    pixels = part(140, 182)
    reference = OpenVinoDetector(small_bundle, FrameLayout(140, 182), "f32").map_of(pixels)
    found = OpenVinoDetector(small_bundle, FrameLayout(140, 182)).map_of(pixels)
    np.testing.assert_allclose(found, reference, atol=0.06 * reference.max())


def test_a_batch_of_tiles_is_inferred_like_one_after_another(small_bundle: Bundle) -> None:
    engine = OpenVinoEngine(small_bundle.read(GRAPH), 112, "f32")
    tiles = np.stack([part(112, 112, seed) for seed in (1, 2, 3)])
    together, apart = np.empty((3, 8, 8), np.float32), np.empty((3, 8, 8), np.float32)
    engine.infer(tiles, together)
    for index in (2, 0, 1):
        engine.infer(tiles[index : index + 1], apart[index : index + 1])
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize("tile_px", [112 + 14, 98, 1])
def test_a_graph_of_another_tile_size_is_an_engine_error(small_bundle: Bundle, tile_px: int) -> None:
    with pytest.raises(EngineError, match="cannot compile"):
        OpenVinoEngine(small_bundle.read(GRAPH), tile_px)


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x08" * 99])
def test_a_graph_that_is_none_is_an_engine_error(data: bytes) -> None:
    with pytest.raises(EngineError):
        OpenVinoEngine(data, 112)


def test_a_graph_that_was_altered_since_the_bundle_was_opened_is_not_compiled(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(small_bundle.path, tmp_path / "part.fbft")
    bundle = open_bundle(tmp_path / "part.fbft")
    with bundle.file(GRAPH).open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(BundleError, match="was altered"):
        OpenVinoDetector(bundle, FrameLayout(140, 182))


# Seams


@pytest.fixture(scope="module")
def seam_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Parts of 364x364 pixels in four tiles of 196."""
    return fitted([part(364, 364, seed) for seed in range(8)], 196, tmp_path_factory.mktemp("seams"))


def fitted(pictures: Sequence[Uint8], tile_px: int, folder: Path) -> Bundle:
    from fbft_calibration.fitting.bundling import fit_bundle
    from fbft_calibration.fitting.settings import BundleSettings
    from fbft_calibration.fitting.students import FitSettings
    from fbft_edge.frames.images import write_image

    (folder / "nominal").mkdir()
    for index, pixels in enumerate(pictures):
        write_image(folder / "nominal" / f"{index:02d}.png", pixels)
    settings = BundleSettings(tile_px=tile_px, students=FitSettings(steps=50, batch_patches=2048))
    return fit_bundle(folder / "nominal", folder / "seams.fbft", settings)


def test_tile_borders_leave_no_step_on_synthetic_parts(seam_bundle: Bundle) -> None:
    detector = OpenVinoDetector(seam_bundle, FrameLayout(364, 364))
    assert seam_ratio(detector, [part(364, 364, seed) for seed in range(60, 66)]) <= 1.2


def test_tile_borders_leave_no_step_on_real_parts(shared_data: Path, tmp_path: Path) -> None:
    pictures = [read_image(path) for path in image_paths(shared_data / "bsdata" / "train" / "good")[:14]]
    middle = [p[p.shape[0] // 2 - 182 :, p.shape[1] // 2 - 182 :][:364, :364] for p in pictures]
    detector = OpenVinoDetector(fitted(middle[:8], 196, tmp_path), FrameLayout(364, 364))
    assert seam_ratio(detector, middle[8:]) <= 1.2


_CTRL_C_AFTER_AN_ENGINE = """
import signal, sys, threading
from pathlib import Path
from fbft_edge.detectors.host import OpenVinoEngine
engines = [OpenVinoEngine(Path(sys.argv[1]).read_bytes(), 112)]
thread = threading.Thread(target=engines.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


def test_ctrl_c_is_safe_after_another_thread_let_an_engine_go(small_bundle: Bundle) -> None:
    command = [sys.executable, "-c", _CTRL_C_AFTER_AN_ENGINE, str(small_bundle.file(GRAPH))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr

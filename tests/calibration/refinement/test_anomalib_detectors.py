"""anomalib's detectors are refined through the same protocol, and their energies have gradients."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("anomalib", reason="these detectors need the extra peers")
torch = pytest.importorskip("torch", reason="refinement needs the extra calibration")

from fbft_calibration.data.layouts import categories  # noqa: E402
from fbft_calibration.refinement.anomalib_detectors import NAMES, AnomalibDetector  # noqa: E402
from fbft_calibration.refinement.f2pad import refine  # noqa: E402
from fbft_edge.frames.images import read_image  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of anomalib and what it stands on


@pytest.fixture(scope="module", params=NAMES)
def detector(request: pytest.FixtureRequest, shared_data: Path, resnet_weights: Path) -> AnomalibDetector:
    nominal = categories(shared_data / "hazelnut_toy")[0].nominal
    made = AnomalibDetector(request.param, resnet_weights)
    made.fit(nominal[:9], nominal[9:12], 0.01)
    return made


def test_nominal_images_that_thresholds_were_found_on_are_not_flagged(
    detector: AnomalibDetector, shared_data: Path
) -> None:
    nominal = categories(shared_data / "hazelnut_toy")[0].nominal
    peaks = [detector.relative_map(read_image(path)).max() for path in nominal[9:12]]
    assert max(peaks) == pytest.approx(1, rel=1e-4)


def test_the_energy_is_the_map_where_it_counts_and_its_gradient_is_finite(
    detector: AnomalibDetector, shared_data: Path
) -> None:
    defective = next(test for test in categories(shared_data / "hazelnut_toy")[0].tests if test.is_defective)
    pixels = read_image(defective.path)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255).requires_grad_(True)
    weights = torch.zeros(pixels.shape[:2])
    weights[100:200, 150:300] = 1
    energy = detector.energy(image, weights, torch.Generator())
    (gradient,) = torch.autograd.grad(energy, image)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    elsewhere = detector.energy(image.detach(), 1 - weights, torch.Generator())
    whole = detector.energy(image.detach(), torch.ones_like(weights), torch.Generator())
    assert float(energy.detach() + elsewhere) == pytest.approx(float(whole), rel=1e-3)


def test_refinement_adds_no_region(detector: AnomalibDetector, shared_data: Path) -> None:
    defective = next(test for test in categories(shared_data / "hazelnut_toy")[0].tests if test.is_defective)
    refinement = refine(detector, read_image(defective.path))
    assert refinement.flagged.any()
    assert np.isfinite(refinement.anomaly).all()
    assert (refinement.mask != refinement.flagged).any()
    labels = np.asarray(cv2.connectedComponents(refinement.mask.view(np.uint8), connectivity=8)[1])
    assert set(np.unique(labels)) - {0} == set(np.unique(labels[refinement.flagged & refinement.mask])) - {0}

"""A small data set with everything that can be wrong in it, one benchmark of it, and one without a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fbft_calibration.benchmark.result import Run, provenance, write_result
from fbft_calibration.cli import main
from fbft_edge.detectors.judge import find_regions, image_score
from fbft_edge.frames.frame import Detection, Float32, Uint8
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part

SIZE = (140, 182)
FAST = ["--steps", "2", "--tile", "112", "--false-alarm-rate", "0.2", "--precision", "f32"]


@pytest.fixture(scope="session")
def part_dataset(nominal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Categories `parts` (3 good, 4 defective test images, 2 of whose masks do not serve, 1 corrupt) and `few`."""
    root = tmp_path_factory.mktemp("data") / "rendered"
    parts = root / "parts"
    shutil.copytree(nominal_folder, parts / "train/good")
    for folder in ("test/good", "test/pit", "test/scratch", "ground_truth/pit", "ground_truth/scratch"):
        (parts / folder).mkdir(parents=True)
    for seed in range(3):
        write_image(parts / f"test/good/{seed}.png", render_part(500 + seed, *SIZE).pixels)
    for seed, folder in enumerate(("pit", "pit", "scratch", "scratch")):
        part = render_part(600 + seed, *SIZE, (16.0,))
        write_image(parts / f"test/{folder}/{seed}.png", part.pixels)
        write_image(parts / f"ground_truth/{folder}/{seed}_mask.png", part.mask.astype(np.uint8) * 255)
    (parts / "ground_truth/scratch/2_mask.png").unlink()
    write_image(parts / "ground_truth/scratch/3_mask.png", np.full((70, 91), 255, np.uint8))
    (parts / "test/good/torn.png").write_bytes((parts / "test/good/0.png").read_bytes()[:1000])
    shutil.copytree(parts / "test", root / "few/test")
    (root / "few/train/good").mkdir(parents=True)
    shutil.copy(parts / "train/good/part00.png", root / "few/train/good")
    return root


@pytest.fixture(scope="session")
def benchmarked(part_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of category `parts`; tests that alter them copy them first."""
    pytest.importorskip("torch", reason="fitting needs the extra calibration")
    out = tmp_path_factory.mktemp("results") / "first"
    options = ["--category", "parts", "--pixel-size-mm", "0.05", *FAST]
    assert main(["benchmark", str(part_dataset), "--out", str(out), *options]) == 0
    return out


class PageReader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="session")
def read_page() -> Callable[[str], PageReader]:
    """What a browser would make of a page."""
    return PageReader


@pytest.fixture(scope="session")
def resnet_weights(shared_data: Path) -> Path:
    """ResNet-18 pretrained on ImageNet, from the folder beside the real data sets."""
    found = sorted((shared_data.parent / "weights").glob("resnet18*/*.safetensors"))
    if not found:
        pytest.skip(f"no ResNet-18 weights in {shared_data.parent / 'weights'}")
    return found[0]


def brightness(pixels: Uint8) -> tuple[Detection, Float32]:
    """A detector of five lines: what is bright is anomalous."""
    anomaly_map = np.asarray(pixels.mean(axis=2) / 255, np.float32)
    mask = anomaly_map > 0.8
    regions = find_regions(mask, anomaly_map)
    return Detection(image_score(anomaly_map), float(anomaly_map.max()), mask, regions, bool(regions)), anomaly_map


@pytest.fixture(scope="session")
def bright_run(part_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Results of the five-line detector on category `parts`, its pictures on disk; needs no fit."""
    pytest.importorskip("torch", reason="benchmarks need the extra calibration")
    from fbft_calibration.benchmark.measurement import measure
    from fbft_calibration.benchmark.pictures import Album
    from fbft_calibration.benchmark.plan import counts, data_sha256
    from fbft_calibration.benchmark.result import CategoryResult
    from fbft_calibration.data.layouts import categories

    out = tmp_path_factory.mktemp("results") / "bright"
    category = next(category for category in categories(part_dataset) if category.name == "parts")
    album = Album(0.8)
    measured = measure(category, part_dataset, brightness, album, 0.05)
    pictures = album.write(out / "parts/pictures", out)
    thresholds = {"num_images": 4, "supported_rate": 0.2, "requested_rate": 0.2, "image": 0.8, "pixel": 0.8}
    tile = {"tile_px": 112, "patch_px": 14, "overlap_patches": 1, "scale": 1.0}
    teacher = {"name": "brightness", "blocks": [5, 8]}
    result = CategoryResult(
        category="parts",
        dataset=part_dataset.name,
        layout=category.layout,
        settings={"teacher": "brightness", "students": {"steps": 2}},
        data_sha256=data_sha256(category),
        bundle={
            **{"teacher": teacher, "tile": tile, "thresholds": thresholds, "precision": "f32"},
            **{"frame_sizes": [[140, 182]], "fitted_on": 8},
        },
        provenance=provenance(),
        seconds={"fit": 1.0, "image_median": 0.01, "scoring": measured.scoring_s},
        peak_memory_bytes=2**29,
        counts=counts(category),
        figures=measured.figures.as_dict(),
        images=measured.images,
        pictures=pictures,
        problems=measured.problems,
        cautions=measured.cautions,
    )
    write_result(result, out / "parts.json")
    return Run("bright", out, (result,))

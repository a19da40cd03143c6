"""What refinement is worth: masks before and after, at the calibrated and at the best threshold, of one detector.

    python tools/measure_f2pad.py measure DATA --detector fbft --bundle B.fbft --out DIR [--every 3]
    python tools/measure_f2pad.py measure DATA --detector padim --peer-weights resnet18.safetensors --out DIR
    python tools/measure_f2pad.py tables DIR

The best threshold is that of the coarse map, one for the data set, by mean IoU; refinement then starts from it. Beside
the refined masks stand those of the runtime's sharpening, of a guided filter on the coarse map, and, as the detector
`nominal-mean`, the plain difference to the mean nominal image. Every detector but the bundle is fitted on two thirds of
the nominal images, with its pixel threshold found on the rest, as the bundle's is. Defective images with a mask count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fbft_calibration.benchmark.result import provenance
from fbft_calibration.data.layouts import Category, TestImage, categories
from fbft_calibration.fitting.thresholds import peak_threshold
from fbft_calibration.metrics.masks import mask_fit
from fbft_calibration.refinement.f2pad import RefineSettings, refine
from fbft_edge.bundle.reading import open_bundle
from fbft_edge.cli.exit_status import exit_status
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.detectors.sharpening import REACH_PATCHES, neighbourhood, same_regions, sharpened
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.drawing import overlay
from fbft_edge.frames.frame import Bool, Detection, Float32, Uint8
from fbft_edge.frames.images import read_image, write_image

METHODS = ("coarse", "guided filter", "sharpened", "refined")
THRESHOLDS = ("calibrated", "best")
MEASURES = ("iou", "dice", "boundary_f")
COLUMNS = ("Dice", "boundary F", "IoU Q1", "Q2", "Q3", "Q4", "s / image", "s / region")
DETECTORS = ("fbft", "padim", "patchcore", "cflow", "nominal-mean")
FALSE_ALARM_RATE = 0.01
GUIDED_EPS = 1e-3
CANDIDATES = np.geomspace(0.1, 4, 60)
PICTURE_PX = 360


class NominalMean:
    """Difference to the mean nominal image, with a threshold but nothing to refine."""

    def fit(self, nominal: Sequence[Path], held_out: Sequence[Path], false_alarm_rate: float) -> None:
        """As the other detectors are fitted; images of another size than the first are left out."""
        images = [read_image(path).astype(np.float32) for path in nominal]
        self._mean = np.mean([image for image in images if image.shape == images[0].shape], axis=0)
        self._threshold = 1.0
        peaks = np.array([self.relative_map(read_image(path)).max() for path in held_out], np.float64)
        self._threshold = peak_threshold(peaks, false_alarm_rate)

    def relative_map(self, pixels: Uint8) -> Float32:
        """Smoothed as the sharpening's residual is."""
        mean = cv2.resize(self._mean, pixels.shape[1::-1]) if pixels.shape != self._mean.shape else self._mean
        away = cv2.blur(np.linalg.norm(pixels - mean, axis=2), (5, 5))
        return np.asarray(away / self._threshold, np.float32)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or put what was measured into tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    add = measuring.add_argument
    add("root", type=Path, metavar="DATA", help="one category")
    add("--detector", choices=DETECTORS, required=True)
    add("--bundle", type=Path, help="for fbft")
    add("--weights", type=Path, help="local teacher weights of the bundle, .safetensors")
    add("--peer-weights", type=Path, help="ResNet-18 for the others, .safetensors")
    add("--every", type=int, default=1, metavar="N", help="take every Nth defective image")
    add("--most-nominal", type=int, default=1000, metavar="N", help="to fit the others on")
    add("--iterations", type=int, default=RefineSettings().iterations)
    add("--threads", type=int, default=2)
    add("--out", type=Path, required=True, metavar="DIR")
    measuring.set_defaults(command=measure)
    tables = commands.add_parser("tables")
    tables.add_argument("out", type=Path, metavar="DIR")
    tables.set_defaults(command=lambda args: print_tables(args.out))
    args = parser.parse_args(argv)
    return exit_status("measure_f2pad", lambda: args.command(args))


def measure(args: argparse.Namespace) -> int:
    """Measure one detector on one data set; writes DIR/DATA-DETECTOR.json and pictures beside it."""
    torch.set_num_threads(args.threads)
    shown = TerminalProgress()
    found_categories = categories(args.root)
    if len(found_categories) != 1:
        raise ArgumentError(f"{args.root} has {len(found_categories)} categories; name the folder of one")
    category = found_categories[0]
    tests = [test for test in category.tests if test.is_defective and test.mask is not None][:: args.every]
    if not tests:
        raise ArgumentError(f"{args.root} has no defective image with a mask to measure on")
    started = time.perf_counter()
    detector = _detector(args, category)
    fit_s = time.perf_counter() - started
    images = [read_image(test.path) for test in tests]
    truths = [_truth(test, image) for test, image in zip(tests, images, strict=True)]
    maps = [detector.relative_map(image) for image in shown.track(images, "maps")]
    best = _best_threshold(maps, truths)
    settings = RefineSettings(iterations=args.iterations)
    lines = []
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"{category.name}-{args.detector}"
    for test, image, truth, found in zip(tests, images, truths, shown.track(maps, "refining"), strict=True):
        line: dict[str, Any] = {"file": test.path.name, "type": test.defect_type, "area_px": int(truth.sum())}
        for threshold, value in zip(THRESHOLDS, (1.0, best), strict=True):
            masks, cost = _masks(detector, image, found, value, settings)
            line[threshold] = {method: asdict(mask_fit(mask, truth)) for method, mask in masks.items()} | cost
            if threshold == "best":
                line["picture"] = _picture(image, truth, masks)
        lines.append(line)
    _write_pictures(args.out, name, lines)
    record = {
        "data": category.name,
        "detector": args.detector,
        "best_threshold": best,
        "fit_s": fit_s,
        "every": args.every,
        "settings": asdict(settings),
        "provenance": provenance(),
        "images": [{key: value for key, value in line.items() if key != "picture"} for line in lines],
    }
    (args.out / f"{name}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return print_tables(args.out)


def _detector(args: argparse.Namespace, category: Category) -> Any:
    if args.detector == "fbft":
        from fbft_calibration.refinement.bundle_detector import BundleDetector

        if args.bundle is None:
            raise ArgumentError("fbft has no bundle; name one with --bundle")
        return BundleDetector(open_bundle(args.bundle), args.weights)
    if args.detector == "nominal-mean":
        detector: Any = NominalMean()
    else:
        from fbft_calibration.refinement.anomalib_detectors import AnomalibDetector

        detector = AnomalibDetector(args.detector, args.peer_weights)
    order = np.random.default_rng(0).permutation(len(category.nominal))[: args.most_nominal]
    paths = [category.nominal[index] for index in order]
    held_out = len(paths) // 3
    detector.fit(paths[held_out:], paths[:held_out], FALSE_ALARM_RATE)
    return detector


def _masks(
    detector: Any, image: Uint8, found: Float32, threshold: float, settings: RefineSettings
) -> tuple[dict[str, Bool], dict[str, float]]:
    """Masks by method, and what refining cost."""
    relative_map = found / np.float32(threshold)
    coarse = _coarse(detector, image, relative_map, is_calibrated=threshold == 1)
    if isinstance(detector, NominalMean):
        return {"coarse": coarse}, {}
    patch_px = detector.patch_px(*coarse.shape)
    reach_px = REACH_PATCHES * patch_px
    started = time.perf_counter()
    refinement = refine(detector, image, settings, relative_map, coarse)
    cost = {"seconds": time.perf_counter() - started, "regions": cv2.connectedComponents(coarse.view(np.uint8))[0] - 1}
    return {
        "coarse": coarse,
        "guided filter": _guided(image, relative_map, coarse, reach_px),
        "sharpened": sharpened(image, coarse, relative_map, reach_px),
        "refined": refinement.mask,
    }, cost


def _coarse(detector: Any, image: Uint8, relative_map: Float32, *, is_calibrated: bool) -> Bool:
    """What is redrawn: the bundle's own mask at its own threshold, with its outlines; else what exceeds 1."""
    from fbft_calibration.refinement.bundle_detector import BundleDetector

    if is_calibrated and isinstance(detector, BundleDetector):
        return detector.detect(image).mask
    return np.asarray(relative_map > 1)


def _guided(image: Uint8, relative_map: Float32, coarse: Bool, reach_px: float) -> Bool:
    """He, Sun and Tang's guided filter of the map by the grey image, in windows as wide as the reach, at 1."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    side = (2 * round(reach_px / 2) + 1,) * 2
    mean_grey, mean_map = cv2.blur(grey, side), cv2.blur(relative_map, side)
    covariance = cv2.blur(grey * relative_map, side) - mean_grey * mean_map
    slope = covariance / (cv2.blur(grey * grey, side) - mean_grey**2 + GUIDED_EPS)
    filtered = cv2.blur(slope, side) * grey + cv2.blur(mean_map - slope * mean_grey, side)
    return same_regions((filtered > 1) & neighbourhood(coarse, reach_px), coarse)


def _truth(test: TestImage, image: Uint8) -> Bool:
    truth, problem = test.truth((image.shape[0], image.shape[1]))
    if truth is None:
        raise ArgumentError(str(problem))
    return truth


def _best_threshold(maps: Sequence[Float32], truths: Sequence[Bool]) -> float:
    def mean_iou(value: float) -> float:
        return float(np.mean([_iou(found > value, truth) for found, truth in zip(maps, truths, strict=True)]))

    return float(max(CANDIDATES.tolist(), key=mean_iou))


def _iou(found: Bool, truth: Bool) -> float:
    return int(np.count_nonzero(found & truth)) / max(1, int(np.count_nonzero(found | truth)))


def _picture(image: Uint8, truth: Bool, masks: dict[str, Bool]) -> Uint8:
    """Truth, coarse and last mask, side by side, around what either marks."""
    last = list(masks.values())[-1]
    rows, columns = np.nonzero(truth | masks["coarse"])
    margin = round(0.2 * max(int(np.ptp(where)) for where in (rows, columns)) + 20)
    window = tuple(slice(max(0, int(where.min()) - margin), int(where.max()) + margin + 1) for where in (rows, columns))
    views: list[Uint8] = []
    for mask in (truth, masks["coarse"], last):
        detection = Detection(0.0, 0.0, np.ascontiguousarray(mask[window]), (), True)
        view = overlay(np.ascontiguousarray(image[window]), detection)
        scale = PICTURE_PX / float(max(view.shape[:2]))
        small = cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        views.append(np.asarray(small, np.uint8))
    return np.asarray(cv2.hconcat(views), np.uint8)


def _write_pictures(out: Path, name: str, lines: Sequence[dict[str, Any]]) -> None:
    """The images whose IoU gained most, were in the middle and lost most, at the best threshold."""

    def gain(line: dict[str, Any]) -> float:
        fits = line["best"]
        return float(fits.get("refined", fits["coarse"])["iou"] - fits["coarse"]["iou"])

    ordered = sorted(lines, key=gain, reverse=True)
    for place, line in zip(
        ("gain", "middle", "loss"), (ordered[0], ordered[len(ordered) // 2], ordered[-1]), strict=True
    ):
        write_image(out / f"{name}-{place}.jpg", line["picture"])


def print_tables(out: Path) -> int:
    """Print Markdown of everything that was measured: a line for each detector, data set and threshold."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    print(f"| threshold | detector | data | {' | '.join(f'IoU, {m}' for m in METHODS)} | {' | '.join(COLUMNS)} |")
    print(f"| --- | --- | --- |{' ---: |' * (len(METHODS) + len(COLUMNS))}")
    for threshold in THRESHOLDS:
        for record in sorted(records, key=lambda record: DETECTORS.index(record["detector"])):
            lines = [line[threshold] for line in record["images"]]
            areas = np.array([line["area_px"] for line in record["images"]])
            cells = [threshold, record["detector"], record["data"], *_cells(lines, areas)]
            print(f"| {' | '.join(cells)} |")
    return 0


def _cells(lines: Sequence[dict[str, Any]], areas: NDArray[np.int64]) -> list[str]:
    """IoU by method, then what `COLUMNS` names."""
    ious = [f"{_mean(lines, method, 'iou'):.3f}" if method in lines[0] else "" for method in METHODS]
    if "refined" not in lines[0]:
        return [*ious, *("" for _ in COLUMNS)]
    others = [f"{_mean(lines, 'coarse', name):.3f} to {_mean(lines, 'refined', name):.3f}" for name in MEASURES[1:]]
    quarters = np.searchsorted(np.quantile(areas, [0.25, 0.5, 0.75]), areas)
    sizes = []
    for number in range(4):
        chosen = [line for line, quarter in zip(lines, quarters, strict=True) if quarter == number]
        sizes.append(f"{_mean(chosen, 'coarse', 'iou'):.2f} to {_mean(chosen, 'refined', 'iou'):.2f}" if chosen else "")
    seconds, regions = sum(line["seconds"] for line in lines), sum(line["regions"] for line in lines)
    return [*ious, *others, *sizes, f"{seconds / len(lines):.1f}", f"{seconds / max(1, regions):.1f}"]


def _mean(lines: Sequence[dict[str, Any]], method: str, measure: str) -> float:
    return float(np.mean([line[method][measure] for line in lines]))


if __name__ == "__main__":
    sys.exit(main())

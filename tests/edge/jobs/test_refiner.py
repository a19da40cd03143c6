"""`inspect --refine` asks whatever is installed for it, and says what is missing where nothing is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import fbft_edge.jobs.refiner
from fbft_edge.bundle.reading import Bundle
from fbft_edge.cli.main import main
from fbft_edge.frames.frame import Detection, Uint8
from fbft_edge.frames.images import read_image, write_image

SIDE = 140


class OnePixel:
    """A refiner of five lines: leaves the first pixel of a mask."""

    opened: list[tuple[str, Path | None]] = []  # noqa: RUF012
    closed = 0

    def __init__(self, bundle: Bundle, weights: Path | None) -> None:
        self.opened.append((bundle.sha256, weights))

    def refined(self, pixels: Uint8, detection: Detection) -> Detection:
        mask = np.zeros(pixels.shape[:2], np.bool_)
        mask.ravel()[np.flatnonzero(detection.mask)[:1]] = True
        return replace(detection, mask=mask, regions=())

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name, level in (("dark", 40), ("bright", 250)):
        pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
        pixels[42:98, 56:112] = level
        write_image(tmp_path / "in" / f"{name}.png", pixels)
    return tmp_path / "in"


@pytest.fixture
def one_pixel(monkeypatch: pytest.MonkeyPatch) -> type[OnePixel]:
    class Found(EntryPoint):
        def load(self) -> type[OnePixel]:
            return OnePixel

    found = Found("f2pad", "none:none", fbft_edge.jobs.refiner.GROUP)
    monkeypatch.setattr(fbft_edge.jobs.refiner, "require_extra", lambda *_: None)
    monkeypatch.setattr(fbft_edge.jobs.refiner, "entry_points", lambda **_: (found,))
    monkeypatch.setattr(OnePixel, "opened", [])
    monkeypatch.setattr(OnePixel, "closed", 0)
    return OnePixel


def inspect(bundle: Bundle, images: Path, out: Path, *options: str) -> int:
    return main(["inspect", "--bundle", str(bundle.path), str(images), "--out", str(out), *options])


def test_the_mask_is_the_refiners_and_the_verdict_the_detectors(
    bright_bundle: Callable[..., Bundle], images: Path, tmp_path: Path, one_pixel: type[OnePixel]
) -> None:
    bundle = bright_bundle(SIDE)
    assert inspect(bundle, images, tmp_path / "coarse") == 0
    assert inspect(bundle, images, tmp_path / "out", "--refine", "--weights", "teacher.safetensors") == 0
    coarse, refined = (
        [json.loads(line) for line in (tmp_path / name / "results.jsonl").read_text().splitlines()]
        for name in ("coarse", "out")
    )
    assert [{**line, "regions": []} for line in refined] == [{**line, "regions": []} for line in coarse]
    assert (read_image(tmp_path / "out/masks/bright.png")[..., 0] > 0).sum() == 1
    assert (one_pixel.opened, one_pixel.closed) == ([(bundle.sha256, Path("teacher.safetensors"))], 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--refine", "--sharpen"), "give one"), (("--weights", "teacher.safetensors"), "--refine")],
)
def test_options_that_contradict_each_other_end_with_status_2(
    bright_bundle: Callable[..., Bundle],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    assert inspect(bright_bundle(SIDE), images, tmp_path / "out", *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_remedy_is_named(
    bright_bundle: Callable[..., Bundle],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fbft_edge.extras.EXTRAS", {"calibration": ("no_such_torch",)})
    assert inspect(bright_bundle(SIDE), images, tmp_path / "out", "--refine") == 2
    said = capsys.readouterr().err
    assert "no_such_torch" in said
    assert 'pip install "fbft-edge[calibration]"' in said


def test_without_an_entry_point_the_remedy_is_named(
    bright_bundle: Callable[..., Bundle],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    one_pixel: type[OnePixel],
) -> None:
    monkeypatch.setattr(fbft_edge.jobs.refiner, "entry_points", lambda **_: ())
    assert inspect(bright_bundle(SIDE), images, tmp_path / "out", "--refine") == 2
    assert "pip install" in capsys.readouterr().err

"""`fbft-calibrate` ends with status 0 and a bundle, or with status 2 and one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fbft_calibration.cli import main, parsed
from fbft_calibration.fitting.settings import BundleSettings
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part

WRONG = {
    "folder that is missing": ["{tmp}/missing"],
    "folder without images": ["{tmp}"],
    "file for a folder": ["{folder}/part00.png"],
    "out without suffix": ["{folder}", "--out", "{tmp}/part"],
    "out in a folder that cannot be": ["{folder}", "--out", "{tmp}/" + "x" * 300 + "/part.fbft"],
    "out below a file": ["{folder}", "--out", "{folder}/part00.png/part.fbft"],
    "rate 0": ["{folder}", "--false-alarm-rate", "0"],
    "rate 1": ["{folder}", "--false-alarm-rate", "1"],
    "rate nan": ["{folder}", "--false-alarm-rate", "nan"],
    "held out 0": ["{folder}", "--held-out", "0"],
    "held out nearly all": ["{folder}", "--held-out", "0.99"],
    "steps 0": ["{folder}", "--steps", "0"],
    "seed -1": ["{folder}", "--seed", "-1"],
    "overlap -1": ["{folder}", "--overlap", "-1"],
    "overlap of a whole tile": ["{folder}", "--overlap", "8", "--tile", "112"],
    "overlap beyond every tile": ["{folder}", "--overlap", "40"],
    "tile 0": ["{folder}", "--tile", "0"],
    "tile -14": ["{folder}", "--tile", "-14"],
    "tile 100": ["{folder}", "--tile", "100"],
    "blocks backwards": ["{folder}", "--blocks", "8,5"],
    "blocks beyond the last": ["{folder}", "--blocks", "5,12"],
    "unknown teacher": ["{folder}", "--teacher", "dinov9"],
    "unknown tag": ["{folder}", "--teacher", "vit_tiny_patch16_224.nothing", "--blocks", "2,4"],
    "a teacher that is no ViT": ["{folder}", "--teacher", "resnet18", "--blocks", "2,4"],
    "missing weights": ["{folder}", "--weights", "{tmp}/w.safetensors"],
    "pickled weights": ["{folder}", "--weights", "{tmp}/w.pt"],
    "scale 0": ["{folder}", "--scale", "0"],
    "scale of words": ["{folder}", "--scale", "half"],
    "scale that leaves one patch": ["{folder}", "--scale", "0.05"],
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_fitted_ends_with_status_2_and_one_line(
    what: str, nominal_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.format(folder=nominal_folder, tmp=tmp_path) for part in WRONG[what]]
    out = [] if "--out" in given else ["--out", str(tmp_path / "part.fbft")]
    status = main(["fit", *given, *out, *([] if "--steps" in given else ["--steps", "1"])])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("rate", ["0", "1", "-0.5", "nan"])
def test_a_wrong_rate_of_thresholds_ends_with_status_2_and_one_line(
    small_bundle: Bundle, nominal_folder: Path, capsys: pytest.CaptureFixture[str], rate: str
) -> None:
    status = main(["threshold", str(small_bundle.path), str(nominal_folder), f"--false-alarm-rate={rate}"])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("name", ["missing.fbft", "empty.fbft"])
def test_thresholds_of_what_is_no_bundle_end_with_status_2(tmp_path: Path, nominal_folder: Path, name: str) -> None:
    (tmp_path / "empty.fbft").mkdir()
    assert main(["threshold", str(tmp_path / name), str(nominal_folder)]) == 2


@pytest.mark.parametrize("blocks", ["5", "5,8,9", "a,b", ""])
def test_blocks_that_are_not_a_pair_end_with_status_2(
    nominal_folder: Path, capsys: pytest.CaptureFixture[str], blocks: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(nominal_folder), "--out", "part.fbft", f"--blocks={blocks}"])
    assert (ended.value.code, "--blocks" in capsys.readouterr().err) == (2, True)


def test_too_few_images_end_with_status_2_and_their_number(
    nominal_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(nominal_folder / "part00.png", tmp_path)
    status = main(["fit", str(tmp_path), "--out", str(tmp_path / "part.fbft")])
    assert (status, "1 usable nominal images, at least 8" in capsys.readouterr().err) == (2, True)


def test_a_fit_at_a_scale_replaces_an_older_bundle(small_bundle: Bundle, nominal_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(small_bundle.path, tmp_path / "part.fbft")
    options = ["--scale", "112px", "--tile", "112", "--steps", "2", "--false-alarm-rate", "0.2", "--precision", "f32"]
    status = main(["fit", str(nominal_folder), "--out", str(tmp_path / "part.fbft"), *options])
    bundle = open_bundle(tmp_path / "part.fbft")
    assert (status, bundle.tile.scale, [path.name for path in tmp_path.iterdir()]) == (0, 112 / 182, ["part.fbft"])


def test_prototypes_are_the_default() -> None:
    args = parsed(["fit", "images", "--out", "part.fbft"])
    assert args.prototypes == BundleSettings().prototypes == 1024


def test_new_thresholds_end_with_status_0(small_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(small_bundle.path, tmp_path / "part.fbft")
    (tmp_path / "fresh").mkdir()
    for seed in range(300, 304):
        write_image(tmp_path / "fresh" / f"{seed}.png", render_part(seed, 140, 182).pixels)
    command = ["threshold", str(tmp_path / "part.fbft"), str(tmp_path / "fresh")]
    assert main([*command, "--dry-run"]) == 0
    assert open_bundle(tmp_path / "part.fbft").sha256 == small_bundle.sha256
    assert main([*command, "--forget-earlier", "--replace"]) == 0
    assert open_bundle(tmp_path / "part.fbft").require_thresholds().num_images == 4


def test_the_module_runs_as_a_command() -> None:
    command = [sys.executable, "-m", "fbft_calibration", "fit", "/missing", "--out", "/missing/part.fbft"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr.count("\n"), "Traceback" in result.stderr) == (2, 1, False)


@pytest.mark.parametrize("command", ["", "fit", "threshold", "benchmark", "refine"])
def test_help_loads_nothing_heavy(command: str) -> None:
    program = "import sys\nfrom fbft_calibration.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    given = [sys.executable, "-c", program, *command.split(), "--help"]
    loaded = subprocess.run(given, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert set(loaded) & {"cv2", "numpy", "openvino", "rich", "torch", "zmq"} == set()

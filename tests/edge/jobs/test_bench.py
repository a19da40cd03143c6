"""The figures of a bench add up, and its FLOPs are those of the architecture."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from safetensors import safe_open

from fbft_edge.bundle.reading import PROTOTYPES, Bundle
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.errors import ArgumentError
from fbft_edge.jobs.bench import bench, graph_flops

STAGES = {"tiles", "teacher", "students", "prototypes", "distance", "map", "score", "mask"}
MODEL_STAGES = {"teacher", "students", "prototypes", "distance"}


@pytest.fixture(scope="module")
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def figures(small_bundle: Bundle, output: io.StringIO) -> dict[str, Any]:
    return bench(small_bundle, 140, 182, 2, TerminalProgress(Console(file=output, width=200))).figures


def teacher_flops(bundle: Bundle) -> int:
    """Of one tile: the patch embedding, then blocks 0 to k over all tokens, the CLS token included."""
    patches, width, patch_px = bundle.tile.tile_patches**2, bundle.teacher.embed_dim, bundle.tile.patch_px
    tokens = patches + 1
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    return 2 * patches * width * 3 * patch_px**2 + (bundle.teacher.blocks[1] + 1) * block


def student_flops(bundle: Bundle) -> int:
    """Of one tile: two students of three square layers each."""
    return bundle.tile.tile_patches**2 * 2 * 3 * 2 * bundle.teacher.embed_dim**2


def prototype_flops(bundle: Bundle) -> int:
    """Of one tile: every patch against every prototype."""
    with safe_open(bundle.file(PROTOTYPES), "np") as stored:
        count = stored.get_slice("prototypes").get_shape()[0]
    return bundle.tile.tile_patches**2 * 2 * count * bundle.teacher.embed_dim


def test_the_flops_of_a_tile_are_those_of_the_architecture(small_bundle: Bundle) -> None:
    assert graph_flops(small_bundle) == {
        "teacher": teacher_flops(small_bundle),
        "students": student_flops(small_bundle),
        "prototypes": prototype_flops(small_bundle),
        "distance": 0,
    }


def test_the_flops_of_a_frame_are_those_of_its_tiles_and_little_more(
    figures: dict[str, Any], small_bundle: Bundle
) -> None:
    model = figures["tiles"] * sum(part(small_bundle) for part in (teacher_flops, student_flops, prototype_flops))
    assert model < figures["flops"] < 1.01 * model


def test_every_stage_is_timed(figures: dict[str, Any]) -> None:
    assert {name for name, ms in figures["stages_ms"].items() if ms > 0} == STAGES


def test_the_share_outside_the_model_is_that_of_its_stages(figures: dict[str, Any]) -> None:
    own_ms = sum(ms for name, ms in figures["stages_ms"].items() if name not in MODEL_STAGES)
    assert figures["outside_model_share"] == pytest.approx(own_ms / figures["frame_ms"])


def test_rate_and_share_of_peak_follow_from_the_frame_time(figures: dict[str, Any]) -> None:
    peak = figures["floors"]["flops_per_s"]
    assert (figures["frames_per_s"], figures["flops_share_of_peak"]) == pytest.approx(
        (1e3 / figures["frame_ms"], 1e3 * figures["flops"] / figures["frame_ms"] / peak)
    )


def test_the_floors_are_printed_first(figures: dict[str, Any], output: io.StringIO) -> None:
    assert output.getvalue().startswith("floors: ")


def test_the_geometry_is_that_of_the_bundle(figures: dict[str, Any], small_bundle: Bundle) -> None:
    found = {key: figures[key] for key in ("bundle_sha256", "frame", "tiles", "tile_px")}
    assert found == {"bundle_sha256": small_bundle.sha256, "frame": [140, 182], "tiles": 4, "tile_px": 112}


@pytest.mark.parametrize("repeats", [0, -1])
def test_fewer_than_one_repeat_is_refused(small_bundle: Bundle, repeats: int) -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        bench(small_bundle, 140, 182, repeats)


def test_the_last_line_of_the_command_is_json(small_bundle: Bundle) -> None:
    command = [sys.executable, "-m", "fbft_edge", "bench", "--bundle", str(small_bundle.path), "--repeats", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert json.loads(result.stdout.splitlines()[-1])["stages_ms"].keys() == STAGES

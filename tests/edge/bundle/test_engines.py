"""What is written about an engine is read back the same; anything else is refused, never guessed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.bundle.engines import Sidecar, sidecars, write_sidecar
from fbft_edge.bundle.manifest import TeacherIdentity, TileGeometry
from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle
from fbft_edge.errors import BundleError

SHA256 = "ab" * 32
SIDECAR = Sidecar(
    name="tensorrt-fp16-sm_87",
    runtime="tensorrt",
    version="10.3.0",
    targets=("sm_87",),
    precision="fp16",
    graph_sha256=SHA256,
    plan="tensorrt-fp16-sm_87.plan",
    batches=(1, 9, 16),
    build_s=12.5,
    memory_bytes={"activation": 1 << 27},
    parity={"emulated": {"map_max": 0.01}, "device": {"map_max": 0.02}},
)


def bundle(path: Path, graph_sha256: str = SHA256) -> Bundle:
    teacher = TeacherIdentity("t", SHA256, 384, (5, 8))
    files = {GRAPH: graph_sha256, f"{ENGINES}/{SIDECAR.name}.json": SHA256}
    return Bundle(path, "p", "2026-01-01T00:00:00Z", teacher, TileGeometry(112, 14, 1), (), None, files=files)


def test_a_sidecar_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_sidecar(bundle(tmp_path), SIDECAR)
    assert sidecars(bundle(tmp_path)) == [SIDECAR]


def test_an_engine_of_another_graph_is_not_current(tmp_path: Path) -> None:
    assert (SIDECAR.is_current(bundle(tmp_path)), SIDECAR.is_current(bundle(tmp_path, "cd" * 32))) == (True, False)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("runtime", 7),
        ("targets", "sm_87"),
        ("targets", [None]),
        ("plan", "../model.onnx"),
        ("plan", ""),
        ("batches", [1, 2]),
        ("batches", [0, 1, 2]),
        ("batches", 3),
        ("build_s", -1),
        ("build_s", 10**400),
        ("plan", "engines/tensorrt.plan"),
        ("plan", "/etc/passwd"),
        ("memory_bytes", {"activation": 10**400}),
        ("parity", {"device": {"map_max": 10**400}}),
        ("memory_bytes", {"activation": 0.5}),
        ("memory_bytes", []),
        ("parity", {"device": {"map_max": "small"}}),
        ("parity", {"device": {"map_max": -0.1}}),
    ],
)
def test_a_member_that_no_export_writes_is_refused(tmp_path: Path, member: str, value: Any) -> None:
    write_sidecar(bundle(tmp_path), SIDECAR)
    path = tmp_path / ENGINES / f"{SIDECAR.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {member: value}))
    with pytest.raises(BundleError, match="not a valid sidecar"):
        sidecars(bundle(tmp_path))


@pytest.mark.parametrize("contents", ["", "[]", "{}", "null", "[" * 2000, '{"runtime": "tensorrt"}'])
def test_what_is_no_sidecar_is_refused(tmp_path: Path, contents: str) -> None:
    (tmp_path / ENGINES).mkdir()
    (tmp_path / ENGINES / f"{SIDECAR.name}.json").write_text(contents)
    with pytest.raises(BundleError, match="run fbft-export again"):
        sidecars(bundle(tmp_path))


@pytest.mark.parametrize("contents", ['{"runtime": NaN}', '{"runtime": "a", "runtime": "b"}', " " * (1 << 21)])
def test_json_that_no_export_writes_is_refused(tmp_path: Path, contents: str) -> None:
    (tmp_path / ENGINES).mkdir()
    (tmp_path / ENGINES / f"{SIDECAR.name}.json").write_text(contents)
    with pytest.raises(BundleError, match="run fbft-export again"):
        sidecars(bundle(tmp_path))


def test_a_sidecar_that_is_gone_or_a_fifo_is_refused(tmp_path: Path) -> None:
    (tmp_path / ENGINES).mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        sidecars(bundle(tmp_path))
    os.mkfifo(tmp_path / ENGINES / f"{SIDECAR.name}.json")
    with pytest.raises(BundleError, match="not a regular file"):
        sidecars(bundle(tmp_path))

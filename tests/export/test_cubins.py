"""Every kernel compiles for every target without a GPU, spills nothing, and comes out of the bundle as it went in."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("cuda.core", reason="compiling kernels needs the extra tensorrt")

from fbft_edge.bundle.manifest import TeacherIdentity, TileGeometry
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.detectors.kernels import KERNELS_MANIFEST, SOURCES, fitting_target, kernel_targets, read_cubins
from fbft_edge.errors import BundleError, EngineError
from fbft_export.cubins import TARGETS, compile_kernel, write_cubins


def empty_bundle(folder: Path) -> Bundle:
    """A bundle with nothing in it."""
    path = folder / "empty.fbft"
    path.mkdir()
    identity = TeacherIdentity("none", "", 8, (0, 1))
    return seal_bundle(Bundle(path, "nothing", "2026-01-01T00:00:00Z", identity, TileGeometry(56, 14, 1), (), None))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return empty_bundle(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with kernels for sm_86; tests that alter it copy it first."""
    bundle = empty_bundle(tmp_path_factory.mktemp("compiled"))
    write_cubins(bundle, ["sm_86"])
    return seal_bundle(bundle)


@pytest.fixture
def compiled_bundle(compiled: Bundle, tmp_path: Path) -> Bundle:
    """A copy of it."""
    return open_bundle(shutil.copytree(compiled.path, tmp_path / "compiled.fbft"))


def rewritten(bundle: Bundle, **members: object) -> Bundle:
    """A bundle whose kernels' manifest says something else."""
    path = bundle.path / KERNELS_MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))
    return seal_bundle(bundle)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SOURCES)
def test_no_kernel_spills_registers_on_any_target(name: str, target: str) -> None:
    assert compile_kernel(name, target).spill_bytes == 0


def test_a_cubin_is_an_elf_file() -> None:
    assert compile_kernel("score", "sm_90").cubin.startswith(b"\x7fELF")


def test_registers_are_reported() -> None:
    assert 16 <= compile_kernel("score", "sm_90").registers <= 64


def test_a_target_that_nvrtc_does_not_know_is_refused_with_those_it_knows() -> None:
    with pytest.raises(EngineError, match=r"sm_61, only for sm_75, .*newer nvidia-cuda-nvrtc"):
        compile_kernel("score", "sm_61")


def test_kernels_are_read_as_they_were_compiled(compiled_bundle: Bundle) -> None:
    expected = {name: compile_kernel(name, "sm_86").cubin for name in SOURCES}
    assert read_cubins(compiled_bundle, "sm_86") == expected


def test_kernels_for_other_targets_stay(compiled_bundle: Bundle) -> None:
    write_cubins(compiled_bundle, ["sm_75"])
    assert kernel_targets(seal_bundle(compiled_bundle)) == ["sm_75", "sm_86"]


def test_kernels_of_other_sources_go_when_new_ones_come(compiled_bundle: Bundle) -> None:
    stale = rewritten(compiled_bundle, sources_sha256="0" * 64)
    write_cubins(stale, ["sm_75"])
    assert kernel_targets(seal_bundle(stale)) == ["sm_75"]


def test_nothing_is_written_when_a_target_is_not_known(bundle: Bundle) -> None:
    with pytest.raises(EngineError):
        write_cubins(bundle, ["sm_86", "sm_61"])
    assert not (bundle.path / "kernels").exists()


def test_a_bundle_without_kernels_is_refused_with_the_command_that_makes_them(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"no CUDA kernels; run fbft-export .* --target sm_86"):
        read_cubins(bundle, "sm_86")


def test_kernels_of_other_sources_are_refused(compiled_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="of another version; run fbft-export"):
        read_cubins(rewritten(compiled_bundle, sources_sha256="0" * 64), "sm_86")


def test_a_gpu_that_no_kernel_is_for_is_refused_with_what_there_is(compiled_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="for sm_86, not sm_90; run fbft-export"):
        read_cubins(compiled_bundle, "sm_90")


@pytest.mark.parametrize("targets", ["sm_86", [86], ["../sm_86"], None])
def test_a_manifest_of_another_shape_is_refused(compiled_bundle: Bundle, targets: object) -> None:
    with pytest.raises(BundleError, match="is not valid"):
        read_cubins(rewritten(compiled_bundle, targets=targets), "sm_86")


def test_a_bundle_that_lists_no_cubin_is_refused(compiled_bundle: Bundle) -> None:
    files = {name: digest for name, digest in compiled_bundle.files.items() if not name.endswith("score.cubin")}
    with pytest.raises(BundleError, match=r"has no kernels/sm_86/score\.cubin"):
        read_cubins(dataclasses.replace(compiled_bundle, files=files), "sm_86")


@pytest.mark.parametrize(
    ("target", "fitting"),
    [
        ("sm_86", "sm_86"),
        ("sm_89", "sm_86"),
        ("sm_121", "sm_120"),
        ("sm_87", None),
        ("sm_75", None),
        ("sm_90", None),
        ("sm_80", None),
    ],
)
def test_code_runs_on_its_own_target_and_on_later_ones_of_its_family(target: str, fitting: str | None) -> None:
    assert fitting_target(target, ["sm_86", "sm_120"]) == fitting


def test_code_for_orin_runs_on_orin_alone() -> None:
    assert fitting_target("sm_89", ["sm_87"]) is None

"""The base installation, as on the line: the wheel in an environment of its own, without any extra."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools import release

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("edge", "export", "calibration")

IMPORT_ALL = """
import importlib, pkgutil, sys
import fbft_edge
for module in pkgutil.walk_packages(fbft_edge.__path__, "fbft_edge."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist of the working tree, the wheel made from the sdist."""
    return release.build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def base(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of programs of an environment that holds the wheel and its base requirements alone."""
    return release.installed(built[0], "", tmp_path_factory.mktemp("base") / "env").parent


@pytest.fixture(scope="session")
def sbom(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The SBOM of that environment."""
    path = tmp_path_factory.mktemp("sbom") / "base.cdx.json"
    release.write_sbom(base / "python", ROOT / "pyproject.toml", path)
    return path.read_text(encoding="utf-8")


def run(base: Path, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(base / program), *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_every_module_of_the_line_imports_without_extras(base: Path, tmp_path: Path) -> None:
    done = run(base, "python", "-W", "error", "-c", IMPORT_ALL, cwd=tmp_path)
    assert (done.returncode, done.stderr, "fbft_edge.detectors.host" in done.stdout) == (0, "", True)


def test_the_base_installation_is_without_torch(base: Path, tmp_path: Path) -> None:
    assert run(base, "python", "-c", "import torch", cwd=tmp_path).returncode == 1


def test_the_header_schema_ships_with_the_wheel(base: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files; print((files('fbft_edge.messages') / 'result.schema.json').read_text())"
    )
    assert '"fbft.result/1"' in run(base, "python", "-c", code, cwd=tmp_path).stdout


def test_the_kernels_ship_with_the_wheel(base: Path, tmp_path: Path) -> None:
    code = "from fbft_edge.detectors.kernels import SOURCES, source_text; print(*map(source_text, SOURCES))"
    assert run(base, "python", "-c", code, cwd=tmp_path).stdout.count('extern "C" __global__') >= 3


def test_the_templates_of_pages_ship_with_the_wheel(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        shipped = {name for name in wheel.namelist() if name.endswith(".j2")}
    here = {
        path.relative_to(ROOT / package).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.j2")
    }
    assert shipped == here > set()


@pytest.mark.parametrize(
    ("program", "arguments", "extra"),
    [
        ("fbft-calibrate", ["fit", "nominal", "--out", "part.fbft"], "calibration"),
        ("fbft-calibrate", ["threshold", "part.fbft", "nominal"], "calibration"),
        ("fbft-calibrate", ["refine", "part.fbft", "new", "--out", "refined"], "calibration"),
        ("fbft-edge", ["demo"], "calibration"),
        ("fbft-edge", ["inspect", "--bundle", "part.fbft", "new", "--out", "out", "--refine"], "calibration"),
    ],
)
def test_a_command_without_its_extra_names_the_remedy(
    base: Path, tmp_path: Path, program: str, arguments: list[str], extra: str
) -> None:
    done = run(base, program, *arguments, cwd=tmp_path)
    assert (done.returncode, f'pip install "fbft-edge[{extra}]"' in done.stderr) == (2, True)


def test_a_stream_without_its_extra_is_told_before_the_line_starts(base: Path, tmp_path: Path) -> None:
    camera = '[[cameras]]\nname = "press-1"\nuri = "rtsp://line:secret@10.0.0.7/stream"\n'
    (tmp_path / "line.toml").write_text(f'bundle = "none.fbft"\n{camera}')
    done = run(base, "fbft-edge", "check-config", "line.toml", cwd=tmp_path)
    assert (done.returncode, 'pip install "fbft-edge[rtsp]"' in done.stderr, "secret" in done.stderr) == (
        2,
        True,
        False,
    )


def test_a_refused_demo_leaves_nothing_behind(base: Path, tmp_path: Path) -> None:
    run(base, "fbft-edge", "demo", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_names_the_missing_extras(base: Path, tmp_path: Path) -> None:
    assert "missing" in run(base, "fbft-edge", "doctor", cwd=tmp_path).stdout


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    lines = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    ours = {line.partition("/")[2] for line in lines if (ROOT / line).exists()}
    with zipfile.ZipFile(built[0]) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert (held, held >= {f"fbft_{package}/py.typed" for package in PACKAGES}) == (ours, True)


def test_the_sdist_holds_what_the_tests_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    pages = {path.name for path in ROOT.glob("*.md")}
    assert held >= pages | {"pyproject.toml", "LICENSE", "tools/dev.py", "tests/conftest.py", "docs/message.md"}


def test_the_sbom_is_valid_cyclonedx(sbom: str) -> None:
    said = SchemaVersion.from_version(json.loads(sbom)["specVersion"])
    assert JsonStrictValidator(said).validate_str(sbom) is None


def test_the_sbom_names_the_product_and_every_requirement_of_it(sbom: str) -> None:
    bom = json.loads(sbom)
    product, parts = bom["metadata"]["component"], {part["name"] for part in bom["components"]}
    assert (product["name"], product["version"]) == ("fbft-edge", version("fbft-edge"))
    assert {_plain(name) for name in parts} >= {"numpy", "openvino", "opencv-python-headless", "pyzmq", "rich"}
    assert {"torch", "pip", "fbft-edge"} & {_plain(name) for name in parts} == set()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_has_the_version_of_the_project(base: Path, tmp_path: Path) -> None:
    assert run(base, "fbft-edge", "--version", cwd=tmp_path).stdout == f"fbft-edge {version('fbft-edge')}\n"


@pytest.mark.parametrize("command", ["fbft-edge", "fbft-export", "fbft-calibrate"])
def test_every_command_says_its_version(command: str) -> None:
    program = Path(sys.executable).with_name(command)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said == f"{command} {version('fbft-edge')}\n"

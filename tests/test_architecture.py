"""The shape of the project, beside its layers (pyproject.toml): what modules say, what the public face shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fbft_edge
from fbft_edge import errors

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"fbft_edge": "edge", "fbft_export": "export", "fbft_calibration": "calibration"}
MODULES = [
    (package, path) for package, folder in FOLDERS.items() for path in sorted((ROOT / folder / package).rglob("*.py"))
]


@pytest.mark.parametrize(("package", "path"), MODULES, ids=lambda value: getattr(value, "name", value))
def test_every_module_says_what_it_is_for(package: str, path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [path for package, path in MODULES if package == "fbft_edge"], ids=lambda p: p.name)
def test_nothing_on_the_line_waits_by_the_wall_clock(path: Path) -> None:
    """`threading.Event.wait` with a timeout does, before Python 3.11; `fbft_edge.clock.wait_for` does not."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    waits = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "wait"]
    timed = [ast.unparse(call) for call in waits if call.args or call.keywords]
    assert timed in ([], ["self._pipeline.wait(SHOW_EVERY_S)"])


@pytest.mark.parametrize("package", FOLDERS)
def test_every_name_of_the_public_face_can_be_had(package: str) -> None:
    if package != "fbft_edge":
        pytest.importorskip("torch", reason="fitting and exporting need it")
    face = import_module(package)
    assert {name: getattr(face, name).__name__ for name in face.__all__} == {name: name for name in face.__all__}


def test_the_tree_of_errors_holds_every_user_error_and_the_public_face_its_root() -> None:
    tree = set(re.findall(r"\w+Error", errors.__doc__ or ""))
    assert tree == {name for name, error in vars(errors).items() if isinstance(error, type)}
    assert [name for name in fbft_edge.__all__ if name.endswith("Error")] == ["FbftError"]


@pytest.mark.parametrize("package", FOLDERS)
def test_the_public_face_has_no_other_names(package: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = import_module(package).no_such_name


def test_importing_the_public_faces_loads_nothing_heavy() -> None:
    code = (
        "import sys, fbft_edge, fbft_export, fbft_calibration; "
        "sys.exit(bool({'openvino', 'cv2', 'numpy', 'torch', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_file_stands_at_the_top_that_a_stranger_would_not_look_for() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    expected = {
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "pyproject.toml",
        ".gitignore",
        ".pre-commit-config.yaml",
        ".ci",
    }
    assert top <= expected | {"edge", "export", "calibration", "tests", "tools", "docs"}


@pytest.mark.parametrize(("package", "path"), MODULES, ids=lambda value: getattr(value, "name", value))
def test_json_is_parsed_in_one_place(package: str, path: Path) -> None:
    """Where a member that stands twice, NaN and too deep a nesting are refused."""
    parsers = re.findall(r"\bjson\.(?:load|loads|decode|JSONDecoder)\b", path.read_text(encoding="utf-8"))
    assert not parsers or path.name == "strict_json.py"

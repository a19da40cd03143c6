"""The shape of the project, beside its layers (pyproject.toml): what modules say, what the public face shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fbft_edge

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


def test_every_name_of_the_public_face_can_be_had() -> None:
    assert {name: getattr(fbft_edge, name).__name__ for name in fbft_edge.__all__} == {
        name: name for name in fbft_edge.__all__
    }


def test_the_public_face_holds_every_user_error() -> None:
    tree = (ROOT / "edge/fbft_edge/errors.py").read_text(encoding="utf-8").split('"""')[1]
    assert set(re.findall(r"\w+Error", tree)) == {name for name in fbft_edge.__all__ if name.endswith("Error")}


def test_the_public_face_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fbft_edge.no_such_name


def test_importing_the_public_face_loads_nothing_heavy() -> None:
    code = "import sys, fbft_edge; sys.exit(bool({'openvino', 'cv2', 'numpy'} & set(sys.modules)))"
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

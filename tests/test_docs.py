"""What the README promises exists: its commands, its links, its Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
PROGRAMS = Path(sys.executable).parent


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0].startswith("fbft-")], ids=" ".join)
def test_every_option_of_a_command_in_the_readme_exists(command: list[str]) -> None:
    verbs = takewhile(lambda word: re.fullmatch("[a-z][a-z-]*", word), command[1:])
    help_text = subprocess.run(
        [str(PROGRAMS / command[0]), *verbs, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(option in help_text for option in command if option.startswith("--"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "python3"], ids=" ".join)
def test_every_script_in_the_readme_exists_and_knows_its_verb(command: list[str]) -> None:
    usage = subprocess.run([sys.executable, str(ROOT / command[1])], capture_output=True, text=True, check=False).stdout
    assert " ".join(command[1:]) in usage


def test_the_readme_shows_how_to_fit_and_to_inspect() -> None:
    assert {command[0] for command in COMMANDS} >= {"python3", "fbft-edge", "fbft-calibrate"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_in_the_docs_works(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    imports = "\n".join(line for block in blocks for line in block.splitlines() if re.match(r"(from|import) ", line))
    assert subprocess.run([sys.executable, "-c", imports], check=False).returncode == 0

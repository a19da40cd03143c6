"""A release is what a commit holds, refused with every reason, tagged last."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tools import release

PYPROJECT = """
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "part"
version = "1.2.0"
requires-python = ">=3.10"
"""


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=who", "-c", "user.email=who@example.com")
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project of one module, ready for a release."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "who")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "who@example.com")
    root = tmp_path / "project"
    (root / "part").mkdir(parents=True)
    (root / "part" / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / ".gitignore").write_text("dist/\n")
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.0] - 2026-11-21\n\n## [1.1.0] - 2026-10-01\n")
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "All of it")
    return root


def test_a_committed_version_on_main_is_not_refused(project: Path) -> None:
    assert release.refusals(project, None) == release.refusals(project, "1.2.0") == []


def test_a_tree_with_changes_is_refused_with_one_of_them(project: Path) -> None:
    (project / "part" / "new.py").write_text("")
    (reason,) = release.refusals(project, None)
    assert "part/new.py" in reason


def test_another_branch_is_refused_by_its_name(project: Path) -> None:
    git(project, "switch", "--quiet", "--create", "next")
    (reason,) = release.refusals(project, None)
    assert "next" in reason


@pytest.mark.parametrize("version", ["1.3.0", "1.2"])
def test_a_version_that_the_project_does_not_have_is_refused(project: Path, version: str) -> None:
    (reason,) = release.refusals(project, version)
    assert ("1.2.0" in reason, version in reason) == (True, True)


@pytest.mark.parametrize(
    ("changelog", "newest"),
    [("## Unreleased\n\n## 1.2.0\n", "Unreleased"), ("## [1.3.0] - 2026-12-01", "1.3.0"), ("", "")],
)
def test_the_changelog_must_begin_with_the_version_unless_it_is_given(
    project: Path, changelog: str, newest: str
) -> None:
    (project / "CHANGELOG.md").write_text(changelog)
    git(project, "commit", "--quiet", "--all", "--message", "Changed")
    (reason,) = release.refusals(project, None)
    assert (newest in reason, release.refusals(project, "1.2.0")) == (True, [])


def test_a_tag_is_never_given_twice(project: Path) -> None:
    git(project, "tag", "v1.2.0")
    (reason,) = release.refusals(project, None)
    assert "v1.2.0" in reason


def test_nothing_is_released_without_the_word_that_tests_pass(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = release.main(["--extras", ""], project)
    assert (status, "--tested" in capsys.readouterr().err, git(project, "tag")) == (2, True, "")


def test_a_release_is_a_tag_and_files_with_their_checksums(project: Path) -> None:
    status = release.main(["--tested", "--extras", ""], project)
    sums = dict(reversed(line.split("  ")) for line in (project / "dist" / "SHA256SUMS").read_text().splitlines())
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (project / "dist").iterdir()
        if path.name != "SHA256SUMS"
    }
    assert (status, git(project, "rev-parse", "v1.2.0^{commit}")) == (0, git(project, "rev-parse", "HEAD"))
    assert set(files) == {"part-1.2.0-py3-none-any.whl", "part-1.2.0.tar.gz", "part-1.2.0.cdx.json"}
    assert files == sums


def test_a_dry_run_tags_nothing_and_leaves_edits_where_they_are_and_out(project: Path) -> None:
    (project / "part" / "__init__.py").write_text("edited = True\n")
    (project / "part" / "new.py").write_text("")
    status = release.main(["--dry-run", "--extras", ""], project)
    release.export(project, "HEAD", project.parent / "source")
    assert (status, git(project, "tag"), len(git(project, "status", "--porcelain").splitlines())) == (2, "", 2)
    assert [path.read_text() for path in (project.parent / "source" / "part").iterdir()] == [""]

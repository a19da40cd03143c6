"""A commit in; sdist, wheel, SBOMs and checksums in dist/ out, and the tag on the commit that they were built from.

    python tools/release.py --dry-run    # all but the tag; then what would stop a release, with status 2
    python tools/release.py --tested     # the tag, too; --tested is your word that the tests pass on this commit

The commit is exported into a temporary folder and built there: nothing that is edited or untracked gets in, and the
checkout is not touched. The wheel is built from the sdist, and installed into environments of its own, without and
with each of the extras; what pip finds there is written as CycloneDX JSON. Nothing is uploaded, and no tag is pushed.
Needs the extra `release` and the package index. Knows nothing of tests.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbft_edge.cli.exit_status import exit_status
from fbft_edge.errors import ArgumentError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
# What is installed at customers. Not cuda and gige, which need the system's own libraries, nor what serves development.
EXTRAS = ("calibration", "mqtt", "opcua", "rtsp", "signing", "tensorrt", "tensorrt-rtx")
SUMS = "SHA256SUMS"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the tool on a checkout; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--version", metavar="X.Y.Z", help="what is released (default: the newest heading of CHANGELOG.md)")
    add("--dry-run", action="store_true", help="everything but the tag")
    add("--tested", action="store_true", help="the tests pass on this commit")
    add(
        "--extras", default=",".join(EXTRAS), metavar="A,B", help="an SBOM for each, beside base (default: %(default)s)"
    )
    add("--out", type=Path, default=root / "dist", metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(arguments)
    return exit_status("release", lambda: _run(args, root))


def _run(args: argparse.Namespace, root: Path) -> int:
    version, extras = str(_project(root)["version"]), [extra for extra in args.extras.split(",") if extra]
    if unknown := sorted(set(extras) - set(_project(root).get("optional-dependencies", {}))):
        raise ArgumentError(f"pyproject.toml has no extra {', '.join(unknown)}; leave it out of --extras")
    reasons = refusals(root, args.version)
    if not args.tested:
        reasons.append("nobody says that the tests pass on this commit; run them, then give --tested")
    if reasons and not args.dry_run:
        raise ArgumentError(f"{version} is not released: " + "; ".join(reasons))
    commit = _git(root, "rev-parse", "HEAD")
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "made"
        export(root, commit, source)
        epoch_s = int(_git(root, "log", "-1", "--format=%ct", commit))
        _say(f"building {version} of {commit[:12]}")
        wheel, _ = build(source, made, epoch_s)
        for extra in ("", *extras):
            _say(f"SBOM of the extra {extra}" if extra else "SBOM of the base installation")
            python = installed(wheel, extra, Path(folder) / "environment")
            write_sbom(python, source / "pyproject.toml", made / sbom_name(wheel, extra), epoch_s)
        write_sums(made)
        args.out.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.iterdir()):
            shutil.copy2(path, args.out / path.name)
            print(f"{args.out / path.name}  {path.stat().st_size:,} bytes")
    if args.dry_run:
        print("\n".join(f"would not be released: {reason}" for reason in reasons) or f"v{version} could be tagged")
        return 2 if reasons else 0
    _git(root, "tag", "--annotate", f"v{version}", "--message", f"{_project(root)['name']} {version}", commit)
    print(f"tagged v{version}; it leaves this machine with: git push origin v{version}")
    return 0


def refusals(root: Path, version: str | None) -> list[str]:
    """Why a checkout cannot be released, each with its remedy; `version` stands for the changelog's newest heading."""
    reasons = []
    if changed := _git(root, "status", "--porcelain").splitlines():
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        reasons.append(f"not as committed: {changed[0][3:]}{more}; commit or remove it")
    if (branch := _git(root, "branch", "--show-current")) != BRANCH:
        reasons.append(f"the branch is {branch or 'none'}, releases are made on {BRANCH}; git switch {BRANCH}")
    ours, newest = _project(root)["version"], newest_heading((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if version is not None and version != ours:
        reasons.append(f"pyproject.toml has version {ours}, --version is {version}; change one of them")
    if version is None and newest != ours:
        reasons.append(
            f"pyproject.toml has version {ours}, the newest heading of CHANGELOG.md is {newest or 'none'}; "
            f"change one of them, or give --version {ours}"
        )
    if _git(root, "tag", "--list", f"v{ours}"):
        reasons.append(f"the tag v{ours} is there already; raise the version")
    return reasons


def newest_heading(changelog: str) -> str:
    """Version of the first section, such as `0.1.0` of `## [0.1.0] - 2026-11-21`; empty without any."""
    found = re.search(r"^## \[?v?([^\]\s]+)", changelog, re.MULTILINE)
    return found[1] if found else ""


def export(root: Path, commit: str, folder: Path) -> None:
    """Write the files of a commit of the checkout into a folder."""
    archive = folder.with_suffix(".zip")
    _git(root, "archive", "--format=zip", f"--output={archive}", commit)
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder)


def build(source: Path, out: Path, epoch_s: int | None = None) -> tuple[Path, Path]:
    """The sdist of a folder, and from it the wheel, byte for byte the same for the same sources.

    Args:
        source: With pyproject.toml in it.
        out: Where both go; may hold neither yet.
        epoch_s: Seconds since 1970 that the archives give as the time of every file; the builder's own if None.

    Returns:
        Wheel and sdist.
    """
    _call("uv", "build", "--quiet", "--out-dir", str(out), str(source), epoch_s=epoch_s)
    (out / ".gitignore").unlink(missing_ok=True)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def installed(wheel: Path, extra: str, folder: Path) -> Path:
    """Python of a new environment in the folder that holds a wheel, its requirements and nothing else."""
    python = folder / "bin" / "python"
    _call("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _call("uv", "pip", "install", "--quiet", "--python", str(python), f"{wheel}[{extra}]" if extra else str(wheel))
    return python


def sbom_name(wheel: Path, extra: str) -> str:
    """Name of the SBOM of a wheel's installation, such as `fbft_edge-0.1.0-rtsp.cdx.json`."""
    name, version = wheel.name.split("-")[:2]
    return "-".join([name, version, *([extra] if extra else [])]) + ".cdx.json"


def write_sbom(python: Path, pyproject: Path, out: Path, epoch_s: int | None = None) -> None:
    """Everything that an environment holds as CycloneDX JSON, below the project as the root; the tool validates it.

    Args:
        python: The environment's.
        pyproject: Of the root.
        out: The file.
        epoch_s: Seconds since 1970 that it gives as its time; none if None.
    """
    what = ("--pyproject", str(pyproject), "--output-reproducible", "--output-file", str(out))
    _call("cyclonedx-py", "environment", *what, str(python), epoch_s=epoch_s)


def write_sums(folder: Path) -> None:
    """Checksums of a folder's files beside them, as `sha256sum --check` reads them."""
    paths = sorted(path for path in folder.iterdir() if path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _project(root: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArgumentError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def _call(program: str, *arguments: str, epoch_s: int | None = None) -> None:
    beside = Path(sys.executable).with_name(program)
    if not beside.exists():
        raise ArgumentError(f'{program} is not installed beside this Python; pip install "fbft-edge[release]"')
    epoch = {} if epoch_s is None else {"SOURCE_DATE_EPOCH": str(epoch_s)}
    done = subprocess.run([beside, *arguments], env=os.environ | epoch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArgumentError(f"{program} {arguments[0]} failed with status {done.returncode}: {done.stderr.strip()}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""One command from a fresh clone to a result: sets up `.venv` when needed, then runs the demo, the tests, or a command.

    python3 tools/dev.py demo        set up, then fbft-edge demo
    python3 tools/dev.py test        set up, then ruff, mypy, import-linter and pytest; further words go to pytest
    python3 tools/dev.py run CMD...  set up, then any command of the environment

Needs Python 3.10 or newer with pip, and nothing else. The environment is made again when pyproject.toml changes, and
when the libraries appear that PyGObject is compiled against: it comes in with them (docs/cameras.md, GigE Vision).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")

# Many tests wait for sockets and processes, so two files at once fill two cores. OpenMP's threads wait spinning:
# two processes with two threads each take five times as long as with one.
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def main(arguments: list[str]) -> int:
    """Run one verb; returns its exit status."""
    if sys.version_info < (3, 10):  # noqa: UP036  # said here, before anything fails on it
        print(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb not in ("demo", "test", "run") or (verb == "run" and not rest):
        print(__doc__)
        return 2
    set_up()
    if verb == "demo":
        return call("fbft-edge", "demo", *rest)
    if verb == "run":
        return call(*rest)
    return run_checks(rest)


def set_up() -> None:
    """Make `.venv` with the project and all its extras for development, unless it is there already."""
    with_gige = can_compile_pygobject()
    made_of = (ROOT / "pyproject.toml").read_bytes() + sys.version.encode() + b"gige" * with_gige
    wanted = hashlib.sha256(made_of).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    print("setting up .venv (a few minutes the first time)", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    install_uv = ("install", "--quiet", "--disable-pip-version-check", "uv")
    try:
        venv.create(VENV, with_pip=True)
        require("python", "-m", "pip", *install_uv)
    except subprocess.CalledProcessError:  # Debian's Python without python3-venv cannot put pip into it
        venv.create(VENV, with_pip=False, clear=True)
        subprocess.run([sys.executable, "-m", "pip", "--python", str(BIN / "python"), *install_uv], check=True)
    install = ("uv", "pip", "install", "--quiet", "--python", str(BIN / "python"), "--editable")
    require(*install, f"{ROOT}[test]")
    if with_gige and call(*install, f"{ROOT}[gige]"):
        print("PyGObject cannot be compiled here: tests of GigE Vision cameras skip", flush=True)
    STAMP.write_text(wanted)


def can_compile_pygobject() -> bool:
    """Whether its libraries are there, by pkg-config."""
    libraries = ("gobject-introspection-1.0", "cairo")
    found = shutil.which("pkg-config")
    return found is not None and subprocess.run([found, "--exists", *libraries]).returncode == 0


def run_checks(pytest_arguments: list[str]) -> int:
    """Lint, format, types, layers, tests; all of them run, the first failure decides the status."""
    checks = (
        ("ruff", "check", "--quiet", "."),
        ("ruff", "format", "--check", "--quiet", "."),
        ("mypy",),
        ("lint-imports",),
        ("python", "-m", "pytest", *SIDE_BY_SIDE, *pytest_arguments),
    )
    return next((status for status in [call(*check) for check in checks] if status), 0)


def call(program: str, *arguments: str) -> int:
    """Run a program of the environment in the project's root; returns its status."""
    print("$", program, *arguments, flush=True)
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    environment = {**(ONE_THREAD if "pytest" in arguments else {}), **os.environ, "PATH": path}
    return subprocess.run([str(BIN / program), *arguments], cwd=ROOT, env=environment).returncode


def require(program: str, *arguments: str) -> None:
    """Run a program of the environment; stop here when it fails."""
    status = call(program, *arguments)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

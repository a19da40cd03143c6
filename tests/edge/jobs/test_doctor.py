"""The doctor says what this machine can run, and for everything that is missing what to do."""

from __future__ import annotations

import io
import subprocess
import sys

import openvino
import pytest
from rich.console import Console

from fbft_edge.cli.reports import show_machine
from fbft_edge.extras import EXTRAS
from fbft_edge.jobs import doctor
from fbft_edge.jobs.doctor import State


def printed() -> str:
    out = io.StringIO()
    show_machine(doctor.doctor(), Console(file=out, width=400))
    return out.getvalue()


def test_the_engine_that_every_machine_has_is_ready() -> None:
    engine = next(finding for finding in doctor.machine_findings() if finding.subject == "OpenVINO engine")
    assert (engine.state, openvino.__version__ in engine.detail) == (State.READY, True)


def test_every_finding_is_printed_whole() -> None:
    text = printed()
    assert [finding.detail for finding in doctor.machine_findings() if finding.detail not in text] == []


def test_every_missing_thing_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    remedies = ("connect", "install ", "use an", "the CPU engine runs")
    missing = [finding for finding in doctor.machine_findings() if finding.state is State.MISSING]
    assert [finding for finding in missing if not any(remedy in finding.detail for remedy in remedies)] == []


def test_a_missing_extra_is_printed_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert 'pip install "fbft-edge[export]"' in printed()


def test_an_extra_is_ready_only_with_everything_it_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    states = {finding.subject: finding.state for finding in doctor.machine_findings()}
    assert (states["extra export"], states["extra calibration"]) == (State.MISSING, State.MISSING)


def test_every_extra_is_listed_with_what_it_enables() -> None:
    details = {finding.subject: finding.detail for finding in doctor.machine_findings()}
    assert [extra for extra in EXTRAS if f"extra {extra}" not in details] == []
    assert details["extra opcua"].startswith("fbft-edge bridge opcua")


def test_the_command_ends_with_status_0_whatever_is_missing() -> None:
    result = subprocess.run([sys.executable, "-m", "fbft_edge", "doctor"], capture_output=True, text=True, timeout=120)
    assert (result.returncode, "OpenVINO engine" in result.stdout, result.stderr) == (0, True, "")

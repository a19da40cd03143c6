"""The unit gives a line what its configuration needs and nothing else, and systemd accepts it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fbft_edge.cli.main import main
from fbft_edge.config.line_config import (
    CameraConfig,
    CommandsConfig,
    CurveConfig,
    LineConfig,
    PublishConfig,
    RecorderConfig,
)
from fbft_edge.errors import ArgumentError
from fbft_edge.jobs.service_unit import service_unit

FILE = Path("/etc/fbft-edge/line.toml")
PROGRAM = ["/opt/fbft-edge/bin/fbft-edge"]


def line(uri: str = "synthetic://", **options: object) -> LineConfig:
    chosen = {"bundle": Path("/etc/fbft-edge/part.fbft"), "engine": "openvino", **options}
    return LineConfig(cameras=(CameraConfig("press-1", uri),), **chosen)  # type: ignore[arg-type]


def settings(config: LineConfig, file: Path = FILE) -> dict[str, str]:
    """Each key with its value, several joined by spaces."""
    found: dict[str, str] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", service_unit(config, file, PROGRAM, "fbft"), re.MULTILINE):
        found[key] = f"{found[key]} {value}" if key in found else value
    return found


def test_published_messages_and_nothing_else_decide_whether_the_service_lives() -> None:
    found = settings(line())
    assert (found["Type"], found["WatchdogSec"], found["Restart"]) == ("notify", "10", "always")


def test_a_slow_line_has_a_patient_watchdog() -> None:
    assert settings(line(fps=0.1))["WatchdogSec"] == "100"


def test_the_command_is_the_configuration_that_was_given() -> None:
    assert settings(line())["ExecStart"] == f"{PROGRAM[0]} run --config {FILE} --log json"


def test_memory_and_descriptors_without_end_are_the_lines_own_trouble() -> None:
    found = settings(line())
    assert (found["MemoryMax"], found["LimitNOFILE"]) == ("80%", "1024")


def test_odd_paths_reach_the_program_as_they_are() -> None:
    assert (
        '--config "/etc/50%% of $$us/li\\"ne.toml"' in settings(line(), Path('/etc/50% of $us/li"ne.toml'))["ExecStart"]
    )


def test_only_the_recorders_folder_and_foreign_socket_folders_may_be_written() -> None:
    config = line(
        recorder=RecorderConfig(Path("/srv/my recordings")),
        publish=PublishConfig("ipc:///srv/sockets/results"),
        commands=CommandsConfig("ipc:///run/fbft/commands"),
    )
    found = settings(config)
    assert (found["ReadWritePaths"], found["RuntimeDirectory"]) == ('"/srv/my recordings" /srv/sockets', "fbft")


def test_a_recorder_in_the_state_folder_needs_no_more_rights() -> None:
    config = line(recorder=RecorderConfig(Path("/var/lib/fbft-edge/recordings")))
    assert "ReadWritePaths" not in settings(config)


@pytest.mark.parametrize(
    ("uri", "engine", "policy", "allowed"),
    [
        ("rtsp://10.0.0.7/stream", "openvino", "closed", None),
        ("0", "openvino", "closed", "char-video4linux rw"),
        ("v4l2:///dev/video0", "openvino", "closed", "char-video4linux rw"),
        ("v4l2:///dev/video0", "auto", None, None),
        ("csi://0", "openvino", None, None),
    ],
)
def test_devices_are_open_only_to_those_who_need_them(
    uri: str, engine: str, policy: str | None, allowed: str | None
) -> None:
    found = settings(line(uri, engine=engine))
    assert (found.get("DevicePolicy"), found.get("DeviceAllow")) == (policy, allowed)


def test_an_open_device_policy_is_not_closed_again_by_the_protected_clock() -> None:
    assert "ProtectClock" not in settings(line(engine="auto"))


@pytest.mark.parametrize(
    ("uri", "private"), [("csi://0", "no"), ("gstreamer:nvarguscamerasrc ! x", "no"), ("0", "yes")]
)
def test_a_camera_daemon_in_tmp_can_be_reached(uri: str, private: str) -> None:
    assert settings(line(uri))["PrivateTmp"] == private


@pytest.mark.parametrize(
    ("bundle", "uri", "protection"),
    [
        ("/home/eva/part.fbft", "synthetic://", "read-only"),
        ("/srv/part.fbft", "folder:///home/eva/pictures", "read-only"),
        ("/srv/part.fbft", "file:///srv/clip.mp4", "yes"),
        ("/srv/part.fbft", "0", "yes"),
    ],
)
def test_homes_are_hidden_unless_something_lies_there(bundle: str, uri: str, protection: str) -> None:
    assert settings(line(uri, bundle=Path(bundle)))["ProtectHome"] == protection


@pytest.mark.parametrize(
    "config",
    [
        line(bundle=Path("/tmp/part.fbft")),
        line(publish=PublishConfig("ipc:///tmp/results")),
        line(recorder=RecorderConfig(Path("/var/tmp/recordings"))),
        line(curve=CurveConfig(Path("/tmp/line.key_secret"), Path("/etc/fbft-edge/clients"))),
        line("folder:///tmp/pictures?fps=5"),
        line("/var/tmp/clip.mp4"),
    ],
    ids=["bundle", "socket", "recorder", "key", "folder", "video"],
)
def test_what_the_service_could_not_see_is_refused(config: LineConfig) -> None:
    with pytest.raises(ArgumentError, match="PrivateTmp"):
        service_unit(config, FILE, PROGRAM, "fbft")


def test_a_socket_in_run_itself_is_refused() -> None:
    with pytest.raises(ArgumentError, match="ipc:///run/fbft/results"):
        service_unit(line(publish=PublishConfig("ipc:///run/results")), FILE, PROGRAM, "fbft")


@pytest.mark.parametrize("user", ["", "fbft\nExecStartPre=/bin/evil", "1000", "a b"])
def test_what_is_no_account_is_refused(user: str) -> None:
    with pytest.raises(ArgumentError, match="--user"):
        service_unit(line(), FILE, PROGRAM, user)


@pytest.mark.parametrize(
    "config",
    [
        line("0", recorder=RecorderConfig(Path("/srv/my recordings")), commands=CommandsConfig("ipc:///run/fbft/c")),
        line("csi://0", engine="tensorrt"),
    ],
    ids=["openvino", "tensorrt"],
)
def test_systemd_accepts_the_unit_and_finds_it_little_exposed(config: LineConfig, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "fbft-edge.service"
    unit.write_text(service_unit(config, FILE, ["/bin/true"], "root"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", unit]
    security = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (verified.returncode, verified.stderr, security.returncode) == (0, "", 0), security.stdout[-200:]


def test_the_command_prints_and_installs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "line.toml"
    file.write_text('bundle = "/etc/part.fbft"\n[[cameras]]\nname = "press-1"\nuri = "csi://0"\n')
    assert main(["install-service", "--print", "--config", str(file), "--user", "line"]) == 0
    printed = capsys.readouterr().out
    assert (f"--config {file} " in printed, "User=line\n" in printed) == (True, True)
    assert list(tmp_path.iterdir()) == [file]

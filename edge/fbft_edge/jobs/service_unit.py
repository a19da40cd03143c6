"""A line's configuration in, the text of its systemd unit out, with no more rights than the line needs.

Knows nothing about what runs, and installs nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from fbft_edge.cameras import local_path
from fbft_edge.config.line_config import LineConfig
from fbft_edge.errors import ArgumentError

NAME = "fbft-edge"
STATE_FOLDER = Path("/var/lib") / NAME
MEMORY_SHARE = "80%"
MAX_DESCRIPTORS = 1024
LEAST_WATCHDOG_S = 10
WATCHDOG_PERIODS = 10
HOMES = ("/home", "/root", "/run/user")
PRIVATE = ("/tmp", "/var/tmp")
RUN = ("/run", "/var/run")
_USER = re.compile("[A-Za-z_][A-Za-z0-9_.-]{0,31}")


def service_unit(config: LineConfig, file: Path, program: Sequence[str], user: str) -> str:
    """The unit of a line.

    Args:
        config: What the file says.
        file: The configuration, an absolute path.
        program: Command of `fbft-edge`, an absolute path first.
        user: Account that the line runs as.

    Raises:
        ArgumentError: The line needs a path that such a service could not use, or the user cannot be one.
    """
    if not _USER.fullmatch(user):
        raise ArgumentError(f"--user {user!r:.80} is no account; use the name of one made for the line, such as fbft")
    opens_devices, uses_tmp = _opens_any_device(config), _shares_tmp(config)
    paths = [file, Path(program[0]), *_read_paths(config)]
    written = [path for path in _written_paths(config) if STATE_FOLDER not in (path, *path.parents)]
    if not uses_tmp:
        _refuse_private(paths + written + _sockets(config))
    sections = (
        _unit(config),
        _service(config, file, program, user),
        _folders(written, _runtime_folders(config)),
        _limits(),
        _rights(opens_devices, any(_is_video_device(camera.uri) for camera in config.cameras)),
        _hardening(opens_devices, uses_tmp, any(_is_below(path, HOMES) for path in paths + written)),
        ["[Install]", "WantedBy=multi-user.target"],
    )
    head = f"# /etc/systemd/system/{NAME}.service, printed by fbft-edge {version(NAME)}"
    return "\n\n".join("\n".join(section) for section in ([head], *sections)) + "\n"


def _unit(config: LineConfig) -> list[str]:
    cameras = ", ".join(camera.name for camera in config.cameras)
    return [
        "[Unit]",
        f"Description=Visual inspection of {config.site}: {cameras}",
        "Wants=network-online.target",
        "After=network-online.target",
        "# A line is tried again for ever, whatever keeps it from starting.",
        "StartLimitIntervalSec=0",
    ]


def _service(config: LineConfig, file: Path, program: Sequence[str], user: str) -> list[str]:
    command = [*program, "run", "--config", str(file), "--log", "json"]
    return [
        "[Service]",
        "# Ready with the first published message; published messages alone feed the watchdog.",
        "Type=notify",
        f"ExecStart={' '.join(map(_quoted_argument, command))}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
        "RestartSec=2",
        f"WatchdogSec={max(LEAST_WATCHDOG_S, math.ceil(WATCHDOG_PERIODS / config.fps))}",
        "# Engines of large models take minutes to load.",
        "TimeoutStartSec=600",
        "TimeoutStopSec=60",
        f"User={user}",
        "# Passwords of cameras that the configuration takes from the environment; mode 0600.",
        f"EnvironmentFile=-{str(file.parent / 'environment').replace('%', '%%')}",
    ]


def _folders(written: Iterable[Path], runtime: Sequence[str]) -> list[str]:
    lines = [
        "# Folders that it may write to; those of ReadWritePaths must exist and belong to the user.",
        f"StateDirectory={NAME}",
        "StateDirectoryMode=0750",
        f"WorkingDirectory={STATE_FOLDER}",
        "UMask=0027",
    ]
    if runtime:
        lines += [f"RuntimeDirectory={' '.join(runtime)}", "RuntimeDirectoryMode=0750"]
    return lines + [f"ReadWritePaths={_quoted(path)}" for path in written]


def _limits() -> list[str]:
    return [
        "# With more memory the line is started again, before the machine has none left for anything else.",
        f"MemoryMax={MEMORY_SHARE}",
        "# What select() takes, with which OpenCV waits for V4L2 devices. Connections without end stop here, too.",
        f"LimitNOFILE={MAX_DESCRIPTORS}",
    ]


def _rights(opens_devices: bool, has_video: bool) -> list[str]:
    lines = [
        "# Publishing runs at real-time priority 1, cameras and inference at nice -10: no capability is needed.",
        "LimitRTPRIO=1",
        "LimitNICE=-10",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
    ]
    if opens_devices:
        lines.append("# Every device: GPUs, CSI and GStreamer cameras use many.")
        lines.append("SupplementaryGroups=video")
    else:
        lines.append("DevicePolicy=closed")
        lines += ["DeviceAllow=char-video4linux rw", "SupplementaryGroups=video"] if has_video else []
    return lines


def _hardening(opens_devices: bool, uses_tmp: bool, uses_home: bool) -> list[str]:
    switched_on = (
        *("NoNewPrivileges", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs"),
        *("ProtectControlGroups", "ProtectHostname", "LockPersonality", "RestrictNamespaces", "RestrictSUIDSGID"),
        "RemoveIPC",
        # It would allow the clock's device and thereby close all others.
        *(() if opens_devices else ("ProtectClock",)),
    )
    return [
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if uses_home else 'yes'}",
        f"PrivateTmp={'no' if uses_tmp else 'yes'}",
        *(f"{name}=yes" for name in switched_on),
        "ProtectProc=invisible",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
        "# Not MemoryDenyWriteExecute: engines compile machine code as they load.",
    ]


def _opens_any_device(config: LineConfig) -> bool:
    return config.engine != "openvino" or _shares_tmp(config)


def _shares_tmp(config: LineConfig) -> bool:
    """CSI cameras, and pipelines that may hold one, meet NVIDIA's camera daemon at /tmp/argus_socket."""
    return any(camera.uri.startswith(("csi:", "gstreamer:")) for camera in config.cameras)


def _is_video_device(uri: str) -> bool:
    return uri.isdecimal() or uri.startswith("v4l2:")


def _read_paths(config: LineConfig) -> Iterator[Path]:
    yield config.bundle.absolute()
    if config.trust is not None:
        yield from (key.absolute() for key in config.trust.keys)
    if config.curve is not None:
        yield from (config.curve.secret_key.absolute(), config.curve.clients.absolute())
    for camera in config.cameras:
        if (path := local_path(camera.uri)) is not None:
            yield path.absolute()


def _written_paths(config: LineConfig) -> list[Path]:
    folders = [] if config.recorder is None else [config.recorder.folder.absolute()]
    folders += [socket.parent for socket in _sockets(config) if not _is_below(socket, RUN)]
    return list(dict.fromkeys(folders))


def _sockets(config: LineConfig) -> list[Path]:
    """Files of IPC endpoints; names that begin with `@` have none."""
    endpoints = [config.publish.bind, *([] if config.commands is None else [config.commands.bind])]
    names = [endpoint.removeprefix("ipc://") for endpoint in endpoints if endpoint.startswith("ipc://")]
    return [Path(name).absolute() for name in names if not name.startswith("@")]


def _runtime_folders(config: LineConfig) -> list[str]:
    sockets = [socket for socket in _sockets(config) if _is_below(socket, RUN)]
    below = [socket.relative_to(next(run for run in RUN if _is_below(socket, (run,)))) for socket in sockets]
    for path in below:
        if len(path.parts) < 2:
            raise ArgumentError(
                f"a service may not write to /run itself, and the configuration has ipc:///run/{path}; "
                f"use a folder of its own, such as ipc:///run/fbft/{path}"
            )
    return list(dict.fromkeys(str(path.parent) for path in below))


def _refuse_private(paths: Iterable[Path]) -> None:
    for path in paths:
        if _is_below(path, PRIVATE):
            raise ArgumentError(
                f"{path} would be in a folder of the service's own, where nobody else sees it, as PrivateTmp is set; "
                f"choose a path outside of /tmp, such as below /etc/fbft-edge, {STATE_FOLDER} or /run/fbft"
            )


def _is_below(path: Path, folders: Sequence[str]) -> bool:
    return any(Path(folder) in path.parents for folder in folders)


def _quoted(word: object) -> str:
    """A path or word as unit files take it; `%` would begin a specifier."""
    text = str(word).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{text}"' if any(character in text for character in " \t'\"\\;#") else text


def _quoted_argument(word: str) -> str:
    """A word of a command line; `$` would begin a variable."""
    return _quoted(word).replace("$", "$$")

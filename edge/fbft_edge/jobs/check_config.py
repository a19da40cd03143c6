"""What would stop a line from starting, found without starting it: a configuration in, a finding for each part out.

Opens the bundle, the keys, and files that stand in for a camera, but no device and no socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fbft_edge.bundle.engines import sidecars
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.cameras import camera_opener, known_pixel_format, known_size, local_path
from fbft_edge.cameras.video import without_password
from fbft_edge.config.line_config import CameraConfig, LineConfig
from fbft_edge.errors import CameraError, FbftError
from fbft_edge.service.http_endpoint import check_http_bind
from fbft_edge.sockets.access import CurveServer
from fbft_edge.sockets.endpoints import check_bind
from fbft_edge.sockets.keys import read_key_pair

MAX_SOCKET_PATH_BYTES = 107  # what sockaddr_un of Linux holds
SWITCHED_ON_BY_BEING_THERE = ("curve", "commands", "trust", "http", "recorder", "drift")


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of a line.

    Attributes:
        key: What sets it in the configuration.
        detail: What would run.
        problem: Why it would not: cause, then remedy; None when nothing speaks against it.
    """

    key: str
    detail: str
    problem: str | None


def check_config(config: LineConfig) -> list[Finding]:
    """Everything that is to run, in the order of the configuration."""
    bundle, problem = _opened_bundle(config)
    masks = ", masks sharpened" if config.sharpen else ""
    found = [Finding("bundle", f"{config.bundle}, engine {config.engine}{masks}", problem)]
    for camera in config.cameras:
        detail = f"{without_password(camera.uri)}, trigger {camera.trigger}"
        found.append(_finding(f"cameras[{camera.name}]", detail, partial(_check_camera, camera, bundle)))
    is_encrypted = config.curve is not None
    way = "encrypted" if is_encrypted else "in clear text"
    is_allowed = is_encrypted or config.publish.insecure
    check = partial(_check_endpoint, config.publish.bind, is_allowed)
    found.append(_finding("publish.bind", f"{config.publish.bind}, {way}", check))
    found += _sections(config, way, is_encrypted)
    return found


def switched_off(config: LineConfig) -> list[str]:
    """Parts that are not to run, as the configuration has no section of theirs."""
    return [name for name in SWITCHED_ON_BY_BEING_THERE if getattr(config, name) is None]


def _sections(config: LineConfig, way: str, is_encrypted: bool) -> Iterator[Finding]:
    if curve := config.curve:
        yield _finding("curve.secret_key", str(curve.secret_key), partial(read_key_pair, curve.secret_key))
        readers = CurveServer(curve.secret_key, curve.clients)
        allowed = [readers.clients, *([readers.for_commands().clients] if config.commands else [])]
        yield _finding("curve.clients", str(curve.clients), partial(_check_clients, allowed))
    if commands := config.commands:
        yield _finding(
            "commands.bind", f"{commands.bind}, {way}", partial(_check_endpoint, commands.bind, is_encrypted)
        )
    if trust := config.trust:
        yield Finding("trust.keys", f"one of {len(trust.keys)} must have signed the bundle", None)
    if http := config.http:
        check = partial(check_http_bind, http.bind, insecure=config.publish.insecure)
        yield _finding("http.bind", f"{http.bind}, in clear text", check)
    if recorder := config.recorder:
        detail = f"{recorder.folder}, at most {recorder.max_gib:g} GiB"
        yield _finding("recorder.folder", detail, partial(_check_folder, recorder.folder))
    if drift := config.drift:
        yield Finding("drift.window", f"{drift.window} frames", None)


def _finding(key: str, detail: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except (FbftError, ValueError) as error:
        return Finding(key, detail, str(error))
    return Finding(key, detail, None)


def _opened_bundle(config: LineConfig) -> tuple[Bundle | None, str | None]:
    try:
        bundle = open_bundle(config.bundle, config.trust.keys if config.trust else ())
        bundle.require_thresholds()
        held = {"auto", "openvino", *(sidecar.runtime for sidecar in sidecars(bundle))}
    except FbftError as error:
        return None, str(error)
    if config.engine in held:
        return bundle, None
    remedy = f'run fbft-export {bundle.path} --runtime {config.engine}, or set engine to "auto"'
    return bundle, f"{bundle.path} holds no {config.engine} engine; {remedy}"


def _check_camera(camera: CameraConfig, bundle: Bundle | None) -> None:
    camera_opener(camera.uri)
    path = local_path(camera.uri)
    if path is not None and not camera.wait and not path.exists():
        raise CameraError(f"{path} is not there; check the path, or set wait to true")
    if camera.wait and bundle is not None and len(bundle.frame_sizes) != 1:
        raise CameraError(
            f"it can be waited for only with a bundle of one frame size, and {bundle.path} has "
            f"{len(bundle.frame_sizes) or 'any'}; set wait to false, or fit with images of one size"
        )
    if bundle is not None and (size := known_size(camera.uri)) is not None:
        bundle.require_frame_size(*size, "its picture")
    if bundle is not None and (pixel_format := known_pixel_format(camera.uri)) is not None:
        bundle.require_pixel_format(pixel_format, "its picture")


def _check_endpoint(endpoint: str, is_allowed: bool) -> None:
    check_bind(endpoint, insecure=is_allowed)
    path = endpoint.removeprefix("ipc://")
    if path == endpoint or path.startswith("@"):
        return
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"{path} is longer than {MAX_SOCKET_PATH_BYTES} bytes; choose a shorter path")
    if not _is_writable_folder(Path(path).parent):
        raise ValueError(f"{Path(path).parent} is no folder that can be written to; make it, or choose another")


def _check_clients(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not any(folder.glob("*.key")):
            raise ValueError(f"{folder} holds no NAME.key, so nobody could connect; put the clients' public keys there")


def _check_folder(folder: Path) -> None:
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not _is_writable_folder(nearest):
        raise ValueError(
            f"{folder} cannot be made or written to, because of {nearest}; "
            "change its permissions or choose another folder"
        )


def _is_writable_folder(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)

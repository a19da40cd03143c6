"""Where a check runs: its folder, addresses and configuration, parts, two bundles, a small disk for the recorder.

Knows nothing of what happens to the line, nor of what is seen.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.frames.frame import Uint8
from fbft_edge.synthetic import render_part

SITE = "soak"
GOOD, SPOILT = "good", "spoilt"
CAMERAS = (GOOD, SPOILT)
ASKED = "asked"  # takes a picture of a part when it is asked to
NUM_PARTS, DEFECT_EVERY = 12, 4
INSPECTED_PX, TILE_PX = 182, 112  # a few tiles of the picture made small: frames are many for two cores
RENDERED_PX = 1024  # a larger part is drawn so large and enlarged: drawing 12 MP takes 6 s each
FROZEN_AFTER = 4
LATE_AFTER_S, STALE_AFTER_S, ENGINE_TIMEOUT_S, TRIGGER_TIMEOUT_S = 5.0, 2.0, 3.0, 5.0
RECORDER_FRAMES, DISK_FRAMES = 4, 8  # how many uncompressed frames its quota and its disk hold


@dataclass(frozen=True)
class Place:
    """Files and addresses of one check."""

    out: Path
    size: tuple[int, int]
    camera_fps: float
    publisher: str
    http_port: int
    modbus_port: int
    handshake_port: int
    opcua_port: int
    broker_port: int
    camera_port: int
    bundles: tuple[Path, Path]

    @property
    def frame_bytes(self) -> int:
        """Of one picture in memory."""
        return 3 * self.size[0] * self.size[1]

    @property
    def untouched(self) -> Path:
        """Parts that the good camera sends, one in four with a defect."""
        return self.out / "untouched"

    @property
    def images(self) -> Path:
        """Folder that the spoilt camera plays."""
        return self.out / "images"

    @property
    def originals(self) -> Path:
        """What that folder holds when nothing is spoilt."""
        return self.out / "originals"

    @property
    def faults(self) -> Path:
        """What line and network camera are told to do wrong, by files."""
        return self.out / "faults"

    @property
    def recordings(self) -> Path:
        """The recorder's folder."""
        return self.out / "disk" / "recordings"

    @property
    def commands(self) -> str:
        """The command socket."""
        return f"ipc://{self.out}/commands"

    @property
    def publisher_port(self) -> int:
        """Port of the publisher."""
        return int(self.publisher.rpartition(":")[2])

    def config(self, fps: float) -> str:
        """The line's configuration."""
        return f"""\
site = "{SITE}"
bundle = "{self.bundles[0]}"
engine = "openvino"
fps = {float(fps)}
late_after_s = {LATE_AFTER_S}
stale_after_s = {STALE_AFTER_S}
engine_timeout_s = {ENGINE_TIMEOUT_S}

[[cameras]]
name = "{GOOD}"
uri = "rtsp://127.0.0.1:{self.camera_port}/"
wait = true

[[cameras]]
name = "{SPOILT}"
uri = "folder://{self.images}?fps={self.camera_fps}&loop=true"
frozen_after = {FROZEN_AFTER}
black_below = 5.0

[[cameras]]
name = "{ASKED}"
uri = "folder://{self.untouched}?fps={2 * self.camera_fps}&loop=true"
trigger = "software"
trigger_timeout_s = {TRIGGER_TIMEOUT_S}

[publish]
bind = "{self.publisher}"

[commands]
bind = "{self.commands}"

[http]
bind = "127.0.0.1:{self.http_port}"

[recorder]
folder = "{self.recordings}"
max_gib = {RECORDER_FRAMES * self.frame_bytes / 2**30}
nominal_every = 20

[drift]
window = 200
"""


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def part(seed: int, size: tuple[int, int], is_defective: bool = False) -> Uint8:
    """A part of any size in RGB, perhaps with a defect that is hard to miss."""
    shrink = min(1.0, RENDERED_PX / max(size))
    height, width = (round(shrink * side) for side in size)
    pixels = render_part(seed, height, width, (min(height, width) / 4,) * is_defective).pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def image(pixels: Uint8) -> bytes:
    """An image file of RGB pixels, PPM as that takes the least time to read."""
    return bytes(cv2.imencode(".ppm", pixels[..., ::-1])[1].tobytes())


def fit(out: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """Two small bundles of rendered parts, fitted in the folder unless they are there."""
    from fbft_calibration.fitting.bundling import fit_bundle
    from fbft_calibration.fitting.settings import BundleSettings
    from fbft_calibration.fitting.students import FitSettings

    nominal = out / "nominal"
    nominal.mkdir(exist_ok=True)
    bundles = out / "one.fbft", out / "two.fbft"
    for bundle, steps in zip(bundles, (20, 40), strict=True):
        if not bundle.exists():
            for seed in range(NUM_PARTS):
                (nominal / f"part{seed:02d}.ppm").write_bytes(image(part(seed, size)))
            students = FitSettings(steps=steps)
            settings = BundleSettings(scale=f"{INSPECTED_PX}px", tile_px=TILE_PX, students=students, prototypes=32)
            fit_bundle(nominal, bundle, settings, TerminalProgress())
    shutil.rmtree(nominal)
    return bundles


def prepare(out: Path, bundles: Sequence[Path], size: tuple[int, int], camera_fps: float) -> tuple[Place, bool]:
    """Lay out the folder; the recorder's disk is a small one of its own where this process may mount it."""
    out.mkdir(parents=True, exist_ok=True)
    first, second = (bundle.resolve() for bundle in ((bundles[0], bundles[-1]) if bundles else fit(out, size)))
    http, modbus, handshake, opcua, broker, camera = (free_port() for _ in range(6))
    publisher, bundles = f"tcp://127.0.0.1:{free_port()}", (first, second)
    place = Place(out, size, camera_fps, publisher, http, modbus, handshake, opcua, broker, camera, bundles)
    for folder in (place.images, place.originals, place.untouched, place.faults):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for seed in range(NUM_PARTS):
        content = image(part(seed, size, seed % DEFECT_EVERY == DEFECT_EVERY - 1))
        for folder in (place.images, place.originals, place.untouched):
            (folder / f"part{seed:02d}.ppm").write_bytes(content)
    disk = out / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_FRAMES * place.frame_bytes}", "soak", str(disk)]
    return place, subprocess.run(mount, capture_output=True).returncode == 0

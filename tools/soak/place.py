"""Where a check runs: its folder, addresses and configuration, two bundles, a small disk for the recorder.

Knows nothing of what happens to the line, nor of what is seen.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part

SIZE = (140, 182)
GOOD, SPOILT = "good", "spoilt"
CAMERAS = (GOOD, SPOILT)
NUM_PARTS = 12
SPOILT_FPS = 10
FROZEN_AFTER = 15
RECORDER_GIB = 0.0156
DISK_MIB = 32


@dataclass(frozen=True)
class Place:
    """Files and addresses of one check."""

    out: Path
    publisher: str
    http_port: int
    bundles: tuple[Path, Path]

    @property
    def images(self) -> Path:
        """Folder that the spoilt camera plays."""
        return self.out / "images"

    @property
    def originals(self) -> Path:
        """What that folder holds when nothing is spoilt."""
        return self.out / "originals"

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
        height, width = SIZE
        return f"""\
site = "soak"
bundle = "{self.bundles[0]}"
engine = "openvino"
fps = {float(fps)}

[[cameras]]
name = "{GOOD}"
uri = "synthetic://?fps=30&height={height}&width={width}"

[[cameras]]
name = "{SPOILT}"
uri = "folder://{self.images}?fps={SPOILT_FPS}&loop=true"
frozen_after = {FROZEN_AFTER}
black_below = 5.0

[publish]
bind = "{self.publisher}"

[commands]
bind = "{self.commands}"

[http]
bind = "127.0.0.1:{self.http_port}"

[recorder]
folder = "{self.recordings}"
max_gib = {RECORDER_GIB}
nominal_every = 20

[drift]
window = 200
"""


def free_port() -> int:
    """A TCP port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def fit(out: Path) -> tuple[Path, Path]:
    """Two small bundles of rendered parts, fitted in the folder unless they are there."""
    from fbft_calibration.fitting.bundling import fit_bundle
    from fbft_calibration.fitting.settings import BundleSettings
    from fbft_calibration.fitting.students import FitSettings

    nominal = out / "nominal"
    nominal.mkdir(exist_ok=True)
    for seed in range(NUM_PARTS):
        write_image(nominal / f"part{seed:02d}.png", render_part(seed, *SIZE).pixels)
    bundles = out / "one.fbft", out / "two.fbft"
    for bundle, steps in zip(bundles, (20, 40), strict=True):
        if not bundle.exists():
            settings = BundleSettings(tile_px=112, students=FitSettings(steps=steps), prototypes=32)
            fit_bundle(nominal, bundle, settings, TerminalProgress())
    return bundles


def prepare(out: Path, bundles: Sequence[Path]) -> tuple[Place, bool]:
    """Lay out the folder; the recorder's disk is a small one of its own where this process may mount it."""
    out.mkdir(parents=True, exist_ok=True)
    pair = (bundles[0], bundles[-1]) if bundles else fit(out)
    first, second = (bundle.resolve() for bundle in pair)
    place = Place(out, f"tcp://127.0.0.1:{free_port()}", free_port(), (first, second))
    for folder in (place.images, place.originals):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for seed in range(NUM_PARTS):
            write_image(folder / f"part{seed:02d}.png", render_part(seed, *SIZE).pixels)
    disk = out / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "soak", str(disk)]
    return place, subprocess.run(mount, capture_output=True).returncode == 0

"""Names, identifiers, default endpoints and one-line texts: what may stand in a topic, a message or a log line.

Knows nothing about who uses them, and opens nothing.
"""

from __future__ import annotations

import re

MAX_REASON_LENGTH = 500
MAX_SIDE_PX = 16_384  # of a frame, from where it is read to its mask in a message
NAME_PATTERN = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '_', '.' or '-', a letter or digit first"
MAX_ID_LENGTH = 64  # of a trigger, and of a part
ID_PATTERN = re.compile(f"[ -~]{{1,{MAX_ID_LENGTH}}}")
ID_RULE = f"1 to {MAX_ID_LENGTH} printable characters of ASCII"

DEFAULT_SITE = "site"
DEFAULT_CAMERA = "camera"
TRIGGERS = ("free", "software", "hardware")
CUDA_RUNTIMES = ("tensorrt", "tensorrt-rtx")  # the fastest first
ENGINES = ("auto", "openvino", *CUDA_RUNTIMES)

RESULTS_ENDPOINT = "tcp://127.0.0.1:5555"
RESULTS_FILE_ENDPOINT = "ipc:///run/fbft/results"
COMMANDS_ENDPOINT = "ipc:///run/fbft/commands"
TRIGGER_COMMAND, STATUS_COMMAND, RELOAD_COMMAND = "trigger", "status", "reload"


def printable(text: str) -> str:
    """Make any text fit to be a `reason`: one printable line of bounded length."""
    return one_line(text)[:MAX_REASON_LENGTH]


def one_line(text: str) -> str:
    """Any text as one line; what does not print, or changes how the rest does, becomes `?`."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


# Sources whose pictures take a way of unknown length before their date: beginnings of URIs.
UNDATED = ("rtsp://", "rtsps://", "gstreamer:", "csi://")


def size_text(*sizes: tuple[int, int]) -> str:
    """Sizes, each (height, width), as people say them and as every message to them has them."""
    return f"{' or '.join(f'{width}x{height}' for height, width in sizes)} pixels (width x height)"

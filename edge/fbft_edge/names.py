"""Names, identifiers and one-line texts: what may stand in a topic, a message or a log line."""

from __future__ import annotations

import re

MAX_REASON_LENGTH = 500
NAME_PATTERN = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
TRIGGER_ID_PATTERN = re.compile("[ -~]{1,64}")


def printable(text: str) -> str:
    """Make any text fit to be a `reason`: one printable line of bounded length."""
    return one_line(text)[:MAX_REASON_LENGTH]


def one_line(text: str) -> str:
    """Any text as one line; what does not print, or changes how the rest does, becomes `?`."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))

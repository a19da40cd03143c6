"""Options that several commands take.

Knows nothing about what they are for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fbft_edge.names import ENGINES


def add_engine(parser: argparse.ArgumentParser) -> None:
    """What infers."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what infers; auto takes the fastest that the bundle holds and this machine can run, and says why",
    )


def add_sharpen(parser: argparse.ArgumentParser, action: str | type[argparse.Action]) -> None:
    """Whether masks are sharpened."""
    parser.add_argument(
        "--sharpen",
        action=action,
        help="redraw what is flagged along the frame's own edges; verdicts stay (docs/refinement.md)",
    )


def add_client_keys(parser: argparse.ArgumentParser) -> None:
    """What a subscriber or commander of an encrypted line needs."""
    parser.add_argument("--server-key", type=Path, metavar="FILE", help="public key of a line that encrypts, NAME.key")
    parser.add_argument(
        "--secret-key", type=Path, metavar="FILE", help="one's own NAME.key_secret (default: $FBFT_SECRET_KEY_FILE)"
    )


def count(text: str) -> int:
    """A number from 1 on, of an option's text."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return number


def seconds(text: str) -> float:
    """A duration in seconds, 0 to a million, of an option's text."""
    duration_s = float(text)
    if not 0 <= duration_s <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to 1000000")
    return duration_s

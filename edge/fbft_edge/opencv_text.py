"""Text that OpenCV can take; knows nothing about what it says."""

from __future__ import annotations


def without_surrogates(text: str) -> str:
    """The text with `?` for what is left of bytes that are not UTF-8, on which OpenCV 5 ends the process.

    Python hands such bytes of a file name or an argument on as lone surrogates.
    """
    return text.encode(errors="replace").decode()

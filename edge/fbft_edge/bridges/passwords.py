"""Passwords for bridges: where the user keeps one in, the password out; never an argument that `ps` would show.

Knows nothing about who asks for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from fbft_edge.errors import ArgumentError
from fbft_edge.plain_file import read_private


def password_from(user: str | None, file: Path | None, variable: str) -> str | None:
    """The user's password: the file's only line, else the environment variable; None without a user.

    Raises:
        ArgumentError: There is a user without a password or a password without a user, or the file is no such file
            or readable by others.
    """
    if user is None:
        if file is not None:
            raise ArgumentError(f"{file} holds a password, but whose is not said; add --user NAME")
        return None
    password = os.environ.get(variable, "") if file is None else _password_of(file)
    if not password:
        raise ArgumentError(
            f"user {user!r} has no password; put it into a file of mode 600 and add --password-file FILE, "
            f"or set {variable}"
        )
    return password


def _password_of(file: Path) -> str:
    try:
        return read_private(file).decode().rstrip("\r\n")
    except ValueError as error:
        raise ArgumentError(f"{error}") from error

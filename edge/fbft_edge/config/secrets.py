"""Passwords that stand outside a configuration file: `${env:NAME}` and `${file:PATH}` in, the text with them out.

Every message is fit to be shown: none holds a secret. Knows nothing about cameras and keys.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from fbft_edge.plain_file import read_private

_FORMS = "write ${env:NAME} or ${file:PATH}, or %24{ for the characters themselves"
_REFERENCE = re.compile(r"\$\{(?P<kind>[^:}]*):?(?P<name>[^}]*)\}")
_AUTHORITY = re.compile(r"://([^/?#@]*)@")


def with_secrets(uri: str, folder: Path) -> str:
    """Put secrets into a URI, percent-encoded.

    Args:
        uri: May refer to secrets between `://` and `@`, the only place that messages hide.
        folder: What relative paths of secret files start from.

    Raises:
        ValueError: A reference is not understood, out of place, or leads nowhere: cause, then remedy.
    """
    references = list(_REFERENCE.finditer(uri))
    if "${" in _REFERENCE.sub("", uri):
        raise ValueError(f"a '${{' is not closed; {_FORMS}")
    authorities = _AUTHORITY.findall(_REFERENCE.sub("\0", uri))
    if "".join(authorities).count("\0") < len(references):
        raise ValueError(
            "a secret stands outside rtsp://USER:PASSWORD@HOST, where messages would show it; "
            "put it between :// and @, such as rtsp://line:${env:PASSWORD}@10.0.0.7/stream"
        )
    return _REFERENCE.sub(lambda reference: quote(_secret(reference, folder), safe=""), uri)


def _secret(reference: re.Match[str], folder: Path) -> str:
    kind, name = reference["kind"], reference["name"]
    if kind not in ("env", "file") or not name:
        raise ValueError(f"what stands in a '${{...}}' is not understood; {_FORMS}")
    secret = _from_environment(name) if kind == "env" else _from_file(folder / name)
    if not secret.isprintable():
        where = f"environment variable {name}" if kind == "env" else f"{folder / name}"
        raise ValueError(f"{where} holds line breaks or control characters; put the password alone there")
    return secret


def _from_environment(name: str) -> str:
    if not (secret := os.environ.get(name, "")):
        state = "empty" if name in os.environ else "not set"
        raise ValueError(f"environment variable {name} is {state}; set it for the service, or use ${{file:PATH}}")
    return secret


def _from_file(path: Path) -> str:
    try:
        secret = read_private(path).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; write the password there again") from None
    if not secret:
        raise ValueError(f"{path} is empty; write the password there")
    return secret

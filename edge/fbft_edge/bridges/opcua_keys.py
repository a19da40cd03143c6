"""The certificate of the OPC UA server: a folder in, certificate and private key out, made when there are none.

Knows nothing about clients.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from fbft_edge.errors import ArgumentError

CERTIFICATE, KEY = "certificate.der", "key.pem"
VALID_DAYS = 3650


def own_keys(folder: Path, uri: str, host: str) -> tuple[Path, Path]:
    """The server's certificate and key, made when both are missing.

    Args:
        folder: Holds `certificate.der` and `key.pem`, the latter for its owner alone.
        uri: The server's application URI.
        host: Where it listens.

    Raises:
        ArgumentError: One is missing, others may read the key, or the folder cannot be written.
    """
    certificate, key = folder / CERTIFICATE, folder / KEY
    try:
        if not certificate.exists() and not key.exists():
            _make_keys(certificate, key, uri, host)
        if key.stat().st_mode & 0o077:
            raise ArgumentError(f"{key} may be read by others; chmod 600 {key}")
        certificate.stat()
    except OSError as error:
        raise ArgumentError(
            f"cannot use the keys in {folder} ({error.strerror}: {error.filename}); {CERTIFICATE} and {KEY} belong "
            f"there together: bring both, or remove both to have them made"
        ) from error
    return certificate, key


def _make_keys(certificate: Path, key: Path, uri: str, host: str) -> None:
    from asyncua.crypto.cert_gen import (
        dump_private_key_as_pem,
        generate_private_key,
        generate_self_signed_app_certificate,
    )
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    private = generate_private_key()
    made = generate_self_signed_app_certificate(
        private, "fbft-edge", {}, _alternative_names(uri, host), [ExtendedKeyUsageOID.SERVER_AUTH], VALID_DAYS
    )
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(dump_private_key_as_pem(private))
    certificate.write_bytes(made.public_bytes(Encoding.DER))


def _alternative_names(uri: str, host: str) -> list[Any]:
    from cryptography import x509

    names: list[Any] = [x509.UniformResourceIdentifier(uri), x509.DNSName(socket.gethostname())]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    return names

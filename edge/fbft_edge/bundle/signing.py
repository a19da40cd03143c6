"""Who released a file: Ed25519 signatures over its exact bytes, and the keys for them.

A signature is 64 bytes (RFC 8032, nothing hashed beforehand), keys are PEM files (PKCS #8, SubjectPublicKeyInfo):
openssl makes, shows and checks the same.

    openssl genpkey -algorithm ed25519 -out release.key_secret
    openssl pkey -in release.key_secret -pubout -out release.pub
    openssl pkeyutl -verify -pubin -inkey release.pub -rawin -in bundle.json -sigfile bundle.json.sig

Needs the extra `signing`. Knows nothing about bundles.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_edge.plain_file import read_plain, read_with_mode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64
SECRET_SUFFIX = ".key_secret"
PUBLIC_SUFFIX = ".pub"
_MAX_KEY_BYTES = 1 << 16


def write_signing_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a pair of keys: `NAME.key_secret`, for its owner alone (mode 0600), and `NAME.pub` for every line.

    Returns:
        Their paths, the secret one first.

    Raises:
        ArgumentError: One of them exists (keys are never overwritten), or cannot be written.
    """
    require_extra("signing", "making keys")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not name or Path(name).name != name:
        raise ArgumentError(f"{name!r} cannot name a key; use a plain file name such as release")
    secret, public = (folder / f"{name}{suffix}" for suffix in (SECRET_SUFFIX, PUBLIC_SUFFIX))
    for path in (secret, public):
        if os.path.lexists(path):
            raise ArgumentError(f"{path} exists, and keys are never overwritten; choose another name or folder")
    key = Ed25519PrivateKey.generate()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(secret, key.private_bytes(pem, pkcs8, serialization.NoEncryption()), 0o600)
        _write_new(public, key.public_key().public_bytes(pem, spki), 0o644)
    except OSError as error:
        raise ArgumentError(f"{error.filename} cannot be written: {error.strerror}; choose another folder") from error
    return secret, public


def sign(data: bytes, secret: Path) -> bytes:
    """Sign bytes with the key in a file.

    Raises:
        ArgumentError: It is no Ed25519 secret key, or others may read it.
    """
    return _secret_key(secret).sign(data)


def signer(data: bytes, signature: bytes, trusted: Sequence[Path]) -> Path | None:
    """The first of the trusted public keys that made the signature; None when none did.

    Raises:
        ArgumentError: A file holds no Ed25519 public key.
    """
    keys = [(path, _public_key(path)) for path in trusted]
    from cryptography.exceptions import InvalidSignature

    for path, key in keys:
        with contextlib.suppress(InvalidSignature):
            key.verify(signature, data)
            return path
    return None


def fingerprint(public: Path) -> str:
    """The first 16 digits of what `openssl pkey -pubin -in release.pub -outform DER | sha256sum` prints.

    Raises:
        ArgumentError: The file holds no Ed25519 public key.
    """
    return _fingerprint(_public_key(public))


def secret_fingerprint(secret: Path) -> str:
    """The fingerprint of the public key that belongs to a secret one.

    Raises:
        ArgumentError: It is no Ed25519 secret key, or others may read it.
    """
    return _fingerprint(_secret_key(secret).public_key())


def _fingerprint(key: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives import serialization

    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()[:16]


def _secret_key(path: Path) -> Ed25519PrivateKey:
    require_extra("signing", "signing")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        pem, mode = read_with_mode(path, _MAX_KEY_BYTES, follow=True)
    except OSError as error:
        raise ArgumentError(f"the key {path} cannot be read: {error.strerror}; name another") from error
    if mode & 0o077:
        raise ArgumentError(f"the key {path} is open to others (mode {mode:04o}); chmod 600 {path}")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ArgumentError(
            f"the key {path} is protected by a passphrase; openssl pkey -in {path} -out NEW writes it without"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ArgumentError(f"{path} is not a secret key in PEM; make one with fbft-edge keygen --signing") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ArgumentError(f"{path} is a secret key, but not for Ed25519; make one with fbft-edge keygen --signing")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    require_extra("signing", "verifying signatures")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(read_plain(path, _MAX_KEY_BYTES, follow=True))
    except OSError as error:
        raise ArgumentError(f"the trusted key {path} cannot be read: {error.strerror}; copy it again") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ArgumentError(
            f"the trusted key {path} is not a public key in PEM; use the file NAME{PUBLIC_SUFFIX} that was made with "
            "the secret key"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ArgumentError(f"the trusted key {path} is not for Ed25519; use the {PUBLIC_SUFFIX} file of a signing key")
    return key


def _write_new(path: Path, contents: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(contents)

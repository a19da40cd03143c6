"""The commands of trust: keys made, bundles signed and verified.

Knows nothing about cryptography; each command loads what it needs when it runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_sign(parser: argparse.ArgumentParser) -> None:
    """Declare `sign`."""
    parser.description = (
        "Verify a bundle's files, then sign it with an Ed25519 key: bundle.json.sig has 64 bytes over the "
        "exact bytes of bundle.json, which hold the SHA-256 of every file. Changing the bundle removes the signature."
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="a folder NAME.fbft")
    add("--key", type=Path, required=True, metavar="SECRET", help="secret key, PEM, mode 0600: release.key_secret")
    parser.set_defaults(command=_sign)


def _sign(args: argparse.Namespace) -> int:
    from fbft_edge.bundle.sealing import sign_bundle
    from fbft_edge.bundle.signing import secret_fingerprint

    bundle = sign_bundle(args.bundle, args.key)
    print(f"{args.bundle}: {bundle.product}, bundle {bundle.sha256[:16]}, signed by key {secret_fingerprint(args.key)}")
    return 0


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Declare `verify`."""
    parser.description = (
        "Check every file of a bundle against its manifest, and the manifest's signature against trusted "
        "keys, as a line does before it takes the bundle. The same signature with openssl: openssl pkeyutl -verify "
        "-pubin -inkey release.pub -rawin -in bundle.json -sigfile bundle.json.sig"
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="a folder NAME.fbft")
    add("--key", type=Path, action="append", default=[], metavar="PUBLIC", help="trusted public key; may be repeated")
    parser.set_defaults(command=_verify)


def _verify(args: argparse.Namespace) -> int:
    from fbft_edge.bundle.reading import open_bundle

    bundle = open_bundle(args.bundle, args.key)
    signed = "signed by a trusted key" if args.key else "its signature was not asked for (--key)"
    print(f"{args.bundle}: {bundle.product}, bundle {bundle.sha256[:16]}, {len(bundle.files)} files whole; {signed}")
    return 0


def add_keygen(parser: argparse.ArgumentParser) -> None:
    """Declare `keygen`."""
    parser.description = (
        "Make a CURVE key pair, NAME.key and NAME.key_secret; with --signing an Ed25519 pair, NAME.pub and "
        "NAME.key_secret. Nothing is overwritten."
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder; made for its owner alone if it is not there")
    add("--signing", action="store_true", help="keys for fbft-edge sign and [trust], not for a socket")
    add("--name", help="what the keys are called (default: line; with --signing: release)")
    parser.set_defaults(command=_keygen)


def _keygen(args: argparse.Namespace) -> int:
    if args.signing:
        return _signing_keygen(args.out, "release" if args.name is None else args.name)
    from fbft_edge.sockets.keys import write_key_pair

    public, secret = write_key_pair(args.out, "line" if args.name is None else args.name)
    print(f"{secret}: stays on this machine, for --secret-key or FBFT_SECRET_KEY_FILE")
    print(f"{public}: of a line, copy it to those who connect, for --server-key; of anyone else, copy it to the line,")
    print("  into the folder of --clients to let it read results, into the folder commands in that to let it command")
    return 0


def _signing_keygen(out: Path, name: str) -> int:
    from fbft_edge.bundle.signing import fingerprint, write_signing_keys

    secret, public = write_signing_keys(out, name)
    print(f"{secret}: stays with who releases bundles, for fbft-edge sign --key")
    print(f"{public}: key {fingerprint(public)}, copy it to every line, for keys in [trust]")
    return 0

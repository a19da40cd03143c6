"""Every parser of what comes from outside, with the refusals that it documents and what it may take.

Knows nothing of damage, nor of who holds a parser to its promises.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.fuzzing.inputs import Parts, bytes_from_parts, parts_from_bytes


@dataclass(frozen=True)
class Parser:
    """A parser of outside input.

    Attributes:
        parse: Takes one input; its documented refusals are `errors`.
        errors: Classes that it may raise.
        memory_bytes: What it may take beyond what the process has.
        limit_s: CPU time that an input may take.
        is_multipart: Whether an input is several parts, each behind its length (4 bytes, big-endian), or one.
    """

    parse: Callable[[Parts], object]
    errors: tuple[type[Exception], ...]
    memory_bytes: int = 256 << 20
    limit_s: float = 1.0
    is_multipart: bool = False

    def parts(self, data: bytes) -> Parts:
        """The parts of an input; a length beyond the end means the end."""
        return parts_from_bytes(data) if self.is_multipart else [data]

    def joined(self, parts: Parts) -> bytes:
        """The other way round."""
        return bytes_from_parts(parts) if self.is_multipart else b"".join(parts)


def _message(_: Path) -> Parser:
    from fbft_edge.errors import MessageError
    from fbft_edge.messages.reading import decode_message

    # The largest mask, 16384x16384, takes 32 MiB packed and 256 MiB as booleans.
    # The largest mask that a message may hold takes 0.8 s by itself.
    return Parser(lambda parts: decode_message(parts).mask, (MessageError,), 512 << 20, 5.0, is_multipart=True)


def _bundle(folder: Path) -> Parser:
    """Parts: manifest; a signature, which is then asked for; pairs of bytes, what becomes of which file."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from fbft_edge.bundle.reading import MANIFEST, SIGNATURE, open_bundle
    from fbft_edge.errors import BundleError

    key = folder / "release.pub"
    public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    bundle = folder / "part.fbft"
    write_bundle_files(bundle)
    files = (*BUNDLE_FILES, MANIFEST, SIGNATURE)

    def parse(parts: Parts) -> None:
        manifest, signature, damage = [*parts[:3], b"", b"", b""][:3]
        for name, contents in ((MANIFEST, manifest), (SIGNATURE, signature)):
            write_in_place(bundle / name, contents)
        for which, how in zip(damage[:8:2], damage[1:8:2], strict=False):
            _damage(bundle / files[which % len(files)], how)
        try:
            opened = open_bundle(bundle, [key] if signature else ())
            for name in opened.files:
                opened.read(name)
        finally:
            if damage:
                write_bundle_files(bundle)

    return Parser(parse, (BundleError,), is_multipart=True)


BUNDLE_FILES = ("model.onnx", "students.safetensors", "report.html", "engines/openvino-f32.json")


def write_bundle_files(bundle: Path) -> None:
    """The files of the bundle that the corpus' manifests list, as they should be."""
    for name in BUNDLE_FILES:
        write_in_place(bundle / name, b"contents of " + name.encode())


def write_in_place(path: Path, contents: bytes) -> None:
    """Write a file where anything may be."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(contents)


def _damage(path: Path, how: int) -> None:
    contents = path.read_bytes() if path.is_file() else b""
    write_in_place(path, contents + b"\0")
    kinds: tuple[Callable[[], None], ...] = (
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("/dev/zero"),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to(path.parent),
        lambda: None,
    )
    if how % 7:
        path.unlink()
        kinds[how % 7 - 1]()


def _sidecar(folder: Path) -> Parser:
    from fbft_edge.bundle.engines import sidecars
    from fbft_edge.errors import BundleError

    return _bundle_member(folder, "engines/engine.json", sidecars, BundleError)


def _kernels(folder: Path) -> Parser:
    from fbft_edge.detectors.kernels import KERNELS_MANIFEST, kernel_targets
    from fbft_edge.errors import BundleError

    return _bundle_member(folder, KERNELS_MANIFEST, kernel_targets, BundleError)


def _bundle_member(folder: Path, name: str, parse: Callable[[Any], object], error: type[Exception]) -> Parser:
    from fbft_edge.bundle.manifest import TeacherIdentity, TileGeometry
    from fbft_edge.bundle.reading import Bundle

    (folder / name).parent.mkdir(exist_ok=True)
    files = {name: "00" * 32}
    teacher = TeacherIdentity("teacher", "00" * 32, 384, (5, 8))
    bundle = Bundle(folder, "part", "2026-01-01T00:00:00Z", teacher, TileGeometry(112, 14, 1), (), None, files=files)

    def parse_member(parts: Parts) -> object:
        (folder / name).write_bytes(parts[0])
        return parse(bundle)

    return Parser(parse_member, (error,))


def _key(folder: Path) -> Parser:
    from fbft_edge.bundle.signing import fingerprint
    from fbft_edge.errors import ArgumentError

    def parse(parts: Parts) -> str:
        (folder / "release.pub").write_bytes(parts[0])
        return fingerprint(folder / "release.pub")

    return Parser(parse, (ArgumentError,))


def _command(_: Path) -> Parser:
    """What the command socket does with a request before a handler sees it."""
    from fbft_edge.sockets.command_format import answer_bytes, refusal, request_from_bytes

    def parse(parts: Parts) -> bytes:
        number, command, _ = request_from_bytes(parts[0])
        return answer_bytes(number, refusal(f"unknown command {command!r}"))

    return Parser(parse, (ValueError,))


def _answer(_: Path) -> Parser:
    """What a client of the command socket does with an answer."""
    from fbft_edge.errors import CommandError
    from fbft_edge.sockets.command_client import _accepted, _answer

    return Parser(lambda parts: _accepted(_answer(parts, "trigger"), "trigger"), (CommandError,))


def _config(folder: Path) -> Parser:
    from fbft_edge.config.line_config import read_config
    from fbft_edge.errors import ConfigError

    def parse(parts: Parts) -> object:
        (folder / "line.toml").write_bytes(parts[0])
        return read_config(folder / "line.toml")

    return Parser(parse, (ConfigError,))


def _curve(folder: Path) -> Parser:
    """What the line does with a key that someone puts into its folder of clients."""
    from fbft_edge.errors import ArgumentError
    from fbft_edge.sockets.keys import read_key_pair

    key = folder / "client.key_secret"
    key.touch(0o600)

    def parse(parts: Parts) -> object:
        key.write_bytes(parts[0])
        return read_key_pair(key)

    return Parser(parse, (ArgumentError,))


def _recording(folder: Path) -> Parser:
    """Parts: what is known about the frame, its mask, its pixels."""
    from fbft_edge.errors import RecordingError
    from fbft_edge.recording.recordings import ABOUT_FILE, FRAME_FILE, MASK_FILE, read_recording

    def parse(parts: Parts) -> object:
        for name, part in zip((ABOUT_FILE, MASK_FILE, FRAME_FILE), [*parts, b"", b"", b""], strict=False):
            (folder / name).write_bytes(part)
        return read_recording(folder)

    # OpenCV 5.0 clears as many bytes as a damaged PNG says that it has, before it looks.
    return Parser(parse, (RecordingError,), 1 << 30, 10.0, is_multipart=True)


PARSERS: dict[str, Callable[[Path], Parser]] = {
    "answer": _answer,
    "bundle": _bundle,
    "command": _command,
    "config": _config,
    "curve": _curve,
    "key": _key,
    "kernels": _kernels,
    "message": _message,
    "recording": _recording,
    "sidecar": _sidecar,
}

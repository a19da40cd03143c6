"""Damaged inputs for every parser of what comes from outside, and the promises that each of them keeps.

    python tools/fuzz.py --parser message --minutes 5
    python tools/fuzz.py --count 100000 --seed 7         # all parsers, so many inputs each

The promises: only the documented error is raised, its message is printable and short, an input takes less than 1 s of
CPU time (pictures: 10 s) and no more memory than its parser may, and the process lives on. An input that breaks one is
written to tests/fuzz/corpus/PARSER, whose inputs come first in every run: the status is 1 until it is refused properly.

Inputs are those of the corpus, damaged as JSON trees, as tokens, as parts and as bytes. Where atheris is installed
(`pip install "fbft-edge[fuzz]"`), what reaches new code is damaged further; with --blind, or without it, chance decides
alone, and the same seed gives the same inputs. Models and engines (ONNX, plans, cubins) are not here: they are
loaded only when their SHA-256 stands in a verified manifest; safetensors are never read on the line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "fuzz" / "corpus"
MAX_INPUT_BYTES = 1 << 18
HANG_S = 30.0
MAX_LINES, MAX_LINE = 60, 2000
WINDOW_BYTES = 2048
Parts = list[bytes]


class TooSlow(BaseException):
    """Raised by the timer in the middle of a parser; nobody's `except Exception` holds it."""


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


@dataclass
class Tally:
    """What came of the inputs of one parser: outcomes, and the first input of each broken promise."""

    outcomes: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def as_json(self) -> dict[str, Any]:
        """Counts, rate and the names of inputs that broke a promise."""
        count, seconds = self.outcomes.total(), time.monotonic() - self.started
        return {
            "inputs": count,
            "seconds": round(seconds, 1),
            "per_second": round(count / max(seconds, 1e-9)),
            "outcomes": dict(self.outcomes.most_common()),
            "broken": self.broken,
        }


def parts_from_bytes(data: bytes) -> Parts:
    """Parts of an input, as `bytes_from_parts` joined them."""
    parts, at = [], 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return parts


def bytes_from_parts(parts: Sequence[bytes]) -> bytes:
    """One input of several parts."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


# Parsers


def _message(_: Path) -> Parser:
    from fbft_edge.errors import MessageError
    from fbft_edge.messages.reading import decode_message

    # The largest mask, 16384x16384, takes 32 MiB packed and 256 MiB as booleans.
    # The largest mask that a message may hold takes 0.8 s by itself.
    return Parser(decode_message, (MessageError,), 512 << 20, 5.0, is_multipart=True)


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
    from fbft_edge.sockets.command_server import _encoded, _parsed, _refusal

    def parse(parts: Parts) -> bytes:
        number, command, _ = _parsed(parts[0])
        return _encoded(number, _refusal(f"unknown command {command!r}"))

    return Parser(parse, (ValueError,))


def _answer(_: Path) -> Parser:
    """What a client of the command socket does with an answer."""
    from fbft_edge.errors import CommandError
    from fbft_edge.sockets.command_client import _accepted, _parsed_answer

    return Parser(lambda parts: _accepted(_parsed_answer(parts, "trigger"), "trigger"), (CommandError,))


def _config(folder: Path) -> Parser:
    from fbft_edge.config import read_config
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


# Promises


def outcome(parser: Parser, data: bytes) -> str:
    """`accepted` or `refused: CLASS`.

    Raises:
        BaseException: Whatever breaks a promise.
    """
    parts = parser.parts(data)
    with _limited_time(parser.limit_s):
        started = time.thread_time()
        try:
            parser.parse(parts)
            found = "accepted"
        except parser.errors as error:
            found = f"refused: {type(error).__name__}"
            lines = str(error).split("\n")
            if len(lines) > MAX_LINES or not all(line.isprintable() and len(line) <= MAX_LINE for line in lines):
                raise AssertionError(f"the message is not printable, or too long: {lines!r:.500}") from error
        taken = time.thread_time() - started
    if taken > parser.limit_s:
        raise TooSlow(f"{taken:.2f} s")
    return found


@contextlib.contextmanager
def _limited_time(limit_s: float) -> Iterator[None]:
    """`TooSlow` after so much CPU time; death by SIGALRM when the input blocks, or a library does not let go."""
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _raise_too_slow(*_: object) -> None:
    raise TooSlow("the CPU time is used up")


def _limit_memory(parser: Parser) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + parser.memory_bytes, resource.RLIM_INFINITY))


# Damage


_JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 2**31, 2**53, 2**63, 2**64, 10**400, float("nan"), float("inf")),
    *("", "a", "\0", "\ud800", "\u202e", "../x", "/etc/passwd", "a" * 5000, "0" * 64, [], {}, [[]], [0] * 2000),
    *([None], {"": None}, "fbft.result/1", "fbft.bundle/1", "ok", "fault"),
)
_TOKENS = (
    *b'null true NaN -Infinity 1e999 -0 1e-400 0x10 01 1.0 \'\' { } [ ] , : = " \\ "\\ud800" \xed\xa0\x80 \xff'.split(),
    *b"${env:HOME} ${file:/dev/zero} 1979-05-27 \x1b[2J \0 \xed\xa0\x80 \xef\xbb\xbf".split(),
    *(b"\n", b"\r\n", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w.+-]+|[^\s\w]')


def damaged(parser: Parser, data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """An input with one to four things wrong."""
    parts = parser.parts(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if not parts or (parser.is_multipart and chance.random() < 0.05):
            parts = _other_parts(parts, parser.parts(chance.choice(others)), chance)
        else:
            index = chance.randrange(len(parts))
            parts[index] = _damaged_part(parts[index], chance)
    return parser.joined(parts)[:MAX_INPUT_BYTES]


def _other_parts(parts: Parts, others: Parts, chance: random.Random) -> Parts:
    at = chance.randrange(len(parts) + 1)
    how = chance.randrange(3)
    if how == 0:
        return parts[:at] + parts[at + 1 :]
    spare = chance.choice([*parts, *others, b""])
    return [*parts[:at], spare, *parts[at + how - 1 :]]


def _damaged_part(part: bytes, chance: random.Random) -> bytes:
    if part[:1] == b"x" and chance.random() < 0.5:
        return _damaged_zlib(part, chance)
    how = chance.random()
    if how < 0.5 and part[:1] in (b"{", b"["):
        return _damaged_json(part, chance)
    return _damaged_tokens(part, chance) if how < 0.75 else _damaged_bytes(part, chance)


def _damaged_zlib(part: bytes, chance: random.Random) -> bytes:
    try:
        inflated = zlib.decompressobj().decompress(part, MAX_INPUT_BYTES)
    except zlib.error:
        return _damaged_bytes(part, chance)
    return zlib.compress(_damaged_bytes(inflated, chance), chance.choice((0, 1, 9)))


def _damaged_json(part: bytes, chance: random.Random) -> bytes:
    try:
        tree = [json.loads(part)]
    except (ValueError, RecursionError):
        return _damaged_tokens(part, chance)
    places = list(_places(tree))
    inside, key = chance.choice(places)
    how = chance.randrange(6)
    if how == 0:
        inside[key] = chance.choice(_JSON_VALUES)
    elif how == 1 and inside is not tree:
        del inside[key]
    elif how == 2:
        giver, other = chance.choice(places)
        inside[key] = giver[other]
    elif how == 3:
        inside[key] = [inside[key]] * chance.choice((1, 2, 5))
    elif how == 4 and isinstance(inside, dict):
        inside[chance.choice(("", "a", key + " ", "\ud800", "__class__"))] = inside.pop(key)
    else:
        inside[key] = _nearby(inside[key], chance)
    with contextlib.suppress(ValueError, RecursionError):  # a tree within itself
        return json.dumps(tree[0], ensure_ascii=chance.random() < 0.7).encode(errors="surrogatepass")
    return part


def _places(inside: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
        yield inside, key
        if isinstance(inside[key], (dict, list)):
            yield from _places(inside[key])


def _nearby(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((-value, value + 1, value - 1, value * 2, value << 40, value % 1000 / 7))
    if isinstance(value, float):
        return chance.choice((-value, value * 1e6, value * 1e-6, int(value) if abs(value) < 1e9 else 0, str(value)))
    if isinstance(value, str):
        return chance.choice((value[:-1], value + "a", value.upper(), value * 3, value + "\n", value.replace("e", "é")))
    return chance.choice(_JSON_VALUES)


def _damaged_tokens(part: bytes, chance: random.Random) -> bytes:
    window = chance.randrange(max(1, len(part) - WINDOW_BYTES // 2))
    tokens = [match.span() for match in _TOKEN.finditer(part, window, window + WINDOW_BYTES)]
    if not tokens:
        return chance.choice(_TOKENS)
    start, end = chance.choice(tokens)
    other, other_end = chance.choice(tokens)
    how = chance.randrange(4)
    if how == 0:
        return part[:start] + chance.choice(_TOKENS) + part[end:]
    if how == 1:
        return part[:start] + part[end:]
    if how == 2:
        return part[:start] + part[other:other_end] + part[end:]
    low, high = min(start, other), max(end, other_end)
    return part[:high] + part[low:high] + part[high:]


def _damaged_bytes(part: bytes, chance: random.Random) -> bytes:
    changed = bytearray(part)
    at = chance.randrange(len(changed) + 1)
    how = chance.randrange(5)
    if how == 0:
        del changed[at : at + chance.choice((1, 2, 16, 1 << 20))]
    elif how == 1 or at == len(changed):
        changed[at:at] = chance.choice((chance.randbytes(chance.choice((1, 4, 64))), changed[at : at + 64], bytes(9)))
    elif how == 2:
        changed[at] ^= 1 << chance.randrange(8)
    else:
        changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5C, chance.randrange(256)))
    return bytes(changed)


# Runs


def fuzz(
    name: str, parser: Parser, corpus: Path, budget: Budget, *, guided: Path | None, last: Callable[[bytes], None]
) -> Tally:
    """Try the corpus, then damaged inputs until the budget is used up.

    Args:
        name: Of the parser.
        parser: What is fuzzed.
        corpus: Folder of its inputs; what breaks a promise is added.
        budget: How long.
        guided: Let atheris choose, and keep what it finds in this folder; then this never returns, but ends the
            process with the tally on standard output.
        last: Told each input before it is tried.
    """
    paths = sorted(corpus.iterdir())
    seeds = [path.read_bytes() for path in paths]
    valid = [path.read_bytes() for path in paths if path.name.startswith("ok")] or seeds
    tally, chance = Tally(), random.Random(budget.seed)
    signal.signal(signal.SIGPROF, _raise_too_slow)

    def attempt(data: bytes) -> None:
        last(data)
        try:
            tally.outcomes[outcome(parser, data)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            _keep_broken(name, tally, corpus, data, error)

    def is_over() -> bool:
        return tally.outcomes.total() >= budget.count or time.monotonic() - tally.started >= 60 * budget.minutes

    _limit_memory(parser)
    for seed in seeds:
        attempt(seed)
    if guided:
        _let_atheris_choose(parser, (guided, corpus), budget.seed, attempt, is_over, tally)
    while not is_over():
        attempt(damaged(parser, chance.choice(chance.choice((valid, seeds))), seeds, chance))
    return tally


@dataclass(frozen=True)
class Budget:
    """How many inputs, for how long, from which seed."""

    count: int
    minutes: float
    seed: int


def _keep_broken(name: str, tally: Tally, corpus: Path, data: bytes, error: BaseException) -> None:
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename != __file__), frames[-1])
    kind = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    tally.outcomes[f"BROKEN: {kind}"] += 1
    if kind not in tally.broken:
        tally.broken[kind] = keep_input(corpus, data)
        shown = "".join(traceback.format_exception(error))
        print(f"{name}: {kind}: {tally.broken[kind]}\n{shown[-3000:]}", file=sys.stderr, flush=True)


def keep_input(corpus: Path, data: bytes) -> str:
    """Add an input to a corpus; returns the file's name."""
    path = corpus / f"broken-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path.name


def _let_atheris_choose(
    parser: Parser,
    folders: tuple[Path, Path],
    seed: int,
    attempt: Callable[[bytes], None],
    is_over: Callable[[], bool],
    tally: Tally,
) -> None:
    import atheris

    found, corpus = folders
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir())]
    (found / "found").mkdir()

    def test_one_input(data: bytes) -> None:
        if is_over():
            print(json.dumps(tally.as_json()), flush=True)
            os._exit(0)
        attempt(data)

    def mutate(data: bytes, max_size: int, mutation_seed: int) -> bytes:
        chance = random.Random(mutation_seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return damaged(parser, data, seeds, chance)[:max_size]

    options = ["-verbosity=0", f"-seed={seed % (1 << 31) + 1}", f"-max_len={MAX_INPUT_BYTES}"]
    options.append(f"-artifact_prefix={found}/")
    # Time, memory and death are watched here.
    options += [f"-{limit}=0" for limit in ("timeout", "rss_limit_mb", "malloc_limit_mb")]
    options += [f"-handle_{death}=0" for death in ("segv", "bus", "abrt", "fpe", "ill")]
    atheris.Setup([sys.argv[0], *options, str(found / "found"), str(corpus)], test_one_input, custom_mutator=mutate)
    atheris.Fuzz()


def run_in_child(name: str, corpus: Path, budget: Budget, guided: bool) -> dict[str, Any]:
    """Fuzz one parser in a process of its own; an input on which that dies is kept, too."""
    corpus.mkdir(parents=True, exist_ok=True)
    last, (reading, writing) = mmap.mmap(-1, 8 + MAX_INPUT_BYTES), os.pipe()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if (child := os.fork()) == 0:
            os.dup2(writing, 1)
            _fuzz_in_child(name, corpus, budget, guided, Path(folder), last)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            lines = pipe.read().splitlines()
        _, status = os.waitpid(child, 0)
    if status == 0:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    if not os.WIFSIGNALED(status):
        raise RuntimeError(f"fuzzing {name} failed, not its parser: see above")
    (length,) = struct.unpack_from(">Q", last)
    kind = f"died of signal {os.WTERMSIG(status)}"
    return {"inputs": 0, "outcomes": {}, "broken": {kind: keep_input(corpus, last[8 : 8 + length])}}


def _fuzz_in_child(name: str, corpus: Path, budget: Budget, guided: bool, folder: Path, last: mmap.mmap) -> NoReturn:
    """Print the tally and end the process."""
    status = 1
    try:
        # What is imported here for the first time is what coverage is taken of.
        with _instrumented(guided):
            parser = PARSERS[name](folder)

        def remember(data: bytes) -> None:
            last[: 8 + len(data)] = struct.pack(">Q", len(data)) + data

        tally = fuzz(name, parser, corpus, budget, guided=folder if guided else None, last=remember)
        print(json.dumps(tally.as_json()), flush=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@contextlib.contextmanager
def _instrumented(guided: bool) -> Iterator[None]:
    if not guided:
        yield
        return
    import atheris

    with atheris.instrument_imports(include=["fbft_edge", "json", "tomllib"]):
        yield


def main() -> int:
    """Fuzz one parser or all; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parser", choices=("all", *PARSERS), default="all", help="default: %(default)s")
    add("--count", type=int, default=sys.maxsize, metavar="N", help="inputs for each parser (default: no end)")
    add("--minutes", type=float, default=float("inf"), metavar="M", help="for each parser (default: no end)")
    add("--seed", type=int, metavar="S", help="default: any")
    add("--blind", action="store_true", help="without atheris, even if it is there")
    add("--corpus", type=Path, default=CORPUS, metavar="DIR", help="one folder for each parser (default: %(default)s)")
    args = parser.parse_args()
    if args.count == sys.maxsize and args.minutes == float("inf") and args.parser == "all":
        parser.error("all parsers without --count or --minutes would never end")
    seed = random.SystemRandom().randrange(1 << 30) if args.seed is None else args.seed
    guided = not args.blind and find_spec("atheris") is not None
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    print(f"seed {seed}, {'guided by coverage' if guided else 'by chance'}", file=sys.stderr, flush=True)
    results = {}
    for name in PARSERS if args.parser == "all" else [args.parser]:
        results[name] = run_in_child(name, args.corpus / name, Budget(args.count, args.minutes, seed), guided)
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    print(json.dumps({"seed": seed, "guided": guided, "parsers": results}))
    return int(any(found["broken"] for found in results.values()))


if __name__ == "__main__":
    sys.exit(main())

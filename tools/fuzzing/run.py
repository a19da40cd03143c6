"""A parser and a budget in, the tally of its inputs out: each parser in a process of its own.

Knows nothing of what a parser is for.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tools.fuzzing.damage import damaged
from tools.fuzzing.inputs import MAX_INPUT_BYTES, keep_input
from tools.fuzzing.parsers import PARSERS, Parser
from tools.fuzzing.promises import limit_memory, outcome, raise_too_slow

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Budget:
    """How many inputs, for how long, from which seed."""

    count: int
    minutes: float
    seed: int


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
    signal.signal(signal.SIGPROF, raise_too_slow)

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

    limit_memory(parser)
    for seed in seeds:
        attempt(seed)
    if guided:
        _let_atheris_choose(parser, (guided, corpus), budget.seed, attempt, is_over, tally)
    while not is_over():
        attempt(damaged(parser, chance.choice(chance.choice((valid, seeds))), seeds, chance))
    return tally


def _keep_broken(name: str, tally: Tally, corpus: Path, data: bytes, error: BaseException) -> None:
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    frame = next((frame for frame in reversed(frames) if Path(frame.filename).parent != HERE), frames[-1])
    kind = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    tally.outcomes[f"BROKEN: {kind}"] += 1
    if kind not in tally.broken:
        tally.broken[kind] = keep_input(corpus, data)
        shown = "".join(traceback.format_exception(error))
        print(f"{name}: {kind}: {tally.broken[kind]}\n{shown[-3000:]}", file=sys.stderr, flush=True)


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

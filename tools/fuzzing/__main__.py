"""Damaged inputs for every parser of what comes from outside, and the promises that each of them keeps.

    python -m tools.fuzzing --parser message --minutes 5
    python -m tools.fuzzing --count 100000 --seed 7         # all parsers, so many inputs each

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
import json
import os
import random
import sys
from importlib.util import find_spec
from pathlib import Path

from tools.fuzzing.inputs import CORPUS
from tools.fuzzing.parsers import PARSERS
from tools.fuzzing.run import Budget, run_in_child


def main() -> int:
    """Fuzz one parser or all; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzzing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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

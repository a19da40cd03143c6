"""What is known about one engine of a bundle: its JSON sidecar in, checked values out, and back.

Knows nothing about how engines are built or run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle
from fbft_edge.errors import BundleError
from fbft_edge.plain_file import read_plain
from fbft_edge.strict_json import integer, json_from_bytes, members, number, text

_MAX_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One engine, as `engines/NAME.json` says.

    Attributes:
        name: Stem of the file, for example `tensorrt-rtx-fp16`.
        runtime: `openvino`, `tensorrt` or `tensorrt-rtx`.
        version: Of the runtime that built it.
        targets: What it runs on: processor architectures for OpenVINO, `sm_86` and the like for TensorRT.
        precision: `f32`, `bf16` or `fp16`.
        graph_sha256: Of the graph that it was built from.
        plan: File name of the compiled engine beside the sidecar; None where the runtime compiles the graph itself.
        batches: Least, best and most tiles a call; None when any number will do.
        build_s: Seconds that building took; None when nothing was built.
        memory_bytes: Device memory by purpose, as far as known.
        parity: Differences from the float32 reference, as `fbft_export.parity.Parity` has them, by where they
            were found: `emulated` (the engine's arithmetic on the CPU) or `device`.
    """

    name: str
    runtime: str
    version: str
    targets: tuple[str, ...]
    precision: str
    graph_sha256: str
    plan: str | None = None
    batches: tuple[int, int, int] | None = None
    build_s: float | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    parity: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Where it lies in the bundle."""
        return f"{ENGINES}/{self.name}.json"

    @property
    def plan_file(self) -> str | None:
        """Where its compiled engine lies in the bundle; None where the runtime compiles the graph itself."""
        return None if self.plan is None else f"{ENGINES}/{self.plan}"

    def is_current(self, bundle: Bundle) -> bool:
        """True when the bundle's graph is still the one that the engine was built from."""
        return self.graph_sha256 == bundle.files.get(GRAPH)


def sidecars(bundle: Bundle) -> list[Sidecar]:
    """Every engine of a bundle, by name; stale ones too.

    Raises:
        BundleError: A sidecar is not what `write_sidecar` writes.
    """
    prefix = f"{ENGINES}/"
    names = sorted(name for name in bundle.files if name.startswith(prefix) and name.endswith(".json"))
    return [_read(bundle, name) for name in names]


def write_sidecar(draft: Bundle, sidecar: Sidecar) -> Bundle:
    """Write `engines/NAME.json`; returns the draft that vouches for it, to be sealed by the caller."""
    (draft.path / ENGINES).mkdir(exist_ok=True)
    contents = asdict(sidecar)
    del contents["name"]
    raw = (json.dumps(contents, indent=2, allow_nan=False) + "\n").encode()
    (draft.path / sidecar.file).write_bytes(raw)
    return replace(draft, files={**draft.files, sidecar.file: hashlib.sha256(raw).hexdigest()}, sha256="")


def _read(bundle: Bundle, name: str) -> Sidecar:
    path = bundle.file(name)
    try:
        return _from_contents(Path(name).stem, members(json_from_bytes(read_plain(path, _MAX_SIDECAR_BYTES))))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; run fbft-export again") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{path} is not a valid sidecar ({type(error).__name__}: {error!s:.200}); run fbft-export again"
        ) from error


def _from_contents(name: str, contents: dict[str, Any]) -> Sidecar:
    plan, batches, build_s = contents["plan"], contents["batches"], contents["build_s"]
    return Sidecar(
        name=name,
        runtime=text(contents["runtime"]),
        version=text(contents["version"]),
        targets=tuple(text(target) for target in _items(contents["targets"])),
        precision=text(contents["precision"]),
        graph_sha256=text(contents["graph_sha256"]),
        plan=None if plan is None else _file_name(plan),
        batches=None if batches is None else _batches(batches),
        build_s=None if build_s is None else number(build_s, 0, 1e9),
        memory_bytes={key: integer(value, 0, 1 << 60) for key, value in members(contents["memory_bytes"]).items()},
        parity={
            place: {key: number(value, 0, 1e30) for key, value in members(figures).items()}
            for place, figures in members(contents["parity"]).items()
        },
    )


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, found {value!r:.80}")
    return value


def _batches(value: Any) -> tuple[int, int, int]:
    least, best, most = (integer(batch, 1, 1 << 20) for batch in _items(value))
    return least, best, most


def _file_name(value: Any) -> str:
    name = text(value)
    if not name or Path(name).name != name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name

"""What is known about one engine of a bundle: its JSON sidecar in, typed and bounded values out, and back.

Knows nothing about how engines are built or run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle
from fbft_edge.errors import BundleError
from fbft_edge.plain_file import read_plain
from fbft_edge.strict_json import json_from_bytes, members, typed

_MAX_SIDECAR_BYTES = 1 << 20
_Batch = Annotated[int, Meta(ge=1, le=1 << 20)]
_Difference = Annotated[float, Meta(ge=0, le=1e30)]


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
    batches: tuple[_Batch, _Batch, _Batch] | None = None
    build_s: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    memory_bytes: Mapping[str, Annotated[int, Meta(ge=0, le=1 << 60)]] = field(default_factory=dict)
    parity: Mapping[str, Mapping[str, _Difference]] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """The runtime's version without what names its build."""
        return self.version.split("-")[0]

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
        return _from_contents(Path(name).stem, json_from_bytes(read_plain(path, _MAX_SIDECAR_BYTES)))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; run fbft-export again") from error
    except ValueError as error:
        raise BundleError(f"{path} is not a valid sidecar ({error!s:.200}); run fbft-export again") from error


def _from_contents(name: str, contents: Any) -> Sidecar:
    sidecar = typed({**members(contents), "name": name}, Sidecar)
    if missing := [member.name for member in fields(Sidecar) if member.name not in {*contents, "name"}]:
        raise ValueError(f"it lacks {missing[0]}")
    if sidecar.plan is not None and (not sidecar.plan or Path(sidecar.plan).name != sidecar.plan):
        raise ValueError(f"{sidecar.plan!r:.80} is not a plain file name")
    return sidecar

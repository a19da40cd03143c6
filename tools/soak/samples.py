"""What is asked of the line from outside: its memory, `/metrics`, its log, what it prints at its end.

Knows nothing of whether that is as it must be.
"""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


@dataclass
class Sample:
    """A process at one moment; memory in KiB."""

    pid: int
    elapsed_s: float
    rss_kib: int
    pss_kib: int | None
    threads: int
    files: int


def sampled(pid: int, elapsed_s: float, with_pss: bool) -> Sample:
    """Read a process from /proc.

    Raises:
        OSError: It is gone.
    """
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    if "VmRSS" not in status:
        raise ProcessLookupError(f"{pid} was killed")
    pss = re.search(r"^Pss:\s+(\d+)", (process / "smaps_rollup").read_text(), re.MULTILINE) if with_pss else None
    return Sample(
        pid,
        elapsed_s,
        int(status["VmRSS"].split()[0]),
        int(pss[1]) if pss else None,
        int(status["Threads"]),
        sum(1 for _ in (process / "fd").iterdir()),
    )


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of one page.

    Raises:
        OSError: Nobody answers.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def histograms(metrics: str) -> dict[str, dict[str, dict[str, float]]]:
    """Bounds of the 50th and 99th percentile and of the largest value in ms, by histogram and camera.

    A bound is the upper edge of the bucket that the quantile is in.
    """
    wanted = {"fbft_deviation_seconds": "deviation", "fbft_latency_seconds": "latency"}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name not in wanted:
            continue
        buckets: dict[str, list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                buckets.setdefault(sample.labels["camera"], []).append((float(sample.labels["le"]), sample.value))
        found[wanted[family.name]] = {camera: _quantiles_ms(counts) for camera, counts in buckets.items()}
    return found


def _quantiles_ms(buckets: list[tuple[float, float]]) -> dict[str, float]:
    total = max((count for _, count in buckets), default=0.0)
    return {
        name: 1e3 * next((bound for bound, count in sorted(buckets) if count >= fraction * total), float("nan"))
        for name, fraction in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def counters(metrics: str) -> dict[str, float]:
    """Every counter but those of histograms, by its name and labels."""
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(metrics)
        if family.type == "counter"
        for sample in family.samples
    }


def summaries(printed: str) -> dict[str, dict[str, Any]]:
    """What `fbft-edge run` prints at its end, by camera."""
    found = {}
    for block in re.split(r"^camera\s+", printed, flags=re.MULTILINE)[1:]:
        name, _, text = block.partition("\n")
        lines = dict(line.split(None, 1) for line in text.splitlines() if line.strip())
        counts = {key: int(value) for key, value in re.findall(r"([a-z_]+(?: flight)?) (\d+)", lines["frames"])}
        messages, elapsed = re.fullmatch(r"(\d+) in ([\d.]+) s", lines["messages"]).groups()  # type: ignore[union-attr]
        found[name.strip()] = {
            "messages": int(messages),
            "elapsed_s": float(elapsed),
            "ledger": counts,
            **{key: lines[key] for key in ("session", "inspected", "latency", "deviation", "priority")},
        }
    return found


def log_counts(path: Path) -> dict[str, int]:
    """Lines of the line's log by level, tracebacks and lines that are no JSON."""
    counts: Counter[str] = Counter()
    for text in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(text)
        except ValueError:
            counts["no JSON"] += 1
            continue
        counts[entry["level"]] += 1
        counts["traceback"] += "traceback" in entry
    return dict(counts)

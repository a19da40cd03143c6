"""Runs in; what each of them is, and what keeps their figures from being comparable, in words out.

Knows nothing about figures or pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fbft_calibration.benchmark.result import CategoryResult, Run, flat_settings
from fbft_edge.names import size_text

_NAMES_SHOWN = 3


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """All settings that were given."""
    return ", ".join(f"{name} {_value(value)}" for name, value in flat_settings(settings).items() if value is not None)


def origins(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """The name of each run, and how it was made; settings that all of ours share come first."""
    ours = [flat_settings(run.results[0].settings) for run in runs if not _is_peer(run.results[0])]
    shared = {name: value for name, value in ours[0].items() if all(_has(o, name, value) for o in ours)} if ours else {}
    differing = list(dict.fromkeys(name for settings in ours for name in settings if name not in shared))
    if len(ours) > 1:
        yield "all of fbft-edge", settings_in_words(shared)
    for run in runs:
        settings = flat_settings(run.results[0].settings)
        if _is_peer(run.results[0]):
            method = _peer(run.results[0])
        elif len(ours) > 1:
            method = _ours(run.results[0], ", ".join(_difference(settings, name) for name in differing))
        else:
            method = _ours(run.results[0], settings_in_words(settings))
        yield run.name, f"{method}; {_made(run)}"


def cautions(runs: Sequence[Run]) -> list[str]:
    """A line for whatever keeps figures from being comparable."""
    lines = [f"{run.name}: {line}" for run in runs for line in mixed(run.results)]
    by_machines: dict[str, list[str]] = {}
    for name in every_category(runs):
        found = {run.name: result for run in runs if (result := run.find(name))}
        if not are_of_same_files(list(found.values())):
            lines.append(
                f"{name}: not measured on the same files, so nothing is bold that it counts for: {_files(found)}"
            )
        machines = _grouped((run, _machine(result)) for run, result in found.items())
        if len(machines) > 1:
            by_machines.setdefault(_in_words(machines), []).append(name)
    lines += [
        f"{', '.join(names)}: not measured on the same machine, so seconds and memory do not compare: {machines}"
        for machines, names in by_machines.items()
    ]
    return lines


def mixed(results: Sequence[CategoryResult]) -> list[str]:
    """A line for whatever is not the same in all results of one run, so that their mean is of no one thing."""
    facts = {result.category: _facts(result) for result in results}
    groups = {
        kind: _grouped((category, str(own.get(kind, "not recorded"))) for category, own in facts.items())
        for kind in dict.fromkeys(kind for own in facts.values() for kind in own)
    }
    return [
        f"not all categories were measured with the same {kind}, so their mean is of no one thing: {_in_words(found)}"
        for kind, found in groups.items()
        if len(found) > 1
    ]


def are_of_same_files(results: Sequence[CategoryResult]) -> bool:
    """Whether results of one category may be held against each other."""
    return len({result.data_sha256 for result in results}) < 2


def every_category(runs: Sequence[Run]) -> list[str]:
    """Names of the categories that any of the runs has."""
    return sorted({result.category for run in runs for result in run.results})


def images_in_words(result: CategoryResult) -> str:
    """How many images and masks decide."""
    counts = result.counts
    return (
        f"{counts['nominal']} good images to fit on, {counts['test_nominal']} good and {counts['test_defective']} "
        f"defective test images, {counts['masks']} masks"
    )


def _is_peer(result: CategoryResult) -> bool:
    return "model" in result.bundle


def _ours(result: CategoryResult, settings: str) -> str:
    teacher, versions = result.bundle["teacher"], result.provenance["versions"]
    blocks = " and ".join(map(str, teacher["blocks"]))
    return "; ".join(
        filter(
            None,
            (
                f"fbft-edge {versions['fbft-edge']}, OpenVINO {versions['openvino']} in {result.bundle['precision']}",
                f"{teacher['name']}, blocks {blocks}",
                settings,
            ),
        )
    )


def _peer(result: CategoryResult) -> str:
    said = result.bundle
    size = size_text(said["image_size"])
    parts = (f"{said['model']} of {said['library']}", f"{said['weights']}", f"at {size}", f"{said['remarks']}")
    return "; ".join(filter(None, parts))


def _made(run: Run) -> str:
    """When, at which commit, and how long fitting took in all."""
    days = sorted({result.provenance["created"][:10] for result in run.results})
    commits = dict.fromkeys(str(result.provenance["commit"] or "not recorded") for result in run.results)
    fit_s = sum(result.seconds["fit"] or 0 for result in run.results)
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    return f"{when}, commit {' and '.join(commits)}; fitted in {fit_s:.0f} s in all"


def _has(settings: Mapping[str, Any], name: str, value: object) -> bool:
    return name in settings and settings[name] == value


def _difference(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return f"{name} not recorded"
    return f"{name} not set" if settings[name] is None else f"{name} {_value(settings[name])}"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _facts(result: CategoryResult) -> dict[str, object]:
    """All that decides figures or seconds beyond settings and files, by what it is."""
    provenance = result.provenance
    versions = {f"{name} version": version for name, version in (provenance.get("versions") or {}).items()}
    precision = result.bundle.get("precision")
    return {"commit": provenance.get("commit"), **versions, "machine": _machine(result), "precision": precision}


def _machine(result: CategoryResult) -> str:
    return ", ".join(f"{name} {value}" for name, value in result.provenance["machine"].items())


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by what is said of them."""
    groups: dict[str, list[str]] = {}
    for name, said in pairs:
        groups.setdefault(said, []).append(name)
    return groups


def _in_words(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{said} ({', '.join(names)})" for said, names in groups.items())


def _files(found: Mapping[str, CategoryResult]) -> str:
    """What differs, as far as results tell: numbers of images, else names of test images, else what is in files."""
    numbers = _grouped((run, images_in_words(result)) for run, result in found.items())
    if len(numbers) > 1:
        return _in_words(numbers)
    names: list[set[str]] = [
        {image.file.removeprefix(f"{one.category}/") for image in one.images} for one in found.values()
    ]
    others = sorted(set().union(*names) - names[0].intersection(*names))
    if others:
        more = ", ..." if len(others) > _NAMES_SHOWN else ""
        return f"{len(others)} test images are not in all runs ({', '.join(others[:_NAMES_SHOWN])}{more})"
    digests = _grouped((run, result.data_sha256[:12]) for run, result in found.items())
    return (
        "test images have the same names, so good images or what is in the files differ, or versions of fbft-edge "
        f"that know files again in other ways: {_in_words(digests)}"
    )

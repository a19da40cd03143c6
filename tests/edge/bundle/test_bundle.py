"""A bundle is what it was when it was sealed, or it is refused; nothing else ever happens."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.nominal_statistics import Reference
from fbft_edge.bundle.notes import NominalScores, Notes, Units, notes_to_json
from fbft_edge.bundle.reading import (
    ENGINES,
    GRAPH,
    MANIFEST,
    REPORT,
    SIGNATURE,
    STUDENTS,
    Bundle,
    TeacherIdentity,
    Thresholds,
    open_bundle,
)
from fbft_edge.bundle.sealing import building, removed, revising, seal_bundle, sign_bundle, written
from fbft_edge.bundle.signing import write_signing_keys
from fbft_edge.cli.main import main
from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.frames.statistics import Look
from fbft_edge.plain_file import file_sha256

ON_THE_SAME_FOLDER = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sealed(path: Path) -> Bundle:
    """A bundle whose files are a few bytes each: sealing and opening never look inside."""
    (path / ENGINES).mkdir(parents=True)
    for name in (GRAPH, STUDENTS, REPORT, f"{ENGINES}/openvino-f32.json"):
        (path / name).write_bytes(f"contents of {name}".encode())
    return seal_bundle(
        Bundle(
            path=path,
            product="bracket",
            created="2025-01-31T12:00:00+00:00",
            teacher=TeacherIdentity("dinov2-small-offline", "ab" * 32, 384, (5, 8)),
            tile=TileGeometry(112, 14, 2, 0.5),
            frame_sizes=((140, 182), (64, 64)),
            thresholds=Thresholds(0.5, 0.75, 0.01, 0.02, 0.05, 49, outline=0.3),
            notes=Notes(units=Units(0.25, 0.5), others={"of a newer version": [1, {"a": None}]}),
        )
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return sealed(tmp_path / "bracket.fbft")


@pytest.fixture
def manifest(bundle: Bundle) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((bundle.path / MANIFEST).read_text())
    return contents


def rewrite(bundle: Bundle, contents: object) -> None:
    (bundle.path / MANIFEST).write_text(json.dumps(contents))


def paths_in(contents: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    keys = contents.keys() if isinstance(contents, dict) else range(len(contents)) if isinstance(contents, list) else ()
    for key in keys:
        yield (*at, key)
        yield from paths_in(contents[key], (*at, key))  # type: ignore[index]


def with_value(contents: Any, at: tuple[Any, ...], value: object) -> Any:
    changed = copy.deepcopy(contents)
    place = changed
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return changed


# What was sealed is what is read


def test_a_sealed_bundle_reads_back_equal(bundle: Bundle) -> None:
    assert open_bundle(bundle.path) == bundle


def test_a_real_bundle_survives_being_copied(small_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(small_bundle.path, tmp_path / "copy.fbft")
    assert open_bundle(tmp_path / "copy.fbft") == dataclasses.replace(small_bundle, path=tmp_path / "copy.fbft")


def test_a_real_bundle_holds_every_file_of_the_contract(small_bundle: Bundle) -> None:
    assert {GRAPH, STUDENTS, REPORT} <= small_bundle.files.keys()


def test_the_name_of_a_bundle_is_the_hash_of_its_manifest(bundle: Bundle) -> None:
    assert bundle.sha256 == file_sha256(bundle.path / MANIFEST)


def test_sealing_again_changes_nothing(bundle: Bundle) -> None:
    assert seal_bundle(bundle) == bundle


def test_every_file_stands_in_the_manifest(bundle: Bundle) -> None:
    (bundle.path / "kernels" / "sm_87").mkdir(parents=True)
    (bundle.path / "kernels" / "sm_87" / "map.cubin").write_bytes(b"\x7fELF")
    found = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert seal_bundle(bundle).files.keys() == found - {MANIFEST}


@pytest.mark.parametrize(
    "changed",
    [
        {"product": "bracket 2"},
        {"frame_sizes": ((140, 182),)},
        {"thresholds": None},
        {"thresholds": Thresholds(0.5, 0.75, 0.01, 0.02, 0.05, 50)},
        {"tile": TileGeometry(112, 14, 1, 0.5)},
        {"teacher": TeacherIdentity("dinov2-small-offline", "ac" * 32, 384, (5, 8))},
        {"notes": Notes()},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_content_is_another_name(bundle: Bundle, changed: dict[str, Any]) -> None:
    assert seal_bundle(dataclasses.replace(bundle, **changed)).sha256 != bundle.sha256


def test_another_file_is_another_name(bundle: Bundle) -> None:
    (bundle.path / GRAPH).write_bytes(b"another graph")
    assert seal_bundle(bundle).sha256 != bundle.sha256


# Notes


FITTED = Notes(
    fit_images_sha256=("ab" * 32, "cd" * 32),
    left_out=(("a.png", "too small"),),
    losses=((0, 1.5, 1.25), (50, 0.5, 0.75)),
    units=Units(0.25, 0.5),
    calibration=NominalScores((0.2, 0.3), (0.4, 0.5)),
    nominal_statistics={"level": Reference(9, 1, 20.0, 30.0, 40.0)},
    others={"of a newer version": [1, {"a": None}]},
)


def test_notes_are_read_back_as_they_were_written(bundle: Bundle) -> None:
    assert seal_bundle(dataclasses.replace(bundle, notes=FITTED)).notes == FITTED


def test_notes_keep_of_which_images_scores_are(bundle: Bundle) -> None:
    scores = NominalScores((0.2, 0.3), (0.4, 0.5), (0.1, 0.1), ("ef" * 32, "01" * 32))
    kept = seal_bundle(dataclasses.replace(bundle, notes=dataclasses.replace(FITTED, calibration=scores))).notes
    assert (kept.calibration, kept.calibration.can_be_added_to) == (scores, True)
    assert not FITTED.calibration.can_be_added_to


@pytest.mark.parametrize("column", ["ordinary", "images_sha256"])
def test_scores_of_other_images_than_are_named_are_refused(
    bundle: Bundle, manifest: dict[str, Any], column: str
) -> None:
    notes = notes_to_json(FITTED)
    notes["calibration"][column] = {"ordinary": [0.1], "images_sha256": ["ef" * 32]}[column]
    rewrite(bundle, manifest | {"notes": notes})
    with pytest.raises(BundleError, match="not as many scores as images"):
        open_bundle(bundle.path)


def test_notes_have_the_members_that_they_always_had(bundle: Bundle) -> None:
    seal_bundle(dataclasses.replace(bundle, notes=dataclasses.replace(FITTED, left_out=(), others={})))
    assert json.loads((bundle.path / MANIFEST).read_text())["notes"] == {
        "fit_images_sha256": ["ab" * 32, "cd" * 32],
        "left_out": [],
        "losses": [[0, 1.5, 1.25], [50, 0.5, 0.75]],
        "units": {"score": 0.25, "peak": 0.5},
        "calibration": {"score": [0.2, 0.3], "peak": [0.4, 0.5]},
        "nominal_statistics": {"level": {"images": 9, "rank": 1, "low": 20.0, "median": 30.0, "high": 40.0}},
    }


@pytest.mark.parametrize("missing", ["left_out", "losses", "units", "calibration", "nominal_statistics"])
def test_notes_from_before_a_member_are_read(bundle: Bundle, manifest: dict[str, Any], missing: str) -> None:
    notes = notes_to_json(FITTED)
    del notes[missing]
    rewrite(bundle, manifest | {"notes": notes})
    assert getattr(open_bundle(bundle.path).notes, missing) == getattr(Notes(), missing)


def look_of(bundle: Bundle, **statistics: tuple[float, float]) -> Look:
    """What a bundle that is read back knows of its nominal images, of which each statistic goes from one to another."""
    references = {name: Reference(9, 1, low, high, high) for name, (low, high) in statistics.items()}
    return seal_bundle(dataclasses.replace(bundle, notes=Notes(nominal_statistics=references))).notes.look


@pytest.mark.parametrize(("range_of_colour", "has_colour"), [((0, 0), False), ((1, 1), True), ((0, 1), None)])
def test_a_bundle_knows_whether_its_nominal_images_have_colour(
    bundle: Bundle, range_of_colour: tuple[float, float], has_colour: bool | None
) -> None:
    assert look_of(bundle, colour=range_of_colour).has_colour is has_colour


def test_a_bundle_knows_whether_its_nominal_images_are_black_or_white(bundle: Bundle) -> None:
    look = look_of(bundle, black=(0.5, 0.985), white=(0.0, 0.9))
    assert (look.may_be_black, look.may_be_white) == (True, False)


def test_a_bundle_from_before_the_look_was_kept_knows_none(bundle: Bundle) -> None:
    assert seal_bundle(dataclasses.replace(bundle, notes=FITTED)).notes.look == Look()


# Sealing is all or nothing


def test_sealing_leaves_no_partial_file(bundle: Bundle) -> None:
    assert not list(bundle.path.glob("*.partial"))


def test_what_cannot_be_sealed_leaves_the_old_manifest(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="JSON"):
        seal_bundle(dataclasses.replace(bundle, notes=Notes(others={"loss": float("nan")})))
    assert open_bundle(bundle.path) == bundle


def test_a_leftover_of_an_interrupted_seal_does_no_harm(bundle: Bundle) -> None:
    (bundle.path / f"{MANIFEST}.partial").write_bytes(b"{")
    seal_bundle(bundle)
    assert open_bundle(bundle.path) == bundle


# A draft vouches for what was written in it


def test_a_draft_reads_what_was_written_in_it(bundle: Bundle) -> None:
    (bundle.path / "new.bin").write_bytes(b"new")
    draft = written(bundle, "new.bin")
    assert (draft.read("new.bin"), draft.sha256, seal_bundle(draft).files) == (b"new", "", draft.files)


def test_a_draft_does_not_read_what_was_altered_since_it_was_written(bundle: Bundle) -> None:
    (bundle.path / "new.bin").write_bytes(b"new")
    draft = written(bundle, "new.bin")
    (bundle.path / "new.bin").write_bytes(b"now")
    with pytest.raises(BundleError, match="was altered"):
        draft.read("new.bin")


def test_what_was_removed_from_a_draft_is_gone(bundle: Bundle) -> None:
    name = next(iter(bundle.files))
    draft = removed(bundle, name)
    assert (name in draft.files, (draft.path / name).exists(), seal_bundle(draft).files) == (False, False, draft.files)


# Building and revising are all or nothing, too


def files_beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_revised_bundle_takes_the_place_of_the_old_one(bundle: Bundle) -> None:
    with revising(bundle) as copy:
        (copy.path / GRAPH).write_bytes(b"another graph")
        assert open_bundle(bundle.path) == bundle
        seal_bundle(copy)
    revised = open_bundle(bundle.path)
    assert (revised.file(GRAPH).read_bytes(), revised.file(STUDENTS).read_bytes()) == (
        b"another graph",
        b"contents of students.safetensors",
    )
    assert files_beside(bundle.path) == [bundle.path.name]


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_a_revision_that_fails_leaves_the_bundle_and_nothing_else(bundle: Bundle, error: BaseException) -> None:
    def revise() -> None:
        with revising(bundle) as copy:
            (copy.path / GRAPH).unlink()
            raise error

    with pytest.raises(type(error)):
        revise()
    assert open_bundle(bundle.path) == bundle
    assert files_beside(bundle.path) == [bundle.path.name]


def revise(bundle: Bundle) -> None:
    with revising(bundle) as copy:
        seal_bundle(dataclasses.replace(copy, product="revised"))


def test_a_revision_never_vouches_for_what_somebody_put_there(bundle: Bundle, tmp_path: Path) -> None:
    foreign = bundle.path / ENGINES / "foreign.plan"
    foreign.write_bytes(b"plan")
    with pytest.raises(BundleError, match=r"holds engines/foreign\.plan, which its bundle\.json does not list"):
        revise(bundle)
    foreign.unlink()
    (tmp_path / "secret").write_text("secret")
    (bundle.path / "x").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match="holds x, which"):
        revise(bundle)
    assert open_bundle(bundle.path) == bundle


def test_a_revision_never_vouches_for_what_was_altered_since_the_bundle_was_opened(bundle: Bundle) -> None:
    opened = open_bundle(bundle.path)
    (bundle.path / GRAPH).write_bytes(b"contents of modem.onnx")
    with pytest.raises(BundleError, match="was altered"):
        revise(opened)
    assert files_beside(bundle.path) == [bundle.path.name]


def test_a_bundle_behind_a_link_is_revised_where_it_is(bundle: Bundle, tmp_path: Path) -> None:
    link = tmp_path / "current.fbft"
    link.symlink_to(bundle.path)
    revise(open_bundle(link))
    assert link.is_symlink()
    assert open_bundle(link).product == open_bundle(bundle.path).product == "revised"


def test_a_line_that_reads_while_the_bundle_is_replaced_always_finds_a_whole_one(bundle: Bundle) -> None:
    found: list[str] = []

    def read(*_: object) -> None:
        try:
            found.append(open_bundle(bundle.path).product)
        except BundleError:
            found.append("none")

    with contextlib.ExitStack() as stack, revising(bundle) as copy:
        seal_bundle(dataclasses.replace(copy, product="revised"))
        stack.callback(sys.setprofile, sys.getprofile())
        sys.setprofile(read)  # at each step of the swap: whatever is called and returns
    steps = [product for product, _ in itertools.groupby(found)]
    assert steps == ["bracket", "revised"]


def test_a_new_bundle_may_be_built_where_no_folder_is(tmp_path: Path) -> None:
    out = tmp_path / "hall-3" / "press-1" / "new.fbft"
    with building(out) as partial:
        assert not out.exists()
        (partial / GRAPH).write_bytes(b"graph")
    assert [path.name for path in out.iterdir()] == [GRAPH]
    assert out.stat().st_mode & 0o777 == 0o755


# What was altered is refused


@pytest.mark.parametrize("name", [GRAPH, STUDENTS, REPORT, f"{ENGINES}/openvino-f32.json"])
def test_an_altered_file_is_refused(bundle: Bundle, name: str) -> None:
    data = bytearray((bundle.path / name).read_bytes())
    data[-1] ^= 1
    (bundle.path / name).write_bytes(bytes(data))
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", [GRAPH, f"{ENGINES}/openvino-f32.json"])
def test_a_missing_file_is_refused(bundle: Bundle, name: str) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        open_bundle(bundle.path)


def test_a_file_that_became_a_folder_is_refused(bundle: Bundle) -> None:
    (bundle.path / GRAPH).unlink()
    (bundle.path / GRAPH).mkdir()
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", ["extra.onnx", f"{ENGINES}/openvino-bf16.json", "kernels/sm_87.cubin"])
def test_a_file_that_the_manifest_does_not_list_is_never_handed_out(bundle: Bundle, name: str) -> None:
    (bundle.path / name).parent.mkdir(exist_ok=True)
    (bundle.path / name).write_bytes(b"extra")
    with pytest.raises(BundleError, match="has no"):
        open_bundle(bundle.path).file(name)


def test_a_file_that_the_manifest_does_not_list_is_not_handed_out(bundle: Bundle) -> None:
    (bundle.path / "extra.onnx").write_bytes(b"extra")
    with pytest.raises(BundleError, match=r"has no extra\.onnx"):
        bundle.file("extra.onnx")


def test_a_link_in_place_of_a_file_is_refused_even_with_the_same_contents(bundle: Bundle, tmp_path: Path) -> None:
    shutil.move(bundle.path / GRAPH, tmp_path / GRAPH)
    (bundle.path / GRAPH).symlink_to(tmp_path / GRAPH)
    with pytest.raises(BundleError, match="not a plain file"):
        open_bundle(bundle.path)


def test_a_link_in_place_of_a_folder_is_refused_even_with_the_same_contents(bundle: Bundle, tmp_path: Path) -> None:
    shutil.move(bundle.path / ENGINES, tmp_path / ENGINES)
    (bundle.path / ENGINES).symlink_to(tmp_path / ENGINES, target_is_directory=True)
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", ["../outside", "engines/../../outside", "{tmp_path}/outside", ".", "", "/", "..\0"])
def test_a_listed_path_never_leaves_the_bundle(
    bundle: Bundle, manifest: dict[str, Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    manifest["files"][name.format(tmp_path=tmp_path)] = file_sha256(tmp_path / "outside")
    rewrite(bundle, manifest)
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "\ud800", "model.onnx/x", "nul\0"])
def test_a_listed_path_that_no_file_can_have_is_refused(bundle: Bundle, manifest: dict[str, Any], name: str) -> None:
    manifest["files"][name] = "00" * 32
    rewrite(bundle, manifest)
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


def test_a_hash_is_verified_before_anything_is_parsed_from_the_file(bundle: Bundle, manifest: dict[str, Any]) -> None:
    manifest["files"][GRAPH] = manifest["files"][GRAPH].upper()
    rewrite(bundle, manifest)
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(bundle.path)


# A manifest that is not one


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schema": "fbft.bundle/1"}',
        b'{"schema": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        "empty",
        "zero",
        "not UTF-8",
        "open",
        "null",
        "list",
        "number",
        "text",
        "no keys",
        "deep",
        "deeper",
        "one",
        "big",
    ],
)
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, raw: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


def test_a_manifest_cut_short_anywhere_is_refused(bundle: Bundle) -> None:
    raw = (bundle.path / MANIFEST).read_bytes()
    for length in range(0, len(raw.rstrip()), 37):
        (bundle.path / MANIFEST).write_bytes(raw[:length])
        with pytest.raises(BundleError):
            open_bundle(bundle.path)


def test_an_enormous_manifest_is_refused_unread(bundle: Bundle) -> None:
    os.truncate(bundle.path / MANIFEST, 1 << 33)
    with pytest.raises(BundleError, match="at most"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("schema", ["fbft.bundle/2", "", None, 1, {}, []])
def test_another_schema_is_refused(bundle: Bundle, manifest: dict[str, Any], schema: object) -> None:
    rewrite(bundle, manifest | {"schema": schema})
    with pytest.raises(BundleError, match="schema"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", ["missing.fbft", "file.fbft", "empty.fbft"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.fbft").touch()
    (tmp_path / "empty.fbft").mkdir()
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(tmp_path / name)


MALFORMED = [
    (("teacher", "embed_dim"), "many"),
    (("teacher", "embed_dim"), None),
    (("teacher", "name"), ["a"]),
    (("teacher", "weights_sha256"), 5),
    (("teacher", "blocks"), "58"),
    (("teacher", "blocks"), [8, 5]),
    (("teacher", "blocks"), [5]),
    (("teacher",), {"name": "x"}),
    (("tile", "tile_px"), 113),
    (("tile", "tile_px"), 1e999),
    (("tile", "tile_px"), 112.5),
    (("tile", "patch_px"), 0),
    (("tile", "patch_px"), -14),
    (("tile", "overlap_patches"), 8),
    (("tile", "overlap_patches"), -1),
    (("tile", "scale"), float("nan")),
    (("tile", "scale"), 0),
    (("tile", "scale"), 1e999),
    (("frame_sizes",), [[140]]),
    (("frame_sizes",), [[0, -5]]),
    (("frame_sizes",), [["a", "b"]]),
    (("frame_sizes",), None),
    (("thresholds", "image"), float("nan")),
    (("thresholds", "pixel"), float("nan")),
    (("thresholds", "pixel"), float("inf")),
    (("thresholds", "image"), -1.0),
    (("thresholds", "num_images"), 1e999),
    (("thresholds", "image"), 10**400),
    (("thresholds", "upper_rate"), -(10**400)),
    (("thresholds", "requested_rate"), True),
    (("tile", "scale"), 10**400),
    (("thresholds",), {}),
    (("thresholds",), 5),
    (("notes",), "text"),
    (("notes",), None),
    (("notes", "units"), {"score": 0.25}),
    (("notes", "units"), {"score": 0.25, "peak": True}),
    (("notes", "fit_images_sha256"), ["g" * 64]),
    (("notes", "fit_images_sha256"), ["0" * 64 + "\n"]),
    (("notes", "left_out"), [["a.png"]]),
    (("notes", "losses"), [[0.5, 1, 1]]),
    (("notes", "calibration"), {"score": [0.5], "peak": []}),
    (("notes", "calibration"), {"score": ["0.5"], "peak": [1]}),
    (("files",), []),
    (("files",), None),
    (("files", GRAPH), None),
    (("product",), None),
    (("product",), {"a": 1}),
    (("created",), 5),
]


@pytest.mark.parametrize(("at", "value"), MALFORMED, ids=lambda part: str(part))
def test_a_value_that_makes_no_sense_is_refused(
    bundle: Bundle, manifest: dict[str, Any], at: tuple[str, ...], value: object
) -> None:
    rewrite(bundle, with_value(manifest, at, value))
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


@pytest.mark.parametrize(
    "key", ["schema", "product", "created", "teacher", "tile", "frame_sizes", "thresholds", "notes", "files"]
)
def test_a_manifest_without_one_of_its_keys_is_refused(bundle: Bundle, manifest: dict[str, Any], key: str) -> None:
    del manifest[key]
    rewrite(bundle, manifest)
    with pytest.raises(BundleError):
        open_bundle(bundle.path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@ON_THE_SAME_FOLDER
@given(st.data())
def test_any_value_anywhere_is_read_or_refused_with_a_bundle_error(
    bundle: Bundle, manifest: dict[str, Any], data: st.DataObject
) -> None:
    at = data.draw(st.sampled_from(list(paths_in(manifest))))
    rewrite(bundle, with_value(manifest, at, data.draw(JSON_VALUES)))
    with contextlib.suppress(BundleError):
        open_bundle(bundle.path)


@ON_THE_SAME_FOLDER
@given(st.data())
def test_damaged_bytes_are_read_or_refused_with_a_bundle_error(bundle: Bundle, data: st.DataObject) -> None:
    raw = bytearray((bundle.path / MANIFEST).read_bytes())
    start = data.draw(st.integers(0, len(raw)))
    damaged = raw[:start] + data.draw(st.binary(max_size=12)) + raw[start + data.draw(st.integers(0, 40)) :]
    (bundle.path / MANIFEST).write_bytes(bytes(damaged))
    try:
        with contextlib.suppress(BundleError):
            open_bundle(bundle.path)
    finally:
        (bundle.path / MANIFEST).write_bytes(bytes(raw))


# What lies in the place of a file is never waited for, and never followed


def become_fifo(path: Path) -> None:
    os.mkfifo(path)


def become_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def become_loop(path: Path) -> None:
    path.symlink_to(path.name)


def become_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("become", [become_fifo, become_device, become_loop, become_folder])
@pytest.mark.parametrize("name", [MANIFEST, GRAPH, f"{ENGINES}/openvino-f32.json"])
def test_what_is_no_regular_file_is_refused(bundle: Bundle, name: str, become: Callable[[Path], None]) -> None:
    (bundle.path / name).unlink()
    become(bundle.path / name)
    with pytest.raises(BundleError, match=r"cannot be read|not a plain file"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u202eb", "", "a" * 1001])
def test_a_listed_name_that_would_garble_a_message_is_refused(
    bundle: Bundle, manifest: dict[str, Any], name: str
) -> None:
    manifest["files"][name] = "00" * 32
    rewrite(bundle, manifest)
    with pytest.raises(BundleError) as refusal:
        open_bundle(bundle.path)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("digest", ["", "\u202e", "00" * 31, "0" * 65, "g" * 64, "00" * 32 + "\n"])
def test_a_listed_hash_that_is_none_is_refused(bundle: Bundle, manifest: dict[str, Any], digest: str) -> None:
    rewrite(bundle, with_value(manifest, ("files", GRAPH), digest))
    with pytest.raises(BundleError, match="not a SHA-256"):
        open_bundle(bundle.path)


def test_a_member_that_stands_twice_is_refused(bundle: Bundle) -> None:
    raw = (bundle.path / MANIFEST).read_text()
    (bundle.path / MANIFEST).write_text(raw.replace("{", '{"product": "another",', 1))
    with pytest.raises(BundleError, match="twice"):
        open_bundle(bundle.path)


# What is read is what was verified


def test_a_file_is_read_as_it_was_sealed(bundle: Bundle) -> None:
    assert open_bundle(bundle.path).read(GRAPH) == b"contents of model.onnx"


def test_a_file_that_is_altered_after_the_bundle_was_opened_is_not_read(bundle: Bundle) -> None:
    opened = open_bundle(bundle.path)
    (bundle.path / GRAPH).write_bytes(b"contents of modem.onnx")
    with pytest.raises(BundleError, match="was altered"):
        opened.read(GRAPH)


@pytest.mark.parametrize("become", [become_fifo, become_device, become_loop, become_folder])
def test_what_takes_the_place_of_a_file_after_the_bundle_was_opened_is_not_read(
    bundle: Bundle, become: Callable[[Path], None]
) -> None:
    opened = open_bundle(bundle.path)
    (bundle.path / GRAPH).unlink()
    become(bundle.path / GRAPH)
    with pytest.raises(BundleError):
        opened.read(GRAPH)


def test_a_file_that_the_manifest_does_not_list_is_not_read(bundle: Bundle) -> None:
    (bundle.path / "extra.onnx").write_bytes(b"extra")
    with pytest.raises(BundleError, match=r"has no extra\.onnx"):
        bundle.read("extra.onnx")


# Who released it


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Secret and public key of whoever releases bundles."""
    return write_signing_keys(tmp_path / "keys", "release")


@pytest.fixture
def stranger(tmp_path: Path) -> tuple[Path, Path]:
    return write_signing_keys(tmp_path / "keys", "stranger")


def test_a_signed_bundle_is_taken_by_those_who_trust_the_key(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle.path, keys[0])
    assert open_bundle(bundle.path, [keys[1]]) == bundle


def test_one_of_several_trusted_keys_is_enough(
    bundle: Bundle, keys: tuple[Path, Path], stranger: tuple[Path, Path]
) -> None:
    sign_bundle(bundle.path, keys[0])
    assert open_bundle(bundle.path, [stranger[1], keys[1]]) == bundle


def test_signing_changes_nothing_but_the_signature(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    assert sign_bundle(bundle.path, keys[0]) == bundle
    assert open_bundle(bundle.path) == bundle
    assert seal_bundle(bundle).files.keys() == bundle.files.keys()


def test_an_unsigned_bundle_says_how_to_sign_it(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match=r"is not signed.*fbft-edge sign"):
        open_bundle(bundle.path, [keys[1]])


def test_a_bundle_signed_by_another_key_is_refused_with_the_keys_that_are_trusted(
    bundle: Bundle, keys: tuple[Path, Path], stranger: tuple[Path, Path]
) -> None:
    sign_bundle(bundle.path, stranger[0])
    with pytest.raises(BundleError, match=r"release\.pub \([0-9a-f]{16}\).*another key"):
        open_bundle(bundle.path, [keys[1]])


def test_a_manifest_altered_after_signing_is_refused(
    bundle: Bundle, manifest: dict[str, Any], keys: tuple[Path, Path]
) -> None:
    sign_bundle(bundle.path, keys[0])
    rewrite(bundle, with_value(manifest, ("thresholds", "image"), 3.9))
    assert open_bundle(bundle.path).require_thresholds().image == 3.9
    with pytest.raises(BundleError, match="altered"):
        open_bundle(bundle.path, [keys[1]])


def test_even_a_space_after_signing_is_an_alteration(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle.path, keys[0])
    with (bundle.path / MANIFEST).open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match="altered"):
        open_bundle(bundle.path, [keys[1]])


def test_a_file_altered_after_signing_is_refused(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle.path, keys[0])
    (bundle.path / GRAPH).write_bytes(b"another graph")
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(bundle.path, [keys[1]])


def test_nothing_is_parsed_before_the_signature_is_verified(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle.path, keys[0])
    (bundle.path / MANIFEST).write_bytes(b"[" * 100_000)
    with pytest.raises(BundleError, match=r"is no signature of bundle\.json"):
        open_bundle(bundle.path, [keys[1]])


def test_a_signature_of_another_bundle_is_refused(bundle: Bundle, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = seal_bundle(dataclasses.replace(sealed(tmp_path / "other.fbft"), product="another"))
    sign_bundle(other.path, keys[0])
    shutil.copy(other.path / SIGNATURE, bundle.path / SIGNATURE)
    with pytest.raises(BundleError, match="is no signature"):
        open_bundle(bundle.path, [keys[1]])


@pytest.mark.parametrize("size", [0, 63, 65, 1 << 33])
def test_a_signature_of_another_size_is_refused(bundle: Bundle, keys: tuple[Path, Path], size: int) -> None:
    sign_bundle(bundle.path, keys[0])
    os.truncate(bundle.path / SIGNATURE, size)
    with pytest.raises(BundleError, match=rf"{size} bytes"):
        open_bundle(bundle.path, [keys[1]])


@pytest.mark.parametrize("become", [become_fifo, become_device, become_loop, become_folder])
def test_a_signature_that_is_no_regular_file_is_refused(
    bundle: Bundle, keys: tuple[Path, Path], become: Callable[[Path], None]
) -> None:
    become(bundle.path / SIGNATURE)
    with pytest.raises(BundleError, match="cannot be read"):
        open_bundle(bundle.path, [keys[1]])


def test_a_signature_is_of_no_interest_to_those_who_trust_nobody(bundle: Bundle) -> None:
    become_fifo(bundle.path / SIGNATURE)
    assert open_bundle(bundle.path) == bundle


def test_a_trusted_key_that_cannot_be_used_is_named_before_the_bundle_is_blamed(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"lost\.pub"):
        open_bundle(bundle.path, [tmp_path / "lost.pub"])


def test_an_altered_bundle_is_not_signed(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    (bundle.path / GRAPH).write_bytes(b"another graph")
    with pytest.raises(BundleError, match="was altered"):
        sign_bundle(bundle.path, keys[0])
    assert not (bundle.path / SIGNATURE).exists()


def test_signing_again_takes_the_place_of_the_old_signature(
    bundle: Bundle, keys: tuple[Path, Path], stranger: tuple[Path, Path]
) -> None:
    sign_bundle(bundle.path, stranger[0])
    sign_bundle(bundle.path, keys[0])
    assert open_bundle(bundle.path, [keys[1]]) == bundle
    assert not list(bundle.path.glob("*.partial"))


def test_sealing_the_same_again_keeps_the_signature(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle.path, keys[0])
    seal_bundle(bundle)
    assert open_bundle(bundle.path, [keys[1]]) == bundle


def test_a_revision_has_to_be_signed_anew(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    sign_bundle(bundle.path, keys[0])
    with revising(bundle) as copy:
        (copy.path / GRAPH).write_bytes(b"another graph")
        seal_bundle(copy)
    with pytest.raises(BundleError, match="is not signed"):
        open_bundle(bundle.path, [keys[1]])


def test_a_bundle_is_signed_and_verified_on_the_command_line(
    bundle: Bundle, keys: tuple[Path, Path], stranger: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, (secret, public) = str(bundle.path), map(str, keys)
    statuses = [
        main(["verify", path, "--key", public]),
        main(["sign", path, "--key", secret]),
        main(["verify", path, "--key", public]),
        main(["verify", path, "--key", str(stranger[1])]),
        main(["verify", path, "--key", str(stranger[1]), "--key", public]),
    ]
    assert statuses == [2, 0, 0, 2, 0]
    assert f"{len(bundle.files)} files whole; signed by a trusted key" in capsys.readouterr().out


# What the line asks of it


def test_a_bundle_without_thresholds_says_how_to_get_them(bundle: Bundle) -> None:
    uncalibrated = seal_bundle(dataclasses.replace(bundle, thresholds=None))
    with pytest.raises(BundleError, match="fbft-calibrate threshold"):
        open_bundle(uncalibrated.path).require_thresholds()


def test_frames_that_no_message_holds_are_refused_by_a_bundle_of_any_size(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"has 64x16385 pixels .* at most 16384 a side"):
        dataclasses.replace(bundle, frame_sizes=()).require_frame_size(16385, 64, "camera 0")


@pytest.mark.parametrize("size", [(182, 140), (140, 181), (1, 1)])
def test_frames_of_another_size_are_refused_with_the_sizes(bundle: Bundle, size: tuple[int, int]) -> None:
    with pytest.raises(BundleError, match="182x140 or 64x64 pixels"):
        bundle.require_frame_size(*size, "camera 0")


@pytest.mark.parametrize("size", [(140, 182), (64, 64)])
def test_frames_of_a_fitted_size_are_accepted(bundle: Bundle, size: tuple[int, int]) -> None:
    assert bundle.require_frame_size(*size, "camera 0") is None

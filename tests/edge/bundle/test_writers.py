"""One program at a time changes a bundle; it is never gone, never falls back, and keeps whom it belongs to."""

from __future__ import annotations

import dataclasses
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from fbft_edge.bundle import folder_swap
from fbft_edge.bundle.reading import ENGINES, GRAPH, MANIFEST, SIGNATURE, Bundle, leftovers, open_bundle
from fbft_edge.bundle.sealing import building, open_to_change, revising, seal_bundle, sign_bundle
from fbft_edge.bundle.signing import write_signing_keys
from fbft_edge.cli.main import main
from fbft_edge.errors import ArgumentError, BundleError

BrightBundle = Callable[..., Bundle]

_RENAMED: list[str] = []


def _note_rename(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.rename":
        _RENAMED.append(str(arguments[0]))


sys.addaudithook(_note_rename)


@pytest.fixture
def bundle(bright_bundle: BrightBundle, tmp_path: Path) -> Bundle:
    return bright_bundle(path=tmp_path / "part.fbft")


def named(bundle: Bundle, product: str) -> None:
    """A revision with another product."""
    with revising(bundle) as draft:
        seal_bundle(dataclasses.replace(draft, product=product))


def beside(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.parent.iterdir())


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that cannot exchange two names."""
    monkeypatch.setattr(folder_swap, "_exchange", lambda one, other: False)


# Two at once


def test_who_comes_second_is_refused_and_told_who_came_first(bundle: Bundle) -> None:
    with revising(bundle) as draft:
        for change in (lambda: named(bundle, "second"), lambda: open_to_change(bundle.path)):
            with pytest.raises(ArgumentError, match=rf"being written by .*process {os.getpid()} on .*wait"):
                change()
        seal_bundle(dataclasses.replace(draft, product="first"))
    assert (open_bundle(bundle.path).product, beside(bundle)) == ("first", ["part.fbft"])


def test_two_makers_of_one_bundle_are_refused_and_of_two_in_one_folder_are_not(tmp_path: Path) -> None:
    with building(tmp_path / "a.fbft"), building(tmp_path / "b.fbft"):
        third = building(tmp_path / "a.fbft")
        with pytest.raises(ArgumentError, match=r"a\.fbft is being written"):
            third.__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fbft", "b.fbft"]


def test_a_bundle_is_not_signed_while_it_is_changed(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra signing")
    secret, _ = write_signing_keys(tmp_path / "keys", "release")
    with revising(bundle):
        assert main(["sign", str(bundle.path), "--key", str(secret)]) == 2
    assert "is being written by" in capsys.readouterr().err
    assert not (bundle.path / SIGNATURE).exists()


def test_a_lock_behind_a_link_is_the_bundles_own(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    link = tmp_path / "lines" / "current.fbft"
    link.symlink_to(bundle.path)
    with revising(open_bundle(link)), pytest.raises(ArgumentError, match="being written"):
        named(bundle, "second")


def test_a_bundle_that_changed_since_it_was_opened_is_not_put_back(bundle: Bundle) -> None:
    named(bundle, "newer")
    with pytest.raises(BundleError, match="changed by another program since it was opened; run this again"):
        named(bundle, "older")
    assert open_bundle(bundle.path).product == "newer"


def test_what_something_without_a_lock_changed_meanwhile_stays(bundle: Bundle) -> None:
    def long_work() -> None:
        with revising(bundle) as draft:
            seal_bundle(dataclasses.replace(draft, product="long work"))
            seal_bundle(dataclasses.replace(bundle, product="copied here by hand"))

    with pytest.raises(BundleError, match="was changed by another program while"):
        long_work()
    assert (open_bundle(bundle.path).product, beside(bundle)) == ("copied here by hand", ["part.fbft"])


def test_a_bundle_that_appeared_while_one_was_made_stays(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "new.fbft"
    with pytest.raises(BundleError, match="was changed by another program while"), building(out):
        bundle.path.rename(out)
    assert open_bundle(out).product == bundle.product


# Never gone


def test_a_revised_bundle_was_never_away(bundle: Bundle) -> None:
    named(bundle, "revised")
    assert open_bundle(bundle.path).product == "revised"
    assert str(bundle.path) not in _RENAMED


def test_where_two_names_cannot_be_exchanged_the_bundle_is_revised_too(bundle: Bundle, without_exchange: None) -> None:
    named(bundle, "revised")
    assert (open_bundle(bundle.path).product, beside(bundle)) == ("revised", ["part.fbft"])
    assert str(bundle.path) in _RENAMED


# What the killed leave

_REVISION = """
import os, signal, sys
from pathlib import Path
from fbft_edge.bundle import folder_swap
from fbft_edge.bundle.reading import open_bundle
from fbft_edge.bundle.sealing import revising, seal_bundle

out, moment = Path(sys.argv[1]), sys.argv[2]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

rename, folder_swap._exchange = Path.rename, lambda one, other: False

def renamed(self, target):
    if moment == "between" and Path(target) == out:
        die()
    return rename(self, target)

Path.rename = renamed
if moment == "after":
    folder_swap.shutil.rmtree = lambda *arguments, **options: die()
with revising(open_bundle(out)) as draft:
    if moment == "before":
        print("working", flush=True)
        signal.pause()
    seal_bundle(draft)
"""


def begin_revision(bundle: Bundle, moment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _REVISION, str(bundle.path), moment]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(bundle: Bundle, moment: str) -> None:
    """A revision that ends before, between or after its renames, on a file system that cannot exchange names."""
    with begin_revision(bundle, moment) as process:
        if moment == "before":
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert leftovers(bundle.path)


def test_another_process_that_changes_a_bundle_is_named(bundle: Bundle) -> None:
    with begin_revision(bundle, "before") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        with pytest.raises(ArgumentError, match=f"process {process.pid} on {os.uname().nodename}"):
            named(bundle, "second")
        process.kill()
    wait_until(lambda: process.poll() is not None)
    named(bundle, "second")
    assert open_bundle(bundle.path).product == "second"


def test_a_line_that_finds_no_bundle_is_told_where_it_is(bundle: Bundle) -> None:
    killed(bundle, "between")
    with pytest.raises(BundleError, match=r"was killed while it replaced it.*mv \S+\.old \S+part\.fbft"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_who_changes_a_bundle_next_puts_it_back_and_clears_the_rest_with_a_word(
    bundle: Bundle, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    killed(bundle, moment)
    found = open_to_change(bundle.path)
    assert (found, beside(bundle)) == (dataclasses.replace(bundle, sha256=found.sha256), ["part.fbft"])
    assert ("part.fbft is back" in caplog.text) is (moment == "between")
    assert "was left by a program that was killed, and is removed" in caplog.text


def test_a_folder_that_only_looks_like_a_leftover_stays(bundle: Bundle, tmp_path: Path) -> None:
    for name in (".part.fbft.backup-2026", ".other.fbft.0123abcd", "part.fbft.old"):
        (tmp_path / name).mkdir()
    named(bundle, "revised")
    assert beside(bundle) == [".other.fbft.0123abcd", ".part.fbft.backup-2026", "part.fbft", "part.fbft.old"]


# Whom it belongs to


def modes(bundle: Bundle) -> Iterator[tuple[str, str]]:
    for path in (bundle.path, *sorted(bundle.path.rglob("*"))):
        yield path.relative_to(bundle.path).as_posix(), oct(stat.S_IMODE(path.stat().st_mode))


def changed(bundle: Bundle) -> None:
    with revising(bundle) as draft:
        (draft.path / ENGINES).mkdir()
        (draft.path / ENGINES / "new.json").write_text("{}")
        (draft.path / GRAPH).unlink()
        (draft.path / GRAPH).write_bytes(b"another graph")
        seal_bundle(draft)


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_revision_keeps_modes_and_new_files_have_the_manifests(
    bundle: Bundle, exchanged: bool, request: pytest.FixtureRequest
) -> None:
    if not exchanged:
        request.getfixturevalue("without_exchange")
    for name, mode in (("", 0o2750), (MANIFEST, 0o640), (GRAPH, 0o600)):
        (bundle.path / name).chmod(mode)
    changed(bundle)
    assert dict(modes(bundle)) == {
        ".": "0o2750",
        MANIFEST: "0o640",
        ENGINES: "0o2750",
        f"{ENGINES}/new.json": "0o640",
        GRAPH: "0o600",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_revision_keeps_owner_and_group(bundle: Bundle) -> None:
    for path in (bundle.path, *bundle.path.rglob("*")):
        os.chown(path, 4711, 4712)
    changed(bundle)
    found = {(each.stat().st_uid, each.stat().st_gid) for each in (bundle.path, *bundle.path.rglob("*"))}
    assert found == {(4711, 4712)}


def test_sealing_and_signing_keep_the_manifests_mode(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra signing")
    (bundle.path / MANIFEST).chmod(0o640)
    seal_bundle(dataclasses.replace(bundle, product="sealed in its place"))
    sign_bundle(bundle.path, write_signing_keys(tmp_path / "keys", "release")[0])
    found = dict(modes(bundle))
    assert (found[MANIFEST], found[SIGNATURE]) == ("0o640", "0o640")


def test_a_new_bundle_is_as_open_as_the_umask_has_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with building(tmp_path / "new.fbft"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.fbft").stat().st_mode) == 0o750

"""Who works tells a `Progress`; a terminal shows bars that go away, anything else gets few lines."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import pytest
from rich.console import Console

from fbft_edge.cli import terminal
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.progress import SILENT, Progress


def shown_to(is_terminal: bool) -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return TerminalProgress(Console(file=out, force_terminal=is_terminal, width=80), at_once=True), out


@pytest.fixture(params=["silent", "log", "terminal"])
def progress(request: pytest.FixtureRequest) -> Progress:
    return SILENT if request.param == "silent" else shown_to(request.param == "terminal")[0]


def test_items_pass_as_they_are(progress: Progress) -> None:
    assert list(progress.track("abc", "letters")) == ["a", "b", "c"]


def test_works_within_works_pass_as_they_are(progress: Progress) -> None:
    pairs = [(outer, inner) for outer in progress.track("ab", "outer") for inner in progress.track("cd", "inner")]
    assert pairs == [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")]


def test_items_are_taken_when_they_are_asked_for(progress: Progress) -> None:
    taken: list[int] = []

    def noted() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    next(iter(progress.track(noted(), "numbers", 5)))
    assert taken == [0]


def test_a_log_gets_one_line_until_it_is_time_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LINE_EVERY_S", math.inf)
    progress, out = shown_to(is_terminal=False)
    for what in ("first", "second"):
        list(progress.track(range(9), what))
    assert out.getvalue() == "first: 1 of 9\n"


def test_short_work_is_not_told_to_a_log_that_need_not_know_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LINE_EVERY_S", math.inf)
    out = io.StringIO()
    found = list(TerminalProgress(Console(file=out)).track("abc", "letters"))
    assert (found, out.getvalue()) == (["a", "b", "c"], "")


def test_a_line_says_how_much_is_done_of_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LINE_EVERY_S", 0.0)
    progress, out = shown_to(is_terminal=False)
    list(progress.track(iter("ab"), "letters"))
    list(progress.track(iter("c"), "letters", 3))
    assert out.getvalue().splitlines() == ["letters: 1", "letters: 2", "letters: 1 of 3"]


def test_what_is_said_has_no_markup_and_is_not_broken() -> None:
    progress, out = shown_to(is_terminal=False)
    progress.say("[bold]" + 100 * "x", "caution")
    assert out.getvalue() == "[bold]" + 100 * "x" + "\n"


def test_a_bar_goes_away_at_the_end_and_when_work_is_left() -> None:
    for ends in (True, False):
        progress, out = shown_to(is_terminal=True)
        for _ in progress.track(range(3), "working"):
            if not ends:
                break
        shown, _, rest = out.getvalue().rpartition("working")
        assert (bool(shown), "\x1b[2K" in rest, "\x1b[?25h" in rest) == (True, True, True)

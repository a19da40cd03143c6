"""The page of public names is current and complete, and says that the rest is private."""

from __future__ import annotations

from importlib import import_module

import pytest

from tools import api_page


def test_the_page_is_what_the_sources_say() -> None:
    current = api_page.PAGE.read_text(encoding="utf-8") == api_page.page()
    assert current, "docs/api.md is not current; run python tools/api_page.py"


@pytest.mark.parametrize("package", api_page.SECTIONS)
def test_the_page_shows_every_public_name_once_and_no_other(package: str) -> None:
    assert sorted(api_page.shown(package)) == sorted(import_module(package).__all__) == sorted(api_page.homes(package))


def test_the_page_says_at_its_top_that_the_rest_is_private() -> None:
    assert "private by convention" in api_page.page().splitlines()[2]


def test_every_public_name_says_what_it_is() -> None:
    nodes = [
        api_page.definition(package, name).node for package in api_page.SECTIONS for name in api_page.shown(package)
    ]
    assert [node.name for node in nodes if not api_page.ast.get_docstring(node)] == []

"""What tests of the service share: messages as the pipeline would report them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from doubles import MessageSource


@pytest.fixture
def messages() -> Callable[[str], MessageSource]:
    """Makes a source of one camera's messages."""
    return MessageSource

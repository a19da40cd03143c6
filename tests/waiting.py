"""Waiting for something to come about: a look at it goes in, what was seen when it was so comes out.

Knows nothing about what is looked at. The deadline is for what will never come; no test is about how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 60.0
TURN_S = 0.005
_T = TypeVar("_T")


def wait_until(
    look: Callable[[], _T], what: str = "", is_there: Callable[[_T], object] = bool, timeout_s: float = DEADLINE_S
) -> _T:
    """Look again and again until what is seen is as it should be; returns that.

    Args:
        look: Says what there is now.
        what: What is waited for, in words, for the person who reads that it did not come.
        is_there: True of what is waited for.
        timeout_s: After so many seconds it is given up.

    Raises:
        AssertionError: It did not come; says what was seen last.
    """
    end_s = time.monotonic() + timeout_s
    while not is_there(seen := look()):
        if time.monotonic() > end_s:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what or 'it'}; seen last: {seen!r}")
        time.sleep(TURN_S)
    return seen

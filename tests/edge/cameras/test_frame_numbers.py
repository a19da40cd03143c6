"""Pictures that a camera numbered and that never came are counted, across the end of 16 bits, too."""

from __future__ import annotations

import pytest

from fbft_edge.cameras.frame_numbers import FrameNumbers


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([1, 2, 3, 4], 0),
        ([7, 8, 10, 11, 15], 4),
        ([65534, 65535, 1, 2], 0),
        ([65534, 2], 2),
        ([65535, 65536, 65540], 3),
        ([1 << 40, (1 << 40) + 3], 2),
        ([5000, 1, 2], 0),
        ([0, 0, 0], 0),
        ([3, 3, 4], 0),
        ([500, 0, 501, 0, 503], 1),
        ([65535, 0, 1], 0),
        ([42], 0),
        ([], 0),
    ],
)
def test_numbers_that_are_left_out_are_pictures_that_never_came(numbers: list[int], lost: int) -> None:
    camera = FrameNumbers()
    for number in numbers:
        camera.follow(number)
    assert camera.lost == lost

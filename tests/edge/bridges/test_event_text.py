"""What an OPC UA event tells a person is true: it names the threshold that was exceeded."""

from __future__ import annotations

import numpy as np
import pytest

from fbft_edge.bridges.opcua import event_text
from fbft_edge.frames.frame import MAX_REGIONS, DecidedBy, Detection, Frame, Region
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.messages.writing import MessageWriter, encode_detection


def result(decided_by: DecidedBy | None = "pixel", num_regions: int = 0, part_id: str | None = None) -> Result:
    frame = Frame("press-1", 19, 5, np.zeros((4, 4, 3), np.uint8))
    regions = (Region((0, 0, 1, 1), 1, 0.2, (0, 0)),) * num_regions
    found = Detection(0.1498, 0.2103, np.ones((4, 4), bool), regions, True, peak_xy=(3, 2), decided_by=decided_by)
    encoded = encode_detection(frame, found, part_id=part_id)
    writer = MessageWriter("hall-3", "press-1", 0.1846, "ab" * 32, pixel_threshold=0.2002)
    return decode_message(writer.write(encoded, encoded.verdict, 5, Ledger().snapshot(), Health("ok")))


@pytest.mark.parametrize(
    ("decided_by", "numbers"),
    [
        ("pixel", "peak 0.2103 above 0.2002 at (3, 2)"),
        (None, "score 0.1498 against 0.1846, peak 0.2103 above 0.2002 at (3, 2)"),
    ],
)
def test_an_event_never_calls_a_score_above_a_threshold_that_it_is_below(
    decided_by: DecidedBy | None, numbers: str
) -> None:
    assert event_text(result(decided_by)) == f"press-1: frame 19 is anomalous: {numbers}; 0 regions"


@pytest.mark.parametrize(
    ("num_regions", "words"),
    [(1, "; 1 region"), (2, "; 2 regions"), (MAX_REGIONS + 1, f"; at least {MAX_REGIONS} regions")],
)
def test_an_event_counts_no_fewer_regions_than_there_are(num_regions: int, words: str) -> None:
    assert event_text(result(num_regions=num_regions)).endswith(words)


def test_an_event_names_the_part() -> None:
    assert event_text(result(part_id="SN 4711")).startswith("press-1: frame 19 of part 'SN 4711' is anomalous: ")

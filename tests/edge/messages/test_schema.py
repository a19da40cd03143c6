"""Schema, page and definition of the header say the same, and what a detector finds comes through all of them."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from fbft_edge.detectors.judge import find_regions
from fbft_edge.errors import MessageError
from fbft_edge.frames.frame import MAX_REGIONS, Detection, Frame
from fbft_edge.messages.header import MAX_CAUSES, MAX_INTEGER, Header, Health
from fbft_edge.messages.ledger import DROP_CAUSES, LedgerSnapshot
from fbft_edge.messages.reading import (
    MAX_HEADER_BYTES,
    MAX_MASK_BYTES,
    MAX_PREVIEW_BYTES,
    MAX_TOPIC_BYTES,
    Result,
    decode_message,
)
from fbft_edge.messages.writing import MessageWriter, encode_detection
from fbft_edge.names import ID_PATTERN, MAX_REASON_LENGTH, MAX_SIDE_PX, NAME_PATTERN

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((files("fbft_edge.messages") / "result.schema.json").read_text())
PAGE = (ROOT / "docs" / "message.md").read_text(encoding="utf-8")
# What members say of each other, and words for people, no type can say.
BESIDE_TYPES = {"$schema", "$id", "$defs", "title", "description", "default", "allOf", "if", "then", "else"}


def plain(node: Any, root: Any) -> Any:
    """One form for all ways in which a schema can state types and bounds."""
    if isinstance(node, list):
        return [plain(each, root) for each in node]
    if not isinstance(node, dict):
        return node.replace("\\A", "^").replace("\\Z", "$") if isinstance(node, str) else node
    if "$ref" in node:
        referred = root["$defs"][node["$ref"].removeprefix("#/$defs/")]
        return plain({**referred, **{key: value for key, value in node.items() if key != "$ref"}}, root)
    found = {key: value for key, value in node.items() if key not in BESIDE_TYPES}
    if isinstance(types := found.get("type"), list):
        first, null = types
        return plain({"anyOf": [{**found, "type": first}, {"type": null}]}, root)
    if "const" in found:
        found["enum"] = [found.pop("const")]
    if "prefixItems" in found:
        (found["items"],) = {json.dumps(each): each for each in found.pop("prefixItems")}.values()
    for key in ("enum", "required"):
        if key in found:
            found[key] = sorted(found[key])
    if "properties" in found:
        members = {name: plain(member, root) for name, member in found.pop("properties").items()}
        return {**{key: plain(value, root) for key, value in found.items()}, "properties": members}
    return {key: plain(value, root) for key, value in found.items()}


def test_the_schema_states_the_types_and_bounds_of_the_definition() -> None:
    defined = msgspec.json.schema(Header)
    assert plain(SCHEMA, SCHEMA) == plain(defined, defined)


def test_the_words_of_the_schema_give_the_same_number_of_regions() -> None:
    words = SCHEMA["properties"]["regions"]["description"]
    assert re.findall(r"\d+", words) == [str(MAX_REGIONS)] * 2


def test_the_page_states_the_same_limits() -> None:
    table = PAGE.split("## Limits")[1].split("##")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if re.search(r"\| \d", line)]
    stated = {what.strip(): float(re.split("[ ;]", limit.strip())[0]) for what, limit in rows}
    assert stated == {
        "topic": MAX_TOPIC_BYTES,
        "header": MAX_HEADER_BYTES,
        "mask, deflated": MAX_MASK_BYTES,
        "preview": MAX_PREVIEW_BYTES,
        "`mask.height`, `mask.width`": MAX_SIDE_PX,
        "`regions`": MAX_REGIONS,
        "`health.reason`": MAX_REASON_LENGTH,
        "site, `camera`": longest(NAME_PATTERN),
        "`trigger_id`, `part_id`": longest(ID_PATTERN),
        "`ledger.dropped`": MAX_CAUSES,
        "a whole number": float(MAX_INTEGER),
        "any other number, or its opposite": 1e300,
    }


def test_a_part_id_is_as_long_as_the_page_says() -> None:
    part, trigger = (re.compile(SCHEMA["properties"][name]["pattern"]) for name in ("part_id", "trigger_id"))
    assert longest(part) == longest(trigger) == longest(ID_PATTERN)


def longest(pattern: re.Pattern[str]) -> int:
    return max(length for length in range(1000) if pattern.fullmatch("a" * length))


# More components than a header holds


@pytest.fixture(scope="module")
def crowded() -> tuple[Detection, Result, dict[str, Any]]:
    """A map with 400 components of different peaks: the detection, the message read back, its header."""
    anomaly_map = np.zeros((80, 80), np.float32)
    anomaly_map[::4, ::4] = np.random.default_rng(0).permutation(400).reshape(20, 20) + 1
    mask = anomaly_map > 0
    detection = Detection(1.0, 400.0, mask, find_regions(mask, anomaly_map), True)
    frame = Frame("press-1", 1, 5, np.zeros((80, 80, 3), np.uint8))
    encoded = encode_detection(frame, detection)
    ledger = LedgerSnapshot(1, 1, 0, 0, dict.fromkeys(DROP_CAUSES, 0), 0)
    parts = MessageWriter("hall-3", "press-1").write(encoded, encoded.verdict, 6, ledger, Health("ok"))
    return detection, decode_message(parts), json.loads(parts[1])


def test_of_more_components_the_message_has_those_with_the_largest_peaks(crowded: Any) -> None:
    _, result, _ = crowded
    assert [region.peak for region in result.regions] == [400.0 - index for index in range(MAX_REGIONS)]


def test_the_regions_that_a_detector_keeps_are_those_that_a_message_holds(crowded: Any) -> None:
    detection, result, _ = crowded
    assert result.regions == detection.regions


def test_the_mask_has_all_components(crowded: Any) -> None:
    detection, result, _ = crowded
    assert (int(result.mask.sum()), bool((result.mask == detection.mask).all())) == (400, True)


def test_a_full_header_is_valid_and_one_region_more_is_not(crowded: Any) -> None:
    _, _, header = crowded
    more = {**header, "regions": [*header["regions"], header["regions"][0]]}
    assert [Draft202012Validator(SCHEMA).is_valid(each) for each in (header, more)] == [True, False]


def test_a_reader_refuses_one_region_more(crowded: Any) -> None:
    _, _, header = crowded
    more = {**header, "regions": [*header["regions"], header["regions"][0]]}
    with pytest.raises(MessageError, match=str(MAX_REGIONS)):
        decode_message([b"fbft/hall-3/press-1/result", json.dumps(more).encode(), b""])

"""What is written is valid under the schema and reads back the same; what is hostile is a MessageError."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jsonschema import Draft202012Validator

from fbft_edge.detectors.judge import find_regions, image_score
from fbft_edge.errors import ArgumentError, MessageError
from fbft_edge.frames.frame import MAX_REGIONS, Detection, Frame, Region, Verdict
from fbft_edge.messages.header import Health, topic_for
from fbft_edge.messages.ledger import DROP_CAUSES, LedgerSnapshot
from fbft_edge.messages.reading import MAX_HEADER_BYTES, MAX_MASK_BYTES, Result, decode_mask, decode_message
from fbft_edge.messages.writing import MessageWriter, encode_bundle, encode_detection, encode_mask, encode_no_detection
from fbft_edge.names import printable

SCHEMA = json.loads((files("fbft_edge.messages") / "result.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
SHA256 = "0123456789abcdef" * 4
LEDGER = LedgerSnapshot(5, 2, 1, 0, dict.fromkeys(DROP_CAUSES, 1), 0)
OK = Health("ok")

finite = st.floats(-1e9, 1e9)
regions = st.builds(
    Region,
    box_xyxy=st.tuples(*[st.integers(0, 16384)] * 4),
    area_px=st.integers(1, 2**28),
    peak=finite,
    centroid_xy=st.tuples(finite, finite),
)
masks = arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20)))
detections = st.builds(
    Detection,
    score=finite,
    peak=finite,
    mask=masks,
    regions=st.lists(regions, max_size=4).map(tuple),
    is_anomalous=st.booleans(),
)


def frame(frame_id: int = 7, height: int = 12, width: int = 10) -> Frame:
    return Frame("press-1", frame_id, 1_790_000_000_123_456_789, np.full((height, width, 3), 90, np.uint8))


def detection(**changes: Any) -> Detection:
    mask = np.zeros((12, 10), bool)
    mask[3:5, 2:4] = True
    region = Region((2, 3, 4, 5), 4, 1.5, (2.5, 3.5))
    return replace(Detection(0.75, 1.5, mask, (region,), True), **changes)


def writer() -> MessageWriter:
    return MessageWriter("hall-3", "press-1", 0.5, SHA256)


def written(found: Detection | None = None, verdict: Verdict | None = None, health: Health = OK) -> list[bytes]:
    encoded = encode_detection(frame(), found or detection())
    return writer().write(encoded, verdict or encoded.verdict, 1_790_000_000_200_000_000, LEDGER, health)


def header_of(parts: list[bytes]) -> dict[str, Any]:
    return json.loads(parts[1])


def with_header(changes: dict[str, Any]) -> list[bytes]:
    parts = written()
    return [parts[0], json.dumps({**header_of(parts), **changes}).encode(), parts[2]]


# What is written


@given(detections, st.booleans())
def test_every_header_is_valid_under_the_schema(found: Detection, is_stale: bool) -> None:
    VALIDATOR.validate(header_of(written(found, Verdict.STALE if is_stale else None)))


@pytest.mark.parametrize("about", [None, frame()])
@pytest.mark.parametrize("health", [Health("fault", "camera: gone"), Health("fault", "inference: out of memory")])
def test_every_fault_header_is_valid_under_the_schema(about: Frame | None, health: Health) -> None:
    encoded = encode_no_detection(about, health.reason)
    VALIDATOR.validate(header_of(writer().write(encoded, Verdict.FAULT, 5, LEDGER, health)))


def test_a_stale_header_without_any_result_is_valid_under_the_schema() -> None:
    VALIDATOR.validate(header_of(writer().write(encode_no_detection(), Verdict.STALE, 5, LEDGER, OK)))


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_header_has_exactly_the_members_of_the_contract() -> None:
    later = {"trigger_id", "part_id", "pixel_threshold", "decided_by", "peak", "peak_xy"}
    assert set(header_of(written())) == set(SCHEMA["properties"]) == {*SCHEMA["required"], *later}


def test_the_topic_names_site_and_camera() -> None:
    assert written()[0] == b"fbft/hall-3/press-1/result" == topic_for("hall-3", "press-1").encode()


def test_a_message_without_preview_has_three_parts() -> None:
    assert len(written()) == 3


def test_sequence_counts_from_zero_within_a_session() -> None:
    session = writer()
    headers = [header_of(session.write(encode_no_detection(), Verdict.STALE, 5, LEDGER, OK)) for _ in range(3)]
    assert [(header["sequence"], header["session"]) for header in headers] == [
        (0, session.session),
        (1, session.session),
        (2, session.session),
    ]


def test_every_writer_is_a_session_of_its_own() -> None:
    assert writer().session != writer().session


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", "\u00fc", "a\n", "x" * 65, "../etc"])
def test_a_name_that_can_not_stand_in_a_topic_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="cannot stand in a topic"):
        MessageWriter(name, "press-1", 0.5, SHA256)
    with pytest.raises(ArgumentError, match="camera name"):
        MessageWriter("hall-3", name, 0.5, SHA256)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_never_reaches_a_message(number: float) -> None:
    with pytest.raises(ValueError, match="float"):
        encode_detection(frame(), detection(score=number))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_region_that_is_not_finite_never_reaches_a_message(number: float) -> None:
    with pytest.raises(ValueError, match="float"):
        encode_detection(frame(), detection(regions=(Region((0, 0, 1, 1), 1, number, (0.0, 0.0)),)))


def test_a_mask_too_large_for_a_message_is_refused() -> None:
    with pytest.raises(ValueError, match="16384"):
        encode_detection(frame(), detection(mask=np.zeros((1, 16385), bool)))


def test_only_the_first_thousand_regions_stand_in_the_header() -> None:
    many = tuple(Region((0, 0, 1, 1), 1, float(-index), (0.0, 0.0)) for index in range(MAX_REGIONS + 5))
    peaks = [region["peak"] for region in header_of(written(detection(regions=many)))["regions"]]
    assert peaks == [float(-index) for index in range(MAX_REGIONS)]


def test_the_largest_header_is_within_the_limit_of_a_reader() -> None:
    region = Region((16384,) * 4, 2**28, -1.2345678901234567e-300, (16383.123456789012,) * 2)
    assert len(written(detection(regions=(region,) * MAX_REGIONS))[1]) < MAX_HEADER_BYTES


def test_numpy_numbers_are_written_as_numbers() -> None:
    region = Region(tuple(np.arange(4, dtype=np.int32)), np.int64(4), np.float32(0.5), tuple(np.ones(2, np.float32)))
    header = header_of(written(detection(score=np.float32(0.5), regions=(region,))))
    assert (header["score"], header["regions"][0]["box_xyxy"]) == (0.5, [0, 1, 2, 3])


def test_the_preview_is_a_small_jpeg_of_the_frame() -> None:
    large = frame(height=900, width=1280)
    encoded = encode_detection(large, detection(mask=np.zeros((900, 1280), bool)), with_preview=True)
    preview = writer().write(encoded, Verdict.OK, 5, LEDGER, OK)[3]
    assert cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_COLOR).shape == (450, 640, 3)


@given(st.text(max_size=700))
def test_any_reason_can_be_made_printable(text: str) -> None:
    parts = writer().write(encode_no_detection(), Verdict.FAULT, 5, LEDGER, Health("fault", printable(text)))
    assert decode_message(parts).health.reason == printable(text)


def test_a_reason_keeps_to_one_line() -> None:
    assert printable("no\n frame\x1b[31m") == "no frame?[31m"


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200b", "\ufeff", "\ue000"])
def test_a_reason_holds_nothing_that_hides_or_turns_its_text(character: str) -> None:
    assert printable(f"Prüfung {character}gnp.exe") == "Prüfung ?gnp.exe"


# What is read back


@given(detections)
def test_a_message_reads_back_as_it_was_written(found: Detection) -> None:
    result = decode_message(written(found))
    assert (result.score, result.regions, result.verdict is Verdict.ANOMALOUS) == (
        found.score,
        found.regions,
        found.is_anomalous,
    )


@given(masks)
def test_a_mask_reads_back_as_it_was_written(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), *mask.shape), mask)


def test_the_mask_is_packed_as_its_document_says() -> None:
    mask = np.zeros((2, 10), bool)
    mask[0, 0] = mask[1, 9] = True
    assert zlib.decompress(encode_mask(mask)) == bytes([0b10000000, 0, 0, 0b01000000])


def test_constants_of_the_session_read_back() -> None:
    result = decode_message(written())
    assert (result.site, result.camera, result.image_threshold, result.bundle_sha256) == (
        "hall-3",
        "press-1",
        0.5,
        SHA256,
    )


def test_nanoseconds_read_back_to_the_last_digit() -> None:
    result = decode_message(written())
    assert (result.captured_ns, result.published_ns) == (1_790_000_000_123_456_789, 1_790_000_000_200_000_000)


def test_ledger_and_health_read_back() -> None:
    result = decode_message(written(health=Health("degraded", "no new result for 6 s")))
    assert (result.ledger, result.health) == (LEDGER, Health("degraded", "no new result for 6 s"))


def test_a_part_id_reads_back() -> None:
    encoded = encode_detection(frame(), detection(), part_id="SN 4711/a")
    fault = encode_no_detection(error="trigger: no frame", part_id="SN 4711/a")
    for result in (encoded, fault):
        health = Health("ok") if result is encoded else Health("fault", "trigger: no frame")
        parts = MessageWriter("site", "camera").write(result, result.verdict, 5, LEDGER, health)
        assert decode_message(parts).part_id == "SN 4711/a"
    assert decode_message(written()).part_id is None


@pytest.mark.parametrize("part_id", ["", "x" * 65, "a\n", "a\x00b", "\u00e9", "\u202e", 7, ["a"]])
def test_a_part_id_that_cannot_be_one_is_refused(part_id: Any) -> None:
    with pytest.raises(MessageError, match="part_id"):
        decode_message(with_header({"part_id": part_id}))


def test_a_trigger_id_reads_back() -> None:
    encoded = encode_detection(frame(), detection(), trigger_id="part 4711/a")
    parts = writer().write(encoded, encoded.verdict, 5, LEDGER, OK)
    VALIDATOR.validate(header_of(parts))
    assert (decode_message(parts).trigger_id, decode_message(written()).trigger_id) == ("part 4711/a", None)


@pytest.mark.parametrize("trigger_id", ["", "x" * 65, "a\n", "\u00e9", 7, ["a"]])
def test_a_trigger_id_that_is_none_is_refused(trigger_id: Any) -> None:
    with pytest.raises(MessageError, match="trigger_id"):
        decode_message(with_header({"trigger_id": trigger_id}))


def test_a_message_from_before_triggers_and_late_results_is_accepted() -> None:
    parts = written()
    header = header_of(parts)
    del header["trigger_id"], header["part_id"], header["ledger"]["dropped"]["too_late"]
    for name in ("missed_triggers", "lost", "refused"):
        del header["ledger"][name]
    for name in ("pixel_threshold", "decided_by", "peak", "peak_xy"):
        del header[name]
    VALIDATOR.validate(header)
    result = decode_message([parts[0], json.dumps(header).encode(), parts[2]])
    assert (result.trigger_id, result.part_id, result.ledger.missed_triggers) == (None, None, 0)
    assert (result.ledger.lost, result.ledger.refused) == (0, 0)
    assert "too_late" not in result.ledger.dropped
    assert (result.pixel_threshold, result.decided_by, result.peak, result.peak_xy) == (None,) * 4


def test_a_result_names_the_bundle_that_it_was_made_with_before_the_writers() -> None:
    encoded = encode_detection(frame(), detection(), bundle=encode_bundle(0.25, "cd" * 32))
    result = decode_message(writer().write(encoded, encoded.verdict, 5, LEDGER, OK))
    assert (result.image_threshold, result.bundle_sha256) == (0.25, "cd" * 32)


@pytest.mark.parametrize("decided_by", ["image", "pixel", "both"])
@pytest.mark.parametrize("said", [Verdict.ANOMALOUS, Verdict.STALE])
def test_why_a_frame_is_anomalous_reads_back(decided_by: Any, said: Verdict) -> None:
    encoded = encode_detection(frame(), detection(peak=1.25, peak_xy=(np.int64(3), 4), decided_by=decided_by))
    parts = MessageWriter("hall-3", "press-1", 0.5, SHA256, pixel_threshold=0.75).write(encoded, said, 5, LEDGER, OK)
    VALIDATOR.validate(header_of(parts))
    result = decode_message(parts)
    assert (result.pixel_threshold, result.decided_by, result.peak, result.peak_xy) == (0.75, decided_by, 1.25, (3, 4))


NOTHING = {"verdict": "stale", "score": None, "mask": None, "regions": [], "peak": None, "peak_xy": None}


@pytest.mark.parametrize(
    "contradiction",
    [
        {"verdict": "ok", "decided_by": "pixel"},
        {**NOTHING, "decided_by": "image"},
        {**NOTHING, "peak": 0.5},
        {**NOTHING, "peak_xy": [1, 2]},
    ],
)
def test_a_reason_without_anything_to_explain_is_refused(contradiction: dict[str, Any]) -> None:
    parts = with_header(contradiction)
    message = [parts[0], parts[1], b"" if "mask" in contradiction else parts[2]]
    assert not VALIDATOR.is_valid(header_of(message))
    with pytest.raises(MessageError, match="contradict each other"):
        decode_message(message)


def test_a_drop_cause_of_a_later_publisher_is_accepted() -> None:
    ledger = replace(LEDGER, dropped={**LEDGER.dropped, "too_dark": 2})
    parts = writer().write(encode_no_detection(), Verdict.STALE, 5, ledger, OK)
    VALIDATOR.validate(header_of(parts))
    assert decode_message(parts).ledger.dropped["too_dark"] == 2


# Sessions as a detector makes them, from a 64 px square to an 8192 px strip


SHAPES = [(1, 1), (7, 9), (64, 64), (63, 65), (64, 8192), (8192, 64)]


def detected(shape: tuple[int, int], seed: int) -> Detection:
    """What is found in a random map: nothing, a few specks or half of the frame."""
    random = np.random.default_rng(seed)
    anomaly_map = random.random(shape, np.float32)
    mask = anomaly_map > random.choice([0.5, 0.999, 1.0])
    return Detection(
        image_score(anomaly_map), float(anomaly_map.max()), mask, find_regions(mask, anomaly_map), bool(mask.any())
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_what_a_detector_finds_reads_back_to_the_last_bit(shape: tuple[int, int], seed: int) -> None:
    found = detected(shape, seed)
    result = decode_message(written(found))
    assert (result.score, result.regions) == (found.score, found.regions)
    np.testing.assert_array_equal(result.mask, found.mask)
    VALIDATOR.validate(header_of(written(found)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_mask_is_read_as_the_documentation_reads_it(shape: tuple[int, int], seed: int) -> None:
    found = detected(shape, seed)
    parts = written(found)
    height, width = (header_of(parts)["mask"][side] for side in ("height", "width"))
    rows = np.frombuffer(zlib.decompress(parts[2]), np.uint8).reshape(height, -1)
    np.testing.assert_array_equal(np.unpackbits(rows, axis=1)[:, :width].astype(bool), found.mask)
    # And bit by bit, as the schema's author tells another language.
    for y, x in np.random.default_rng(seed).integers(0, shape, (50, 2)).tolist():
        assert bool(rows[y, x // 8] >> 7 - x % 8 & 1) == found.mask[y, x]


@pytest.mark.parametrize("seed", range(8))
def test_a_session_of_random_messages_reads_back_in_order(seed: int) -> None:
    random, session, expected = np.random.default_rng(seed), writer(), []
    read = []
    for number in range(60):
        kind = random.choice(["fresh", "stale", "inference fault", "camera fault", "nothing yet"])
        found = detected((int(random.integers(1, 40)), int(random.integers(1, 40))), int(random.integers(1 << 30)))
        about = frame(frame_id=int(random.integers(0, 2**63)))
        encoded = encode_detection(about, found) if kind in ("fresh", "stale") else encode_no_detection()
        if kind == "inference fault":
            encoded = encode_no_detection(about, "out of memory")
        verdict = {"fresh": encoded.verdict, "stale": Verdict.STALE, "nothing yet": Verdict.STALE}.get(
            kind, Verdict.FAULT
        )
        health = Health("fault", kind) if verdict is Verdict.FAULT else OK
        read.append(decode_message(session.write(encoded, verdict, 10**18 + number, LEDGER, health)))
        has_frame = kind in ("fresh", "stale", "inference fault")
        expected.append((number, verdict, about.frame_id if has_frame else None, 10**18 + number, health))
    assert [(each.sequence, each.verdict, each.frame_id, each.published_ns, each.health) for each in read] == expected
    assert {each.session for each in read} == {session.session}


def test_the_largest_mask_of_pure_noise_is_within_the_limit_of_a_reader() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1024, 16384), np.uint8).view(bool)
    # A sixteenth of the largest mask: what deflating adds grows with the size.
    assert 16 * len(encode_mask(noise)) <= MAX_MASK_BYTES


@pytest.mark.parametrize("width", range(1, 18))
def test_the_bits_that_fill_up_a_row_are_zero(width: int) -> None:
    packed = zlib.decompress(encode_mask(np.ones((3, width), bool)))
    assert sum(byte.bit_count() for byte in packed) == 3 * width


@pytest.mark.parametrize("width", [1, 9, 15])
def test_a_mask_whose_rows_are_filled_up_with_ones_reads_back_the_same(width: int) -> None:
    rows = np.full((4, -(-width // 8)), 0xFF, np.uint8)
    mask = decode_mask(zlib.compress(rows.tobytes()), 4, width)
    assert (mask.shape, bool(mask.all())) == ((4, width), True)


def test_a_mask_belongs_to_its_result_and_may_be_written_to() -> None:
    result = decode_message(written())
    result.mask[:] = True
    assert result.mask.all()


def test_a_broken_mask_is_an_error_when_it_is_asked_for_and_not_before() -> None:
    result = decode_message([*written()[:2], b"no mask"])
    assert result.verdict is Verdict.ANOMALOUS
    with pytest.raises(MessageError, match="zlib"):
        _ = result.mask


def test_a_result_without_pictures_says_the_same_and_holds_none() -> None:
    result = decode_message([*written(), b"preview"])
    bare = result.without_pictures()
    assert (result.preview_jpeg, bare.preview_jpeg, bare.mask) == (b"preview", None, None)
    assert (bare.verdict, bare.score, bare.regions) == (result.verdict, result.score, result.regions)


def test_a_result_whose_age_is_not_known_is_never_good() -> None:
    encoded = encode_detection(frame(), detection(regions=(), is_anomalous=False))
    result = decode_message(writer().write(encoded, Verdict.OK, 5, LEDGER, OK))
    assert (result.age_s, result.is_current, result.is_good) == (float("inf"), False, False)


@pytest.mark.parametrize("shape", [(64, 8192), (8192, 64), (1, 1), (639, 641), (3, 5000)])
def test_a_preview_of_any_shape_is_a_picture_no_wider_than_640(shape: tuple[int, int]) -> None:
    large = frame(height=shape[0], width=shape[1])
    encoded = encode_detection(large, detection(mask=np.zeros(shape, bool), regions=()), with_preview=True)
    preview = decode_message(writer().write(encoded, encoded.verdict, 5, LEDGER, OK)).preview_jpeg
    height, width = cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert width == min(shape[1], 640)
    assert height == max(1, round(shape[0] * width / shape[1]))


# What is hostile


def is_refused(parts: list[bytes]) -> bool:
    """True when parts or mask are refused as they should be; anything but MessageError comes through."""
    try:
        _ = decode_message(parts).mask
    except MessageError:
        return True
    return False


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_random_parts_raise_only_message_errors(parts: list[bytes]) -> None:
    assert is_refused(parts)


@given(st.binary(max_size=200))
def test_a_random_header_raises_only_message_errors(header: bytes) -> None:
    assert is_refused([written()[0], header, written()[2]])


@given(st.binary(max_size=200))
def test_a_random_mask_raises_only_message_errors(mask: bytes) -> None:
    assert is_refused([*written()[:2], mask])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)


def replaced_somewhere(value: Any, path: list[int], replacement: Any) -> Any:
    """A copy of a JSON value in which the member that `path` leads to is another value."""
    if not path or not isinstance(value, dict | list) or not value:
        return replacement
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[path[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced_somewhere(value[key], path[1:], replacement)
    return copy


@settings(max_examples=300)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), json_values)
def test_a_header_altered_anywhere_is_refused_or_still_valid_under_the_schema(path: list[int], value: Any) -> None:
    parts = written()
    altered = replaced_somewhere(header_of(parts), path, value)
    if not is_refused([parts[0], json.dumps(altered).encode(), parts[2]]):
        VALIDATOR.validate(altered)


@given(st.integers(0, 2000), st.integers(0, 255), st.integers(1, 2))
def test_a_flipped_byte_raises_only_message_errors(position: int, byte: int, part: int) -> None:
    parts = written()
    altered = bytearray(parts[part])
    altered[position % len(altered)] = byte
    parts[part] = bytes(altered)
    is_refused(parts)


@given(st.integers(0, 3000), st.integers(0, 2))
def test_a_truncated_part_raises_only_message_errors(length: int, part: int) -> None:
    parts = written()
    parts[part] = parts[part][: length % len(parts[part])]
    assert is_refused(parts)


@pytest.mark.parametrize("num_parts", [0, 1, 2, 5])
def test_a_wrong_number_of_parts_is_refused(num_parts: int) -> None:
    with pytest.raises(MessageError, match=f"this one has {num_parts}"):
        decode_message([*written(), b"", b""][:num_parts])


@pytest.mark.parametrize(
    "topic",
    [
        b"",
        b"fbft",
        b"fbft/a/b",
        b"fbft/a/b/result/x",
        b"other/a/b/result",
        b"fbft/a /b/result",
        b"\xff/a/b/result",
    ],
)
def test_a_topic_of_another_form_is_refused(topic: bytes) -> None:
    with pytest.raises(MessageError):
        decode_message([topic, *written()[1:]])


def test_a_header_of_another_camera_than_the_topics_is_refused() -> None:
    with pytest.raises(MessageError, match="press-2"):
        decode_message([b"fbft/hall-3/press-2/result", *written()[1:]])


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_oversized_part_is_refused_unread(part: int) -> None:
    parts = written()
    parts[part] = b"x" * (2**25 + 2**16 + 1)
    with pytest.raises(MessageError, match="at most"):
        decode_message(parts)


def test_a_mask_that_inflates_beyond_its_size_is_refused() -> None:
    bomb = zlib.compress(bytes(2**26), 9)
    with pytest.raises(MessageError, match="does not inflate"):
        decode_mask(bomb, 12, 10)


def test_a_mask_with_bytes_behind_it_is_refused() -> None:
    with pytest.raises(MessageError, match="does not inflate"):
        decode_mask(encode_mask(np.zeros((12, 10), bool)) + b"x", 12, 10)


def test_a_mask_of_another_size_than_the_headers_is_refused() -> None:
    with pytest.raises(MessageError, match="10x13"):
        decode_mask(encode_mask(np.zeros((12, 10), bool)), 13, 10)


@pytest.mark.parametrize("side", [0, -1, 16385, 2**40, 10.0, True, "12", None])
def test_a_mask_size_out_of_range_is_refused(side: Any) -> None:
    with pytest.raises(MessageError, match="height"):
        decode_message(with_header({"mask": {"height": side, "width": 10, "encoding": "packbits-zlib"}}))


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "[" * 100_000, '"\\ud800"', "true"]
)
def test_a_number_that_is_none_is_refused(text: str) -> None:
    parts = written()
    header = parts[1].replace(b'"score":0.75', b'"score":' + text.encode())
    assert header != parts[1]
    assert is_refused([parts[0], header, parts[2]])


def test_a_member_that_stands_twice_is_refused() -> None:
    parts = written()
    header = parts[1].replace(b'"score":0.75', b'"score":0.75,"score":0.1')
    with pytest.raises(MessageError, match="twice"):
        decode_message([parts[0], header, parts[2]])


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "fbft.result/2"},
        {"extra": 1},
        {"session": "not-a-uuid"},
        {"sequence": -1},
        {"sequence": 2**63},
        {"sequence": 1.0},
        {"frame_id": None},
        {"captured_ns": None},
        {"verdict": "good"},
        {"verdict": ["ok"]},
        {"score": None},
        {"mask": None},
        {"regions": [{}]},
        {"regions": [None] * 1001},
        {"bundle_sha256": "A" * 64},
        {"ledger": {}},
        {"ledger": {**LEDGER.to_json(), "dropped": {"replaced": 1}}},
        {"ledger": {**LEDGER.to_json(), "dropped": {**LEDGER.dropped, "Not A Cause": 1}}},
        {"health": None},
        {"health": {"state": "ok", "reason": "but"}},
        {"health": {"state": "degraded", "reason": None}},
        {"health": {"state": "fault", "reason": "with a verdict"}},
        {"health": {"state": "degraded", "reason": "\x1b[2J"}},
        {"health": {"state": "degraded", "reason": "turned \u202e"}},
        {"health": {"state": "degraded", "reason": "x" * 501}},
        {"verdict": "fault"},
    ],
    ids=str,
)
def test_a_header_against_the_contract_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode_message(with_header(changes))


def test_mask_bytes_without_a_mask_are_refused() -> None:
    parts = writer().write(encode_no_detection(), Verdict.STALE, 5, LEDGER, OK)
    with pytest.raises(MessageError, match="no mask"):
        decode_message([*parts[:2], b"x"])


def test_a_result_is_not_lost_unless_a_subscriber_says_so() -> None:
    assert isinstance(decode_message(written()), Result)
    assert decode_message(written()).lost == 0

"""docs/plc.md tells an automation engineer what the code does: registers, bits, variables, options."""

from __future__ import annotations

from pathlib import Path

from fbft_edge.bridges.camera_state import Fault
from fbft_edge.bridges.handshake import MAX_WAITING
from fbft_edge.bridges.mqtt import MAX_ANOMALIES
from fbft_edge.bridges.opcua_variables import VARIABLES
from fbft_edge.bridges.registers import COMMAND_ADDRESS, MAP_1, MAP_2, PART_REGISTERS, Status
from fbft_edge.messages.age import MIN_LIMIT_S

PAGE = (Path(__file__).parents[3] / "docs" / "plc.md").read_text(encoding="utf-8")


def table(first_column: str) -> list[tuple[str, ...]]:
    """Rows of the table whose first column has that title."""
    rows = PAGE.split(f"| {first_column} |")[1].split("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip().strip("`") for cell in row.strip("|").split("|")) for row in rows]


def test_the_register_table_is_the_code() -> None:
    documented = [row for row in table("address") if "n" not in row[0]]
    assert documented == [
        (str(one.address), one.name, one.kind, one.meaning)
        for one in MAP_1.registers
        if not one.name.startswith("region_")
    ]


def test_the_region_registers_are_the_code() -> None:
    coded = {one.name: (str(one.address), one.kind, one.meaning) for one in MAP_1.registers}
    for place, name, kind, meaning in (row for row in table("address") if "n" in row[0]):
        first = int(place.split("+")[0])
        for number in range(1, MAP_1.num_regions + 1):
            address = str(first + 6 * (number - 1))
            assert coded.pop(name.replace("_n_", f"_{number}_")) == (address, kind, meaning)
    assert not [name for name in coded if name.startswith("region_")]


def test_map_2_begins_as_map_1_and_goes_on_as_the_page_says() -> None:
    shared = [one for one in MAP_1.registers if not one.name.startswith("region_")]
    begun, rest = MAP_2.registers[: len(shared)], MAP_2.registers[len(shared) :]
    assert [(one.name, one.address - MAP_2.address) for one in begun] == [(one.name, one.address) for one in shared]
    documented = [row for row in table("in map 2") if "n" not in row[0]]
    more = [one for one in rest if not one.name.startswith("region_")]
    assert documented == [(str(one.address), one.name, one.kind, one.meaning) for one in more]
    first = table("in map 2")[-1][0].split()[0]
    regions = [one for one in MAP_1.registers if one.name.startswith("region_")][: 6 * MAP_2.num_regions]
    assert int(first) == more[-1].address + more[-1].size
    offset = int(first) - regions[0].address
    assert [(one.name, one.address) for one in rest[len(more) :]] == [
        (one.name, one.address + offset) for one in regions
    ]


def test_each_map_fits_one_request_and_both_are_as_long_as_the_page_says() -> None:
    assert (MAP_1.size, MAP_2.size) == (125, 122)
    assert "125 registers from address 0 or 122 from 1000" in PAGE
    assert f"Write {1 + PART_REGISTERS} registers to address {COMMAND_ADDRESS} in one request" in PAGE


def test_the_status_bits_are_the_code() -> None:
    assert [(int(bit), name) for bit, name, _ in table("bit of `status`")] == [
        (status.value.bit_length() - 1, status.name) for status in Status
    ]


def test_the_faults_are_the_code() -> None:
    assert [(int(number), name) for number, name, _ in table("fault")] == [
        (fault.value, fault.name.lower()) for fault in Fault
    ]


def test_the_variables_are_the_code() -> None:
    documented = [(name, kind, is_bad, meaning) for name, kind, _, is_bad, meaning in table("browse name")]
    assert documented == [(one.name, one.kind, "yes" if one.about_result else "no", one.meaning) for one in VARIABLES]


def test_the_numbers_in_the_text_are_the_code() -> None:
    assert f"up to {MAX_WAITING} wait" in PAGE
    assert f"newest {MAX_ANOMALIES} anomalous" in PAGE
    assert f"two periods, at least {MIN_LIMIT_S:g} s" in PAGE

"""docs/plc.md tells an automation engineer what the code does: registers, bits, variables, options."""

from __future__ import annotations

from pathlib import Path

from fbft_edge.bridges.camera_state import Fault
from fbft_edge.bridges.handshake import MAX_WAITING
from fbft_edge.bridges.mqtt import MAX_ANOMALIES
from fbft_edge.bridges.opcua_variables import VARIABLES
from fbft_edge.bridges.registers import NUM_REGISTERS, REGIONS_SHOWN, REGISTERS, Status
from fbft_edge.messages.age import MIN_LIMIT_S

PAGE = (Path(__file__).parents[3] / "docs" / "plc.md").read_text(encoding="utf-8")


def table(first_column: str) -> list[tuple[str, ...]]:
    """Rows of the table whose first column has that title."""
    rows = PAGE.split(f"| {first_column} |")[1].split("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip().strip("`") for cell in row.strip("|").split("|")) for row in rows]


def test_the_register_table_is_the_code() -> None:
    documented = [row for row in table("address") if "n" not in row[0]]
    assert documented == [
        (str(one.address), one.name, one.kind, one.meaning) for one in REGISTERS if not one.name.startswith("region_")
    ]


def test_the_region_registers_are_the_code() -> None:
    coded = {one.name: (str(one.address), one.kind, one.meaning) for one in REGISTERS}
    for place, name, kind, meaning in (row for row in table("address") if "n" in row[0]):
        first = int(place.split("+")[0])
        for number in range(1, REGIONS_SHOWN + 1):
            address = str(first + 6 * (number - 1))
            assert coded.pop(name.replace("_n_", f"_{number}_")) == (address, kind, meaning)
    assert not [name for name in coded if name.startswith("region_")]


def test_the_registers_fill_one_request() -> None:
    assert sum(one.size for one in REGISTERS) == NUM_REGISTERS == 125


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

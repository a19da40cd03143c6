"""Which tests are quick, for `pytest -m quick` between two edits: no process, no fit, no socket that waits.

A test is quick unless its place is named below or it asks for what is fitted; one that then starts a process or fits
students fails. Knows nothing about what tests are about.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SLOW_PLACES = (
    "calibration/benchmark/test_benchmark.py",
    "calibration/benchmark/test_comparison.py",
    "calibration/benchmark/test_peer_results.py",
    "calibration/benchmark/test_report.py",
    "calibration/benchmark/test_visa.py",
    "calibration/fitting",
    "calibration/metrics/test_tally.py",
    "calibration/peers",
    "calibration/refinement",
    "calibration/test_calibrate_cli.py",
    "edge/bridges/test_modbus.py",
    "edge/bridges/test_mqtt.py",
    "edge/bridges/test_opcua.py",
    "edge/bridges/test_sample_program.py",
    "edge/bridges/test_trigger_sender.py",
    "edge/bundle/test_writers.py",
    "edge/cameras/test_gige.py",
    "edge/cameras/test_gstreamer.py",
    "edge/cameras/test_lost_pictures.py",
    "edge/cameras/test_stream.py",
    "edge/cli/test_commands.py",
    "edge/cli/test_config.py",
    "edge/cli/test_exit_status.py",
    "edge/cli/test_inspect.py",
    "edge/cli/test_run.py",
    "edge/detectors/kernels",
    "edge/detectors/test_gpu_engine.py",
    "edge/detectors/test_tensorrt_library.py",
    "edge/jobs/test_bench.py",
    "edge/jobs/test_demo.py",
    "edge/jobs/test_doctor.py",
    "edge/jobs/test_replay.py",
    "edge/jobs/test_service_unit.py",
    "edge/line/test_line_properties.py",
    "edge/line/test_line_scenarios.py",
    "edge/line/test_pipeline.py",
    "edge/line/test_pipeline_faults.py",
    "edge/line/test_station.py",
    "edge/recording",
    "edge/service/test_drift.py",
    "edge/service/test_logs.py",
    "edge/service/test_reload.py",
    "edge/sockets",
    "edge/survival",
    "export",
    "fuzz",
    "test_docs.py",
    "test_installation.py",
    "test_release.py",
    "test_tools.py",
)
SLOW_TESTS = (
    "edge/bundle/test_signing.py::test_a_fingerprint_is_that_of_the_documented_command",
    "edge/bundle/test_signing.py::test_a_key_with_a_passphrase_says_how_to_take_it_off",
    "edge/bundle/test_signing.py::test_keys_of_other_algorithms_are_refused",
    "edge/bundle/test_signing.py::test_openssl_reads_both_keys_as_one_pair",
    "edge/bundle/test_signing.py::test_openssl_verifies_our_signature",
    "edge/bundle/test_signing.py::test_what_openssl_signs_with_its_own_key_is_accepted",
    "edge/cameras/test_cameras.py::test_a_camera_that_can_not_be_opened_leaves_stderr_empty",
    "edge/detectors/test_anomaly_map.py::test_the_largest_frame_maps_a_constant_to_the_constant_away_from_its_borders",
    "edge/detectors/test_anomaly_map.py::test_the_longest_frame_is_mapped_like_any_other",
    "edge/detectors/test_host.py::test_tile_borders_leave_no_step_on_synthetic_parts",
    "test_architecture.py::test_every_name_of_the_public_face_can_be_had",
    "test_architecture.py::test_importing_the_public_faces_loads_nothing_heavy",
    "test_architecture.py::test_no_file_stands_at_the_top_that_a_stranger_would_not_look_for",
)
SLOW_FIXTURES = frozenset(("benchmarked", "bright_run", "shared_data", "small_bundle", "small_model"))
PROCESS_EVENTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.system", "os.exec")

_SLOW_NODES = frozenset((TESTS / place.partition("::")[0], place.partition("::")[2]) for place in SLOW_TESTS)
_SLOW_PATHS = frozenset(TESTS / place for place in SLOW_PLACES)
_is_guarded = False
_forbidden: list[str] = []


def _is_slow_place(path: Path) -> bool:
    return not _SLOW_PATHS.isdisjoint((path, *path.parents))


def _is_slow(item: pytest.Item) -> bool:
    is_named = _is_slow_place(item.path) or (item.path, getattr(item, "originalname", "")) in _SLOW_NODES
    return is_named or not SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: starts no process, fits nothing, waits for no socket")
    missing = [str(path) for path in {*_SLOW_PATHS, *(path for path, _ in _SLOW_NODES)} if not path.exists()]
    if missing:
        raise pytest.UsageError(f"tests/quick.py names what is not there: {', '.join(missing)}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Slow places are not even imported when quick tests alone are asked for: torch takes seconds."""
    return True if config.option.markexpr == "quick" and _is_slow_place(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not _is_slow(item):
            item.add_marker(pytest.mark.quick)


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if _is_guarded and (event in PROCESS_EVENTS or (event == "import" and arguments[0] == "torch.optim")):
        _forbidden.append(f"{event} {arguments[:2]}")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def _held_to_be_quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a quick test that starts a process, or that loads torch or makes an optimizer, as every fit does."""
    global _is_guarded
    if request.node.get_closest_marker("quick") is None:
        yield
        return
    if optimizers := sys.modules.get("torch.optim"):
        monkeypatch.setattr(optimizers.Optimizer, "__init__", lambda *_, **__: _forbidden.append("a fit"))
    _forbidden.clear()
    _is_guarded = True
    yield
    _is_guarded = False
    if _forbidden:
        pytest.fail(f"{request.node.nodeid} is not quick: {'; '.join(_forbidden)}; name its place in tests/quick.py")

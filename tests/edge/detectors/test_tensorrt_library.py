"""TensorRT's module is found and checked, and whatever it refuses is said with its own words and a remedy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fbft_edge.detectors.tensorrt_library import Library, Log, deserialize, load_library, log_of
from fbft_edge.errors import EngineError

rtx = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")

STUBS = Path(__file__).parents[3] / "tools/stubs/tensorrt/__init__.pyi"
NO_GPU = "install or update the NVIDIA driver"
OTHER_GPU = "not for this GPU"
OTHER_VERSION = "another version"
# What TensorRT 10 and TensorRT for RTX 1.7 say, and what is made of it.
REFUSALS = [
    ("(In x at /_src/x.cpp:25 (cudaError 35: CUDA driver version is insufficient for CUDA runtime version))", NO_GPU),
    ("Error Code 6: API Usage Error (CUDA initialization failure with error: 35. See the installation guide)", NO_GPU),
    ("The engine cannot run on this GPU, which has compute capability 8.7.", OTHER_GPU),
    ("The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 8.9", OTHER_GPU),
    ("(cudaError 209: no kernel image is available for execution on the device)", OTHER_GPU),
    ("The plan is not compatible, expecting library version 10.3.0.30 got 10.16.1.2, please rebuild.", OTHER_VERSION),
    ("Serialization assertion failed.Version tag does not match.", OTHER_VERSION),
    ("Error Code 2: OutOfMemory (Requested size was 68981785 bytes.)", "cannot load the plan"),
]


class RefusingRuntime:
    """A runtime that says why it refuses a plan; the plan's bytes are what it says."""

    def __init__(self, logger: rtx.ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> None:
        self._logger.log(rtx.ILogger.Severity.ERROR, plan.decode())


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU here can refuse a plan for these reasons, so TensorRT's words are played back."""
    monkeypatch.setattr(rtx, "Runtime", RefusingRuntime)


@pytest.fixture
def log() -> Log:
    return Log(load_library("tensorrt-rtx"))


def test_the_module_of_a_runtime_is_its_own() -> None:
    assert load_library("tensorrt-rtx") is rtx


@pytest.mark.parametrize(
    ("runtime", "remedy"),
    [("tensorrt-rtx", 'pip install "fbft-edge[tensorrt-rtx]"'), ("tensorrt", "JetPack")],
)
def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, runtime: str, remedy: str) -> None:
    monkeypatch.setitem(sys.modules, runtime.replace("-", "_"), None)
    with pytest.raises(EngineError) as caught:
        load_library(runtime)
    assert remedy in str(caught.value)


def test_a_runtime_has_one_log() -> None:
    assert log_of("tensorrt-rtx") is log_of("tensorrt-rtx")


def test_the_log_keeps_what_tensorrt_says() -> None:
    log = log_of("tensorrt-rtx")
    builder = rtx.Builder(log.logger)
    network = builder.create_network()
    rtx.OnnxParser(network, log.logger).parse(b"no graph")
    assert "Failed to parse the ONNX model" in log.text


def test_the_cause_is_the_first_error_without_its_place_in_tensorrt(log: Log) -> None:
    log.add(2, "a warning")
    log.add(1, "[checkMacros.cpp::catchCudaError::250] Error Code 1 (In parsePlan at /_src/runtime.cpp:780 (gone))")
    log.add(1, "another error")
    assert log.cause == "Error Code 1 ((gone))"


def test_verbose_messages_are_not_kept(log: Log) -> None:
    log.logger.log(rtx.ILogger.Severity.VERBOSE, "chatter")
    assert log.text == ""


def test_a_long_running_log_does_not_grow(log: Log) -> None:
    for number in range(3000):
        log.add(2, f"warning {number}")
    assert log.text.splitlines() == [f"warning {number}" for number in range(2000, 3000)]


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(("words", "expected"), REFUSALS)
def test_a_refused_plan_ends_in_the_remedy_for_its_cause(words: str, expected: str) -> None:
    with pytest.raises(EngineError, match=expected):
        deserialize("tensorrt-rtx", words.encode())


@pytest.mark.usefixtures("refusing")
def test_a_refusal_does_not_carry_the_words_of_an_earlier_one() -> None:
    for words in ("the first cause", "the second cause"):
        with pytest.raises(EngineError) as caught:
            deserialize("tensorrt-rtx", words.encode())
    assert "the first" not in str(caught.value)


def test_what_is_no_plan_is_an_error_and_not_the_end_of_the_interpreter() -> None:
    code = (
        "from fbft_edge.errors import EngineError\n"
        "from fbft_edge.detectors.tensorrt_library import deserialize\n"
        "for plan in (b'', b'no plan', bytes(4096)):\n"
        "    try: deserialize('tensorrt-rtx', plan)\n"
        "    except EngineError: print('refused')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.split()) == (0, ["refused"] * 3)


def test_everything_that_is_used_of_the_library_is_there() -> None:
    names = [name for name in Library.__annotations__ if not hasattr(rtx, name)]
    assert names == []


def stubbed_names() -> Iterator[tuple[str, str]]:
    """Class and member of everything that our stubs say of TensorRT, but for the protocols of Python."""
    for node in ast.parse(STUBS.read_text(encoding="utf-8")).body:
        for member in node.body if isinstance(node, ast.ClassDef) else []:
            target = member.target if isinstance(member, ast.AnnAssign) else None
            name = getattr(member, "name", None) or getattr(target, "id", "")
            if isinstance(node, ast.ClassDef) and not name.startswith("__"):
                yield node.name, name


def test_everything_in_our_stubs_is_in_the_library() -> None:
    missing = [f"{owner}.{name}" for owner, name in stubbed_names() if not hasattr(getattr(rtx, owner), name)]
    assert missing == []


def test_our_stubs_are_read() -> None:
    assert ("Builder", "build_serialized_network") in set(stubbed_names())

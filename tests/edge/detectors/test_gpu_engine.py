"""What is said and done about a GPU, its driver and its engines, from none at all to a detector that runs on it.

There is no GPU here: PyCUDA's driver module and TensorRT's engine are played by objects that take the same calls.
"""

from __future__ import annotations

import dataclasses
import io
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fbft_edge.bundle.engines import Sidecar, write_sidecar
from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.cli.main import main
from fbft_edge.cli.reports import show_machine
from fbft_edge.detectors import tensorrt_engine
from fbft_edge.detectors.cuda_driver import Gpu, cuda_driver, first_gpu
from fbft_edge.detectors.device import CudaDetector
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.kernels import KERNELS_MANIFEST, SOURCES, cubin_name, read_cubins, sources_sha256
from fbft_edge.detectors.selection import open_detector
from fbft_edge.detectors.tensorrt_engine import TensorRtEngine
from fbft_edge.errors import BundleError, EngineError
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.jobs.doctor import Finding, State, doctor, engine_findings, machine_findings

SIZE = (112, 168)
BrightBundle = Callable[..., Bundle]


class DriverError(Exception):
    """`pycuda.driver.Error`."""


class Driver(ModuleType):
    """`pycuda.driver` as far as a detector needs it to be made and closed."""

    Error = DriverError
    device_attribute = SimpleNamespace(INTEGRATED=18)
    event_flags = SimpleNamespace(DISABLE_TIMING=2, BLOCKING_SYNC=1)
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)

    def __init__(self, capability: tuple[int, int] = (8, 6), num_gpus: int = 1, shares_memory: bool = False) -> None:
        super().__init__("pycuda.driver")
        self.capability, self.num_gpus, self.shares_memory = capability, num_gpus, shares_memory
        self.failure: str | None = None
        self.refused_modules = False
        self.pushed = self.detached = 0
        self.Context = SimpleNamespace(pop=self._pop)
        self.Device = type("Device", (), {"count": staticmethod(lambda: self.num_gpus), "__new__": self._device})

    def init(self) -> None:
        if self.failure:
            raise DriverError(self.failure)

    def _device(self, _: type, number: int) -> SimpleNamespace:
        assert number < self.num_gpus
        return SimpleNamespace(
            name=lambda: "RTX of the test",
            compute_capability=lambda: self.capability,
            total_memory=lambda: 6 << 30,
            get_attribute={18: int(self.shares_memory)}.__getitem__,
            retain_primary_context=lambda: SimpleNamespace(push=self._push, detach=self._detach),
        )

    def _push(self) -> None:
        self.pushed += 1

    def _pop(self) -> None:
        self.pushed -= 1

    def _detach(self) -> None:
        self.detached += 1

    def Stream(self) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(handle=7, synchronize=lambda: None)

    def Event(self, flags: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(flags=flags)

    def mem_alloc(self, nbytes: int) -> int:
        return 4096

    def memcpy_htod(self, address: int, source: np.ndarray) -> None: ...

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any, mem_flags: int = 0) -> np.ndarray:
        return np.empty(shape, dtype)

    def module_from_buffer(self, cubin: bytes) -> SimpleNamespace:
        if self.refused_modules:
            raise DriverError("cuModuleLoadDataEx failed: device kernel image is invalid")
        return SimpleNamespace(get_function=lambda entry: SimpleNamespace(prepare=lambda types: None))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver with one GPU; tests change it before it is asked."""
    installed = Driver()
    package = ModuleType("pycuda")
    package.driver = installed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", installed)
    return installed


# The driver


def test_the_driver_is_handed_out_once_it_answers(driver: Driver) -> None:
    assert cuda_driver() is driver


def test_a_driver_that_fails_is_named_with_its_words_and_a_remedy(driver: Driver) -> None:
    driver.failure = "cuInit failed: system has unsupported display driver / cuda driver combination"
    with pytest.raises(EngineError, match=r"NVIDIA driver cannot be used \(cuInit failed: .*\); see nvidia-smi"):
        cuda_driver()


def test_a_driver_without_a_gpu_names_the_variable_that_may_hide_it(driver: Driver) -> None:
    driver.num_gpus = 0
    with pytest.raises(EngineError, match="finds 0 GPUs; see nvidia-smi, and CUDA_VISIBLE_DEVICES"):
        cuda_driver()


@pytest.mark.parametrize(
    ("capability", "target"), [((7, 5), "sm_75"), ((8, 7), "sm_87"), ((10, 1), "sm_101"), ((12, 0), "sm_120")]
)
@pytest.mark.parametrize("shares_memory", [False, True])
def test_a_gpu_is_what_its_kernels_are_compiled_for(
    driver: Driver, capability: tuple[int, int], target: str, shares_memory: bool
) -> None:
    driver.capability, driver.shares_memory = capability, shares_memory
    assert first_gpu(driver) == Gpu("RTX of the test", target, 6 << 30, shares_memory)


# The doctor


def finding(subject: str) -> Finding:
    return next(each for each in machine_findings() if each.subject == subject)


@pytest.mark.parametrize(("shares_memory", "words"), [(False, "its own"), (True, "shared with the host")])
def test_the_doctor_names_the_gpu_and_whose_memory_it_has(driver: Driver, shares_memory: bool, words: str) -> None:
    driver.shares_memory = shares_memory
    assert finding("NVIDIA GPU") == Finding("NVIDIA GPU", State.READY, f"RTX of the test, sm_86, 6.0 GiB, {words}")


def test_the_doctor_says_what_a_broken_driver_leaves(driver: Driver) -> None:
    driver.failure = "no CUDA-capable device is detected"
    found = finding("NVIDIA GPU")
    assert found.state is State.MISSING
    assert "no CUDA-capable device is detected" in found.detail
    assert found.detail.endswith("until then the CPU engine runs")


def engine(bundle: Bundle, **changes: Any) -> Sidecar:
    sidecar = Sidecar(
        name="tensorrt-rtx-fp16",
        runtime="tensorrt-rtx",
        version="1.7.1",
        targets=("sm_86",),
        precision="fp16",
        graph_sha256=bundle.files[GRAPH],
        plan="tensorrt-rtx-fp16.plan",
        batches=(1, 4, 4),
        memory_bytes={"activations": 3 << 20},
    )
    return dataclasses.replace(sidecar, **changes)


def with_engine(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle, which is the test's own, with an engine in it."""
    write_sidecar(bundle, engine(bundle, **changes))
    (bundle.path / ENGINES / "tensorrt-rtx-fp16.plan").write_bytes(b"plan")
    return seal_bundle(bundle)


def with_kernels(bundle: Bundle, target: str = "sm_86") -> Bundle:
    """The bundle with kernels that only `Driver` takes."""
    for source in SOURCES:
        file = bundle.path / cubin_name(source, target)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\x7fELF")
    contents = {"targets": [target], "sources_sha256": sources_sha256()}
    (bundle.path / KERNELS_MANIFEST).write_text(json.dumps(contents))
    return seal_bundle(bundle)


def test_the_doctor_shows_an_engines_memory_on_frames_of_the_bundle(bright_bundle: BrightBundle) -> None:
    (found,) = engine_findings(with_engine(bright_bundle(frame_sizes=(SIZE,))))
    assert (found.subject, found.state) == ("engine tensorrt-rtx-fp16", State.READY)
    assert found.detail.startswith("1.7.1, fp16, for sm_86, activations 3.0 MiB, tables ")
    # Two frames of 112x168x3 bytes in flight, and the tiles: 0.1 and 0.1 MiB at the least.
    assert float(found.detail.rsplit("buffers ", 1)[1].removesuffix(" MiB")) >= 0.2


def test_the_doctor_shows_a_stale_engine_with_the_command_that_renews_it(bright_bundle: BrightBundle) -> None:
    bundle = with_engine(bright_bundle(), graph_sha256="0" * 64)
    (found,) = engine_findings(bundle)
    assert found.state is State.MISSING
    assert found.detail.endswith(
        f"stale: the graph has changed since; run fbft-export {bundle.path} --runtime tensorrt-rtx"
    )


def test_an_engine_is_shown_under_its_whole_name_whatever_is_in_it(bright_bundle: BrightBundle) -> None:
    out = io.StringIO()
    show_machine(doctor(with_engine(bright_bundle(), name="rtx[red]-[bold]")), Console(file=out, width=300))
    assert "engine rtx[red]-[bold]" in out.getvalue()


def test_the_doctor_of_a_bundle_ends_with_its_engines(
    bright_bundle: BrightBundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["doctor", "--bundle", str(with_engine(bright_bundle()).path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert "engine tensorrt-rtx-fp16" in rows[-1]


# The choice


def test_auto_takes_the_gpu_when_everything_is_there(
    driver: Driver, bright_bundle: BrightBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_engine, "deserialize", lambda runtime, plan: Engine())
    opened = open_detector(with_kernels(with_engine(bright_bundle())), FrameLayout(*SIZE))
    assert opened.reason == "tensorrt-rtx 1.7.1 fp16 on RTX of the test, sm_86 (the fastest engine that runs here)"
    assert isinstance(opened.detector, CudaDetector)
    opened.detector.close()
    assert (driver.pushed, driver.detached) == (0, 1)


NOT_ON_THE_GPU: list[tuple[Callable[[Bundle], Bundle], str]] = [
    (lambda bundle: with_engine(bundle), "holds no CUDA kernels; run fbft-export .* with --target sm_86"),
    (lambda bundle: with_kernels(with_engine(bundle), "sm_90"), "holds CUDA kernels for sm_90, not sm_86"),
    (lambda bundle: with_engine(bundle, targets=("sm_89",)), "engines for sm_89, this GPU is sm_86"),
    (lambda bundle: with_engine(bundle, graph_sha256="0" * 64), "is stale"),
]


@pytest.mark.parametrize(("prepared", "words"), NOT_ON_THE_GPU, ids=["no kernels", "kernels", "target", "stale"])
def test_auto_runs_on_the_cpu_and_says_what_the_gpu_lacks(
    driver: Driver, bright_bundle: BrightBundle, prepared: Callable[[Bundle], Bundle], words: str
) -> None:
    opened = open_detector(prepared(bright_bundle()), FrameLayout(*SIZE))
    assert isinstance(opened.detector, OpenVinoDetector)
    assert re.search(f"not tensorrt-rtx: .*{words}", opened.reason), opened.reason


def test_kernels_that_the_driver_refuses_are_an_engine_error_with_its_words(
    driver: Driver, bright_bundle: BrightBundle
) -> None:
    driver.refused_modules = True
    bundle = with_kernels(with_engine(bright_bundle()))
    with pytest.raises(EngineError, match=r"refuses the bundle's kernels \(.*image is invalid\); run fbft-export"):
        open_detector(bundle, FrameLayout(*SIZE), engine="tensorrt-rtx")
    assert driver.pushed == 0


# The engine


class Context:
    """Takes batches up to a size, and notes what each call would read and write."""

    def __init__(self, most: int, starts: bool) -> None:
        self._most, self._starts = most, starts
        self._shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.settings = 0
        self.calls: list[tuple[int, int, int]] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "tiles"
        self.settings += 1
        self._shape = shape
        return shape[0] <= self._most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.calls.append((self.addresses["tiles"], self.addresses["distances"], self._shape[0]))
        return self._starts


class Engine:
    """`tensorrt.ICudaEngine`."""

    device_memory_size_v2 = 5 << 20

    def __init__(self, most: int = 4, starts: bool = True, has_memory: bool = True) -> None:
        self.context = Context(most, starts) if has_memory else None

    def create_execution_context(self) -> Context | None:
        return self.context


@pytest.fixture
def plan_of(bright_bundle: BrightBundle, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TensorRtEngine]:
    """Opens an engine of the bundle whose plan is `made`."""
    bundle = with_engine(bright_bundle())

    def opened(made: Engine, **changes: Any) -> TensorRtEngine:
        monkeypatch.setattr(tensorrt_engine, "deserialize", lambda runtime, plan: made)
        return TensorRtEngine(bundle, engine(bundle, **changes))

    return opened


PlanOf = Callable[..., TensorRtEngine]
TILE_BYTES, GRID_BYTES = 84 * 84 * 3, 6 * 6 * 4


@pytest.mark.parametrize("seed", range(12))
def test_every_tile_of_every_frame_is_inferred_once_in_its_own_place(plan_of: PlanOf, seed: int) -> None:
    chosen = random.Random(seed)
    num_tiles, most = chosen.randint(1, 40), chosen.randint(1, 16)
    made = Engine(most)
    opened = plan_of(made, batches=(1, most, most))
    opened.bind(1 << 20, 1 << 30, num_tiles)
    for _ in range(3):
        made.context.calls.clear()
        opened.enqueue(7)
        calls = placed(made.context.calls)
        assert [first + step for first, _, batch in calls for step in range(batch)] == list(range(num_tiles))
        assert all(tile == distance for tile, distance, _ in calls)


def placed(calls: list[tuple[int, int, int]]) -> list[tuple[float, float, int]]:
    """Addresses as the number of the tile that lies there."""
    return [
        ((tiles - (1 << 20)) / TILE_BYTES, (distances - (1 << 30)) / GRID_BYTES, batch)
        for tiles, distances, batch in calls
    ]


def test_a_frame_of_one_batch_is_bound_once_and_never_again(plan_of: PlanOf) -> None:
    made = Engine(4)
    opened = plan_of(made)
    opened.bind(4096, 8192, 4)
    for _ in range(5):
        opened.enqueue(7)
    assert (made.context.settings, len(made.context.calls)) == (1, 5)


def test_an_engine_that_says_nothing_of_batches_takes_tiles_one_by_one(plan_of: PlanOf) -> None:
    made = Engine(1)
    opened = plan_of(made, batches=None)
    opened.bind(4096, 8192, 3)
    opened.enqueue(7)
    assert [batch for *_, batch in made.context.calls] == [1, 1, 1]


def test_an_engine_says_what_memory_its_activations_take(plan_of: PlanOf) -> None:
    assert plan_of(Engine()).memory_bytes == 5 << 20


def test_an_engine_without_a_context_names_the_likely_cause(plan_of: PlanOf) -> None:
    with pytest.raises(EngineError, match=r"engine tensorrt-rtx-fp16 gets no execution context.*GPU memory"):
        plan_of(Engine(has_memory=False))


def test_a_batch_that_the_plan_does_not_take_is_named(plan_of: PlanOf) -> None:
    with pytest.raises(EngineError, match="takes no batch of 4 tiles; export the bundle again"):
        plan_of(Engine(most=2)).bind(4096, 8192, 4)


def test_a_call_that_does_not_start_is_an_engine_error(plan_of: PlanOf) -> None:
    opened = plan_of(Engine(starts=False))
    opened.bind(4096, 8192, 3)
    with pytest.raises(EngineError, match="failed to start a batch of 3; export it again on this machine"):
        opened.enqueue(7)


def test_a_plan_that_the_bundle_does_not_vouch_for_is_never_loaded(bright_bundle: BrightBundle) -> None:
    bundle = with_engine(bright_bundle())
    (bundle.path / ENGINES / "other.plan").write_bytes(b"executable content")
    with pytest.raises(BundleError, match=r"has no engines/other\.plan"):
        TensorRtEngine(bundle, engine(bundle, plan="other.plan"))


def test_a_plan_that_was_altered_since_the_bundle_was_opened_is_never_loaded(bright_bundle: BrightBundle) -> None:
    bundle = with_engine(bright_bundle())
    (bundle.path / ENGINES / "tensorrt-rtx-fp16.plan").write_bytes(b"executable content")
    with pytest.raises(BundleError, match="was altered"):
        TensorRtEngine(bundle, engine(bundle))


def test_a_kernel_that_was_altered_since_the_bundle_was_opened_is_never_loaded(bright_bundle: BrightBundle) -> None:
    bundle = with_kernels(bright_bundle())
    (bundle.path / cubin_name("score", "sm_86")).write_bytes(b"\x7fELF executable content")
    with pytest.raises(BundleError, match="was altered"):
        read_cubins(bundle, "sm_86")


def test_a_run_on_an_engine_for_another_gpu_ends_with_status_2_and_both_gpus(
    driver: Driver, bright_bundle: BrightBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.capability = (12, 0)
    options = ["--bundle", str(with_engine(bright_bundle()).path), "--bind", f"ipc://{tmp_path}/results"]
    camera = f"synthetic://?height={SIZE[0]}&width={SIZE[1]}"
    assert main(["run", *options, "--camera", camera, "--engine", "tensorrt-rtx"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("fbft-edge: error: ")
    assert "holds tensorrt-rtx engines for sm_86, this GPU is sm_120; run fbft-export" in last

"""Other detectors for the same images: nominal images in, then anomaly maps and scores, and what they cost.

The detectors are anomalib's, with the weights that are at hand. Each runs in a process of its own, so that its peak
memory is its own and its end is not ours. Knows nothing about data sets, figures or reports.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fbft_edge.errors import ArgumentError, FbftError, ImageError
from fbft_edge.frame import Detection, Float32, Uint8
from fbft_edge.images import read_image

if TYPE_CHECKING:
    import torch

RESNET = "resnet18"
VIT = "vit_small_patch14_dinov2"

_SEED = 0
_LOG_CHARACTERS = 300
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as glibc's malloc.h numbers them
_PARENT_DEATH_SIGNAL = 1  # as Linux's prctl.h numbers it


class PeerError(FbftError):
    """A peer cannot be made, fitted or run."""


class Peer(Protocol):
    """A detector under test."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it is and how it is set, fit for JSON."""

    def fit(self, nominal: Sequence[Path]) -> None:
        """Learn from images of good parts; those that cannot be read are left out."""

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """Inspect one image.

        Args:
            pixels: (height, width, 3) uint8 RGB.

        Returns:
            (height, width) float32 anomaly map on the peer's own scale, owned by the caller, and its image score.
        """

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of anomalib's models is run. What is not said here is anomalib's default.

    Attributes:
        model: Class in `anomalib.models`.
        weights: timm architecture of the pretrained network, whichever anomalib asks for.
        options: Arguments of the class that differ from its defaults, mostly because the weights do.
        epochs: Passes over the nominal images; 1 where the model only collects features. anomalib has no default.
        batch_images: Likewise; anomalib's data modules take 32.
        block: ViT block, zero-based, in the place of the last one; None for models that name their own.
        is_padded: The model pads images to squares, centred, before it resizes them.
        scale: Applied to maps, with `offset` after it, where they would leave the range in which figures tell values
            apart; ranks, and so all figures, stay as they are.
        offset: See `scale`.
        remarks: How it differs from what anomalib's users get, in words.
    """

    model: str
    weights: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 1
    batch_images: int = 32
    block: int | None = None
    is_padded: bool = False
    scale: float = 1.0
    offset: float = 0.0
    remarks: str = ""


@dataclass(frozen=True, slots=True)
class PeerCost:
    """What a peer took so far, on this machine.

    Attributes:
        fit_s: Seconds of fitting, reading images included; None before.
        image_median_s: Median seconds from pixels to map at the original size and score; None before the first.
        peak_memory_bytes: Largest resident memory of its process, libraries included.
    """

    fit_s: float | None
    image_median_s: float | None
    peak_memory_bytes: int


_OFFLINE_VIT = "the offline ViT-S/14, very probably fine-tuned for saliency, in the place of DINOv2"

PEERS: Mapping[str, Recipe] = {
    "patchcore": Recipe(
        "Patchcore",
        RESNET,
        {"backbone": RESNET},
        remarks="ResNet-18 in the place of WideResNet-50, whose weights are not at hand",
    ),
    "padim": Recipe("Padim", RESNET),
    "l2bt": Recipe(
        "L2BT",
        VIT,
        {"layers": (5, 8)},
        epochs=50,
        batch_images=4,
        is_padded=True,
        remarks=f"{_OFFLINE_VIT} ViT-B/14, with our blocks 5 and 8; epochs and batches are the paper's",
    ),
    "anomaly-dino": Recipe(
        "AnomalyDINO",
        VIT,
        block=8,
        remarks=f"{_OFFLINE_VIT} ViT-S/14, block 8 in the place of the last, which serves poorly with these weights",
    ),
    "stfpm": Recipe(
        "Stfpm",
        RESNET,
        epochs=100,
        scale=2.0**8,
        remarks="the paper's 100 epochs to the end; early stopping would read the test images' truth",
    ),
}

_WIDE_RESNET = "its WideResNet-50 weights cannot be had offline"
_PLAIN_DINO = "its DINOv2 or DINOv3 weights cannot be had offline"
_LANGUAGE = "its vision-language weights cannot be had offline"
_NO_MAP = "it says nothing about pixels"

# Every image model of anomalib 2.7 that is not among PEERS.
NOT_RUN: Mapping[str, str] = {
    "EfficientAd": "its pretrained teacher and the ImageNette images that it is trained with cannot be had offline",
    "AnomalyVFM": "the weights of its foundation model cannot be had offline",
    "CFM": "it compares colour with point clouds, and its DINO and Point-MAE weights cannot be had offline",
    "Cfa": _WIDE_RESNET,
    "Cflow": _WIDE_RESNET,
    "Csflow": "its EfficientNet-B5 weights cannot be had offline",
    "Dfkde": _NO_MAP,
    "Dfm": "its ResNet-50 weights cannot be had offline",
    "Dinomaly": _PLAIN_DINO,
    "Draem": "the texture images (DTD) that it makes defects from cannot be had offline",
    "Dsr": "its pretrained quantised autoencoder cannot be had offline",
    "Fastflow": "its paper trains it for 500 epochs, too long without a GPU; its ResNet-18 weights are at hand",
    "FoundAD": _PLAIN_DINO,
    "Fre": "its ResNet-50 weights cannot be had offline",
    "Ganomaly": _NO_MAP,
    "GeneralAD": _PLAIN_DINO,
    "Glass": f"{_WIDE_RESNET}, nor can the texture images (DTD) that it makes defects from",
    "InpFormer": _PLAIN_DINO,
    "MHPatchcore": _WIDE_RESNET,
    "Patchflow": "its EfficientNet-B5 weights cannot be had offline",
    "Rad": _PLAIN_DINO,
    "ReverseDistillation": _WIDE_RESNET,
    "SuperADD": _PLAIN_DINO,
    "Supersimplenet": _WIDE_RESNET,
    "Uflow": "its MCait weights cannot be had offline",
    "UniNet": _WIDE_RESNET,
    "VlmAd": _LANGUAGE,
    "WinClip": _LANGUAGE,
}


def open_peer(name: str, resnet_weights: Path | None = None) -> PeerProcess:
    """Start a peer; it is a context manager.

    Args:
        name: One of `PEERS`.
        resnet_weights: ResNet-18 pretrained on ImageNet in timm's naming, .safetensors; None asks the model hub.

    Raises:
        ArgumentError: No such peer, or anomalib is not installed.
        PeerError: Its weights cannot be had.
    """
    if name not in PEERS:
        reasons = {model.lower(): reason for model, reason in NOT_RUN.items()}
        cause = reasons.get(name.lower().replace("-", ""), "there is no such peer")
        raise ArgumentError(f"peer {name!r} cannot be run: {cause}; choose from {', '.join(PEERS)}")
    if importlib.util.find_spec("anomalib") is None:
        raise ArgumentError(
            f"peer {name!r} needs anomalib, which this installation lacks; "
            'pip install "fbft-edge[calibration,peers]" in an environment of its own'
        )
    if resnet_weights is not None and not resnet_weights.is_file():
        raise ArgumentError(f"{resnet_weights} is not a file; name the ResNet-18 weights, .safetensors")
    weights = resnet_weights and resnet_weights.absolute()  # the process stands elsewhere
    return PeerProcess(name, partial(AnomalibPeer, PEERS[name], weights))


class PeerProcess:
    """A peer in a process of its own; itself a `Peer`.

    Args:
        name: For messages.
        make: Makes the peer there; it is pickled.

    Raises:
        PeerError: It cannot be made.
    """

    def __init__(self, name: str, make: Callable[[], Peer]) -> None:
        self.name = name
        self._fit_s: float | None = None
        self._image_s: list[float] = []
        self._folder = tempfile.TemporaryDirectory(prefix="fbft-peer-")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, self._folder.name), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.settings: Mapping[str, Any] = self._call("settings")[0]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fit(self, nominal: Sequence[Path]) -> None:
        """See `Peer`.

        Raises:
            PeerError: It failed, or its process ended.
        """
        _, self._fit_s = self._call("fit", [path.absolute() for path in nominal])

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """See `Peer`.

        Raises:
            PeerError: It failed, or its process ended.
        """
        (anomaly_map, score), seconds = self._call("map_of", pixels)
        self._image_s.append(seconds)
        return anomaly_map, score

    def detect(self, pixels: Uint8) -> Detection:
        """The map and score as a detection that flags nothing: a peer has no threshold of a stated false-alarm rate."""
        anomaly_map, score = self.map_of(pixels)
        nothing = np.zeros(anomaly_map.shape, np.bool_)
        return Detection(score, float(anomaly_map.max()), nothing, (), False, anomaly_map)

    def cost(self) -> PeerCost:
        """What it took so far; the first image, which warms up, counts only where it is the only one.

        Raises:
            PeerError: Its process ended.
        """
        timed = self._image_s[1:] or self._image_s
        return PeerCost(self._fit_s, statistics.median(timed) if timed else None, self._call("peak_memory")[0])

    def close(self) -> None:
        """End the process; what it left on the disk goes with it."""
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._folder.cleanup()

    def _call(self, method: str, *arguments: object) -> tuple[Any, float]:
        """What the peer's method returned, and the seconds it took there."""
        try:
            self._connection.send((method, arguments))
            value, failure, seconds = self._connection.recv()
        except (EOFError, OSError):
            raise PeerError(
                f"peer {self.name} ended during {method} ({self._last_words()}); "
                "free memory, or leave this peer out; the others are not touched"
            ) from None
        if failure is not None:
            raise PeerError(f"peer {self.name} failed during {method}: {failure}; leave it out, or put that right")
        return value, seconds

    def _last_words(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        words = _log(Path(self._folder.name)).read_text(errors="replace")[-_LOG_CHARACTERS:].strip().splitlines()
        ending = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return f"{ending}, its last words: {words[-1] if words else 'none'}"


def _log(folder: Path) -> Path:
    return folder / "output.log"


def _serve(connection: Connection, make: Callable[[], Peer], folder: str) -> None:
    """The other process: makes the peer, then answers each call with (value, failure, seconds) until none can come."""
    os.chdir(folder)  # Lightning and anomalib write where they stand
    with _log(Path(folder)).open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _go_first()
    peer: Peer | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            break
        started = time.perf_counter()
        try:
            peer = make() if peer is None else peer
            value = _answer(peer, method, arguments)
        except Exception as error:  # whatever a foreign library raises is the peer's failure, not ours
            name = "" if isinstance(error, FbftError) else f"{type(error).__name__}: "
            connection.send((None, f"{name}{error}", 0.0))
        else:
            connection.send((value, None, time.perf_counter() - started))
    if peer is not None:
        peer.close()


def _answer(peer: Peer, method: str, arguments: tuple[Any, ...]) -> object:
    if method == "settings":
        return dict(peer.settings)
    if method == "peak_memory":
        return _peak_memory_bytes()
    return getattr(peer, method)(*arguments)


def _go_first() -> None:
    """When memory runs out, the kernel ends this process before any other; it also ends with its parent."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _peak_memory_bytes() -> int:
    """Largest resident memory of this process; ru_maxrss would count what its parent had when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class AnomalibPeer:
    """One of anomalib's models, float32 in torch, on the CPU.

    Args:
        recipe: How it is run.
        resnet_weights: As `open_peer` takes it.

    Raises:
        PeerError: The weights cannot be had.
    """

    def __init__(self, recipe: Recipe, resnet_weights: Path | None = None) -> None:
        import anomalib.models
        import torch

        torch.manual_seed(_SEED)
        self._recipe = recipe
        make = partial(getattr(anomalib.models, recipe.model), **recipe.options)
        with _pretrained(recipe.weights, resnet_weights):
            self._model = make(evaluator=False, visualizer=False, post_processor=False)
        self._transform, self._image_size = self._model.pre_processor.transform, self._model.input_size
        self._model.pre_processor.transform = None  # images are transformed one by one, as sizes may differ
        if recipe.block is not None:
            _read_block(self._model.model, recipe.block)
        local = recipe.weights != RESNET or resnet_weights is not None
        self._weights = f"{recipe.weights}, {'local' if local else 'from the hub'}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Peer`."""
        recipe = self._recipe
        return {
            "library": f"anomalib {metadata.version('anomalib')}, torch {metadata.version('torch')}, float32",
            "model": recipe.model,
            "weights": self._weights,
            "options": {
                name: list(value) if isinstance(value, tuple) else value for name, value in recipe.options.items()
            },
            "block": recipe.block,
            "image_size": list(self._image_size),
            "epochs": recipe.epochs,
            "batch_images": recipe.batch_images,
            "seed": _SEED,
            "remarks": recipe.remarks,
        }

    def fit(self, nominal: Sequence[Path]) -> None:
        """See `Peer`."""
        from anomalib.data import ImageBatch
        from lightning.pytorch import Trainer
        from torch.utils.data import DataLoader

        images = _NominalImages([path for path in nominal if _is_readable(path)], self._transformed)
        batches: Any = DataLoader(
            images,  # type: ignore[arg-type]  # a length and items are all that is asked of it
            batch_size=self._recipe.batch_images,
            shuffle=True,
            collate_fn=ImageBatch.collate,
        )
        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        arguments = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": self._recipe.epochs,
            **dict.fromkeys(quiet, False),
        }
        with _large_blocks_apart():
            Trainer(**{**arguments, **self._model.trainer_arguments}).fit(self._model, batches)
        self._model.eval()

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """See `Peer`."""
        import torch

        with torch.inference_mode():
            found = self._model.model(self._transformed(pixels)[None])
            anomaly_map = at_original_size(found.anomaly_map, pixels.shape[:2], is_padded=self._recipe.is_padded)
            return anomaly_map * self._recipe.scale + self._recipe.offset, float(found.pred_score.reshape(-1)[0])

    def close(self) -> None:
        """See `Peer`."""
        del self._model

    def _transformed(self, pixels: Uint8) -> torch.Tensor:
        """(3, rows, columns) float32 as the model takes it."""
        import torch

        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        return torch.as_tensor(self._transform(image)[0])


def at_original_size(found: torch.Tensor, size: tuple[int, ...], *, is_padded: bool) -> Float32:
    """A model's map, bilinearly at the size of the image that it was made of.

    Args:
        found: (..., rows, columns) float, one map.
        size: (height, width) of the image.
        is_padded: The map is that of the image padded to a square, centred.

    Returns:
        (height, width) float32, owned by the caller.
    """
    from torch.nn.functional import interpolate

    height, width = size
    shown = (max(size), max(size)) if is_padded else (height, width)
    maps = found.reshape(1, 1, *found.shape[-2:]).float()
    whole = interpolate(maps, size=shown, mode="bilinear", align_corners=False)[0, 0].numpy()
    top, left = (shown[0] - height) // 2, (shown[1] - width) // 2
    return np.array(whole[top : top + height, left : left + width], np.float32)


class _NominalImages:
    """Nominal images as anomalib's data loaders take them, read anew each epoch."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Uint8], torch.Tensor]) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        import torch
        from anomalib.data import ImageItem

        image = self._transform(read_image(self._paths[index]))
        nowhere = torch.zeros(image.shape[-2:], dtype=torch.bool)
        return ImageItem(image=image, gt_label=torch.tensor(0), gt_mask=nowhere)


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageError:
        return False
    return True


def _read_block(model: Any, block: int) -> None:
    """Let AnomalyDINO take its features after another block than the last."""
    model.last_layer = f"blocks.{block}"
    model.feature_encoder.layers, model.feature_encoder.idx = [model.last_layer], [block]


@contextlib.contextmanager
def _pretrained(architecture: str, resnet_weights: Path | None) -> Iterator[None]:
    """Networks that anomalib asks for with pretrained weights are of this architecture, with the weights at hand."""
    import timm

    create, state = timm.create_model, _weights(architecture, resnet_weights)

    def create_pretrained(name: str, **options: Any) -> Any:
        if not options.get("pretrained"):
            return create(name, **options)
        overlay: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
        return create(architecture, **options, **overlay)

    timm.create_model = create_pretrained  # type: ignore[assignment]  # a narrower signature serves anomalib's calls
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        source = "the model hub" if state is None else resnet_weights or "the offline teacher"
        raise PeerError(
            f"weights of {architecture} cannot be had from {source} ({cause}); name a .safetensors file of them"
        ) from error
    finally:
        timm.create_model = create


def _weights(architecture: str, resnet_weights: Path | None) -> dict[str, torch.Tensor] | None:
    """Pretrained weights, None for those of the hub."""
    if architecture == VIT:
        from fbft_export.offline_weights import offline_weights

        return offline_weights()
    if resnet_weights is None:
        return None
    from safetensors.torch import load_file

    try:
        return load_file(resnet_weights)
    except Exception as error:  # safetensors raises several types of its own
        raise PeerError(f"{resnet_weights} cannot be read as safetensors: {error}; download it again") from error


@contextlib.contextmanager
def _large_blocks_apart() -> Iterator[None]:
    """Keep glibc from placing small blocks in the gaps of large ones.

    anomalib 2.7's coreset selection keeps one tiny tensor per step between temporaries of 26 MB and more, and none of
    their places can be used again: 22 GB were gone after 870 of 2,866 steps. Blocks of their own pages go back whole.
    """
    allocator = ctypes.CDLL(None)
    if not hasattr(allocator, "mallopt"):  # not glibc
        yield
        return
    allocator.mallopt(_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:  # what glibc itself would have come to, so that inspection does not pay for it
        allocator.mallopt(_MMAP_THRESHOLD, 2**25)
        allocator.mallopt(_TRIM_THRESHOLD, 2**26)

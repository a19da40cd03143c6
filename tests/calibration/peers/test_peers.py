"""A peer sees the same images, speaks of the same pixels and takes nobody down with it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fbft_calibration.peers import (
    NOT_RUN,
    PEERS,
    RESNET,
    PeerError,
    PeerProcess,
    at_original_size,
    open_peer,
    peer_settings,
    peers_of,
)
from fbft_calibration.peers.bundle_peer import BundlePeer
from fbft_calibration.peers.weights import pretrained, require_weights
from fbft_edge.bundle.reading import STUDENTS, Bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import image_paths, read_image
from fbft_edge.frames.pixel_format import FrameLayout

SIMPLE_PEER = """
    import os
    import numpy as np

    class SimplePeer:
        settings = {"model": "brightness"}

        def fit(self, nominal):
            hoard = np.ones(2**29, np.uint8)
            print("reading", flush=True)
            self.level = len(nominal)

        def map_of(self, pixels):
            if pixels.max() == 0:
                os._exit(7)
            if pixels.max() == 1:
                raise ValueError("too\\ndark")
            if pixels.max() == 2:
                self.hoard = np.ones(2**28, np.uint8)
            found = pixels[..., 0].astype(np.float32) - self.level
            if pixels.max() == 3:
                found[0, 0] = np.nan
            if pixels.max() == 5:
                found = found[1:]
            return found, float(found.max())

        def close(self):
            pass
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PeerProcess]:
    """A real process with a detector of ten lines, fitted on three images that it does not read."""
    (tmp_path / "simple_peer.py").write_text(textwrap.dedent(SIMPLE_PEER))
    monkeypatch.syspath_prepend(tmp_path)
    from simple_peer import SimplePeer  # type: ignore[import-not-found]

    with PeerProcess("simple", SimplePeer) as process:
        process.fit([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"])
        yield process


def flat(level: int) -> Uint8:
    return np.full((20, 30, 3), level, np.uint8)


def test_a_map_comes_back_as_the_peer_made_it(peer: PeerProcess) -> None:
    anomaly_map, score = peer.map_of(flat(10))
    assert (anomaly_map.dtype, anomaly_map.shape, float(anomaly_map.min()), score) == (np.float32, (20, 30), 7, 7)


def test_a_detection_carries_the_map_and_flags_nothing(peer: PeerProcess) -> None:
    detection, anomaly_map = peer.detect(flat(10))
    assert (anomaly_map.max(), detection.is_anomalous, detection.mask.any()) == (detection.score, False, False)


def test_settings_come_from_the_peer_itself(peer: PeerProcess) -> None:
    assert peer.settings == {"model": "brightness"}


def test_there_is_no_cost_per_image_before_the_first(peer: PeerProcess) -> None:
    assert peer.cost().image_median_s is None


def test_the_cost_of_fitting_and_of_an_image_is_told(peer: PeerProcess) -> None:
    peer.map_of(flat(10))
    cost = peer.cost()
    assert None not in (cost.fit_s, cost.image_median_s)


def test_the_memory_is_that_of_the_peer_alone(peer: PeerProcess) -> None:
    ours = np.ones(2**30, np.uint8)
    assert peer.cost().peak_memory_bytes < ours.nbytes


def test_memory_that_the_peer_took_counts(peer: PeerProcess) -> None:
    before = peer.cost().peak_memory_bytes
    peer.map_of(flat(2))
    assert peer.cost().peak_memory_bytes > before + 2**27


def test_memory_that_only_fitting_took_does_not_count(peer: PeerProcess) -> None:
    assert peer.cost().peak_memory_bytes < 2**29


@pytest.mark.parametrize(("level", "words"), [(3, "599 numbers"), (5, "570 numbers")], ids=["nan", "size"])
def test_a_map_without_a_number_for_every_pixel_is_refused(peer: PeerProcess, level: int, words: str) -> None:
    with pytest.raises(PeerError, match=f"peer simple found {words} .* 30x20 pixels"):
        peer.map_of(flat(level))


def test_what_a_peer_raises_is_told_with_the_peer_and_the_call(peer: PeerProcess) -> None:
    with pytest.raises(PeerError, match="peer simple failed during map_of: ValueError: too dark"):
        peer.map_of(flat(1))


def test_a_peer_goes_on_after_a_failure(peer: PeerProcess) -> None:
    with pytest.raises(PeerError):
        peer.map_of(flat(1))
    assert peer.map_of(flat(4))[1] == 1


def test_a_peer_that_ends_is_told_with_its_exit_status_and_last_words(peer: PeerProcess) -> None:
    with pytest.raises(PeerError, match=r"ended during map_of \(exit status 7, its last words: reading"):
        peer.map_of(flat(0))


def test_a_peer_that_was_killed_is_told_with_the_signal(peer: PeerProcess) -> None:
    peer._process.kill()
    peer._process.join()
    with pytest.raises(PeerError, match="SIGKILL"):
        peer.map_of(flat(4))


def test_a_peer_that_cannot_be_made_is_told() -> None:
    with pytest.raises(PeerError, match=r"peer broken ended during settings \(exit status 3"):
        PeerProcess("broken", partial(os._exit, 3))  # type: ignore[arg-type]


def test_nothing_of_a_closed_peer_stays(peer: PeerProcess) -> None:
    folder = Path(peer._folder.name)
    peer.close()
    assert (peer._process.is_alive(), folder.exists()) == (False, False)


def test_an_unknown_peer_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ArgumentError, match=r"peer 'nosuch' .* choose from patchcore, padim"):
        open_peer("nosuch")


@pytest.mark.parametrize(
    ("name", "model"),
    [("EfficientAd", "EfficientAd"), ("efficient-ad", "EfficientAd"), ("reverse-distillation", "ReverseDistillation")],
)
def test_a_peer_that_is_not_run_is_refused_with_its_reason(name: str, model: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(NOT_RUN[model])):
        open_peer(name)


def test_all_stands_for_every_peer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_calibration.peers.selection.require_extra", lambda *_: None)
    assert peers_of(["padim", "all", "padim"]) == ("padim", *(name for name in PEERS if name != "padim"))


def test_without_anomalib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.extras.find_spec", {}.get)
    with pytest.raises(ArgumentError, match=r"needs .*anomalib.*fbft-edge\[calibration,peers\]"):
        open_peer("padim")


def test_the_peers_that_the_benchmark_promises_are_run_or_listed() -> None:
    run = {recipe.model for recipe in PEERS.values()}
    assert {"Patchcore", "Padim", "L2BT", "EfficientAd"} <= run | set(NOT_RUN)


def test_no_model_is_both_run_and_not_run() -> None:
    assert not {recipe.model for recipe in PEERS.values()} & set(NOT_RUN)


def test_a_map_of_the_whole_image_is_stretched_to_it() -> None:
    torch = pytest.importorskip("torch")
    ramp = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    stretched = at_original_size(ramp, (16, 32), is_padded=False)
    # A pixel's centre lies at (x + 0.5) / 4 - 0.5 of the map, and the map's edges are held.
    expected = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7) / 7
    np.testing.assert_allclose(stretched, np.broadcast_to(expected, (16, 32)), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (21, 40), (40, 40)])
def test_what_was_padded_to_a_square_is_cut_off_again(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    top, left = (max(height, width) - height) // 2, (max(height, width) - width) // 2
    square = torch.zeros(40, 40)
    square[top : top + height, left : left + width] = 1
    found = at_original_size(square, (height, width), is_padded=True)
    np.testing.assert_array_equal(found, np.ones((height, width), np.float32))


def test_every_image_model_of_anomalib_is_run_or_listed_with_a_reason() -> None:
    # Read, not imported: importing anomalib's models warns, which is an error here.
    source = Path(pytest.importorskip("anomalib").__file__).parent / "models" / "image" / "__init__.py"
    listed = source.read_text().split("__all__ = [")[1].split("]")[0]
    models = {line.strip(' ",') for line in listed.splitlines()} - {""}
    assert models == {recipe.model for recipe in PEERS.values()} | set(NOT_RUN)


@pytest.mark.parametrize(("name", "epochs"), [("padim", 1), ("dfm", 1), ("mh-patchcore", 3), ("fre", 6), ("cfa", 1)])
def test_a_fitted_peer_marks_what_the_nominal_images_do_not_have(
    name: str, epochs: int, nominal_folder: Path, resnet_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anomalib", reason="peers need the extra peers")
    monkeypatch.setitem(PEERS, name, dataclasses.replace(PEERS[name], epochs=epochs))  # type: ignore[arg-type]
    paths = image_paths(nominal_folder)
    nominal = read_image(paths[0])
    defective = nominal.copy()
    defective[40:60, 50:80] = (255, 0, 255)
    with open_peer(name, resnet_weights) as peer:
        peer.fit(paths)
        (anomaly_map, score), (_, nominal_score) = peer.map_of(defective), peer.map_of(nominal)
    inside = anomaly_map[40:60, 50:80].mean()
    assert inside > 3 * np.delete(anomaly_map, np.s_[30:70], axis=0).mean()
    assert score > nominal_score


def test_torchvision_too_gets_the_weights_at_hand(resnet_weights: Path) -> None:
    pytest.importorskip("timm", reason="weights need the extra calibration")
    from safetensors.torch import load_file
    from torchvision.models import ResNet18_Weights, resnet18

    with pretrained(RESNET, resnet_weights):
        network = resnet18(weights=ResNet18_Weights.DEFAULT)
    assert network.state_dict()["conv1.weight"].equal(load_file(resnet_weights)["conv1.weight"])


def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="weights need the extra calibration")
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(PeerError, match=r"cannot be read as safetensors.*--peer-weights"):
        require_weights(RESNET, tmp_path / "weights.safetensors")


def test_weights_of_another_network_are_refused_rather_than_left_random(small_bundle: Bundle) -> None:
    with pytest.raises(PeerError, match=r"lacks \d+ of resnet18's tensors"):
        require_weights(RESNET, small_bundle.file(STUDENTS))


def test_weights_at_hand_are_accepted(resnet_weights: Path) -> None:
    pytest.importorskip("timm", reason="weights need the extra calibration")
    require_weights(RESNET, resnet_weights)


def test_weights_are_known_by_their_contents_and_not_by_their_folder(resnet_weights: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copy(resnet_weights, tmp_path))
    assert peer_settings("padim", elsewhere) == peer_settings("padim", resnet_weights)


def test_the_process_that_our_memory_is_taken_of_never_imports_torch() -> None:
    code = "import sys, fbft_calibration.peers.bundle_peer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_our_own_map_is_the_same_in_a_process_of_its_own(small_bundle: Bundle, nominal_folder: Path) -> None:
    pixels = read_image(image_paths(nominal_folder)[0])
    with PeerProcess("ours", partial(BundlePeer, small_bundle.path)) as ours:
        anomaly_map, _ = ours.map_of(pixels)
    np.testing.assert_array_equal(
        anomaly_map, OpenVinoDetector(small_bundle, FrameLayout(*pixels.shape[:2])).map_of(pixels)
    )

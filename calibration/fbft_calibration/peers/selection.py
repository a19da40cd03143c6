"""From the names of peers to running ones, or to the reason why there is none.

Knows nothing about data sets, figures or reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fbft_calibration.peers.anomalib_peer import AnomalibPeer
from fbft_calibration.peers.process import PeerProcess
from fbft_calibration.peers.recipes import NOT_RUN, PEERS
from fbft_calibration.peers.weights import require_weights, weights_in_words
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra

ALL = "all"


def peers_of(names: Sequence[str]) -> tuple[str, ...]:
    """Names of peers, each once; `all` stands for all of them.

    Raises:
        ArgumentError: There is no such peer, or anomalib is not installed.
    """
    every = [one for name in names for one in (PEERS if name == ALL else (name,))]
    for name in every:
        _require_peer(name)
    return tuple(dict.fromkeys(every))


def require_peers(names: Sequence[str], resnet_weights: Path | None = None) -> None:
    """Stop here unless all of these can be made; takes seconds, as their weights are loaded.

    Args:
        names: Keys of `PEERS`.
        resnet_weights: As `open_peer` takes it.

    Raises:
        ArgumentError: There is no such peer, anomalib is not installed, or there is no such file.
        PeerError: Weights cannot be had.
    """
    for name in names:
        _require_peer(name)
    _require_file(resnet_weights)
    for architecture in dict.fromkeys(PEERS[name].weights for name in names):
        require_weights(architecture, resnet_weights)


def peer_settings(name: str, resnet_weights: Path | None = None) -> dict[str, Any]:
    """All that decides what a peer finds, fit for JSON; takes no process.

    Args:
        name: Key of `PEERS`.
        resnet_weights: As `open_peer` takes it.
    """
    recipe = PEERS[name]
    return {"peer": name, **recipe.as_dict(), "weights": weights_in_words(recipe.weights, resnet_weights)}


def open_peer(name: str, resnet_weights: Path | None = None) -> PeerProcess:
    """Start a peer; it is a context manager.

    Args:
        name: Key of `PEERS`.
        resnet_weights: ResNet-18 pretrained on ImageNet in timm's naming, .safetensors; None asks the model hub.

    Raises:
        ArgumentError: No such peer, anomalib is not installed, or there is no such file.
        PeerError: Its weights cannot be had.
    """
    _require_peer(name)
    _require_file(resnet_weights)
    weights = resnet_weights and resnet_weights.absolute()  # the process stands elsewhere
    return PeerProcess(name, partial(AnomalibPeer, PEERS[name], weights))


def _require_peer(name: str) -> None:
    if name not in PEERS:
        reasons = {model.lower(): reason for model, reason in NOT_RUN.items()}
        cause = reasons.get(name.lower().replace("-", ""), "there is no such peer")
        raise ArgumentError(f"peer {name!r} cannot be run: {cause}; choose from {', '.join(PEERS)}")
    require_extra("calibration,peers", f"peer {name!r}")


def _require_file(resnet_weights: Path | None) -> None:
    if resnet_weights is not None and not resnet_weights.is_file():
        raise ArgumentError(f"{resnet_weights} is not a file; name the ResNet-18 weights, .safetensors")

"""Other detectors for the same images: nominal images in, then anomaly maps and scores, and what they cost.

The detectors are anomalib's, with the weights that are at hand. Each runs in a process of its own, so that its peak
memory is its own and its end is not ours. Knows nothing about data sets, figures or reports.
"""

from fbft_calibration.peers.anomalib_peer import AnomalibPeer, at_original_size
from fbft_calibration.peers.process import Peer, PeerCost, PeerProcess
from fbft_calibration.peers.recipes import NOT_RUN, PEERS, RESNET, VIT, Recipe
from fbft_calibration.peers.selection import open_peer, peer_settings, peers_of, require_peers
from fbft_edge.errors import PeerError

__all__ = [
    "NOT_RUN",
    "PEERS",
    "RESNET",
    "VIT",
    "AnomalibPeer",
    "Peer",
    "PeerCost",
    "PeerError",
    "PeerProcess",
    "Recipe",
    "at_original_size",
    "open_peer",
    "peer_settings",
    "peers_of",
    "require_peers",
]

"""F2PAD: pixel-accurate masks from detectors that work on features.

After "F2PAD: A General Optimization Framework for Feature-Level to Pixel-Level Anomaly Detection", of which we had the
abstract; the rest is built from first principles and held to measurements (docs/refinement.md).
"""

"""From nominal images to a bundle: students, thresholds, the report, and how well they do.

Needs the extra `calibration`.
"""

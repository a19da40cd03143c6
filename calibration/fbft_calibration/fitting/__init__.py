"""Nominal images in, a bundle out: teacher features, students, prototypes, scores, thresholds, report.

`bundling` says the order of it all. Knows nothing about data sets, other detectors or benchmarks.
"""

"""Nominal images in, a bundle out: features, students, prototypes, thresholds, report."""

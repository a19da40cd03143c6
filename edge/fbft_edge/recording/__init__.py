"""Frames kept with what was published about them, and inspected again: recorder in, recordings out, replay of them.

Knows nothing about how frames are inspected on a line.
"""

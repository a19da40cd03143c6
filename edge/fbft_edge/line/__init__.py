"""Cameras and a model on one grid; `assembly` wires everything."""

"""From a fitted bundle to engines: teacher and students, the ONNX graph, compiled engines, their parity.

Needs the extra `export` (torch, timm, onnx).
"""

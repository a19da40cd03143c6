"""The inspection runtime: frames in, verdicts and masks out. Never imports torch, timm or onnx."""

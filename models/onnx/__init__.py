"""Flows as ONNX graphs: traced from their folded form, see `export`."""

"""Triton model repositories, served and scored without code: ONNX Runtime and Python backends."""

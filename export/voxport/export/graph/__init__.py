"""ONNX graphs: capture, cleanup, half precision, execution."""

"""Models for sherpa-onnx."""

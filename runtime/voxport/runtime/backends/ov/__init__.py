"""ONNX models, run by OpenVINO on the CPU."""

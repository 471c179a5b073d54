"""TensorRT plans, run by TensorRT."""

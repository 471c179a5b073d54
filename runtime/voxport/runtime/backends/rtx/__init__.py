"""RTX engines, run by TensorRT for RTX."""

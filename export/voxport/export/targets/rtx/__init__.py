"""TensorRT's own parser and builder on a machine without a GPU, through NVIDIA's TensorRT for RTX."""

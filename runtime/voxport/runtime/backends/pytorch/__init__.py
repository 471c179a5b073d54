"""TorchScript and `.pt2` programs, checked before PyTorch runs them."""

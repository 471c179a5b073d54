"""TorchScript and `.pt2` programs."""

"""One training run: loop, data loaders, processes, checkpoints."""

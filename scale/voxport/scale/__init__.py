"""More than one process: corpora of any size, scored in bulk. The runtime does the work; PyTorch is not needed."""

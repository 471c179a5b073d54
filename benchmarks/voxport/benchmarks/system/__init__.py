"""The machine: processor, GPU, memory, energy."""

"""Log-mel features: their definition, the presets, and the NumPy implementation."""

"""Training: recipe → data → model → checkpoint."""

"""Corpora of recordings as they lie on disk: their layouts, their utterances and the sound of each. Free of PyTorch."""

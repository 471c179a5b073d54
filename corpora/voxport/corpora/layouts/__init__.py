"""How corpora lie on disk, one module a layout."""

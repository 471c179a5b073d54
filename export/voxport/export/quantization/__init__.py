"""int8: which layers, with which ranges."""

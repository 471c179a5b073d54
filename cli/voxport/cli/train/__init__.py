"""`voxport train`."""

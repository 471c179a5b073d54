"""`voxport doctor`."""

"""`voxport bench`."""

"""`voxport export`."""

"""`voxport demo`."""

"""`voxport tune`: the fastest form of a network on this machine, of those that are proven."""

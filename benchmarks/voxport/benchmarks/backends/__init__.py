"""The back ends that are timed against each other."""

"""Commands of more than one process."""

"""Sound longer than the model takes, answered in windows."""

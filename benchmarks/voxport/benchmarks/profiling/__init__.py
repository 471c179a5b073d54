"""Time by operator, and the graph behind it."""

"""Two measurements of the same thing, before and after."""

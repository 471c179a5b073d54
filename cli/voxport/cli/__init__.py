"""The `voxport` command: parses, delegates to a room, and shows what it returns."""

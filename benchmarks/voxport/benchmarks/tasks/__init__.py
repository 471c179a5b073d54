"""What a worker can be asked besides timing."""

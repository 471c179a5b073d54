"""What an export is verified with."""

"""The kinds of file that are written."""

"""Calls of many threads, answered in micro-batches."""

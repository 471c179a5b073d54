"""Accuracy under noise, rooms, codecs, bands and levels."""

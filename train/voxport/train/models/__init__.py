"""The speaker network and its parts."""

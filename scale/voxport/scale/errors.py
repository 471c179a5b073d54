"""What can go wrong beyond one process."""

from voxport.runtime.errors import VoxportError


class ScaleError(VoxportError):
    """A run over many processes cannot start, go on or be resumed as it was asked for."""

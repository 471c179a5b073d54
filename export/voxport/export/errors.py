"""What can go wrong between a checkpoint and an artefact."""

from voxport.runtime.errors import VoxportError


class ExportError(VoxportError):
    """A checkpoint cannot become the artefact that was asked for."""

"""What can go wrong between a checkpoint and an artefact."""

from typing import TYPE_CHECKING

from voxport.runtime.errors import VoxportError

if TYPE_CHECKING:
    from voxport.export.verification.report import ParityReport


class ExportError(VoxportError):
    """A checkpoint cannot become the artefact that was asked for."""


class ParityError(ExportError):
    """An artefact was built, and its answers are not the original's; `report` says how, where there is one."""

    def __init__(self, message: str, report: "ParityReport | None" = None) -> None:
        super().__init__(message)
        self.report = report

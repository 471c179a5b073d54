"""The speakers of the training, by whom the exported model's users may normalise scores."""

from voxport.export.errors import ExportError
from voxport.runtime.contract import AsNorm, Output
from voxport.train.checkpoint import Checkpoint
from voxport.train.models.heads import AmSoftmaxHead


def check_as_norm(checkpoint: Checkpoint, top: int | None, where: str) -> None:
    """Raise ExportError where scores cannot be normalised by `top` of the checkpoint's speakers; None: by nobody."""
    if top is None:
        return
    head, speakers = checkpoint.recipe.model.head, len(checkpoint.labels)
    if head != "am_softmax":
        raise ExportError(
            f"{where}: --as-norm needs an AM-Softmax head, whose weights are voices of the speakers; recipe "
            f"{checkpoint.recipe.name} has the head {head!r}; leave the option out"
        )
    if not 2 <= top <= speakers:
        raise ExportError(
            f"{where}: --as-norm {top}: must be 2 to {speakers}, the number of speakers it was trained on"
        )


def check_compared(top: int | None, outputs: tuple[Output, ...]) -> None:
    """Raise ExportError where voices cannot be compared at all, and their scores are to be normalised."""
    if top is not None and "embedding" not in outputs:
        raise ExportError(
            "--as-norm is about comparing voices, which takes embeddings; give --output both or embedding"
        )


def as_norm_of(checkpoint: Checkpoint, top: int | None) -> AsNorm | None:
    """The contract's part for `top` of the checkpoint's speakers, once `check_as_norm` passed.

    It comes from the weights alone, in float64: every export of a checkpoint, on any machine, holds the same bytes.
    """
    if top is None:
        return None
    head = checkpoint.network().head
    assert isinstance(head, AmSoftmaxHead)
    return AsNorm.of(top, head.weight.detach().double().numpy())

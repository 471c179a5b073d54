"""Each precision's own tolerance, measured on the inputs that the gate is about to use."""

from collections.abc import Callable, Mapping, Sequence

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import Utterance
from voxport.export.verification.half_noise import half_tolerance
from voxport.export.verification.int8_noise import int8_tolerance
from voxport.export.verification.reference import Reference, Tolerance, Track, tolerance
from voxport.runtime.contract import Precision
from voxport.train.checkpoint import Checkpoint

Rule = Callable[[Checkpoint, Sequence[Utterance], Reference, Track], Tolerance]


def _fp32(checkpoint: Checkpoint, _: Sequence[Utterance], reference: Reference, __: Track) -> Tolerance:
    return tolerance(reference, checkpoint.recipe.model.am_scale)


RULES: Mapping[Precision, Rule] = {"fp32": _fp32, "fp16": half_tolerance, "int8": int8_tolerance}


def tolerance_of(
    precision: Precision, checkpoint: Checkpoint, utterances: Sequence[Utterance], reference: Reference, track: Track
) -> Tolerance:
    """How far the answers of an artefact of `precision` may be from the reference; it gives the reason too.

    Raises:
        ExportError: no rule is known for `precision`.
    """
    if precision not in RULES:
        known = ", ".join(RULES)
        raise ExportError(f"no tolerance is known for precision {precision}; this voxport proves {known}")
    return RULES[precision](checkpoint, utterances, reference, track)

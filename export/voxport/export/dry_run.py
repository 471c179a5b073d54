"""What an export would build, without building or writing anything: `voxport export … --dry-run`.

What the checkpoint or the options alone would refuse is refused here too, with the same error.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from voxport.export.inputs.cases import grid_cases, synthetic_utterances
from voxport.export.network.cohort import check_as_norm
from voxport.export.network.inference_net import deployable_net
from voxport.export.pipeline import report_stem
from voxport.export.staging import refuse_output, refuse_source
from voxport.export.verification.gate import GateOptions, Named
from voxport.runtime.contract import OUTPUTS, InputKind, Output, Precision, TensorSpec
from voxport.runtime.frontend.log_mel import min_samples

_REPORTS = ("json", "md", "png")


@dataclass(frozen=True)
class Tensors:
    """A graph's inputs and outputs; named dimensions vary."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Kind:
    """What would be built: the kind of file, what it takes, and its precision. `opset` is None where there is none.

    `beside` and `folder` are those of its `pipeline.Target`; `notes` are for a person, on what else is particular.
    """

    name: str
    input_kind: InputKind = "features"
    outputs: tuple[Output, ...] = OUTPUTS
    precision: Precision = "fp32"
    opset: int | None = None
    tensors: Tensors | None = None
    beside: tuple[str, ...] = ()
    folder: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preview:
    """What would be built. `min_seconds` and `max_seconds` are of the shortest sounds that give so many frames.

    `exists` says that something stands under the output's name already, and `replaced` that it would be
    replaced; without `replaced` the export would refuse. `runs` and `utterances` count what the gate would make
    itself; `real` and `accuracy` say what it would take besides.
    """

    target: str
    checkpoint: str
    recipe: str
    speakers: int
    writes: tuple[str, ...]
    exists: bool
    replaced: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Precision
    opset: int | None
    min_frames: int
    max_frames: int
    min_seconds: float
    max_seconds: float
    utterances: int
    runs: int
    real: str
    accuracy: str
    notes: tuple[str, ...]


def preview(source: Named, output: Path, kind: Kind, options: GateOptions) -> Preview:
    """What an export of `source` to `output` would build and check.

    Raises:
        ExportError: the checkpoint cannot be exported, or `output` is that file, or a folder where a file
            is to be written, or there is no such labelled set.
        CheckpointError: the weights do not fit the recipe.
    """
    refuse_source(output, Path(source.path))
    refuse_output(output, kind.folder)
    if options.accuracy is not None:
        options.accuracy.check()
    check_as_norm(source.checkpoint, options.as_norm, source.path)
    checkpoint, limits = source.checkpoint, options.limits
    frontend, rate = checkpoint.frontend, checkpoint.frontend.sample_rate
    embedding_size = deployable_net(checkpoint).class_weight_ES.shape[0]
    tensors = kind.tensors or expected(kind, frontend.n_mels, len(checkpoint.labels), embedding_size)
    made = synthetic_utterances(frontend, kind.input_kind, limits)
    stem, exists = report_stem(output), os.path.lexists(output)
    return Preview(
        target=kind.name,
        checkpoint=source.path,
        recipe=checkpoint.recipe.name,
        speakers=len(checkpoint.labels),
        writes=(
            str(output),
            *(f"{output}{suffix}" for suffix in kind.beside),
            *(f"{stem}.{suffix}" for suffix in _REPORTS),
        ),
        exists=exists,
        replaced=exists and options.force,
        inputs=tensors.inputs,
        outputs=tensors.outputs,
        precision=kind.precision,
        opset=kind.opset,
        min_frames=limits.min_frames,
        max_frames=limits.max_frames,
        min_seconds=min_samples(frontend, limits.min_frames) / rate,
        max_seconds=min_samples(frontend, limits.max_frames) / rate,
        utterances=len(made),
        runs=len(grid_cases(made, 1)),
        real=_real(checkpoint.data, options.real.count),
        accuracy=_accuracy(options),
        notes=kind.notes + _normalisation(options.as_norm, len(checkpoint.labels)),
    )


def expected(kind: Kind, n_mels: int, speakers: int, embedding_size: int) -> Tensors:
    """The tensors of a graph with our own names, as its contract will promise them."""
    source = TensorSpec("features", "float32", ("batch", "frames", n_mels))
    if kind.input_kind == "waveform":
        source = TensorSpec("waveform", "float32", ("batch", "samples"))
    widths = {"scores": speakers, "embedding": embedding_size}
    outputs = tuple(TensorSpec(name, "float32", ("batch", widths[name])) for name in kind.outputs)
    return Tensors((source, TensorSpec("lengths", "int64", ("batch",))), outputs)


def _normalisation(top: int | None, speakers: int) -> tuple[str, ...]:
    return () if top is None else (f"galleries normalise scores by the {top} nearest of {speakers} training speakers",)


def _real(data: str | None, count: int) -> str:
    if count == 0:
        return "none, because none were asked for"
    if data is None:
        return "none, because the checkpoint does not say what it was trained on"
    if not os.path.exists(data):
        return f"none, because {data} is not there"
    return f"at most {count} of {data}"


def _accuracy(options: GateOptions) -> str:
    chosen = options.accuracy
    if chosen is None:
        return "not measured; --accuracy-data gives a labelled set"
    most = "all" if chosen.limit is None else f"at most {chosen.limit}"
    return f"{most} of {chosen.data}, {chosen.max_drop:g} points may be lost"

"""From a float32 graph to an int8 one: calibrate, measure what each layer costs, leave in float what costs too much."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import to_bytes
from voxport.export.inputs.cases import LengthLimits, Utterance, synthetic_utterances
from voxport.export.inputs.corpus_samples import corpus_utterance, spread_over_lengths
from voxport.export.quantization.calibration import Method, activation_ranges
from voxport.export.quantization.qdq import MatrixProduct, Scheme, matrix_products, quantize
from voxport.export.quantization.sensitivity import Cost, KeepFloat, LayerCost, Sensitivity, keep_float
from voxport.runtime.contract import InputKind
from voxport.runtime.errors import VoxportError
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus
from voxport.train.progress import track

_MEASURED = 8  # utterances on which each layer's cost is measured
_MEASURED_FRAMES = 300  # of each, at most: costs grow little with length, time does
_SEED = 1  # of made-up voices: others than those that the gate asks about


@dataclass(frozen=True)
class QuantizeOptions:
    """How to come to int8.

    `data` is the corpus of the calibration utterances, at most `count` of them (default: the training part of
    what the checkpoint was trained on). `method` chooses static ranges. `keep_float` layers stay in float32, or
    as many as the `budget` for the mean embedding error (1 - cosine) demands. Raises ExportError for impossible
    numbers.
    """

    scheme: Scheme = "dynamic"
    data: Path | None = None
    count: int = 64
    method: Method = "max"
    keep_float: KeepFloat = "auto"
    budget: float = 1e-3
    cache: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ExportError(f"calibration with {self.count} utterances; give at least 1")
        if isinstance(self.keep_float, int) and self.keep_float < 0:
            raise ExportError(f"keep_float is {self.keep_float}; give a number of layers, or auto")
        if not (math.isfinite(self.budget) and self.budget > 0):
            raise ExportError(f"sensitivity budget is {self.budget}; give a mean 1 - cosine above 0, such as 0.001")


@dataclass(frozen=True)
class QuantizationReport:
    """What was quantised and what it costs. `cost` is that of the graph as written, `everything` of no layer kept.

    `method` is None for the dynamic scheme. Sizes are of the graphs, in bytes.
    """

    scheme: Scheme
    method: Method | None
    utterances: str
    layers: tuple[LayerCost, ...]
    kept_float: tuple[str, ...]
    keep_rule: str
    cost: Cost
    float_bytes: int
    int8_bytes: int

    @property
    def worst(self) -> tuple[LayerCost, ...]:
        """The layers from the most to the least harmful."""
        return tuple(sorted(self.layers, key=lambda each: -each.cost.mean_error))

    @property
    def blame(self) -> str:
        """The layers in int8 that cost most, for a person."""
        named = [each for each in self.worst if not each.kept_float][:3]
        found = ", ".join(f"{each.layer} ({each.cost.mean_error:.2g})" for each in named)
        return f"the layers in int8 that cost most (mean 1 - cosine): {found}; --keep-float leaves them in float"


def quantize_graph(
    graph: ModelProto, checkpoint: Checkpoint, kind: InputKind, limits: LengthLimits, options: QuantizeOptions
) -> tuple[ModelProto, QuantizationReport]:
    """The int8 graph of a float32 one, and the measurements that it rests on.

    Raises:
        ExportError: no utterance to calibrate with, or no product for int8, or all of them stay in float.
        CorpusError: `options.data` cannot be opened, or holds unusable entries.
    """
    utterances, note = _utterances(checkpoint, kind, limits, options)
    products, ranges = matrix_products(graph.graph), dict[str, float]()
    if not products:
        raise ExportError("the network has no matrix product large enough for int8; export it in fp32")
    few = _few(utterances, checkpoint, kind)
    if options.scheme == "static":
        made = _made_up(checkpoint, kind, limits)
        ranges = _ranges(graph, products, (utterances, made), options)
        few += _few(made, checkpoint, kind)
        note += f", and {len(made)} made-up voices"
    sensitivity = Sensitivity(graph, options.scheme, ranges, few)

    def progress(items: Sequence[MatrixProduct], description: str) -> Iterable[MatrixProduct]:
        return track(items, description, len(items), options.progress)

    costs = sensitivity.layers(progress)
    kept, cost = keep_float(costs, options.keep_float, options.budget, sensitivity.cost)
    if len(kept) == len(costs):
        raise ExportError(
            f"all {len(costs)} matrix products would stay in float, so nothing would be int8; "
            "keep fewer with --keep-float, allow more with --sensitivity-budget, or export in fp32"
        )
    small = quantize(graph, options.scheme, [each.layer for each in costs if each.layer not in kept], ranges)
    auto = f"auto: nearly free ones, and as many as keep the mean 1 - cosine at {options.budget:g} or below"
    return small, QuantizationReport(
        scheme=options.scheme,
        method=options.method if options.scheme == "static" else None,
        utterances=note,
        layers=tuple(dataclasses.replace(each, kept_float=each.layer in kept) for each in costs),
        kept_float=kept,
        keep_rule=auto if options.keep_float == "auto" else f"{options.keep_float} layers, as asked for",
        cost=cost,
        float_bytes=len(to_bytes(graph)),
        int8_bytes=len(to_bytes(small)),
    )


def calibration_source(checkpoint: Checkpoint, options: QuantizeOptions) -> str:
    """From where the calibration's utterances would be taken, for a person; nothing is opened.

    Raises:
        ExportError: the static scheme, and there is no such corpus.
    """
    data = options.data or (None if checkpoint.data is None else Path(checkpoint.data))
    if data is not None and data.exists():
        part = "" if options.data is not None else ", training part"
        return f"at most {options.count} utterances of {data}{part}"
    why = f"{data} is not there" if data is not None else "the checkpoint does not say what it was trained on"
    if options.scheme == "static" or options.data is not None:
        raise ExportError(f"no utterance to calibrate with ({why}); give recordings with --calibration")
    return f"made-up voices, because {why}"


def _ranges(
    graph: ModelProto,
    products: Sequence[MatrixProduct],
    groups: Sequence[Sequence[Utterance]],
    options: QuantizeOptions,
) -> dict[str, float]:
    """The range of each product's input that holds for each of the groups of utterances.

    Speech alone will not do: what a static scale does not reach is clipped, and on other sounds than those of
    the calibration (noise, another channel) a network's values leave their usual range by up to several times.
    """
    inputs = list(dict.fromkeys(each.input for each in products))
    found = []
    for group in groups:
        shown = track(group, "Calibrating", len(group), options.progress)
        found.append(activation_ranges(graph, inputs, shown, options.method))
    return {name: max(ranges[name] for ranges in found) for name in inputs}


def _made_up(checkpoint: Checkpoint, kind: InputKind, limits: LengthLimits) -> tuple[Utterance, ...]:
    """Voices that nobody has, of all lengths up to one at which they take little time."""
    short = LengthLimits(limits.min_frames, limits.clip(_MEASURED_FRAMES))
    return tuple(synthetic_utterances(checkpoint.frontend, kind, short, _SEED))


def _utterances(
    checkpoint: Checkpoint, kind: InputKind, limits: LengthLimits, options: QuantizeOptions
) -> tuple[tuple[Utterance, ...], str]:
    """Utterances to calibrate with, and where they are from. Only the dynamic scheme makes do with made-up ones."""
    try:
        found, where = _real(checkpoint, kind, limits, options)
    except VoxportError as problem:
        if options.data is not None:
            raise
        found, where = (), str(problem)
    if found:
        return found, f"{len(found)} real ones of {where}"
    if options.scheme == "static" or options.data is not None:
        raise ExportError(f"no utterance to calibrate with ({where}); give recordings with --calibration")
    made = _made_up(checkpoint, kind, limits)
    return tuple(made[:: max(1, len(made) // _MEASURED)]), f"made-up voices, because {where}"


def _real(
    checkpoint: Checkpoint, kind: InputKind, limits: LengthLimits, options: QuantizeOptions
) -> tuple[tuple[Utterance, ...], str]:
    data = options.data or checkpoint.data
    if data is None:
        raise ExportError("the checkpoint does not say what it was trained on")
    # What training left out of its own corpus was judged then; a corpus named here must be whole.
    skip_bad = options.data is None
    layout = checkpoint.layout_for(data)
    opening = CorpusOptions(checkpoint.frontend, skip_bad, options.cache, progress=options.progress, layout=layout)
    corpus = open_corpus(data, opening)
    trained = _trained_on(corpus, checkpoint)
    chosen = spread_over_lengths(corpus, trained, limits, options.count)
    part = "" if trained is None else ", training part"
    return tuple(corpus_utterance(corpus, i, kind, limits) for i in chosen), f"{data}{part}"


def _trained_on(corpus: Corpus, checkpoint: Checkpoint) -> list[int] | None:
    """The training part, where this is the corpus of the training: what is held out must stay so."""
    return [int(i) for i in corpus.indices(checkpoint.split.train)] if checkpoint.split.seen_in(corpus) else None


def _few(utterances: Sequence[Utterance], checkpoint: Checkpoint, kind: InputKind) -> list[Utterance]:
    """Some of them, evenly, cut to a length at which each layer can be measured in reasonable time."""
    step = max(1, len(utterances) // _MEASURED)
    longest = _MEASURED_FRAMES * (1 if kind == "features" else checkpoint.frontend.hop_length)
    return [
        dataclasses.replace(each, input=each.input[:longest], frames=min(each.frames, _MEASURED_FRAMES))
        for each in utterances[::step][:_MEASURED]
    ]

"""The curves of `voxport bench scale`, each a job in a process of its own: see `scaling.runner`."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.inputs import voice
from voxport.benchmarks.scaling.models import Model, open_model
from voxport.benchmarks.scaling.points import Work, difference, make_series, measure_points
from voxport.benchmarks.scaling.report import ScaleSettings
from voxport.runtime.contract import Contract
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.storage.serialization import decode

Float32 = npt.NDArray[np.float32]
_POOL = 3  # distinct inputs of a point, used in turn


def _settings(request: dict[str, Any]) -> ScaleSettings:
    return decode(ScaleSettings, request["settings"], "settings")


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """The model's name and the packages' versions."""
    import importlib.metadata

    model = open_model(_settings(request))
    versions = {}
    for name in ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "faiss-cpu"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"model": model.name, "versions": versions}


def length_curve(request: dict[str, Any]) -> dict[str, Any]:
    """One utterance of growing length: the whole network, its attention alone, and the rest."""
    settings = _settings(request)
    model = open_model(settings)
    sizes, notes = _allowed(model.backend.contract, settings.of("length"))
    works = [Work("whole network", frames, _forward(model, 1, frames, settings)) for frames in sizes]
    if model.shape is not None:
        works += [Work("attention alone", frames, _attention(model, frames, settings)) for frames in sizes]
    else:
        notes.append("an artefact does not tell its attention's shape: give a checkpoint to see attention alone")
    measure_points(works, settings)
    series = list(make_series(works))
    if len(series) == 2:
        series.append(difference("all but attention", *series))
    return {"series": series, "notes": notes}


def batch_curve(request: dict[str, Any]) -> dict[str, Any]:
    """Calls with growing batches, the time divided by the utterances in a call."""
    settings = _settings(request)
    model = open_model(settings)
    (frames, *_), notes = _allowed(model.backend.contract, (settings.batch_frames,))
    works = [
        Work("an utterance in a batch", batch, _forward(model, batch, frames, settings), parts=batch)
        for batch in settings.of("batch")
    ]
    measure_points(works, settings)
    return {"series": make_series(works), "notes": notes}


def _allowed(contract: Contract, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
    kept = tuple(size for size in sizes if contract.min_frames <= size <= contract.max_frames)
    if not kept:
        raise VoxportError(
            f"the model takes {contract.min_frames} to {contract.max_frames} frames, none of "
            f"{', '.join(map(str, sizes))}"
        )
    if kept == sizes:
        return kept, []
    return kept, [f"the model takes {contract.min_frames} to {contract.max_frames} frames; other lengths are left out"]


def _forward(model: Model, batch: int, frames: int, settings: ScaleSettings) -> Callable[[], object]:
    """A call of the model with voice-like input, features or sound as it takes."""
    contract = model.backend.contract
    frontend = contract.frontend
    rng = np.random.default_rng((settings.seed, batch, frames))
    samples = min_samples(frontend, frames)
    inputs = []
    for _ in range(_POOL):
        row: Float32 = voice(samples, frontend.sample_rate, rng)
        if contract.input_kind == "features":
            row = compute_features(row, frontend)[:frames]
        inputs.append(np.repeat(row[None], batch, axis=0))
    lengths = np.full(batch, inputs[0].shape[1], np.int64)
    turn = itertools.cycle(inputs)
    return lambda: model.backend.run(next(turn), lengths)


def _attention(model: Model, frames: int, settings: ScaleSettings) -> Callable[[], object]:
    """The products of attention that grow with the square of the length, of all layers, by the same library."""
    import torch
    import torch.nn.functional as F

    assert model.shape is not None
    shape = (1, model.shape.heads, frames, model.shape.width // model.shape.heads)
    query, key, value = (torch.randn(shape, device=settings.device) for _ in range(3))
    layers = model.shape.layers

    def call() -> None:
        with torch.inference_mode():
            for _ in range(layers):
                F.scaled_dot_product_attention(query, key, value)
            if settings.device == "cuda":
                torch.cuda.synchronize()

    return call


def speakers_curve(request: dict[str, Any]) -> dict[str, Any]:
    """The head with growing numbers of speakers: as it is trained, and with its weights normalised once."""
    import torch
    import torch.nn.functional as F

    from voxport.train.models.heads import AmSoftmaxHead

    settings = _settings(request)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    embedding = torch.randn(1, settings.embedding, device=settings.device)
    unit = F.normalize(embedding, dim=-1)

    def waited(function: Callable[[], torch.Tensor]) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return function().cpu()  # the copy waits for the device

        return call

    works = []
    for speakers in settings.of("speakers"):
        head = AmSoftmaxHead(settings.embedding, speakers, 30.0, 0.35).to(settings.device).eval()
        weight = F.normalize(head.weight.detach(), dim=-1) * 30.0
        works += [
            Work("head as it is trained", speakers, waited(partial(head, embedding))),
            Work("weights normalised once", speakers, waited(partial(F.linear, unit, weight))),
        ]
    measure_points(works, settings)
    note = "the trained head normalises every speaker's weights at each call; an exported model holds them normalised"
    return {"series": make_series(works), "notes": [note]}

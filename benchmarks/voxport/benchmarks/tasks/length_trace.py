"""Realistic lengths: drawn from a corpus, so that they alternate as they do in use. Lengths only, no sound."""

from pathlib import Path

import numpy as np

from voxport.benchmarks.core.protocol import Draw, Drawn
from voxport.runtime.errors import VoxportError


def draw(request: Draw) -> Drawn:
    """Draw `count` lengths; longer ones are cut to `max_frames`, as an application cuts them, shorter ones left out.

    Raises:
        VoxportError: nothing there, or no length that the models take.
    """
    path = Path(request.data)
    found = np.array(_of_file(path) if path.is_file() and path.suffix == ".txt" else _of_corpus(request), np.int64)
    usable = found[found >= request.min_frames]
    if not usable.size:
        raise VoxportError(f"{path}: none of {found.size} lengths has {request.min_frames} frames or more")
    chosen = np.random.default_rng(request.inputs.seed).choice(usable, request.count)
    cut = int((chosen > request.max_frames).sum())
    middle = (
        f"{usable.size} lengths of {path.name}, {usable.min()} to {usable.max()} frames, median {np.median(usable):g}"
    )
    note = f"{request.count} lengths drawn from {middle}; {cut} cut to {request.max_frames}"
    return Drawn(tuple(np.minimum(chosen, request.max_frames).tolist()), note)


def _of_file(path: Path) -> list[int]:
    words = path.read_text(encoding="utf-8", errors="replace").split()
    wrong = next((word for word in words if not word.isdigit() or int(word) < 1), None)
    if wrong is not None or not words:
        raise VoxportError(f"{path}: expected one length in frames a line, found {wrong or 'nothing'}")
    return [int(word) for word in words]


def _of_corpus(request: Draw) -> list[int]:
    from voxport.train.data import CorpusOptions, open_corpus

    options = CorpusOptions(request.inputs.frontend, skip_bad=True, progress=False)
    return [utterance.frames for utterance in open_corpus(request.data, options).utterances]

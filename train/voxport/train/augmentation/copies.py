"""Changed copies of a corpus's training utterances, computed once by worker processes and kept in the cache.

The key of a cached pack is all that decides its numbers: the corpus's own pack, the utterances, the options,
the seed, and the files of the user's noises and rooms. So a run that goes on, or is made again, sees the same copies,
and a training step costs what it costs without them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.runtime.storage.serialization import encode
from voxport.train.augmentation.changing import Changer, Wanted, changed_features
from voxport.train.augmentation.pool import map_in_processes
from voxport.train.data import Corpus, CorpusError
from voxport.train.data.corpus import CorpusOptions
from voxport.train.data.crops import Copies
from voxport.train.data.feature_store import Pack, atomic_file, cache_folder
from voxport.train.effects.material import Found, find_noises, find_responses
from voxport.train.effects.options import AugmentOptions
from voxport.train.progress import track

VERSION = 4  # rises when the same options come to give other numbers

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Folders:
    """The user's own noises and room responses, where there are any."""

    noises: Found | None = None
    responses: Found | None = None

    @classmethod
    def of(cls, options: AugmentOptions) -> "Folders":
        """Look for the files of `options`.

        Raises:
            VoxportError: a folder holds no sound.
        """
        return cls(
            find_noises(Path(options.noise_folder)) if options.noise_folder else None,
            find_responses(Path(options.rir_folder)) if options.rir_folder else None,
        )

    def lines(self) -> Iterator[str]:
        """What they were taken for, for a person."""
        for option, found in (("--noise", self.noises), ("--rirs", self.responses)):
            if found is not None:
                yield f"  {option}: {found.layout}, {len(found.files):,} files"


def open_copies(
    corpus: Corpus, indices: Int64, options: AugmentOptions, seed: int, opening: CorpusOptions
) -> Copies | None:
    """The changed copies of the utterances `indices` (n,) of `corpus`, from the cache or computed now.

    `opening` is how the corpus was opened: its cache, jobs and progress are used. None where `options` ask for
    no copies and no further speakers.

    Raises:
        CorpusError: stored features cannot be changed with this frontend, a sound cannot be read any more, or the
            cache cannot be written.
        VoxportError: a folder of noises or responses holds none.
    """
    if not options.copies and not options.speed_speakers:
        return None
    folders = Folders.of(options)
    announce = opening.announce or (lambda line: None)
    for line in folders.lines():
        announce(line)
    wanted = _wanted(corpus, indices, options)
    folder = cache_folder(opening.cache) / "copies"
    key = _key(corpus, indices, options, seed, folders)
    frames = _known(folder, key, corpus.frontend.n_mels, len(wanted) * (options.copies + 1))
    if frames is None:
        announce(f"  augmentation: {len(wanted) * options.copies:,} changed copies of {len(wanted):,} utterances")
        changer = Changer.of(corpus, indices, options, folders.noises, folders.responses, "training", seed)
        frames = _compute(changer, wanted, folder, key, opening)
    offsets = np.concatenate([[0], np.cumsum(frames)[:-1]])
    speakers = np.array([each.speaker for each in wanted], np.int64)
    return Copies(Pack(_rows(folder, key), corpus.frontend.n_mels, offsets, frames), speakers, options.clean)


def _wanted(corpus: Corpus, indices: Int64, options: AugmentOptions) -> list[Wanted]:
    """Every utterance itself, then every utterance at each of the speeds that make further speakers."""
    found = []
    for number, factor in enumerate((1.0, *options.speed_speakers)):
        shift = number * len(corpus.labels)
        found += [Wanted(int(i), int(corpus.speakers[i]) + shift, factor, options.copies) for i in indices]
    return found


def _compute(
    changer: Changer, wanted: Sequence[Wanted], folder: Path, key: str, opening: CorpusOptions
) -> npt.NDArray[np.int64]:
    frames: list[int] = []
    with atomic_file(_rows(folder, key), durable=True) as file:
        results = map_in_processes(changed_features, changer, wanted, opening.jobs)
        for features in track(results, "Augmenting", len(wanted), opening.progress):
            for array in features:
                file.write(np.ascontiguousarray(array, dtype="<f4").data)
                frames.append(len(array))
    with atomic_file(_index(folder, key)) as file:
        file.write(json.dumps({"version": VERSION, "frames": frames}).encode())
    return np.array(frames, np.int64)


def _known(folder: Path, key: str, n_mels: int, count: int) -> npt.NDArray[np.int64] | None:
    """Frames of every array of a pack that is complete, else None."""
    try:
        content = json.loads(_index(folder, key).read_bytes())
        frames = np.array(content["frames"], np.int64)
        whole = content["version"] == VERSION and frames.shape == (count,)
        if whole and _rows(folder, key).stat().st_size == int(frames.sum()) * n_mels * 4:
            return frames
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _key(corpus: Corpus, indices: Int64, options: AugmentOptions, seed: int, folders: Folders) -> str:
    files = []
    for found in (folders.noises, folders.responses):
        for path in found.files if found is not None else ():
            try:
                status = path.stat()
            except OSError as problem:
                raise CorpusError(f"{path}: cannot be read ({problem})") from problem
            files.append((str(path), status.st_size, status.st_mtime_ns))
    keys = [corpus.utterances[i].key for i in indices]
    chances = {name: value for name, value in encode(options).items() if name != "clean"}
    facts = (VERSION, corpus.pack.path.name, corpus.frontend.digest, keys, chances, seed, files)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _rows(folder: Path, key: str) -> Path:
    return folder / f"{key}.f32"


def _index(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"

"""A gallery's file: plain arrays, and a header in JSON that says whose they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import AsNorm
from voxport.runtime.errors import ContractError, GalleryError
from voxport.runtime.gallery.search import Normalization
from voxport.runtime.gallery.state import KEPT, MAX_EMBEDDING_SIZE, MAX_NAME, PIECES, State, check_name, voices_of
from voxport.runtime.gallery.thresholds import MAX_SPEAKERS, Thresholds
from voxport.runtime.gallery.utterances import Kept
from voxport.runtime.storage.npz import NpzReader, open_npz, write_npz
from voxport.runtime.storage.serialization import decode, encode

FORMAT, PLAIN, NORMALIZED = "voxport gallery", 3, 4  # readers from before scores were normalised know the plain one
_MAX_HEADER = 1 << 16
_MEMBERS = {"header": "|u1", "names": "|u1", "counts": "<i8", "sums": "<f8", "kept": "<f4", "owners": "<i8"}
# Since version 2: seconds of what is kept, short pieces of it, and whose name is one of the model's labels.
_MORE = {"seconds": "<f4", "trained": "|u1", "pieces": "<f4", "piece_owners": "<i8", "piece_seconds": "<f4"}
_SPOKEN = {"spoken": "<f4", "piece_spoken": "<f4"}  # since version 3: seconds of active speech in each
_COHORT = {"cohort": "<f2"}  # in version 4: by whom scores are normalised

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What a gallery says about itself: the model that it belongs to and its sizes."""

    format: str
    version: int
    checkpoint_sha256: str
    embedding_size: int
    speakers: int
    kept: int
    thresholds: Thresholds

    def __post_init__(self) -> None:
        for name, least, most in (
            ("embedding_size", 1, MAX_EMBEDDING_SIZE),
            ("speakers", 0, MAX_SPEAKERS),
            ("kept", 0, KEPT),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between {least} and {most}, found {getattr(self, name)}")


def write_gallery(path: Path, state: State, checkpoint_sha256: str) -> None:
    """Write `path`; a reader sees the old file or the new one, never a part.

    Raises:
        GalleryError: it cannot be written (full disk, no permission), or is too large; an older one stays.
    """
    size, rule = state.sums.shape[1], state.rule
    version = PLAIN if rule is None else NORMALIZED
    header = Header(FORMAT, version, checkpoint_sha256, size, len(state.names), len(state.kept), state.thresholds)
    values = encode(header) | {"thresholds": state.thresholds.encoded()}
    text = json.dumps(values, sort_keys=True).encode()
    if len(text) > _MAX_HEADER:
        raise GalleryError(f"{path}: the model's checkpoint hash is too long ({len(checkpoint_sha256):,} characters)")
    arrays: dict[str, Array] = {
        "header": np.frombuffer(text, np.uint8),
        "names": np.frombuffer("\n".join(state.names).encode(), np.uint8),
        "counts": state.counts,
        "sums": state.sums,
        "kept": state.kept,
        "owners": state.owners,
        "seconds": state.whole.seconds,
        "trained": state.trained,
        "pieces": state.pieces.vectors,
        "piece_owners": state.pieces.owners,
        "piece_seconds": state.pieces.seconds,
        "spoken": state.whole.spoken,
        "piece_spoken": state.pieces.spoken,
    }
    every = _MEMBERS | _MORE | _SPOKEN
    if rule is not None:
        arrays["cohort"] = rule.stored
        every |= _COHORT
    write_npz(path, {name: np.ascontiguousarray(arrays[name], descr) for name, descr in every.items()})


def read_gallery(path: Path) -> tuple[Header, State]:
    """Read what `write_gallery` wrote.

    Raises:
        GalleryError: the file is missing, no gallery, of another version, or damaged.
    """
    with open_npz(path, "voxport gallery", _MEMBERS, _MORE | _SPOKEN | _COHORT) as reader:
        header = _header(reader, path)
        speakers, kept, size = header.speakers, header.kept, header.embedding_size
        names = _names(reader, speakers)
        counts = reader.array("counts", _MEMBERS["counts"], (speakers,))
        sums = reader.array("sums", _MEMBERS["sums"], (speakers, size))
        rows = reader.array("kept", _MEMBERS["kept"], (kept, size))
        owners = reader.array("owners", _MEMBERS["owners"], (kept,))
        lengths, pieces, trained = _more(reader, header)
        rule = _rule(reader, header)
        if not _are_voices(counts, sums) or not _are_kept(Kept(rows, owners, lengths), speakers):
            raise reader.error("its numbers are not those of enrolled voices")
        if not _are_kept(pieces, speakers) or len(pieces.vectors) > PIECES:
            raise reader.error("its short pieces are not those of enrolled voices")
        try:
            voices = voices_of(sums, counts, names)
        except GalleryError as problem:
            raise reader.error(str(problem)) from problem
    norm = Normalization.of(rule, voices)
    whole = Kept(rows, owners, lengths)
    return header, State(names, counts, sums, voices, whole, pieces, trained, header.thresholds, norm)


def _rule(reader: NpzReader, header: Header) -> AsNorm | None:
    """By whom scores are normalised, where the file says so."""
    top = header.thresholds.as_norm
    if (top is not None, "cohort" in reader) != (header.version == NORMALIZED,) * 2:
        raise reader.error("its header and its arrays do not agree on whether scores are normalised")
    if top is None:
        return None
    stored = reader.array("cohort", _COHORT["cohort"], (-1, header.embedding_size))
    try:
        rule = AsNorm.kept(top, stored)
        _ = rule.speakers
    except (ValueError, ContractError) as problem:
        raise reader.error(str(problem)) from problem
    return rule


def _more(reader: NpzReader, header: Header) -> tuple[Array, Kept, Array]:
    """Lengths of what is kept, pieces, and whose name is a label of the model's; versions 1 and 2 have less of it."""
    speakers, kept, size = header.speakers, header.kept, header.embedding_size
    if header.version == 1:
        return np.zeros((kept, 2), np.float32), Kept.none(size), np.zeros(speakers, np.bool_)
    wanted = _MORE | (_SPOKEN if header.version >= 3 else {})
    if not all(name in reader for name in wanted):
        raise reader.error(f"it does not hold the arrays {', '.join(wanted)}")

    def lengths(sound: str, speech: str, count: int) -> Array:
        columns = np.zeros((count, 2), np.float32)
        columns[:, 0] = reader.array(sound, _MORE[sound], (count,))
        if speech in wanted:
            columns[:, 1] = reader.array(speech, _SPOKEN[speech], (count,))
        return columns

    trained = reader.array("trained", _MORE["trained"], (speakers,))
    pieces = reader.array("pieces", _MORE["pieces"], (-1, size))
    owners = reader.array("piece_owners", _MORE["piece_owners"], (len(pieces),))
    piece_lengths = lengths("piece_seconds", "piece_spoken", len(pieces))
    return lengths("seconds", "spoken", kept), Kept(pieces, owners, piece_lengths), trained > 0


def _header(reader: NpzReader, path: Path) -> Header:
    text = bytes(reader.array("header", _MEMBERS["header"], (-1,), _MAX_HEADER))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise reader.error(f"its header is not JSON ({problem!s:.80})") from problem
    given = values if isinstance(values, dict) else {}
    if given.get("format") != FORMAT:
        raise reader.error("it has no voxport header")
    if given.get("version") not in range(1, NORMALIZED + 1):
        raise GalleryError(
            f"{path}: gallery version {given.get('version')!r:.20}, this voxport reads versions 1 to {NORMALIZED}; "
            "install the voxport that wrote it, or enroll the speakers again"
        )
    return decode(Header, values, str(path), GalleryError)


def _names(reader: NpzReader, speakers: int) -> tuple[str, ...]:
    """The names, one to a line. Lines are counted before any becomes an object."""
    raw = reader.array("names", _MEMBERS["names"], (-1,))
    if raw.size > speakers * (4 * MAX_NAME + 1) or int((raw == ord("\n")).sum()) != max(0, speakers - 1):
        raise reader.error(f"its names are not {speakers}")
    try:
        names = tuple(bytes(raw).decode().split("\n")) if speakers else ()
        sound = len(set(names)) == len(names) and all(check_name(name) == name for name in names)
    except (UnicodeDecodeError, GalleryError) as problem:
        raise reader.error(f"a name is none ({problem!s:.120})") from problem
    if not sound:
        raise reader.error("a name is there twice, or not in composed form")
    return names


def _are_voices(counts: Array, sums: Array) -> bool:
    """Whether enrolling can have given these numbers; others would turn into answers that look right."""
    return (
        bool(((counts >= 1) & (counts < 1 << 53)).all())
        and bool((np.abs(sums) <= counts[:, None] * 1.001).all())  # false for NaN as well
    )


def _are_kept(kept: Kept, speakers: int) -> bool:
    """Whether single utterances can be these: of unit length, of somebody, and not shorter than nothing."""
    norms = np.linalg.norm(kept.vectors.astype(np.float64), axis=1)
    return (
        bool((np.abs(norms - 1) < 1e-3).all())
        and bool(((kept.owners >= 0) & (kept.owners < speakers)).all())
        and bool(((kept.lengths >= 0) & (kept.lengths < 1e9)).all())
    )

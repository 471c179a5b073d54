"""Which shapes a TensorRT plan is built for: optimization profiles from the contract's lengths, batches and buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend.log_mel import min_samples
from voxport.runtime.frontend.spec import Frontend

Shape = tuple[int, ...]
Span = tuple[int, int, int]  # smallest, the one to tune for, largest

_TYPICAL_SECONDS = 4.0
_MAX_ELEMENTS = 2**31 - 1  # of one tensor in TensorRT


@dataclass(frozen=True)
class BatchRange:
    """Rows that a plan takes at once: the fewest, those that it is tuned for, the most.

    Raises ExportError unless 1 ≤ smallest ≤ typical ≤ largest.
    """

    smallest: int = 1
    typical: int = 1
    largest: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.typical <= self.largest:
            raise ExportError(f"batch {self}: 1 ≤ MIN ≤ OPT ≤ MAX must hold; for example --batch 1,4,16")

    def __str__(self) -> str:
        return f"{self.smallest},{self.typical},{self.largest}"


@dataclass(frozen=True)
class ShapeProfile:
    """One optimization profile. `lengths` counts frames or samples; `tail` is (n_mels,) for features, else ()."""

    kind: InputKind
    rows: Span
    lengths: Span
    tail: Shape

    def shapes(self) -> dict[str, tuple[Shape, Shape, Shape]]:
        """For each input of the graph its smallest, its tuned and its largest shape."""
        small, tuned, large = ((rows, length, *self.tail) for rows, length in zip(self.rows, self.lengths, strict=True))
        few, some, many = self.rows
        return {self.kind: (small, tuned, large), "lengths": ((few,), (some,), (many,))}

    def __str__(self) -> str:
        texts = ("×".join(map(str, shape)) for shape in self.shapes()[self.kind])
        return " … ".join(texts)


def shape_profiles(
    frontend: Frontend, kind: InputKind, limits: LengthLimits, batch: BatchRange, buckets: Sequence[int] = ()
) -> tuple[ShapeProfile, ...]:
    """The profiles of a plan. Together they take every length within `limits`.

    Without `buckets` (frames) there is one, tuned for four seconds of sound. With them there is one for each
    stretch of lengths that ends in a bucket, and a last one up to the longest, each tuned for its longest.

    Raises:
        ExportError: the buckets do not rise, one lies outside the limits, or a shape is beyond TensorRT.
    """
    ends = _ends(limits, buckets)
    starts = (limits.min_frames, *(end + 1 for end in ends[:-1]))
    typical = limits.clip(round(_TYPICAL_SECONDS * frontend.sample_rate / frontend.hop_length))
    rows = (batch.smallest, batch.typical, batch.largest)
    tail = (frontend.n_mels,) if kind == "features" else ()
    found = []
    for start, end in zip(starts, ends, strict=True):
        span = start, end if buckets else typical, end
        profile = ShapeProfile(kind, rows, span if kind == "features" else _samples(frontend, span), tail)
        _check(profile)
        found.append(profile)
    return tuple(found)


def _ends(limits: LengthLimits, buckets: Sequence[int]) -> tuple[int, ...]:
    """The longest length of each profile, in frames."""
    for before, after in pairwise(buckets):
        if before >= after:
            raise ExportError(f"buckets {_list(buckets)}: they must rise, but {before} is followed by {after}")
    for bucket in buckets:
        if not limits.min_frames <= bucket <= limits.max_frames:
            raise ExportError(
                f"bucket {bucket}: lies outside the model's {limits.min_frames} to {limits.max_frames} frames; "
                "leave it out, or change --min-frames and --max-frames"
            )
    return tuple(dict.fromkeys((*buckets, limits.max_frames)))


def _samples(frontend: Frontend, frames: Span) -> Span:
    """The same lengths in samples: the fewest that give the smallest, the most that give the largest."""
    small, tuned, large = frames
    least, most = min_samples(frontend, small), min_samples(frontend, large + 1) - 1
    if most < least:
        raise ExportError(f"no sound gives {small} to {large} frames of {frontend.name}; choose other lengths")
    return least, most if tuned == large else min_samples(frontend, tuned), most


def _check(profile: ShapeProfile) -> None:
    elements = 1
    for size in profile.shapes()[profile.kind][2]:
        elements *= size
    if elements > _MAX_ELEMENTS:
        raise ExportError(
            f"profile {profile}: its largest {profile.kind} has {elements:,} elements, TensorRT takes at most "
            f"{_MAX_ELEMENTS:,}; lower --batch or --max-frames"
        )


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))

"""Which profile of a plan takes a batch, and to which shape the batch is padded for it."""

from collections.abc import Sequence

from voxport.runtime.backends.trt.engine import Profile, Shape
from voxport.runtime.errors import LengthError

_STEPS = 4  # sizes between one power of two and the next: padding adds at most a quarter, an eighth on average


def choose_profile(profiles: Sequence[Profile], rows: int, length: int) -> tuple[Profile, int]:
    """The smallest profile for `rows` inputs of `length`, and how many of these rows it takes at once.

    An input may be padded up to a profile's smallest shape, so only the largest shapes matter.

    Raises:
        LengthError: no profile takes so long an input.
    """
    fitting = [profile for profile in profiles if profile.largest[1] >= length]
    if not fitting:
        longest = max((profile.largest[1] for profile in profiles), default=0)
        raise LengthError(f"an input of length {length}, but the plan's profiles take at most {longest}; cut it")
    rows = min(rows, max(profile.largest[0] for profile in fitting))
    return min((p for p in fitting if p.largest[0] >= rows), key=lambda p: (p.volume, p.index)), rows


def bucket(profile: Profile, rows: int, length: int, *, round_up: bool) -> Shape:
    """The shape of the padded batch. With `round_up` it is one of few, so that a shape's CUDA graph is found again."""
    if round_up:
        rows, length = next_power(rows), next_step(length)
    fitted = [
        min(max(size, low), high)
        for size, low, high in zip((rows, length), profile.smallest, profile.largest, strict=False)
    ]
    return (*fitted, *profile.largest[2:])


def next_power(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << (size - 1).bit_length()


def next_step(size: int) -> int:
    """The smallest number not below `size` among _STEPS evenly spaced ones between two powers of two."""
    step = max(1, next_power(size) // (2 * _STEPS))
    return -(-size // step) * step

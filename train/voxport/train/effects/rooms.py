"""Rooms by the image method of pyroomacoustics, and loudspeakers in them."""

import numpy as np
import numpy.typing as npt

from voxport.train.effects.signals import band, soft_clip

Samples = npt.NDArray[np.float32]

_ATTEMPTS = 20
QUICK_ORDER = 8  # reflections that are simulated one by one where many rooms are made
_SOUND_SPEED = 343.0  # m/s
_BLEND = 0.005  # s over which the diffuse tail takes over


def room_response(
    t60: float, sample_rate: int, generator: np.random.Generator, most_order: int | None = None
) -> Samples:
    """The response (n,) from a mouth to a microphone in a random shoebox room, its largest value 1.

    Size and places are drawn; longer reverberation comes with larger rooms. Allen and Berkley: "Image method for
    efficiently simulating small-room acoustics", JASA 1979. A bare shoebox decays more slowly than Sabine's
    formula, from which the walls' absorption is taken, so the tail is then damped until it decays by 60 dB in
    `t60` seconds.

    The work grows with the cube of the order of reflections. With `most_order` later ones are replaced by
    noise that decays as the room does (Lehmann and Johansson: "Diffuse reverberation model for efficient image-source
    simulation of room impulse responses", IEEE TASLP 2010).

    Raises:
        ModuleNotFoundError: pyroomacoustics is not installed.
    """
    import pyroomacoustics  # type: ignore[import-untyped]

    for _ in range(_ATTEMPTS):
        size = generator.uniform((3.0, 2.5, 2.4), (6.0, 5.0, 3.2)) + np.array([3.0, 2.5, 0.5]) * t60
        mouth, microphone = (generator.uniform(0.5, size - 0.5) for _ in range(2))
        try:
            absorption, order = pyroomacoustics.inverse_sabine(t60, size)
        except ValueError:  # so large a room cannot be so dry
            continue
        if np.linalg.norm(mouth - microphone) >= 0.5:
            break
    else:
        raise ValueError(f"no room has a reverberation time of {t60} s")
    diffuse = most_order is not None and most_order < order
    order = most_order if most_order is not None and diffuse else order
    room = pyroomacoustics.ShoeBox(
        size, fs=sample_rate, materials=pyroomacoustics.Material(absorption), max_order=order
    )
    room.add_source(mouth)
    room.add_microphone(microphone)
    room.compute_rir()
    response = np.asarray(room.rir[0][0], np.float64)
    response = response[int(np.abs(response).argmax()) :]  # the way through the air is no delay of the recording
    if diffuse:
        # Every image up to this order has arrived when sound has crossed the shortest way so often.
        heard = order * float(size.min()) / _SOUND_SPEED
        return _with_tail(response, heard, t60, sample_rate, generator)
    measured = float(pyroomacoustics.experimental.measure_rt60(response, sample_rate, decay_db=30))
    if measured > t60:
        times = np.arange(len(response)) / sample_rate
        response = response * np.exp(-3 * np.log(10) * (1 / t60 - 1 / measured) * times)
    response = response[: int(1.5 * t60 * sample_rate)]
    return np.asarray(response / np.abs(response).max(), np.float32)


def _with_tail(
    response: npt.NDArray[np.float64], heard: float, t60: float, sample_rate: int, generator: np.random.Generator
) -> Samples:
    """`response`, complete for `heard` seconds, with decaying noise behind; the largest value is 1."""
    count = int(1.5 * t60 * sample_rate)
    response = np.pad(response, (0, max(0, count - len(response))))[:count]
    times = np.arange(count) / sample_rate
    decay = np.exp(-3 * np.log(10) * times / t60)
    end = max(1, min(count, int(heard * sample_rate)))
    start = end // 2  # the second half of what was simulated tells how loud the tail is
    level = np.sqrt(np.square(response[start:end]).sum() / np.square(decay[start:end]).sum())
    late = 1 / (1 + np.exp(-(times - heard) / _BLEND))
    response = response * np.sqrt(1 - late) + level * decay * generator.standard_normal(count) * np.sqrt(late)
    return np.asarray(response / np.abs(response).max(), np.float32)


def trimmed(response: Samples) -> Samples:
    """A measured `response` (n,) from its direct sound on, its largest value 1; silence stays as it is."""
    peak = int(np.abs(response).argmax())
    largest = float(np.abs(response[peak]))
    return response[peak:] / np.float32(largest) if largest > 0 else response


def reverberate(samples: Samples, response: Samples) -> Samples:
    """`samples` in the room of `response`, as long as before and as loud on average."""
    from scipy.signal import oaconvolve

    wet = oaconvolve(samples, response)[: len(samples)]
    before, after = float(np.square(samples).sum()), float(np.square(wet).sum())
    return np.asarray(wet * np.sqrt(before / after) if after > 0 else wet, np.float32)


def play_back(samples: Samples, sample_rate: int, response: Samples, generator: np.random.Generator) -> Samples:
    """`samples` from a small loudspeaker, somewhat overdriven, in the room of `response`."""
    low, high = generator.uniform((150, 5000), (400, 7500))
    speaker = soft_clip(band(samples, sample_rate, low, high), float(generator.uniform(0.5, 2.5)))
    return reverberate(speaker, response)

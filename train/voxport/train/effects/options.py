"""What training changes in its utterances, how often and how far: the table `[augment]` of a recipe."""

from dataclasses import dataclass

from voxport.train.effects.codecs import NAMES

_PROBABILITIES = ("speed", "room", "playback", "noise", "babble", "gain", "band", "clip", "codec", "tilt", "tempo")
_RANGES = (
    "speed_factors", "room_t60_s", "noise_snr_db", "babble_snr_db", "talkers", "gain_db", "band_low_hz",
    "band_high_hz", "codec_high_hz", "clip_factors", "tilt_db", "tempo_factors",
)  # fmt: skip

_POSITIVE = ("speed_factors", "tempo_factors", "clip_factors", "room_t60_s", "talkers", "band_high_hz", "codec_high_hz")


@dataclass(frozen=True)
class AugmentOptions:
    """Changes of a copy of an utterance, each with a probability in [0, 1] and a range (lowest, highest).

    Every training utterance gets `copies` changed copies, computed once; a crop is of the unchanged utterance
    with probability `clean`, else of one of its copies. A copy goes through all changes in this order, each by
    chance: `speed` (pitch and formants move along), `room` or `playback` (a loudspeaker in a room), `noise` (of the
    files of `noise_folder` where there is one, else coloured), `babble` (other training speakers), `gain`,
    `band` (of telephones and microphones), `clip`, `codec` (one of `codecs`, where a name may stand twice).
    `room_t60_s` is a reverberation time in seconds; of `rooms` simulated rooms, or with `rir_folder` of its measured
    responses, one is taken. Signal-to-noise ratios are of mean powers. Utterances played at `speed_speakers` times
    their speed are taken for further speakers in training, who are no part of the model. `tilt` (dB from the lowest
    to the highest band) and `tempo` (duration without pitch) change stored features alone, where a codec is a band that
    ends steeply at `codec_high_hz`; `playback`, `clip` and the choice of codec are for sounds alone.
    """

    copies: int = 8
    clean: float = 0.15
    speed: float = 0.8
    speed_factors: tuple[float, ...] = (0.925, 1.075)
    speed_speakers: tuple[float, ...] = ()
    room: float = 0.35
    playback: float = 0.1
    room_t60_s: tuple[float, ...] = (0.15, 1.0)
    rooms: int = 24
    noise: float = 0.4
    noise_snr_db: tuple[float, ...] = (3.0, 25.0)
    babble: float = 0.3
    babble_snr_db: tuple[float, ...] = (3.0, 25.0)
    talkers: tuple[float, ...] = (2, 6)
    gain: float = 0.0
    gain_db: tuple[float, ...] = (-30.0, 6.0)
    band: float = 0.2
    band_low_hz: tuple[float, ...] = (20.0, 400.0)
    band_high_hz: tuple[float, ...] = (3000.0, 7500.0)
    codec_high_hz: tuple[float, ...] = (2600.0, 6000.0)
    clip: float = 0.15
    clip_factors: tuple[float, ...] = (2.0, 15.0)
    codec: float = 0.5
    codecs: tuple[str, ...] = (
        "mu_law",
        "a_law",
        "gsm",
        "mp3_lowest",
        "mp3_lowest",
        "mp3_lowest",
        "mp3_low",
        "opus_lowest",
    )
    tilt: float = 0.3
    tilt_db: tuple[float, ...] = (-12.0, 12.0)
    tempo: float = 0.3
    tempo_factors: tuple[float, ...] = (0.85, 1.15)
    noise_folder: str | None = None
    rir_folder: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.copies <= 1000 or not 1 <= self.rooms <= 10_000:
            raise ValueError("copies must be 0 to 1000 and rooms 1 to 10000")
        for name in ("clean", *_PROBABILITIES):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability from 0 to 1, found {getattr(self, name)}")
        if self.room + self.playback > 1:
            raise ValueError("room and playback exclude each other: their sum must be at most 1")
        for name in _RANGES:
            values = getattr(self, name)
            if len(values) != 2 or values[0] > values[1]:
                raise ValueError(f"{name} is a range [lowest, highest], found {list(values)}")
        for name in _POSITIVE:
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name} must be positive, found {list(getattr(self, name))}")
        if not self.codecs or not set(self.codecs) <= set(NAMES):
            raise ValueError(f"codecs are some of {', '.join(NAMES)}; found {', '.join(self.codecs) or 'none'}")
        if any(not 0.5 <= factor <= 2 or factor == 1 for factor in self.speed_speakers):
            raise ValueError(f"speed_speakers are factors from 0.5 to 2 other than 1, found {self.speed_speakers}")

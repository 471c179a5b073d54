"""Speech from espeak-ng, for the demo's corpus; the library comes with the package `espeakng-loader`.

espeak-ng is a C library with global state, so `speak_all` runs it in one process of its own, in order.
API: https://github.com/espeak-ng/espeak-ng/blob/1.52.0/src/include/espeak-ng/speak_lib.h
"""

import concurrent.futures
import ctypes
import functools
import multiprocessing
import multiprocessing.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.atomic import writing

# Values of speak_lib.h's enums.
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples come through the callback before espeak_Synth returns
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_POS_CHARACTER, _CHARS_UTF8 = 1, 1
_SEED = 1
_LONGEST_DATA_PATH = 120  # espeak-ng keeps its data path in 160 bytes and appends file names to it


@dataclass(frozen=True)
class Voice:
    """How somebody speaks: an espeak-ng language, a voice variant, and where pitch and speed lie.

    `pitch` and `pitch_range` run from 0 to 100, where 50 is the variant's own; `rate` is in words a minute.
    """

    language: str
    variant: str
    pitch: int = 50
    pitch_range: int = 50
    rate: int = 165

    @property
    def name(self) -> str:
        """The name that espeak-ng takes."""
        return f"{self.language}+{self.variant}"


@dataclass(frozen=True)
class Speech:
    """One sentence to be spoken into one sound file; the file's suffix decides its format."""

    voice: Voice
    text: str
    path: Path


def speak_all(speeches: Sequence[Speech], done: Callable[[], None] = lambda: None) -> None:
    """Write every speech to its file, calling `done` after each.

    The same list gives the same samples. One sentence depends on those before it: the voice's small
    wavering goes on from one to the next.

    Raises:
        VoxportError: a voice that espeak-ng does not have, or espeak-ng itself died.
    """
    from voxport.train.data.features import can_lock

    if not can_lock():
        for speech in speeches:
            _speak(speech)
            done()
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and locks
    try:
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            for _ in pool.map(_speak, speeches, chunksize=8):
                done()
    except BrokenProcessPool as problem:
        raise VoxportError(
            'espeak-ng crashed while it made speech; reinstall it: pip install --force-reinstall "espeakng-loader"'
        ) from problem


def _speak(speech: Speech) -> None:
    import numpy as np
    import soundfile

    samples, rate = synthesize(speech.voice, speech.text)
    if not np.any(samples):
        raise VoxportError(f"{speech.path.name}: espeak-ng gave silence for voice {speech.voice.name}: {speech.text!r}")
    speech.path.parent.mkdir(parents=True, exist_ok=True)
    with writing(speech.path) as part:
        soundfile.write(part, samples, rate, format=speech.path.suffix[1:].upper())


def synthesize(voice: Voice, text: str) -> tuple[Any, int]:
    """Return `text` in `voice` as int16 samples, shape (samples,), and their rate in Hz.

    Raises:
        VoxportError: espeak-ng does not have the language or the variant, or refuses the text.
    """
    import numpy as np

    engine = _engine()
    engine.use(voice)
    return np.frombuffer(engine.say(text), dtype=np.int16), engine.sample_rate


@functools.cache
def _engine() -> "_Engine":
    return _Engine()


class _VoiceStruct(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("languages", ctypes.c_char_p), ("identifier", ctypes.c_char_p))


class _Engine:
    """The library, loaded once per process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_VoiceStruct)
        self._samples = bytearray()
        data = _short_path(str(espeakng_loader.get_data_path()))
        self.sample_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data), _DONT_EXIT)
        if self.sample_rate <= 0:
            raise VoxportError(f"espeak-ng did not start with its data in {data}; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # else from the clock: breath and flutter differ
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = callback(self._collect)  # kept, since the library holds only the bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _: Any) -> int:
        if samples and count > 0:
            self._samples += ctypes.string_at(samples, 2 * count)
        return 0  # go on

    def use(self, voice: Voice) -> None:
        """Select a voice, and make sure that it is the one that was asked for.

        An unknown language returns an error and leaves the previous voice in place; an unknown variant is
        silently left out. Either would make two speakers one.
        """
        status = self._library.espeak_SetVoiceByName(voice.name.encode())
        current = self._library.espeak_GetCurrentVoice().contents.identifier or b""
        if status != 0 or not current.decode().endswith(f"+{voice.variant}"):
            raise VoxportError(f"espeak-ng has no voice {voice.name}; this espeakng-loader carries other voices")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            if self._library.espeak_SetParameter(parameter, value, 0) != 0:
                raise VoxportError(f"espeak-ng refused pitch or rate of {voice}")

    def say(self, text: str) -> bytes:
        """Return `text` as little-endian 16-bit samples."""
        self._samples = bytearray()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != 0 or self._library.espeak_Synchronize() != 0:
            raise VoxportError(f"espeak-ng could not speak {text!r} (status {status})")
        return bytes(self._samples)


def _short_path(path: str) -> str:
    """`path`, or a short link to it where espeak-ng would cut it off."""
    if len(os.fsencode(path)) <= _LONGEST_DATA_PATH:
        return path
    folder = tempfile.mkdtemp(prefix="espeak")
    # At the end of the process, be it one of `speak_all`'s pool, which runs nothing of atexit's.
    multiprocessing.util.Finalize(None, shutil.rmtree, (folder,), exitpriority=0)
    link = Path(folder) / "espeak-ng-data"
    link.symlink_to(path, target_is_directory=True)
    return str(link)


def sentences(seed: int) -> Iterator[str]:
    """Yield different sentences, in an order that `seed` decides, until there are no more (9,600)."""
    import numpy as np

    numbers = np.random.default_rng(seed).permutation(len(_SUBJECTS) * len(_VERBS) * len(_OBJECTS) * len(_PLACES))
    for number in numbers.tolist():
        number, subject = divmod(number, len(_SUBJECTS))
        number, verb = divmod(number, len(_VERBS))
        place, object_ = divmod(number, len(_OBJECTS))
        yield f"{_SUBJECTS[subject]} {_VERBS[verb]} {_OBJECTS[object_]} {_PLACES[place]}."


_SUBJECTS = (
    "The old baker", "My younger sister", "A quiet engineer", "Every second neighbour", "The night porter",
    "Our new teacher", "Somebody in a hurry", "The lighthouse keeper", "Her favourite uncle", "A travelling violinist",
    "The head gardener", "One of the pilots",
)  # fmt: skip
_VERBS = (
    "carefully measured", "almost forgot", "sold", "painted", "was looking for", "quickly repaired", "gave away",
    "photographed", "hid", "could never find",
)  # fmt: skip
_OBJECTS = (
    "a yellow bicycle", "the broken clock", "seven wooden chairs", "a jar of honey", "the longest ladder",
    "two boxes of chalk", "an enormous map", "the silver whistle", "a pair of thick gloves", "his grandmother's radio",
)  # fmt: skip
_PLACES = (
    "behind the railway station", "before the shops had opened", "while the storm was passing",
    "on the way to the harbour", "in the corner of the library", "just after breakfast",
    "under the stone bridge", "at the edge of the village",
)  # fmt: skip

"""Who is speaking: the class that an application embeds."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, ChannelChoice
from voxport.runtime.audio.preprocess import Prepared, Sound
from voxport.runtime.backends.base import Answer, Backend, Explanation, Float32, need_output
from voxport.runtime.backends.batching import group_by_length, pad
from voxport.runtime.backends.load import load_explained
from voxport.runtime.backends.options import (
    BackendOptions,
    DeviceChoice,
    LoadedBackend,
    PrecisionChoice,
    RuntimeChoice,
)
from voxport.runtime.contract import Contract
from voxport.runtime.errors import VoxportError
from voxport.runtime.notes import is_unspoken
from voxport.runtime.results import Identification, Voice, answered, unspoken
from voxport.runtime.windowing.hearing import Heard, hear, open_channels, open_features, open_sound
from voxport.runtime.windowing.long_input import LongSound

_TOGETHER = 64  # sounds that a batch call holds in memory at once


class SpeakerIdentifier:
    """Names the speaker of a sound, from a model file alone.

    A sound is a path to a sound file, or an array of samples (samples,) or (samples, channels) with its
    `sample_rate` in Hz; a file states its own rate, so `sample_rate` is not used for paths. Nothing is
    kept between calls: any number of threads may share one identifier. A sound of up to the model's longest
    length is heard whole; a longer one, up to a day, in windows of that length, by the rule in the contract
    (see `voxport.runtime.windowing.long_input`), in memory that does not grow with it.

    Of a sound with several channels `channel` is the one to hear, counted from 1, or "mix" for their average.
    Without it they are compared (`voxport.runtime.audio.channels`): channels of one sound are averaged, the loudest
    stands for channels that cancel each other, and channels that hold different sounds are refused where one
    answer is asked for; `identify_channels` and `voices` answer each.

    A sound without speech (`contract.speech` says which that is) is identified as nobody's; `scores` and `embed` give
    the network's numbers for any sound.

    Every method that takes sound raises AudioError where it cannot be used, LengthError where it is
    shorter than the model allows, and BackendError where onnxruntime or TensorRT fails. A model
    that was exported without scores cannot identify, and one without embeddings cannot embed: VoxportError.
    """

    def __init__(self, backend: Backend, why: str | None = None) -> None:
        """Wrap a loaded model; most users call `SpeakerIdentifier.load`. `why` is told by `explain`."""
        self._backend = backend
        self._why = why

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: DeviceChoice = "auto",
        threads: int | None = None,
        precision: PrecisionChoice | None = None,
        verify: bool = True,
        runtime: RuntimeChoice | None = None,
    ) -> "SpeakerIdentifier":
        """Load a model file. For options beyond these: `SpeakerIdentifier(load_backend(path, BackendOptions(…)))`.

        Args:
            path: an ONNX, TorchScript or .pt2 file that `voxport export` wrote, or a TensorRT plan or an RTX engine
                with its `<file>.json`; or a folder that `voxport tune` wrote, which runs as was found fastest.
            device: "cpu", "cuda", "tensorrt" or "rtx": what is asked for is what runs, nothing falls back. "auto"
                takes the GPU where onnxruntime can start on it, else the CPU; `explain` says which, and why.
            threads: threads of one run on the CPU; None takes one on one or two cores, else two.
            precision: refuse a model that would be computed in another precision. With "tensorrt", "fp16"
                has an fp32 ONNX model computed in half. With the runtime "openvino", "bf16" and "fp16" compute in it
                what the file holds in float32; without, nothing is computed in less than the file's precision.
            verify: replay the golden vector, so that a file or a machine that no longer gives the
                recorded answer is refused. Without it the start is one short run faster.
            runtime: the library that runs an ONNX model: "onnxruntime", the usual one, or "openvino", on the CPU.

        Raises:
            ContractError: the file is missing, damaged, of another version, or no longer true.
            BackendError: onnxruntime, TensorRT, the device or the precision is not there.
        """
        loaded = load_explained(path, BackendOptions(device, threads, precision, runtime=runtime), verify=verify)
        return cls(loaded.backend, loaded.why)

    def explain(self) -> Explanation:
        """What runs where, and why; `print` it.

        Raises:
            VoxportError: the identifier wraps a back end of the caller's own, which does not tell.
        """
        if not isinstance(self._backend, LoadedBackend):
            raise VoxportError(f"{type(self._backend).__name__} does not say where it runs; it has no explain()")
        found = self._backend.explain()
        return found if self._why is None else dataclasses.replace(found, why=self._why)

    @property
    def contract(self) -> Contract:
        """Everything that the model says about itself; its speakers are `contract.labels`."""
        return self._backend.contract

    @property
    def backend(self) -> Backend:
        """The loaded model, which runs batches that are prepared already."""
        return self._backend

    def identify(
        self, sound: Sound, sample_rate: int | None = None, *, top: int = 5, channel: Channel | None = None
    ) -> Identification:
        """The `top` most probable speakers of one sound, best first."""
        need_output(self.contract, "scores")
        source = open_sound(self.contract, sound, sample_rate, channel=channel)
        if is_unspoken(source):  # of a longer one that is known when it has been read
            return unspoken(source)
        return self._answered(hear(self._backend, source), top)

    def identify_channels(
        self, sound: Sound, sample_rate: int | None = None, *, top: int = 5, channel: ChannelChoice | None = None
    ) -> tuple[Identification, ...]:
        """What `identify` answers, for each channel that holds a sound of its own: of most sounds, one answer.

        With `channel="each"` every channel is answered.
        """
        need_output(self.contract, "scores")
        opened = open_channels(self.contract, sound, sample_rate, channel=channel)
        return tuple(self._answered(heard, top) for heard in self._together(opened))

    def identify_features(self, features: npt.ArrayLike, *, top: int = 5) -> Identification:
        """Like `identify`, of features (frames, n_mels) computed with the contract's frontend.

        Raises:
            VoxportError: the model takes sound, or the features have a wrong type, shape or value.
            LengthError: too few frames.
        """
        need_output(self.contract, "scores")
        return self._answered(hear(self._backend, open_features(self.contract, features)), top)

    def identify_batch(
        self,
        sounds: Iterable[Sound],
        sample_rate: int | None = None,
        *,
        top: int = 5,
        channel: Channel | None = None,
    ) -> list[Identification]:
        """Identify many sounds of any lengths, with the results of `identify` in the order of `sounds`.

        Sounds of similar length run together, padded; the padding is masked out. Those that are longer than the
        model takes run window by window. Memory stays bounded for any number of sounds. The first bad sound
        raises, and its message names it.
        """
        need_output(self.contract, "scores")
        return [self._answered(heard, top) for heard in self._each(sounds, sample_rate, channel)]

    def scores(self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None) -> Float32:
        """Scores of one sound, float32 (speakers,): score_scale × cosine, in the order of the labels."""
        need_output(self.contract, "scores")
        source = open_sound(self.contract, sound, sample_rate, channel=channel)
        return hear(self._backend, source).answer.scores.reshape(-1)

    def scores_batch(
        self, sounds: Iterable[Sound], sample_rate: int | None = None, *, channel: Channel | None = None
    ) -> Float32:
        """Scores of many sounds of any lengths, float32 (sounds, speakers); see `identify_batch`."""
        need_output(self.contract, "scores")
        rows = [heard.answer.scores for heard in self._each(sounds, sample_rate, channel)]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.contract.labels)), np.float32)

    def scores_features(self, features: npt.ArrayLike) -> Float32:
        """Scores (speakers,) of features (frames, n_mels); raises as `identify_features` does."""
        need_output(self.contract, "scores")
        return hear(self._backend, open_features(self.contract, features)).answer.scores.reshape(-1)

    def embed(self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None) -> Float32:
        """The voice of one sound as a unit vector, float32 (embedding_size,). Compare two by dot product."""
        return self.voice(sound, sample_rate, channel=channel).embedding

    def voice(
        self,
        sound: Sound,
        sample_rate: int | None = None,
        *,
        channel: Channel | None = None,
        pieces: Sequence[float] = (),
    ) -> Voice:
        """Like `embed`, with what it was heard in: length, number of windows, channel, notes and speech.

        `pieces` are lengths in seconds: the loudest piece of each is embedded too, for `Gallery.enroll`, so that the
        gallery can be calibrated for short sounds. `voxport.runtime.audio.pieces.PIECE_SECONDS` are the commands'.
        """
        need_output(self.contract, "embedding")
        whole = _voice(hear(self._backend, open_sound(self.contract, sound, sample_rate, channel=channel)))
        return self._with_pieces(whole, sound, sample_rate, pieces) if pieces else whole

    def voices(
        self,
        sound: Sound,
        sample_rate: int | None = None,
        *,
        channel: ChannelChoice | None = None,
        pieces: Sequence[float] = (),
    ) -> tuple[Voice, ...]:
        """What `voice` gives, for each channel that holds a sound of its own; with `channel="each"`, for every one."""
        need_output(self.contract, "embedding")
        opened = open_channels(self.contract, sound, sample_rate, channel=channel)
        found = tuple(_voice(heard) for heard in self._together(opened))
        if not pieces:
            return found
        return tuple(self._with_pieces(each, sound, sample_rate, pieces) for each in found)

    def voice_features(self, features: npt.ArrayLike) -> Voice:
        """Like `voice`, of features (frames, n_mels); raises as `identify_features` does."""
        need_output(self.contract, "embedding")
        return _voice(hear(self._backend, open_features(self.contract, features)))

    def embed_batch(
        self, sounds: Iterable[Sound], sample_rate: int | None = None, *, channel: Channel | None = None
    ) -> Float32:
        """Unit vectors of many sounds of any lengths, float32 (sounds, embedding_size); see `identify_batch`."""
        need_output(self.contract, "embedding")
        rows = [heard.answer.embedding for heard in self._each(sounds, sample_rate, channel)]
        return np.concatenate(rows) if rows else np.zeros((0, self.contract.embedding_size), np.float32)

    def embed_features(self, features: npt.ArrayLike) -> Float32:
        """Like `embed`, of features (frames, n_mels); raises as `identify_features` does."""
        return self.voice_features(features).embedding

    def _answered(self, heard: Heard, top: int) -> Identification:
        return answered(heard.answer.scores[0], self.contract, top, heard.source, heard.windows)

    def _with_pieces(self, whole: Voice, sound: Sound, sample_rate: int | None, seconds: Sequence[float]) -> Voice:
        from voxport.runtime.audio.pieces import loud_pieces  # only who enrolls needs it

        channel: Channel = "mix" if whole.channel is None else whole.channel
        found = loud_pieces(self.contract, sound, sample_rate, seconds, channel)
        rate = self.contract.frontend.sample_rate
        return dataclasses.replace(whole, pieces=tuple(self.voice(piece, rate) for piece in found))

    def _each(self, sounds: Iterable[Sound], sample_rate: int | None, channel: Channel | None) -> Iterator[Heard]:
        """Open `_TOGETHER` sounds at a time, and answer each, in order."""
        if isinstance(sounds, (str, os.PathLike)):  # its letters would be taken for paths
            raise VoxportError(f"{os.fspath(sounds)}: expected several sounds; give a list of paths or arrays")
        items = enumerate(sounds)
        while chunk := list(islice(items, _TOGETHER)):
            yield from self._together(
                [open_sound(self.contract, sound, sample_rate, f"sound {i}", channel=channel) for i, sound in chunk]
            )

    def _together(self, opened: Sequence[Prepared | LongSound]) -> Iterator[Heard]:
        """Answer each, in order: those that the graph takes whole in batches, the others window by window."""
        short = [item for item in opened if isinstance(item, Prepared)]
        rows = iter(range(len(short)))
        answers = self._run(short) if short else None
        for item in opened:
            if isinstance(item, Prepared) and answers is not None:
                yield Heard(answers.take(next(rows)), item)
            else:
                yield hear(self._backend, item)

    def _run(self, prepared: Sequence[Prepared]) -> Answer:
        """Answer in the order given, however the rows are grouped into batches."""
        order: list[int] = []
        parts = []
        for group in group_by_length([item.seconds for item in prepared]):
            parts.append(self._backend.run(*pad([prepared[i].values for i in group])))
            order += group
        return Answer.joined(parts).take(np.argsort(order))


def _voice(heard: Heard) -> Voice:
    vector, source = heard.answer.embedding.reshape(-1), heard.source
    return Voice(
        vector,
        source.seconds,
        heard.windows,
        channel=source.channel,
        notes=source.notes,
        speech=source.speech,
    )

"""Micro-batching for servers: concurrent requests of similar length run together."""

import dataclasses
import os
import threading
import weakref
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from voxport.runtime.audio.channels import Channel
from voxport.runtime.audio.preprocess import Prepared, Sound
from voxport.runtime.backends.base import Answer, Float32, need_output
from voxport.runtime.contract import Contract, Output
from voxport.runtime.errors import VoxportError
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.notes import Described
from voxport.runtime.results import Identification, Voice, answered
from voxport.runtime.serving.long_request import answer_long
from voxport.runtime.serving.queue import BatcherOptions, Finish
from voxport.runtime.serving.worker import BatchWorker, fail
from voxport.runtime.windowing.hearing import open_sound
from voxport.runtime.windowing.long_input import LongSound


class Batcher:
    """Answers requests from any number of threads and event loops, grouped into batches.

        with Batcher(identifier) as batcher:
            future = batcher.submit("who.wav")              # from a thread
            answer = future.result()

        async with Batcher(identifier) as batcher:
            answer = await batcher.identify("who.wav")      # from an event loop

    `submit…` decodes and computes features in the calling thread; the coroutines do so in the event
    loop's default executor. One thread of the batcher then runs the model: at most one batch at a time.
    Answers are those of the identifier alone, within the rounding of a batched matrix product. A sound that
    is longer than the model takes holds one place while its windows run one after another, among the others'.

    The error of one request (AudioError, LengthError and the like) is the error of its own future or
    coroutine, and of no other. A cancelled future or coroutine leaves the queue at once; one that
    already runs is finished, and its answer is thrown away.

    Close it, or leave its `with` block, to end the thread. A Batcher that is forgotten ends its thread
    after the last answer. It must be made in the process that uses it: after a fork, not before.
    """

    def __init__(self, identifier: SpeakerIdentifier, options: BatcherOptions | None = None) -> None:
        """Start the batcher's thread; several batchers may share one identifier."""
        self._contract = identifier.contract
        self._options = options or BatcherOptions()
        self._worker = BatchWorker(identifier.backend, self._options)
        weakref.finalize(self, self._worker.close).atexit = False  # at exit the worker sees to itself

    @property
    def contract(self) -> Contract:
        """Everything that the model says about itself."""
        return self._contract

    @property
    def waiting(self) -> int:
        """Requests that hold a place in the queue now, at most `max_queue`."""
        return self._worker.taken

    def __reduce__(self) -> Any:
        raise VoxportError(
            "a Batcher cannot be pickled: its thread lives in this process; pickle the identifier, and make a Batcher "
            "in the other process"
        )

    # --- from threads -----------------------------------------------------------------------------

    def submit(
        self, sound: Sound, sample_rate: int | None = None, *, top: int = 5, channel: Channel | None = None
    ) -> "Future[Identification]":
        """Queue one sound, as `SpeakerIdentifier.identify` takes it, and return its future answer.

        The sound's own errors are the future's. An array may be changed once this has returned.

        Raises:
            QueueFullError: `max_queue` requests wait already. Nothing was decoded.
            BatcherClosedError: the batcher is closed, or was made before the process forked.
        """
        return self._submit(sound, sample_rate, channel, self._ranked(top))

    def submit_scores(
        self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None
    ) -> "Future[Float32]":
        """Like `submit`, for the scores of `SpeakerIdentifier.scores`, float32 (speakers,)."""
        return self._submit(sound, sample_rate, channel, _scores)

    def submit_embed(
        self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None
    ) -> "Future[Float32]":
        """Like `submit`, for the unit vector of `SpeakerIdentifier.embed`, float32 (embedding_size,)."""
        return self._submit(sound, sample_rate, channel, _embedding)

    def submit_voice(
        self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None
    ) -> "Future[Voice]":
        """Like `submit`, for what `SpeakerIdentifier.voice` gives, without pieces."""
        return self._submit(sound, sample_rate, channel, _voice)

    def _submit(self, sound: Sound, sample_rate: int | None, channel: Channel | None, finish: Finish) -> "Future[Any]":
        need_output(self._contract, _output_for(finish))
        self._worker.reserve()
        future: Future[Any] = Future()
        self._enqueue(sound, sample_rate, channel, finish, future)
        return future

    def _enqueue(
        self, sound: Sound, sample_rate: int | None, channel: Channel | None, finish: Finish, future: "Future[Any]"
    ) -> None:
        """Prepare a sound in the place that it has, and let it wait; all that goes wrong is the future's."""
        try:
            most = self._options.max_seconds
            source = open_sound(self._contract, sound, sample_rate, channel=channel, max_seconds=most)
            if isinstance(source, LongSound):
                source.own()
        except BaseException as problem:
            self._worker.release()
            if not isinstance(problem, Exception):  # Ctrl-C is not the sound's
                future.cancel()
                raise
            fail(future, problem)
            return
        if isinstance(source, Prepared):
            self._worker.add(_own(source, sound), finish, future)
        else:  # a thread of its own, which mostly waits: whoever submits must not wait for the model
            arguments = (self._worker, self._contract, source, finish, future)
            threading.Thread(target=answer_long, args=arguments, name="voxport-long-sound", daemon=True).start()

    # --- from event loops -------------------------------------------------------------------------

    async def identify(
        self, sound: Sound, sample_rate: int | None = None, *, top: int = 5, channel: Channel | None = None
    ) -> Identification:
        """The answer of `SpeakerIdentifier.identify`, with its errors. Waits while the queue is full.

        Do not change an array before the answer is there.

        Raises:
            BatcherClosedError: the batcher is closed, or was before this request ran.
        """
        found: Identification = await self._answer(sound, sample_rate, channel, self._ranked(top))
        return found

    async def scores(self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None) -> Float32:
        """Like `identify`, for the scores of `SpeakerIdentifier.scores`, float32 (speakers,)."""
        found: Float32 = await self._answer(sound, sample_rate, channel, _scores)
        return found

    async def embed(self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None) -> Float32:
        """Like `identify`, for the unit vector of `SpeakerIdentifier.embed`, float32 (embedding_size,)."""
        found: Float32 = await self._answer(sound, sample_rate, channel, _embedding)
        return found

    async def voice(self, sound: Sound, sample_rate: int | None = None, *, channel: Channel | None = None) -> Voice:
        """Like `identify`, for what `SpeakerIdentifier.voice` gives, without pieces."""
        found: Voice = await self._answer(sound, sample_rate, channel, _voice)
        return found

    async def _answer(self, sound: Sound, sample_rate: int | None, channel: Channel | None, finish: Finish) -> Any:
        import asyncio  # who awaits has it already; who does not need not load it

        need_output(self._contract, _output_for(finish))
        if (waiter := self._worker.reserve_or_wait()) is not None:
            try:
                await asyncio.wrap_future(waiter)
            except asyncio.CancelledError:
                self._worker.abandon(waiter)
                raise
            self._worker.accept(waiter)
        future: Future[Any] = Future()
        try:
            # Its end is not awaited: it ends in the future, even where this loop does not go on.
            enqueue = partial(self._enqueue, sound, sample_rate, channel, finish, future)
            asyncio.get_running_loop().run_in_executor(None, enqueue)
        except RuntimeError:  # the executor is shut down
            self._worker.release()
            raise
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            raise

    # --- the end ----------------------------------------------------------------------------------

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests, answer those that wait, and return when the thread has ended.

        With `drain=False` those that wait fail with BatcherClosedError; the batch that runs is finished.
        Coroutines that wait for a place in the queue fail in either case. Closing twice is allowed; a
        `with` block that ends in an exception closes with `drain=False`.
        """
        self._worker.close(drain=drain)
        self._worker.join()

    async def aclose(self, *, drain: bool = True) -> None:
        """Like `close`, without holding up the event loop."""
        import asyncio

        self._worker.close(drain=drain)
        await asyncio.to_thread(self._worker.join)

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> "Batcher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(drain=kind is None)

    def _ranked(self, top: int) -> Finish:
        return partial(_identification, self._contract, top)


def _identification(contract: Contract, top: int, answer: Answer, heard: Described) -> Identification:
    return answered(answer.scores[0], contract, top, heard)


def _scores(answer: Answer, _: Described) -> Float32:
    return np.array(answer.scores[0])


def _embedding(answer: Answer, _: Described) -> Float32:
    return np.array(answer.embedding[0])


def _voice(answer: Answer, heard: Described) -> Voice:
    vector = np.array(answer.embedding[0])
    return Voice(vector, heard.seconds, channel=heard.channel, notes=heard.notes, speech=heard.speech)


def _output_for(finish: Finish) -> Output:
    return "embedding" if finish in (_embedding, _voice) else "scores"


def _own(prepared: Prepared, sound: Sound) -> Prepared:
    """Samples that need no conversion are the caller's own array, who may fill it again meanwhile."""
    if isinstance(sound, (str, os.PathLike)) or prepared.values.ndim > 1:
        return prepared
    return dataclasses.replace(prepared, values=prepared.values.copy())

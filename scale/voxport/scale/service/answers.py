"""What a replica does: a model, its batcher, the voices, and the limits that hold for everybody."""

import asyncio
import os
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal, TypeVar

from fastapi import FastAPI

from voxport.runtime import Batcher, BatcherOptions, GalleryScorer, SpeakerIdentifier
from voxport.runtime.audio.channels import Channel, ChannelChoice
from voxport.runtime.audio.decode import audio_seconds
from voxport.runtime.errors import NoSpeechError, VoxportError
from voxport.runtime.results import Identification, Voice
from voxport.runtime.streaming.scorers import Scorer
from voxport.runtime.streaming.segments import Segment
from voxport.runtime.streaming.timeline import Timeline
from voxport.scale.service.doors import Turnstile
from voxport.scale.service.metrics import Metrics
from voxport.scale.service.options import ServiceOptions
from voxport.scale.service.problems import ProblemError, busy, problem_of, unknown
from voxport.scale.service.store import VoiceStore

T = TypeVar("T")
Among = Literal["model", "voices"]


class Service:
    """One replica. Its methods answer for a sound in a file, and raise ProblemError."""

    of_process: ClassVar["Service | None"] = None  # where the process is a replica

    def __init__(self, options: ServiceOptions) -> None:
        """Load the model and open the store; raises as these do."""
        self.options, self.limits = options, options.limits
        self.identifier = SpeakerIdentifier.load(options.model, device=options.device, threads=options.threads)
        self.contract = self.identifier.contract
        self.name = f"{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.metrics, self.turnstile = Metrics(self.name), Turnstile(self.limits.queue)
        self._timelines = Turnstile(self.limits.timelines)
        self.streams = 0
        self.loop: asyncio.AbstractEventLoop | None = None  # in which it answers
        self.has_scores, self.has_voices = ("scores" in self.contract.outputs), ("embedding" in self.contract.outputs)
        self._own = tempfile.TemporaryDirectory(prefix="voxport-") if options.store is None else None
        place = options.store or os.path.join(self._own.name, "voices.db")  # type: ignore[union-attr]
        self.store = VoiceStore(place, self.contract) if self.has_voices else None
        batching = BatcherOptions(
            max_batch=options.max_batch,
            max_wait_ms=options.max_wait_ms,
            max_queue=max(self.limits.queue, options.max_batch),
            max_seconds=min(self.limits.max_seconds, 86_400.0),
        )
        self.batcher = Batcher(self.identifier, batching)

    async def close(self) -> None:
        """Answer what is at work, for at most `drain_s`, and end."""
        self.turnstile.draining = True
        await self.turnstile.empty(self.options.drain_s)
        await self.batcher.aclose()
        if self.store is not None:
            self.store.close()
        if self._own is not None:
            self._own.cleanup()

    # --- answers ----------------------------------------------------------------------------------

    async def identify(self, path: str, top: int, channel: Channel | None) -> Identification:
        """Who of the model's own speakers."""
        if not self.has_scores:
            raise unknown("this model names no speakers of its own; ask among=voices")
        answer = await self._in_time(path, lambda: self.batcher.identify(path, top=top, channel=channel))
        self.metrics.heard(answer.duration_s)
        return answer

    async def voice(self, path: str, channel: Channel | None) -> Voice:
        """The voice of a sound."""
        if not self.has_voices:
            raise unknown("this model gives no embeddings; export it with --output both")
        voice = await self._in_time(path, lambda: self.batcher.voice(path, channel=channel))
        self.metrics.heard(voice.duration_s)
        return voice

    async def spoken_voice(self, path: str, channel: Channel | None) -> Voice:
        """The same, of a sound in which somebody must speak."""
        voice = await self.voice(path, channel)
        if voice.speech is not None and not voice.speech.found:
            raise problem_of(NoSpeechError(voice.speech.text))
        return voice

    async def scores(self, sound: Any) -> Any:
        """The model's scores of a file, or of samples at its rate; float32 (speakers,)."""
        rate = None if isinstance(sound, str) else self.contract.frontend.sample_rate
        return await self._in_time(sound, lambda: self.batcher.scores(sound, rate))

    async def embedding(self, sound: Any) -> Any:
        """The same for the embedding; float32 (embedding_size,)."""
        rate = None if isinstance(sound, str) else self.contract.frontend.sample_rate
        return await self._in_time(sound, lambda: self.batcher.embed(sound, rate))

    async def timeline(self, path: str, among: Among, channel: ChannelChoice | None) -> tuple[Segment, ...]:
        """Who speaks when."""
        if self._timelines.inside >= self.limits.timelines:
            raise busy(f"{self._timelines.inside} timelines are at work already")
        async with self._timelines.enter():
            scorer = await self.scorer(among)

            def work() -> tuple[Segment, ...]:
                return Timeline(self.identifier, scorer=scorer).segments(path, channel=channel)

            return await self._in_time(path, lambda: asyncio.to_thread(work))

    async def scorer(self, among: Among) -> Scorer | None:
        """Who is compared with; None: the model's own speakers."""
        if among == "model":
            if not self.has_scores:
                raise unknown("this model names no speakers of its own; ask among=voices")
            return None
        store = self.voices()
        return await self.run(lambda: GalleryScorer(self.identifier, store.gallery()))

    def voices(self) -> VoiceStore:
        """The store; a problem where the model has no voices."""
        if self.store is None:
            raise unknown("this model gives no embeddings; export it with --output both")
        return self.store

    async def run(self, work: Callable[[], T]) -> T:
        """Something that waits for a disk or a database, beside the event loop; the runtime's errors are problems."""
        try:
            return await asyncio.to_thread(work)
        except VoxportError as problem:
            raise problem_of(problem) from problem

    async def _in_time(self, sound: Any, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self.limits.answer_s):
                # A file of some kilobytes may claim hours: said before a sample of it is decoded.
                seconds = await asyncio.to_thread(audio_seconds, sound) if isinstance(sound, str) else None
                if seconds is not None and seconds > self.limits.max_seconds:
                    detail = f"the sound claims {seconds:,.0f} s; at most {self.limits.max_seconds:g} s are taken"
                    raise ProblemError(422, "length", "The sound is too short or too long", detail)
                return await work()
        except TimeoutError:
            raise busy(f"there was no answer within {self.limits.answer_s:g} s") from None
        except VoxportError as problem:
            raise problem_of(problem, sound if isinstance(sound, str) else None) from problem

    def describe(self) -> dict[str, Any]:
        """What the model says about itself, for clients."""
        contract = self.contract
        return {
            "recipe": contract.recipe,
            "checkpoint_sha256": contract.checkpoint_sha256,
            "outputs": list(contract.outputs),
            "speakers": len(contract.labels),
            "sample_rate": contract.frontend.sample_rate,
            "embedding_size": contract.embedding_size,
            "rejects_strangers": contract.rejection is not None,
            "max_bytes": self.limits.max_bytes,
            "max_seconds": self.limits.max_seconds,
        }


def service_of(app: FastAPI) -> Service:
    """The service that answers for `app`."""
    service: Service | None = app.state.service or Service.of_process
    assert service is not None, "a replica makes its service before it is asked"
    return service

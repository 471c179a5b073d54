"""The batcher in threads and event loops. A model that stops at a gate decides what runs when, never a clock."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.runtime.tiny_models import FRONTEND, LABELS, SIZE, TinyModel, features, tone
from voxport.runtime import (
    Answer,
    AudioError,
    BackendError,
    Batcher,
    BatcherClosedError,
    BatcherOptions,
    Contract,
    Identification,
    LengthError,
    QueueFullError,
    SpeakerIdentifier,
    VoxportError,
)
from voxport.runtime.windowing.hearing import open_sound

LONG = 60.0  # seconds that nothing here ever takes: a test that waits so long has failed
NOW = BatcherOptions(max_batch=4, max_wait_ms=0, max_queue=8)
PATIENT = BatcherOptions(max_batch=4, max_wait_ms=60_000, max_queue=8)  # runs full batches only


class GatedModel:
    """Answers with the level of each row, once its gate is open."""

    def __init__(self, contract: Contract, *, open_gate: bool = False) -> None:
        self.contract = contract
        self.shapes: list[tuple[int, ...]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        if open_gate:
            self.gate.set()
        self.poison: float | None = None  # a batch with this level in it fails

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        batch, counts = np.asarray(inputs), np.asarray(lengths)
        self.started.release()
        assert self.gate.wait(LONG)
        self.shapes.append(batch.shape)
        levels = np.array([row[:count].mean() for row, count in zip(batch, counts, strict=True)], np.float32)
        if self.poison is not None and np.isclose(levels, self.poison).any():
            raise BackendError(f"poisoned among {len(batch)}")
        return Answer(np.tile(levels[:, None], len(LABELS)), np.tile(levels[:, None], SIZE))

    def started_one(self) -> None:
        assert self.started.acquire(timeout=LONG)

    def open_gate(self) -> None:
        self.gate.set()


@pytest.fixture
def model(tiny_waveform: TinyModel) -> Iterator[GatedModel]:
    gated = GatedModel(tiny_waveform.contract)
    yield gated
    gated.open_gate()  # so that no thread of a failed test is left


def level(value: float, seconds: float = 0.3) -> npt.NDArray[np.float32]:
    return np.full(round(seconds * 16000), value, np.float32)


def levels(futures: list["Future[Any]"]) -> list[float]:
    return [round(float(future.result(LONG)[0]), 4) for future in futures]


def batcher_of(model: GatedModel, options: BatcherOptions = NOW) -> Batcher:
    return Batcher(SpeakerIdentifier(model), options)


def threads_of_batchers() -> int:
    return sum(thread.name == "voxport-batcher" for thread in threading.enumerate())


# --- grouping -----------------------------------------------------------------------------------------


def test_requests_that_come_while_the_model_runs_share_the_next_batch(model: GatedModel) -> None:
    with batcher_of(model) as batcher:
        futures = [batcher.submit_scores(level(0.1), 16000)]
        model.started_one()
        futures += [batcher.submit_scores(level(i / 10), 16000) for i in (2, 3, 4)]
        assert batcher.waiting == 3
        model.open_gate()
        assert levels(futures) == [0.1, 0.2, 0.3, 0.4]
    assert model.shapes == [(1, 4800), (3, 4800)]
    assert batcher.waiting == 0


def test_a_batch_runs_as_soon_as_it_is_full(model: GatedModel) -> None:
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        assert levels([batcher.submit_scores(level(i / 10), 16000) for i in range(4)]) == [0, 0.1, 0.2, 0.3]
    assert model.shapes == [(4, 4800)]


def test_when_nobody_else_can_come_nobody_is_waited_for(model: GatedModel) -> None:
    """The queue is full, but no bucket is."""
    options = BatcherOptions(max_batch=2, max_wait_ms=60_000, max_queue=2, buckets=(0.2, 0.4))
    with batcher_of(model, options) as batcher:
        model.open_gate()
        first = batcher.submit_scores(level(0.1, 0.15), 16000)
        second = batcher.submit_scores(level(0.2, 0.3), 16000)
        assert levels([first]) == [0.1]
        second.cancel()  # it may wait for its budget now; this test does not
    assert model.shapes[0] == (1, 2400)


def test_lone_requests_run_when_their_budget_is_spent(model: GatedModel) -> None:
    model.open_gate()
    with batcher_of(model, BatcherOptions(max_wait_ms=1)) as batcher:
        assert levels([batcher.submit_scores(level(0.5), 16000)]) == [0.5]


def test_lengths_within_a_bucket_are_padded_and_masked(model: GatedModel) -> None:
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        futures = [batcher.submit_scores(level(0.5, seconds), 16000) for seconds in (0.1, 0.2, 0.4, 0.3)]
        assert levels(futures) == [0.5] * 4
    assert model.shapes == [(4, 6400)]


def test_every_kind_of_question_shares_the_batches(model: GatedModel) -> None:
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        who = batcher.submit(level(0.1), 16000, top=2)
        scores, voice = batcher.submit_scores(level(0.2), 16000), batcher.submit_embed(level(0.3), 16000)
        everyone = batcher.submit(level(0.4), 16000)
        assert [candidate.speaker for candidate in who.result(LONG).ranked] == list(LABELS[:2])
        assert who.result().duration_s == 0.3
        assert scores.result(LONG).shape == (len(LABELS),)
        assert voice.result(LONG).shape == (SIZE,)
        assert len(everyone.result(LONG).ranked) == 5
    assert model.shapes == [(4, 4800)]


# --- equal to unbatched -------------------------------------------------------------------------------


def test_answers_are_those_of_the_identifier(either: TinyModel) -> None:
    """A batched product may round differently: within the tolerance that the contract states."""
    identifier = SpeakerIdentifier.load(either.path)
    sounds = [tone(0.06 + 0.01 * i, hertz=100 + 31 * i) for i in range(40)]
    with Batcher(identifier, BatcherOptions(max_batch=7, max_wait_ms=2, buckets=(0.1, 0.3))) as batcher:
        scores = [batcher.submit_scores(sound, 16000) for sound in sounds]
        voices = [batcher.submit_embed(sound, 16000) for sound in sounds]
        names = [batcher.submit(sound, 16000, top=3) for sound in sounds]
        tolerance = either.contract.golden.tolerance
        for i, sound in enumerate(sounds):
            np.testing.assert_allclose(scores[i].result(LONG), identifier.scores(sound, 16000), atol=tolerance)
            np.testing.assert_allclose(voices[i].result(LONG), identifier.embed(sound, 16000), atol=tolerance)
            alone, found = identifier.identify(sound, 16000, top=3), names[i].result(LONG)
            assert found.duration_s == alone.duration_s
            assert len(found.ranked) == 3
            assert found.best.score == pytest.approx(alone.best.score, abs=tolerance)


def test_alone_in_its_batch_an_answer_is_bit_equal(either: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    with Batcher(identifier, BatcherOptions(max_batch=1, max_wait_ms=0)) as batcher:
        for seconds in (0.06, 0.3, 0.55):
            sound = tone(seconds)
            assert batcher.submit(sound, 16000).result(LONG) == identifier.identify(sound, 16000)
            np.testing.assert_array_equal(
                batcher.submit_embed(sound, 16000).result(LONG), identifier.embed(sound, 16000)
            )
            found, alone = batcher.submit_voice(sound, 16000).result(LONG), identifier.voice(sound, 16000)
            np.testing.assert_array_equal(found.embedding, alone.embedding)
            assert (found.duration_s, found.windows, found.notes) == (alone.duration_s, alone.windows, alone.notes)


def test_an_array_may_be_filled_again_once_it_was_submitted(model: GatedModel) -> None:
    with batcher_of(model) as batcher:
        buffer = level(0.25)
        future = batcher.submit_scores(buffer, 16000)
        buffer[:] = 0.75
        model.open_gate()
        assert levels([future]) == [0.25]


def test_answers_do_not_hold_the_batch(model: GatedModel) -> None:
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        futures = [batcher.submit_scores(level(0.1), 16000) for _ in range(4)]
        assert all(future.result(LONG).base is None for future in futures)
        assert all(future.result(LONG).flags.writeable for future in futures)


# --- errors stay where they belong --------------------------------------------------------------------


def test_a_bad_sound_fails_alone_and_frees_its_place(model: GatedModel, tmp_path: Path) -> None:
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        good = [batcher.submit_scores(level(0.1), 16000) for _ in range(3)]
        bad: list[tuple[Future[Any], type[VoxportError]]] = [
            (batcher.submit(tmp_path / "missing.wav"), AudioError),
            (batcher.submit(level(0.1)), AudioError),
            (batcher.submit(level(float("nan")), 16000), AudioError),
            (batcher.submit(level(0.1, 0.001), 16000), LengthError),
            (batcher.submit(np.broadcast_to(np.float32(0.1), 3601 * 16000), 16000), LengthError),
        ]
        for future, kind in bad:
            assert isinstance(future.exception(0), kind)
        assert batcher.waiting == 3
        good.append(batcher.submit_scores(level(0.1), 16000))
        assert levels(good) == [0.1] * 4


def test_a_bad_question_fails_alone(model: GatedModel) -> None:
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        futures: list[Future[Any]] = [batcher.submit(level(0.1), 16000, top=top) for top in (1, 0, 2, 3)]
        with pytest.raises(VoxportError, match="top must be at least 1"):
            futures.pop(1).result(LONG)
        assert [len(future.result(LONG).ranked) for future in futures] == [1, 2, 3]


def test_a_batch_that_fails_is_run_one_by_one(model: GatedModel) -> None:
    model.poison = 0.3
    with batcher_of(model, PATIENT) as batcher:
        model.open_gate()
        futures = [batcher.submit_scores(level(i / 10), 16000) for i in (1, 2, 3, 4)]
        with pytest.raises(BackendError, match="poisoned among 1"):
            futures.pop(2).result(LONG)
        assert levels(futures) == [0.1, 0.2, 0.4]
        assert levels([batcher.submit_scores(level(0.1), 16000) for _ in range(4)]) == [0.1] * 4
    assert [shape[0] for shape in model.shapes] == [4, 1, 1, 1, 1, 4]


def test_an_error_of_no_kind_of_ours_is_passed_on_and_the_batcher_lives(
    model: GatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.open_gate()
    with batcher_of(model) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(GatedModel, "run", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                batcher.submit(level(0.1), 16000).result(LONG)
        assert levels([batcher.submit_scores(level(0.1), 16000)]) == [0.1]


def test_a_callback_that_raises_harms_nobody(model: GatedModel, caplog: pytest.LogCaptureFixture) -> None:
    model.open_gate()
    with batcher_of(model) as batcher:
        future = batcher.submit_scores(level(0.1), 16000)
        future.add_done_callback(lambda _: 1 / 0)
        assert levels([future, batcher.submit_scores(level(0.2), 16000)]) == [0.1, 0.2]


# --- back-pressure and cancellation -------------------------------------------------------------------


def fill(batcher: Batcher, model: GatedModel) -> list["Future[Any]"]:
    """One request runs, and every place is taken."""
    futures: list[Future[Any]] = [batcher.submit_scores(level(0.1), 16000)]
    model.started_one()
    return futures + [batcher.submit_scores(level(0.2), 16000) for _ in range(NOW.max_queue)]


def test_a_full_queue_refuses_before_anything_is_decoded(model: GatedModel) -> None:
    with batcher_of(model) as batcher:
        futures = fill(batcher, model)
        with pytest.raises(QueueFullError, match="8 requests wait already"):
            batcher.submit("missing.wav")
        assert batcher.waiting == 8
        model.open_gate()
        assert levels(futures) == [0.1] + [0.2] * 8
        assert levels([batcher.submit_scores(level(0.5), 16000)]) == [0.5]


def test_a_cancelled_request_never_runs_and_leaves_its_place(model: GatedModel) -> None:
    with batcher_of(model) as batcher:
        futures = fill(batcher, model)
        assert not futures[0].cancel()  # it runs
        assert all(future.cancel() for future in futures[1:])
        assert batcher.waiting == 0
        last = batcher.submit_scores(level(0.3), 16000)
        model.open_gate()
        assert levels([futures[0], last]) == [0.1, 0.3]
    assert model.shapes == [(1, 4800), (1, 4800)]


def test_coroutines_wait_for_a_place_and_get_it_in_order(model: GatedModel) -> None:
    answered: list[float] = []

    async def ask(batcher: Batcher, value: float) -> None:
        answered.append(round(float((await batcher.scores(level(value), 16000))[0]), 4))

    async def main() -> None:
        options = BatcherOptions(max_batch=1, max_wait_ms=0, max_queue=1)
        async with batcher_of(model, options) as batcher:
            tasks = [asyncio.ensure_future(ask(batcher, (i + 1) / 10)) for i in range(6)]
            await asyncio.to_thread(model.started_one)
            while batcher.waiting < 1:
                await asyncio.sleep(0)
            with pytest.raises(QueueFullError):
                batcher.submit(level(0.1), 16000)
            model.open_gate()
            await asyncio.wait_for(asyncio.gather(*tasks), LONG)

    asyncio.run(main())
    assert answered == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_a_cancelled_task_leaves_wherever_it_is(model: GatedModel) -> None:
    """Waiting for a place, in the queue, or running: the place comes back, and the rest is answered."""

    async def main() -> None:
        async with batcher_of(model) as batcher:
            running = asyncio.ensure_future(batcher.scores(level(0.1), 16000))
            await asyncio.to_thread(model.started_one)
            queued = [asyncio.ensure_future(batcher.scores(level(0.2), 16000)) for _ in range(8)]
            while len(batcher._worker._queue) < 8:
                await asyncio.sleep(0)
            outside = [asyncio.ensure_future(batcher.scores(level(0.3), 16000)) for _ in range(3)]
            await asyncio.sleep(0)
            for task in (running, *queued[1:], outside[0]):
                task.cancel()
            for task in (running, *queued[1:], outside[0]):
                with pytest.raises(asyncio.CancelledError):
                    await task
            model.open_gate()
            found = await asyncio.wait_for(asyncio.gather(queued[0], *outside[1:]), LONG)
            assert [round(float(scores[0]), 4) for scores in found] == [0.2, 0.3, 0.3]
            assert batcher.waiting == 0

    asyncio.run(main())
    assert sum(shape[0] for shape in model.shapes) == 4


def test_a_place_that_comes_with_the_cancellation_goes_to_the_next(model: GatedModel) -> None:
    async def main() -> None:
        async with batcher_of(model) as batcher:
            futures = fill(batcher, model)
            outside = [asyncio.ensure_future(batcher.scores(level(value), 16000)) for value in (0.3, 0.4)]
            await asyncio.sleep(0)
            futures[-1].cancel()  # the first gets its place, and has not been told yet
            outside[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await outside[0]
            model.open_gate()
            assert round(float((await asyncio.wait_for(outside[1], LONG))[0]), 4) == 0.4
            assert levels(futures[:-1]) == [0.1] + [0.2] * 7
            assert batcher.waiting == 0

    asyncio.run(main())


def test_a_place_offered_to_a_coroutine_ends_with_a_batcher_closed_in_its_loop(model: GatedModel) -> None:
    async def main() -> None:
        batcher = batcher_of(model)
        futures = fill(batcher, model)
        outside = asyncio.ensure_future(batcher.scores(level(0.3), 16000))
        await asyncio.sleep(0)
        futures[-1].cancel()
        model.open_gate()
        batcher.close()  # the loop stands still
        with pytest.raises(BatcherClosedError, match="before this request ran"):
            await outside
        assert levels(futures[:-1]) == [0.1] + [0.2] * 7
        assert batcher.waiting == 0

    asyncio.run(main())


def test_a_request_cancelled_while_it_is_decoded_never_runs(model: GatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, decoded = threading.Event(), threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        decoding.set()
        assert decoded.wait(LONG)
        return original(*arguments, **options)

    import voxport.runtime.serving.batcher as module

    original = open_sound
    monkeypatch.setattr(module, "open_sound", slow)
    model.open_gate()

    async def main() -> None:
        async with batcher_of(model) as batcher:
            task = asyncio.ensure_future(batcher.scores(level(0.1), 16000))
            await asyncio.to_thread(decoding.wait, LONG)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert batcher.waiting == 1  # its memory is still in use
            decoded.set()
        assert batcher.waiting == 0

    asyncio.run(main())
    assert model.shapes == []


# --- threads and loops --------------------------------------------------------------------------------


def test_threads_and_event_loops_share_a_batcher(tiny: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny.path)
    sounds = [tone(0.06 + 0.05 * (i % 9), hertz=100 + 17 * i) for i in range(24)]
    expected = identifier.scores_batch(sounds, 16000)
    found: dict[tuple[str, int], Any] = {}

    def from_thread(name: str) -> None:
        futures = [batcher.submit_scores(sound, 16000) for sound in sounds]
        found.update({(name, i): future.result(LONG) for i, future in enumerate(futures)})

    def from_loop(name: str) -> None:
        async def main() -> None:
            answers = await asyncio.gather(*(batcher.scores(sound, 16000) for sound in sounds))
            found.update({(name, i): answer for i, answer in enumerate(answers)})

        asyncio.run(main())

    with Batcher(identifier, BatcherOptions(max_batch=8, max_wait_ms=1, max_queue=200)) as batcher:
        targets: list[Callable[[str], None]] = [from_thread, from_loop] * 3
        threads = [threading.Thread(target=target, args=(str(i),)) for i, target in enumerate(targets)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
    assert len(found) == 6 * len(sounds)
    for (_, i), scores in found.items():
        np.testing.assert_allclose(scores, expected[i], atol=1e-3)


def test_a_coroutine_has_every_kind_of_answer_and_its_own_error(tiny: TinyModel, tmp_path: Path) -> None:
    identifier = SpeakerIdentifier.load(tiny.path)
    sound = tone(0.3)

    async def main() -> tuple[Any, ...]:
        async with Batcher(identifier) as batcher:
            return await asyncio.gather(
                batcher.identify(sound, 16000, top=2),
                batcher.scores(sound, 16000),
                batcher.embed(sound, 16000),
                batcher.identify(tmp_path / "missing.wav"),
                return_exceptions=True,
            )

    who, scores, voice, problem = asyncio.run(main())
    assert isinstance(who, Identification)
    assert len(who.ranked) == 2
    np.testing.assert_allclose(scores, identifier.scores(sound, 16000), atol=1e-3)
    np.testing.assert_allclose(voice, identifier.embed(sound, 16000), atol=1e-4)
    assert isinstance(problem, AudioError)


# --- the end ------------------------------------------------------------------------------------------


def test_closing_answers_those_that_wait_and_ends_the_thread(model: GatedModel) -> None:
    before = threads_of_batchers()
    batcher = batcher_of(model, PATIENT)
    assert threads_of_batchers() == before + 1
    futures = [batcher.submit_scores(level(i / 10), 16000) for i in (1, 2)]
    model.open_gate()
    batcher.close()
    assert all(future.done() for future in futures)
    assert levels(futures) == [0.1, 0.2]
    assert threads_of_batchers() == before
    batcher.close()
    with pytest.raises(BatcherClosedError, match="closed"):
        batcher.submit(level(0.1), 16000)
    with pytest.raises(BatcherClosedError, match="closed"):
        asyncio.run(batcher.identify(level(0.1), 16000))


def test_closing_without_draining_fails_those_that_wait(model: GatedModel) -> None:
    batcher = batcher_of(model)
    futures = fill(batcher, model)
    closing = threading.Thread(target=batcher.close, kwargs={"drain": False})
    closing.start()
    for future in futures[1:]:
        with pytest.raises(BatcherClosedError, match="before this request ran"):
            future.result(LONG)
    model.open_gate()
    closing.join(LONG)
    assert levels(futures[:1]) == [0.1]
    assert batcher.waiting == 0


def test_coroutines_outside_a_closed_batcher_fail_and_are_not_cancelled(model: GatedModel) -> None:
    async def main() -> None:
        batcher = batcher_of(model)
        fill(batcher, model)
        outside = asyncio.ensure_future(batcher.scores(level(0.3), 16000))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.aclose())
        with pytest.raises(BatcherClosedError, match="before this request ran"):
            await outside
        model.open_gate()
        await asyncio.wait_for(closing, LONG)

    asyncio.run(main())


def test_closing_inside_the_event_loop_does_not_wait_for_that_loop(model: GatedModel) -> None:
    """Decoding ends without the loop, so a blocking close in a coroutine is slow, not a deadlock."""

    async def main() -> list[Any]:
        batcher = batcher_of(model)
        batcher.submit_scores(level(0.1), 16000)
        model.started_one()  # it runs, so the next ones have to wait
        tasks = [asyncio.ensure_future(batcher.scores(level(0.5), 16000)) for _ in range(5)]
        while batcher.waiting < len(tasks):
            await asyncio.sleep(0)
        model.open_gate()
        batcher.close()
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(main())) == 5


def test_a_with_block_that_fails_does_not_wait_for_the_queue(model: GatedModel) -> None:
    futures: list[Future[Any]] = []

    def fails() -> None:
        with batcher_of(model, PATIENT) as batcher:
            futures.append(batcher.submit_scores(level(0.1), 16000))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert isinstance(futures[0].exception(LONG), BatcherClosedError)


def test_closing_in_a_callback_does_not_wait_for_itself(model: GatedModel) -> None:
    model.open_gate()
    batcher = batcher_of(model)
    closed: Future[None] = Future()

    def close(_: object) -> None:
        batcher.close()
        closed.set_result(None)

    batcher.submit_scores(level(0.1), 16000).add_done_callback(close)
    closed.result(LONG)
    batcher.close()


def test_a_forgotten_batcher_answers_and_ends(model: GatedModel) -> None:
    before = threads_of_batchers()
    batcher = batcher_of(model, PATIENT)
    thread = batcher._worker._thread
    future = batcher.submit_scores(level(0.1), 16000)
    del batcher
    gc.collect()
    model.open_gate()
    assert levels([future]) == [0.1]
    thread.join(LONG)
    assert threads_of_batchers() == before


def test_an_idle_batcher_holds_no_sound(model: GatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the garbage collector: a busy server should not need it to stay flat."""
    import voxport.runtime.serving.batcher as module

    held: list[weakref.ref[Any]] = []

    def remembered(*arguments: Any) -> Any:
        prepared = original(*arguments)
        held.append(weakref.ref(prepared.values))
        return prepared

    original = module._own
    monkeypatch.setattr(module, "_own", remembered)
    model.open_gate()
    gc.disable()
    try:
        with batcher_of(model) as batcher:
            futures = [batcher.submit_scores(level(0.1), 16000) for _ in range(5)]
            wait(futures, LONG)
            last = batcher.submit_scores(level(0.2), 16000)
            last.result(LONG)
            assert sum(sound() is not None for sound in held[:-1]) == 0
        assert held[-1]() is None
    finally:
        gc.enable()


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_process_ends_with_a_batcher_still_open(tiny: TinyModel) -> None:
    code = """
import sys
import numpy as np
from voxport.runtime import Batcher, BatcherOptions, SpeakerIdentifier

batcher = Batcher(SpeakerIdentifier.load(sys.argv[1]), BatcherOptions(max_wait_ms=60000))
futures = [batcher.submit(np.zeros(6400, np.float32), 16000) for _ in range(20)]
print(futures[0].result().duration_s)
"""
    result = run_python(code, tiny.path)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "0.4", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_a_batcher_says_so_instead_of_hanging(tiny: TinyModel) -> None:
    code = """
import os, sys
import numpy as np
from voxport.runtime import Batcher, BatcherClosedError, SpeakerIdentifier

batcher = Batcher(SpeakerIdentifier.load(sys.argv[1]))
child = os.fork()
if child == 0:
    try:
        batcher.submit(np.zeros(6400, np.float32), 16000)
    except BatcherClosedError as problem:
        print(problem, flush=True)
    batcher.close()
    os._exit(7)  # onnxruntime itself does not survive the end of a forked process
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), batcher.submit(np.zeros(6400, np.float32), 16000).result().duration_s)
"""
    result = run_python(code, tiny.path)
    assert result.returncode == 0, result.stderr
    assert "made before the process forked" in result.stdout
    assert result.stdout.splitlines()[-1] == "7 0.4"


def test_batching_and_asyncio_are_not_loaded_by_those_who_do_not_ask() -> None:
    unwanted = {"asyncio", "concurrent.futures", "voxport.runtime.serving.batcher"}
    code = f"import sys, voxport.runtime; print(*{unwanted!r} & set(sys.modules))"
    assert run_python(code).stdout.strip() == ""


def test_cancelled_is_cancelled_for_threads_too(model: GatedModel) -> None:
    with batcher_of(model) as batcher:
        future = fill(batcher, model)[-1]
        future.cancel()
        with pytest.raises(CancelledError):
            future.result(0)
        model.open_gate()


def test_a_model_with_feature_input_is_given_features(tiny: TinyModel) -> None:
    gated = GatedModel(tiny.contract, open_gate=True)
    with batcher_of(gated, PATIENT) as batcher:
        wait([batcher.submit_scores(level(0.1), 16000) for _ in range(4)], LONG)
    assert gated.shapes == [(4, len(features(31)), FRONTEND.n_mels)]

"""Several processes that train together: started here, one per device, or by torchrun."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from voxport.runtime.errors import VoxportError
from voxport.train.training.lightning_module import TrainingError

try:
    import fcntl
except ImportError:  # Windows has no flock; processes then open a corpus all at once
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # for the others to end by themselves, once one has died


@dataclass(frozen=True)
class Place:
    """This process among the `world` that train together, on so many `nodes` (machines)."""

    rank: int = 0
    world: int = 1
    nodes: int = 1
    launched: bool = False  # somebody started this process as one of several: torchrun, or `train_together`

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0


def here() -> Place:
    """This process's place, by the environment variables of torchrun."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    if not all(name in os.environ for name in names):
        return Place()
    world = int(os.environ["WORLD_SIZE"])
    return Place(int(os.environ["RANK"]), world, world // int(os.environ.get("LOCAL_WORLD_SIZE", world)), True)


def check_devices(devices: int, device: str, place: Place) -> None:
    """Refuse more devices than there are, a number that torchrun has already decided, and a machine without locks.

    Raises:
        TrainingError: too few devices, two numbers that contradict each other, or no /dev/shm that can be written.
    """
    if place.launched and devices not in (1, place.world // place.nodes):
        raise TrainingError(f"--devices {devices}: torchrun has started {place.world} processes; leave --devices out")
    wanted = max(devices, place.world // place.nodes)
    if device == "cuda" and wanted > torch.cuda.device_count():
        raise TrainingError(f"{wanted} devices: PyTorch sees {torch.cuda.device_count()} GPUs here; ask for fewer")
    if devices > 1 and not place.launched:
        _queue()  # before a corpus is read


def train_together(worker: Callable[..., T], arguments: tuple[Any, ...], world: int, device: str) -> T:
    """What `worker(*arguments)` returns in the first of `world` processes, each of which finds its place by `here`.

    When one dies, the others are stopped.

    Raises:
        TrainingError: a process was killed, or ended with one of voxport's errors.
    """
    answers = _queue()
    launch = (worker, arguments, world, device, _free_port(), answers)
    context: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _enter, launch, nprocs=world, join=False, start_method="spawn"
    )
    received: list[tuple[bool, Any]] = []
    try:
        while not _joined(context):
            _drain(answers, received)
    except ProcessExitedException as problem:
        _drain(answers, received)
        told = [text for good, text in received if not good]
        # A process that was killed explains what the others say of it.
        raise TrainingError(_death(problem, world) if problem.signal_name or not told else told[0]) from problem
    finally:
        _stop(context)
    _drain(answers, received)
    if not received:  # each process ended by itself without an answer: the user stopped them all
        raise KeyboardInterrupt
    answer: T = received[0][1]
    return answer


def _queue() -> Any:
    """What processes answer through. Raises TrainingError where they cannot have a lock together."""
    try:
        return multiprocessing.get_context("spawn").SimpleQueue()
    except OSError as problem:
        raise TrainingError(
            f"/dev/shm: cannot be written ({problem.strerror or problem}), and processes that train together lock each "
            "other there; give the container one with --shm-size=1g, or train with --devices 1"
        ) from problem


def _enter(rank: int, worker: Callable[..., Any], arguments: Any, world: int, device: str, port: int, out: Any) -> None:
    """The first thing that a process of `train_together` does."""
    facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in facts.items()}, MASTER_ADDR="127.0.0.1")
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:  # else each process would take all cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    try:
        answer = worker(*arguments)
    except VoxportError as problem:
        out.put((False, str(problem)))
        raise SystemExit(1) from None
    if rank == 0:
        out.put((True, answer))


def _joined(context: ProcessContext) -> bool:
    return bool(context.join(_POLL_SECONDS, _GRACE_SECONDS))


def _drain(answers: Any, received: list[tuple[bool, Any]]) -> None:
    while not answers.empty():
        received.append(answers.get())


def _death(problem: ProcessExitedException, world: int) -> str:
    how = f"by {problem.signal_name}" if problem.signal_name else f"with exit code {problem.exit_code}"
    return (
        f"process {problem.error_index} of {world} ended {how}, and the others were stopped; the last checkpoint is "
        "intact: go on with --resume"
    )


def _stop(context: ProcessContext) -> None:
    """End what is still running, as after Ctrl-C."""
    running = [process for process in context.processes if process.is_alive()]
    for process in running:
        process.terminate()
    for process in running:
        process.join(_GRACE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def one_at_a_time(path: Path, place: Place) -> Iterator[None]:
    """Let the processes of torchrun through one after another: the first computes what the others find done."""
    if place.world == 1 or fcntl is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""A build's progress as the library tells it, and a way to end it: Ctrl-C ends a build between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from voxport.runtime.backends.trt.library import Library


@contextmanager
def build_monitor(library: Library, shown: bool) -> Iterator[Any]:
    """An IProgressMonitor while the block runs, None under TensorRT 8.6, which has none; bars on stderr if `shown`.

    Ctrl-C must not raise inside TensorRT's threads: it is noted, the builder is told to stop, and the
    KeyboardInterrupt comes when the builder has returned.
    """
    cancelled = threading.Event()
    with _bars(shown) as bars, _noting_interrupts(cancelled):
        monitor = _monitor(library, bars, cancelled)
        try:
            yield monitor
        except Exception as problem:
            if cancelled.is_set():  # the builder's own error says only that it was told to stop
                raise KeyboardInterrupt from problem
            raise
        if cancelled.is_set():
            raise KeyboardInterrupt


def _monitor(library: Library, bars: Any, cancelled: threading.Event) -> Any:
    trt = library.load()
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined,unused-ignore]
        """Called by TensorRT, from several threads. The phases are nested, and their names are unique at a time."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tasks: dict[str, Any] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if bars is not None:
                indent = "  " if parent_phase else ""
                self._tasks[phase_name] = bars.add_task(f"{indent}{phase_name}", total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if bars is not None and phase_name in self._tasks:
                bars.update(self._tasks[phase_name], completed=step)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if bars is not None and phase_name in self._tasks:
                bars.remove_task(self._tasks.pop(phase_name))

    return Monitor()


@contextmanager
def _bars(shown: bool) -> Iterator[Any]:
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:
        yield bars


@contextmanager
def _noting_interrupts(cancelled: threading.Event) -> Iterator[None]:
    """Set `cancelled` on Ctrl-C in place of an exception; Python lets only the main thread do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: cancelled.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

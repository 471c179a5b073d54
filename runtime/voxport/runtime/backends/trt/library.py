"""NVIDIA's two libraries behind one face: TensorRT, and TensorRT for RTX, which has nearly the same names.

Neither is imported before it is used. Code for both takes the module from `Library.load`; what they do not share is
with the engine that needs it. Source: the Python API references of TensorRT 8.6, 10 and 11, and the docstrings of
tensorrt_rtx 1.7.
"""

import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from voxport.runtime.errors import BackendError
from voxport.runtime.imports import state_of

_KEPT_MESSAGES = 20


@dataclass(frozen=True)
class Library:
    """A library that builds and runs engines.

    Attributes:
        module: what Python imports.
        name: as NVIDIA calls it, for a sentence.
        need: what needs it, for the sentence that says that it is missing.
        install: the command that brings it.
    """

    module: str
    name: str
    need: str
    install: str

    def load(self) -> Any:
        """The module, imported when it is first needed. Raises BackendError where it is not usable."""
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError, RuntimeError) as problem:  # tensorrt_rtx raises RuntimeError for a lost library
            raise BackendError(
                f"{self.module} {state_of(problem, self.module)}; {self.need}: {self.install}"
            ) from problem

    @property
    def version(self) -> str:
        """Of the package that is installed. Raises BackendError as `load` does."""
        return str(getattr(self.load(), "__version__", "0"))

    @property
    def major(self) -> int:
        """8, 10 or 11 of TensorRT, for example."""
        first = self.version.partition(".")[0]
        return int(first) if first.isdigit() else 0

    @property
    def log(self) -> Any:
        """Its one logger; `take()` returns the errors since the last call."""
        return error_log(self)

    def attempt(self, what: str, call: Callable[[], Any]) -> Any:
        """`call()`, where None, False and exceptions become a BackendError with the library's own messages."""
        try:
            result = call()
        except Exception as problem:  # the bindings raise TypeError for a null pointer, and others
            raise BackendError(f"{self.name}: {what} failed ({self.log.take() or problem})") from problem
        if result is None or result is False:
            raise BackendError(f"{self.name}: {what} failed ({self.log.take() or f'{self.name} does not say why'})")
        return result


TENSORRT = Library(
    "tensorrt", "TensorRT", "a TensorRT plan needs it and an NVIDIA GPU", 'pip install "voxport[tensorrt]"'
)


@cache
def error_log(library: Library) -> Any:
    """The one logger of this process, since such a library keeps the first that it is given.

    `take()` returns the errors since the last call.
    """
    trt = library.load()

    class ErrorLog(trt.ILogger):  # type: ignore[misc,name-defined,unused-ignore]
        """Keeps errors for the exception that follows them, and prints nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._worst = int(trt.ILogger.ERROR)  # INTERNAL_ERROR is 0, ERROR 1, WARNING 2
            self._messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= self._worst:
                self._messages.append(" ".join(str(msg).split())[:400])

        def take(self) -> str:
            """The messages since the last call."""
            messages = list(dict.fromkeys(self._messages))
            self._messages.clear()
            return "; ".join(messages)

    return ErrorLog()

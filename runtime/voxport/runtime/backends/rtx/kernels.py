"""Kernels that TensorRT for RTX compiled on this GPU, kept on disk for the next start.

An RTX engine is compiled for the GPU when it is loaded and when it meets new shapes, which takes seconds. The library
hands out what it compiled as one block of bytes, and refuses a block that does not fit; here each engine, GPU, driver
and version has a file of its own, so that a block is not offered where it cannot fit.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from voxport.runtime.errors import BackendError
from voxport.runtime.storage.atomic import writing
from voxport.runtime.storage.cache_root import cache_root


@dataclass(frozen=True)
class KernelFile:
    """The file of one engine's kernels on one machine; it may not be there yet."""

    path: Path

    @classmethod
    def of(cls, engine_sha256: str, facts: tuple[str, ...], cache: str | os.PathLike[str] | None) -> "KernelFile":
        """Below `cache`, else $VOXPORT_CACHE, else ~/.cache/voxport. `facts` are the GPU, its driver and the library.

        Raises:
            BackendError: the folder cannot be made, or there is no home folder to make it in.
        """
        key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
        folder = cache_root(cache) / "rtx"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise _refused(folder, problem) from problem
        return cls(folder / f"{engine_sha256[:16]}-{key[:12]}.kernels")

    def read(self) -> bytes:
        """What was kept; nothing where nothing was. Raises BackendError where the file cannot be read."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as problem:
            raise _refused(self.path, problem) from problem

    def write(self, kernels: bytes) -> None:
        """Keep `kernels` in place of those of before, in one step. Raises BackendError where that fails."""
        try:
            with writing(self.path) as part:
                part.write_bytes(kernels)
        except OSError as problem:
            raise _refused(self.path, problem) from problem


def _refused(path: Path, problem: OSError) -> BackendError:
    return BackendError(
        f"{path}: compiled kernels cannot be kept there ({problem.strerror or problem}); set VOXPORT_CACHE to a folder "
        "that can be read and written"
    )

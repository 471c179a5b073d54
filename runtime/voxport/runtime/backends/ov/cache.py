"""Compiled models on disk: compiling takes several times as long as reading what was compiled before.

OpenVINO has a cache of its own, which finds a file by its name, size and time and takes old weights for new ones where
those are kept. Here an entry is named after all that makes it what it is: the model's SHA-256, OpenVINO's version, the
processor and what it can do, the precision, and the parts that were compiled.
"""

import os
from typing import TYPE_CHECKING

from voxport.runtime.backends.base import cpu_name
from voxport.runtime.errors import BackendError
from voxport.runtime.storage.atomic import file_sha256, writing
from voxport.runtime.storage.cache_root import cache_root

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = 64  # digits of a SHA-256, before the content it is of


class CompiledCache:
    """The place of one compiled model. `problem` says why there is none, and then nothing is kept."""

    def __init__(self, path: str, cache: str | os.PathLike[str] | None, facts: tuple[str, ...]) -> None:
        """Of the model `path`, below `cache` or voxport's usual folder; `facts` make one entry another."""
        import hashlib  # here and not above: `import voxport.runtime` does without it

        self.problem = ""
        self._place: Path | None = None
        key = hashlib.sha256("\n".join((cpu_name(), *facts)).encode()).hexdigest()
        try:
            self._place = cache_root(cache) / "openvino" / f"{file_sha256(path)[:32]}-{key[:16]}.compiled"
        except BackendError as problem:
            self.problem = str(problem)

    def read(self) -> bytes | None:
        """What was kept; None where there is nothing, or it is damaged."""
        if self._place is None:
            return None
        try:
            with open(self._place, "rb") as file:
                digest, content = file.read(_DIGEST), file.read()
        except OSError:
            return None
        import hashlib

        return content if hashlib.sha256(content).hexdigest().encode() == digest else None

    def write(self, content: bytes) -> None:
        """Keep `content` for the next start; a full disk or a folder of somebody else's is noted in `problem`."""
        if self._place is None:
            return
        import hashlib

        try:
            self._place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with writing(self._place) as part:
                part.write_bytes(hashlib.sha256(content).hexdigest().encode() + content)
        except OSError as problem:
            self.problem = f"{self._place.parent}: cannot be written ({problem.strerror or problem})"

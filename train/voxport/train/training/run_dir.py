"""The folder of one training run: who may write into it, and what it was started with.

RUN/run.json      recipe, corpus, frontend: what --resume goes on with
RUN/last.ckpt     Lightning's state after the last saved step, for --resume
RUN/model.pt      the best network so far on whole validation utterances
RUN/logs/         CSV and TensorBoard logs, one version per start
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxport.corpora.layouts.base import AS_FOUND, LayoutOptions
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.storage.atomic import write_text
from voxport.runtime.storage.serialization import decode, encode
from voxport.train.recipe import Recipe
from voxport.train.training.lightning_module import TrainingError

try:
    import fcntl
except ImportError:  # Windows has no flock; a run folder is not guarded there
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class RunFacts:
    """What a run was started with; `data` is an absolute path, `accumulate` the pieces of a batch."""

    recipe: Recipe
    frontend: Frontend
    data: str
    skip_bad: bool
    accumulate: int = 1
    layout: LayoutOptions = AS_FOUND


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def facts(self) -> Path:
        return self.path / "run.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            TrainingError: another process is training into it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w", encoding="utf-8") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as problem:
                    raise TrainingError(
                        f"{self.path}: another run is training into this folder; wait for it, or choose another --out"
                    ) from problem
            yield

    def start(self, facts: RunFacts, resume: bool) -> None:
        """Write `facts`, or with `resume` check that they are still the run's.

        Raises:
            TrainingError: the folder already holds a run, or another one than is being resumed, or is full.
        """
        if resume:
            begun = self.read()
            for name in ("recipe", "frontend", "data", "skip_bad", "accumulate", "layout"):
                if getattr(begun, name) != getattr(facts, name):
                    raise TrainingError(
                        f"{self.facts}: the run was started with another {name}; resume it with the options "
                        "that it began with (leave them out), or start a new --out"
                    )
            return
        if self.facts.exists():
            raise TrainingError(f"{self.path}: holds a run already; go on with --resume, or choose another --out")
        try:
            write_text(self.facts, json.dumps(encode(facts), indent=2) + "\n")
        except OSError as problem:
            raise TrainingError(f"{self.facts}: cannot be written ({problem}); nothing was trained") from problem

    def read(self) -> RunFacts:
        """The facts of the run in this folder. Raises TrainingError where there is none."""
        try:
            data = json.loads(self.facts.read_text(encoding="utf-8"))
        except FileNotFoundError as problem:
            raise TrainingError(f"{self.path}: no run to resume here (there is no run.json)") from problem
        except ValueError as problem:
            raise TrainingError(f"{self.facts}: not JSON ({problem})") from problem
        return decode(RunFacts, data, str(self.facts), TrainingError)

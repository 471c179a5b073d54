"""What the user decides about a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxport.corpora.layouts.base import AS_FOUND, LayoutOptions
from voxport.scale.errors import ScaleError

Engine = Literal["ray", "local"]
Device = Literal["cpu", "cuda", "tensorrt"]


@dataclass(frozen=True)
class ScoreOptions:
    """How a corpus is scored.

    `engine` is what spreads the work: Ray Data, here or on the cluster at `address`, or processes of this machine.
    `workers` processes run the model (None: one per CPU, or with Ray one per GPU on a GPU; on a cluster as many as it
    has), each with `threads` threads. `top` speakers are kept of each utterance, and with `embeddings` its vector. A
    `gallery` answers in place of the model's own speakers. `part_rows` utterances are one part, which is written and
    resumed as a whole; None takes what divides the corpus into some 64 parts, 32 to 1,024 rows each.
    """

    engine: Engine = "ray"
    address: str | None = None
    workers: int | None = None
    device: Device = "cpu"
    threads: int = 1
    top: int = 5
    embeddings: bool = True
    gallery: Path | None = None
    part_rows: int | None = None
    layout: LayoutOptions = AS_FOUND

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "top", "part_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ScaleError(f"{name} must be at least 1, found {value}")
        if self.address is not None and self.engine != "ray":
            raise ScaleError("address names a cluster of Ray; it needs engine ray")

"""What the demo leaves behind, and where."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.atomic import write_text
from voxport.runtime.storage.serialization import encode

_MARKER = ".voxport-demo"


class DemoFolder(NamedTuple):
    """The paths in a demo's folder."""

    path: Path
    corpus: Path
    features: Path
    run: Path
    model: Path
    parity: Path
    parity_page: Path
    parity_plot: Path
    latency: Path
    answers: Path
    summary: Path
    plots: Path

    @classmethod
    def at(cls, path: Path) -> "DemoFolder":
        """The layout below `path`."""
        return cls(
            path=path,
            corpus=path / "corpus",
            features=path / "features",
            run=path / "run",
            model=path / "model.onnx",
            parity=path / "model.parity.json",
            parity_page=path / "model.parity.md",
            parity_plot=path / "model.parity.png",
            latency=path / "latency.json",
            answers=path / "identified.json",
            summary=path / "summary.json",
            plots=path / "plots",
        )

    def prepare(self) -> None:
        """Make the folder, or empty it where an earlier demo filled it.

        Raises:
            VoxportError: the folder holds something that no demo put there.
        """
        marker = self.path / _MARKER
        taken = self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir()))
        if taken and not marker.is_file():
            raise VoxportError(f"{self.path}: holds something else already; choose another --out, or empty it")
        self.path.mkdir(parents=True, exist_ok=True)
        marker.touch()
        for item in self[1:]:
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink(missing_ok=True)
        self.plots.mkdir()


def write_json(value: object, path: Path) -> None:
    """Write `value` (dataclasses at any depth) as JSON; a reader sees the whole file or none."""
    write_text(path, json.dumps(encode(value), indent=2, ensure_ascii=False) + "\n")

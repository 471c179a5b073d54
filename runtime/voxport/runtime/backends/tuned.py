"""A folder that `voxport tune` wrote: a model, and how it runs fastest on the machine where that was found out."""

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from voxport.runtime.backends.base import cpu_name
from voxport.runtime.backends.options import BackendOptions, PrecisionChoice, RuntimeChoice
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.storage.atomic import file_sha256
from voxport.runtime.storage.serialization import decode

FILE = "tuned.json"
_KIND, _VERSION = "voxport.tuned", 1
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Tuned:
    """What `tuned.json` says. `model` is a file beside it, with this SHA-256; `cpu` is where it was found fastest.

    `why` is the finding as a sentence.
    """

    model: str
    sha256: str
    runtime: RuntimeChoice
    precision: PrecisionChoice | None
    threads: int
    cpu: str
    why: str
    kind: str = _KIND
    version: int = _VERSION

    def __post_init__(self) -> None:
        if (self.kind, self.version) != (_KIND, _VERSION):
            raise ValueError(f"kind {self.kind!r:.60}, version {self.version}: not one that this voxport reads")
        if os.path.basename(self.model) != self.model or self.model in ("", ".", ".."):
            raise ValueError(f"model must be a file beside it, found {self.model!r:.60}")


def read_tuned(folder: str | os.PathLike[str]) -> Tuned:
    """The settings in `folder`.

    Raises:
        ContractError: there are none, or they are damaged.
    """
    where = os.path.join(folder, FILE)
    try:
        with open(where, "rb") as file:
            data: Any = json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError as problem:
        raise ContractError(
            f"{os.fspath(folder)}: a folder, not a file, and none that `voxport tune` wrote (no {FILE} in it); "
            "name the model's file"
        ) from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise ContractError(
            f"{where}: cannot be read ({problem}); write it again with: voxport tune MODEL --against CHECKPOINT"
        ) from problem
    return decode(Tuned, data, where, ContractError)


def resolve_tuned(
    folder: str | os.PathLike[str], options: BackendOptions, verify: bool
) -> tuple[str, BackendOptions, str]:
    """The model's path, the options with what was tuned in place of defaults, and why they are so.

    What the caller asks for goes before what was tuned.

    Raises:
        ContractError: the settings are damaged, or the model is not the one that was tuned.
        BackendError: another device was asked for than the CPU.
    """
    tuned, usual = read_tuned(folder), BackendOptions()
    path = os.path.join(folder, tuned.model)
    if verify and os.path.isfile(path) and file_sha256(path) != tuned.sha256:
        raise ContractError(f"{path}: not the model that was tuned; tune it again, or copy the whole folder")
    if options.device not in ("auto", "cpu"):
        raise BackendError(f"{os.fspath(folder)}: was tuned for the CPU; load the model itself on {options.device!r}")
    runtime, precision = options.runtime or tuned.runtime, options.precision
    if precision is None and runtime == tuned.runtime:
        precision = tuned.precision
    chosen = dataclasses.replace(
        options,
        device="cpu",
        runtime=runtime,
        precision=precision,
        threads=tuned.threads if options.threads == usual.threads else options.threads,
    )
    here = cpu_name()
    note = "" if here == tuned.cpu else f"; this is {here}: tune again to know what is fastest here"
    return path, chosen, f"{tuned.why}, on {tuned.cpu}{note}"

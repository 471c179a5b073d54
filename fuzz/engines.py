"""RTX engines and the JSON beside them, as far as they are read before NVIDIA's library sees them; needs no GPU."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fuzz.values import edited
from voxport.runtime import Contract, ContractError, VoxportError
from voxport.runtime.backends.trt.file import read_plan, read_sidecar, sidecar_path, write_sidecar
from voxport.runtime.inspection import inspect_model

ENGINE = b"vtrt" + bytes(range(60))  # what an engine begins with; all else is the library's own
FACTS = {"tensorrt_rtx": "1.7.1.116", "compute capability": "8.9, 12.0"}
BETWEEN = b"\0\0JSON\0\0"


def engine_file(contract_json: bytes, more: Mapping[str, object] | None = None) -> bytes:
    """An engine and what the export writes beside it, in one piece."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.rtx")
        path.write_bytes(ENGINE)
        contract = Contract.from_json(contract_json.decode(), "seed")
        return ENGINE + BETWEEN + write_sidecar(path, contract, FACTS, more, "source").read_bytes()


def rtx(data: bytes) -> None:
    """Both files, changed: an engine is given away only as the one that a sidecar with a whole contract names."""
    engine, _, beside = data.partition(BETWEEN)
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        path = Path(folder, "model.rtx")
        path.write_bytes(engine)
        sidecar_path(path).write_bytes(beside)
        with contextlib.suppress(VoxportError):
            file = read_sidecar(path)
            assert read_plan(path, file) == engine
            assert hashlib.sha256(engine).hexdigest() == file.sha256
            assert all(text.isprintable() for fact in file.built_with for text in fact)
        with contextlib.suppress(ContractError):
            inspect_model(path, verify=False)


def rtx_values(data: bytes) -> None:
    """A sidecar in which some values are others."""
    rtx(ENGINE + BETWEEN + json.dumps(edited(_right_sidecar(), data)).encode())


@cache
def _right_sidecar() -> Any:
    from fuzz.seeds import engines

    return json.loads(engines()[1].partition(BETWEEN)[2])

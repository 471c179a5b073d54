"""What is fuzzed. Each target takes any bytes and ends: with an answer, or with a VoxportError.

Whatever else comes out is a bug. The atheris harness (`run.py`) and the test suite share these.
"""

import contextlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.archives import torch_file, torch_member, torch_size, torch_values
from fuzz.arrays import array_of
from fuzz.engines import rtx, rtx_values
from fuzz.live import stream, timeline
from fuzz.values import edited
from voxport.runtime import Contract, Gallery, VoxportError, read_contract
from voxport.runtime.audio.decode import audio_rate, audio_seconds, read_audio, read_piece
from voxport.runtime.audio.samples import check_samples, resample
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile

MAX_SECONDS = 60.0  # decoded at most; what is longer is refused
FRONTEND = profile("homework_mel40")


@contextlib.contextmanager
def _file(data: bytes, suffix: str) -> Iterator[Path]:
    """A file of these bytes, in memory where the system has such a folder."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.NamedTemporaryFile(suffix=suffix, dir=folder) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def audio(data: bytes) -> None:
    """A sound file; its content and not its name says what it is, but the name must not confuse."""
    suffix = (".wav", ".flac", ".ogg", ".mp3", ".raw", "")[len(data) % 6]
    with _file(data, suffix) as path, contextlib.suppress(VoxportError):
        samples = read_audio(path, 16000, max_seconds=MAX_SECONDS)
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert 0 < len(samples) <= MAX_SECONDS * 16000 + 1
        assert np.isfinite(samples).all()


def media(data: bytes) -> None:
    """A file of a phone, browser or camera, which FFmpeg reads: whole, for its claims, and a piece of it."""
    suffix = ".g722" if len(data) % 8 == 0 else ".m4a"  # only G.722 is told by its name
    with _file(data, suffix) as path:
        with contextlib.suppress(VoxportError):
            samples = read_audio(path, 16000, max_seconds=MAX_SECONDS)
            assert 0 < len(samples) <= MAX_SECONDS * 16000 + 1
            assert np.isfinite(samples).all()
        with contextlib.suppress(VoxportError):
            seconds = audio_seconds(path)
            assert seconds is None or seconds >= 0
            assert 4000 <= audio_rate(path) <= 192_000
            assert len(read_piece(path, 16000, 0.1, 0.2)) <= 1608  # half a sample of the file's rate at either end


def contract(data: bytes) -> None:
    """A contract's JSON; one that is taken comes back equal."""
    with contextlib.suppress(VoxportError):
        found = Contract.from_json(data.decode("utf-8", "surrogateescape"), "contract")
        assert Contract.from_json(found.to_json().encode().decode(), "again") == found
        with contextlib.suppress(VoxportError):
            assert found.golden.input.values.dtype == np.float32


def contract_values(data: bytes) -> None:
    """A contract in which some values are others, read by itself and from a model file."""
    text = json.dumps(edited(_right_contract(), data)).encode()
    contract(text)
    onnx(model_file(text))


@cache
def _right_contract() -> Any:
    from fuzz.seeds import contracts

    return json.loads(contracts()[0])


def onnx(data: bytes) -> None:
    """A model file, read for its contract."""
    with _file(data, ".onnx") as path, contextlib.suppress(VoxportError):
        read_contract(path)


def onnx_contract(data: bytes) -> None:
    """A well-formed model file around any contract."""
    onnx(model_file(data))


def gallery(data: bytes) -> None:
    """A gallery file."""
    with _file(data, ".gallery") as path, contextlib.suppress(VoxportError):
        found = Gallery.load(path, None)
        found.save(path)


def gallery_member(data: bytes) -> None:
    """A gallery in which one member is these bytes, under a checksum that is right."""
    names = sorted(_gallery_members())
    chosen = names[data[0] % len(names)] if data else names[0]
    with _file(b"", ".gallery") as path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in _gallery_members().items():
                archive.writestr(zipfile.ZipInfo(name), data[1:] if name == chosen else content)
        gallery(path.read_bytes())


@cache
def _gallery_members() -> Mapping[str, bytes]:
    from fuzz.seeds import galleries

    with zipfile.ZipFile(io.BytesIO(galleries()[1])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def samples(data: bytes) -> None:
    """An array of any type, shape, order and step, through the checks, the resampler and the frontend."""
    with contextlib.suppress(VoxportError):
        array, rate = array_of(data)
        mono = check_samples(array)
        assert mono.dtype == np.float32
        assert mono.flags.c_contiguous
        assert np.isfinite(mono).all()
        at_16k = resample(mono, rate, 16000)
        if len(at_16k) >= FRONTEND.n_fft:
            assert np.isfinite(compute_features(at_16k, FRONTEND)).all()


def model_file(contract_json: bytes) -> bytes:
    """The least that passes for a model file: a version, an operator set, an empty graph, and a contract."""
    version, operators, graph = b"\x08\x0a", _field(8, b"\x10\x14"), _field(7, b"")
    return version + operators + graph + _field(14, _field(1, METADATA_KEY.encode()) + _field(2, contract_json))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "audio": audio,
    "contract": contract,
    "contract_values": contract_values,
    "gallery": gallery,
    "gallery_member": gallery_member,
    "media": media,
    "onnx": onnx,
    "onnx_contract": onnx_contract,
    "rtx": rtx,
    "rtx_values": rtx_values,
    "samples": samples,
    "stream": stream,
    "timeline": timeline,
    "torch": torch_file,
    "torch_member": torch_member,
    "torch_size": torch_size,
    "torch_values": torch_values,
}

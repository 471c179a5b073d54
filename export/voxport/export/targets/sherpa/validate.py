"""Would sherpa-onnx load this file, and use it rightly? It crashes on most wrong files, so ask here first.

Without a known `framework` it ends in a segmentation fault; without another key, or with a tensor that it
did not expect, the process exits. A wrong `output_dim` or window loads, and gives wrong embeddings.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxport.export.errors import ExportError
from voxport.export.targets.sherpa.metadata import WESPEAKER_MELS, Framework, feed_of, sherpa_metadata
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.errors import ContractError
from voxport.runtime.storage.seal import check_seal

_FRAMEWORKS: Mapping[str, Framework] = {"wespeaker": "wespeaker", "3d-speaker": "wespeaker", "nemo": "nemo"}
_NUMBERS = {
    "wespeaker": ("output_dim", "sample_rate", "normalize_samples"),
    "nemo": ("output_dim", "sample_rate", "feat_dim", "window_size_ms", "window_stride_ms"),
}
_NORMALIZE = {"wespeaker": ("", "global-mean"), "nemo": ("", "per_feature")}
_WINDOWS = ("povey", "hann", "hanning", "hamming", "rectangular", "blackman", "sine")
_FRAMES = (100, 173, 331)  # 1 to 3.3 s: a graph with a frozen length takes one of them at most
_INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class Finding:
    """One thing that sherpa-onnx relies on, whether it holds, and what was found."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class SherpaReport:
    """All findings about one file; those that depend on a failed one are left out."""

    model: str
    passed: bool
    findings: tuple[Finding, ...]

    @property
    def complaints(self) -> tuple[str, ...]:
        """The findings that failed, in words."""
        return tuple(f"{each.name}: {each.detail}" for each in self.findings if not each.passed)


def check_sherpa(path: str | os.PathLike[str]) -> SherpaReport:
    """Check everything that sherpa-onnx relies on without asking; sherpa-onnx itself is not run.

    Raises:
        ContractError: there is no such file, or it is no ONNX model that onnxruntime can load.
        BackendError: onnxruntime is missing.
    """
    if not Path(path).is_file():
        raise ContractError(f"{os.fspath(path)}: no such file; give an ONNX model")
    session = start_session(path, OnnxOptions())
    metadata = session.get_modelmeta().custom_metadata_map
    findings = tuple(_findings(path, session, metadata))
    return SherpaReport(os.fspath(path), all(each.passed for each in findings), findings)


def _findings(path: str | os.PathLike[str], session: Any, metadata: Mapping[str, str]) -> Iterator[Finding]:
    found = metadata.get("framework", "")
    choices = ", ".join(_FRAMEWORKS)
    if found not in _FRAMEWORKS:
        detail = f"{found!r} is unknown" if found else "the key is missing"
        yield Finding("framework", False, f"{detail}, on which sherpa-onnx crashes; it knows {choices}")
        return
    yield Finding("framework", True, found)
    framework = _FRAMEWORKS[found]
    keys = [*(_number(metadata, key) for key in _NUMBERS[framework]), *_texts(metadata, framework)]
    yield from keys
    tensors = [*_inputs(session.get_inputs(), framework, metadata), _outputs(session.get_outputs(), framework)]
    yield from tensors
    if all(each.passed for each in (*keys, *tensors)):
        yield _runs(session, framework, metadata)
    if METADATA_KEY in metadata:
        yield _own_contract(path, metadata)


def _number(metadata: Mapping[str, str], key: str) -> Finding:
    text = metadata.get(key, "")
    least, most = (0, 1) if key == "normalize_samples" else (1, _INT_MAX)
    if not text:
        return Finding(key, False, "the key is missing, on which sherpa-onnx ends the process")
    # atoi would read "16k" as 16, and nothing at all as 0.
    if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
        return Finding(key, False, f"{text!r} is no whole number from {least} to {most}")
    return Finding(key, True, text)


def _texts(metadata: Mapping[str, str], framework: Framework) -> Iterator[Finding]:
    language = metadata.get("language", "")
    yield Finding("language", bool(language), language or "the key is missing or empty; any text will do")
    yield _one_of(metadata, "feature_normalize_type", _NORMALIZE[framework])
    if framework == "nemo":
        yield _one_of(metadata, "window_type", ("", *_WINDOWS))


def _one_of(metadata: Mapping[str, str], key: str, choices: tuple[str, ...]) -> Finding:
    text = metadata.get(key, "")
    if text in choices:
        return Finding(key, True, text or "none given")
    known = ", ".join(filter(None, choices))
    return Finding(
        key, False, f"{text!r} is unknown, on which sherpa-onnx ends the process; it knows {known}, or no key"
    )


def _inputs(tensors: Any, framework: Framework, metadata: Mapping[str, str]) -> Iterator[Finding]:
    if framework == "wespeaker":
        wanted: tuple[tuple[str, tuple[str, ...]], ...] = (("tensor(float)", ("1", "frames", str(WESPEAKER_MELS))),)
    else:
        wanted = (("tensor(float)", ("1", metadata.get("feat_dim", ""), "frames")), ("tensor(int64)", ("1",)))
    if len(tensors) != len(wanted):
        names = ", ".join(tensor.name for tensor in tensors)
        yield Finding("inputs", False, f"the graph has {len(tensors)} ({names}), sherpa-onnx gives it {len(wanted)}")
        return
    for tensor, (kind, dims) in zip(tensors, wanted, strict=True):
        found = f"{tensor.type} ({', '.join(map(str, tensor.shape))})"
        fits = tensor.type == kind and len(tensor.shape) == len(dims) and all(map(_fits, dims, tensor.shape))
        detail = found if fits else f"{found}, sherpa-onnx gives {kind} ({', '.join(dims)}) with any number of frames"
        yield Finding(f"input {tensor.name}", fits, detail)


def _fits(wanted: str, found: object) -> bool:
    return not isinstance(found, int) or str(found) == wanted  # a name, or nothing, where the dim varies


def _outputs(tensors: Any, framework: Framework) -> Finding:
    position = _embedding_position(framework)
    if len(tensors) <= position:
        return Finding("outputs", False, f"the graph has {len(tensors)}, sherpa-onnx reads number {position + 1}")
    tensor = tensors[position]
    detail = f"{tensor.type} ({', '.join(map(str, tensor.shape))})"
    if tensor.type != "tensor(float)":
        return Finding(f"output {tensor.name}", False, f"{detail}, sherpa-onnx reads float32")
    return Finding(f"output {tensor.name}", True, detail)


def _embedding_position(framework: Framework) -> int:
    return 0 if framework == "wespeaker" else 1


def _runs(session: Any, framework: Framework, metadata: Mapping[str, str]) -> Finding:
    """Give the graph inputs of several lengths, as sherpa-onnx would."""
    mels = WESPEAKER_MELS if framework == "wespeaker" else int(metadata["feat_dim"])
    names, wanted = [tensor.name for tensor in session.get_inputs()], (1, int(metadata["output_dim"]))
    rng = np.random.default_rng(0)
    for frames in _FRAMES:
        features = rng.standard_normal((frames, mels)).astype(np.float32)
        try:
            answer = session.run(None, feed_of(framework, names, features))[_embedding_position(framework)]
        except Exception as problem:  # onnxruntime's errors have no common base of their own
            first = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]
            return Finding("run", False, f"the graph fails on {frames} frames ({first})")
        if answer.shape != wanted:
            return Finding("run", False, f"an embedding of shape {answer.shape}, output_dim promises {wanted}")
        if not np.isfinite(answer).all():
            return Finding("run", False, f"the embedding of {frames} frames is not finite")
    return Finding("run", True, f"{', '.join(map(str, _FRAMES))} frames give embeddings of {wanted[1]} numbers")


def _own_contract(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Finding:
    """Where the file tells its frontend, the keys must make sherpa-onnx compute that one."""
    name = "voxport contract"
    try:
        contract = read_contract(path)
        wanted = sherpa_metadata(contract.frontend, contract.embedding_size, "any", "")
    except (ContractError, ExportError) as problem:
        return Finding(name, False, str(problem))
    free = {"language", "comment"}
    wrong = [key for key, value in wanted.items() if key not in free and metadata.get(key, "") != value]
    if "feature_normalize_type" not in wanted and metadata.get("feature_normalize_type"):
        wrong.append("feature_normalize_type")
    if wrong:
        told = ", ".join(f"{key} must be {wanted.get(key, 'left out')!r}, found {metadata.get(key)!r}" for key in wrong)
        return Finding(name, False, f"for its frontend {contract.frontend.name} {told}")
    try:
        check_seal(path)
    except ContractError as problem:
        return Finding(name, False, str(problem))
    return Finding(name, True, f"sherpa-onnx will compute its frontend {contract.frontend.name}")

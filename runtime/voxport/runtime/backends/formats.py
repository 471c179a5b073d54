"""The table of formats: which kinds of model file there are, how each is recognized, and which engine runs it.

All who ask "which kind of file is this?" ask here. A format is a row; its engine is a folder beside this module, whose
module `entry` has the functions of `options.Entry`.
"""

import importlib
import os
import stat
from dataclasses import dataclass
from typing import cast

from voxport.runtime.backends.options import Device, Entry, ModelFile, Path
from voxport.runtime.contract import METADATA_KEY, Contract

_ZIP = b"PK\x03\x04"
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True, kw_only=True)
class OtherEngine:
    """An engine that runs the files of a format where `runtime` asks for it; the other attributes are as in `Format`.

    Its module `entry` has `load` alone.
    """

    runtime: str
    title: str
    engine: str
    extra: str
    modules: tuple[str, ...]
    devices: tuple[Device, ...]

    @property
    def entry(self) -> Entry:
        """The engine's function `load`, which imports its library."""
        return _entry(self.engine)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of model file.

    Attributes:
        name: short, unique, as in JSON.
        title: for a sentence, with its article.
        plural: for a list of what runs.
        suffixes: in small letters; the first is the usual one.
        starts: the first bytes of such files, up to four of them.
        engine: the folder beside this module that runs it.
        extra: what brings the engine's library, as `cpu` does in `pip install "voxport[cpu]"`.
        modules: what the engine imports, to be found and started before it is relied on.
        devices: those that it runs on, besides "auto".
        by_suffix: the suffix alone decides, whatever the content is.
        others: engines besides that one.
    """

    name: str
    title: str
    plural: str
    suffixes: tuple[str, ...]
    starts: tuple[bytes, ...]
    engine: str
    extra: str
    modules: tuple[str, ...]
    devices: tuple[Device, ...]
    by_suffix: bool = False
    others: tuple[OtherEngine, ...] = ()

    @property
    def entry(self) -> Entry:
        """The engine's functions. Reading needs no library; loading imports it."""
        return _entry(self.engine)


def _entry(engine: str) -> Entry:
    return cast(Entry, importlib.import_module(f"voxport.runtime.backends.{engine}.entry"))


FORMATS = (
    Format(
        name="onnx",
        title="an ONNX model",
        plural="ONNX",
        suffixes=(".onnx",),
        starts=(b"\x08",),
        engine="onnxrt",
        extra="cpu",
        modules=("onnxruntime",),
        devices=("cpu", "cuda", "tensorrt", "rtx"),
        others=(
            OtherEngine(
                runtime="openvino",
                title="OpenVINO",
                engine="ov",
                extra="openvino",
                modules=("openvino",),
                devices=("cpu",),
            ),
        ),
    ),
    Format(
        name="plan",
        title="a TensorRT plan",
        plural="TensorRT plans",
        suffixes=(".plan", ".engine"),
        starts=(b"ptrt", b"ftrt"),  # of older and newer TensorRT
        engine="trt",
        extra="tensorrt",
        modules=("tensorrt", "cuda"),
        devices=("tensorrt",),
        by_suffix=True,
    ),
    Format(
        name="rtx",
        title="an RTX engine",
        plural="RTX engines",
        suffixes=(".rtx",),
        starts=(b"vtrt",),
        engine="rtx",
        extra="rtx",
        modules=("tensorrt_rtx", "cuda"),
        devices=("rtx",),
    ),
    Format(
        name="torch",
        title="a TorchScript or .pt2 file",
        plural="TorchScript and .pt2",
        suffixes=(".torchscript", ".ts", ".pt", ".pth", ".pt2"),
        starts=(_ZIP,),
        engine="pytorch",
        extra="torch",
        modules=("torch",),
        devices=("cpu", "cuda"),
    ),
)
_BY_NAME = {each.name: each for each in FORMATS}


def format_named(name: str) -> Format:
    """The row of the table that is called `name`."""
    return _BY_NAME[name]


def format_of(path: Path) -> Format:
    """The format of the file `path`: by its first bytes, and where they say nothing by its suffix.

    A file that fits no row, or that is missing, is left to the reader of ONNX, which says what is wrong with it.
    """
    suffix = _suffix(path)
    named = [each for each in FORMATS if suffix in each.suffixes]
    if named and named[0].by_suffix:
        return named[0]
    start = first_bytes(path)
    known = [each for each in FORMATS if start.startswith(each.starts)]
    return (known or named or [_BY_NAME["onnx"]])[0]


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """Read the contract of the model file `path`: ONNX, TorchScript, .pt2, a TensorRT plan, an RTX engine.

    Needs NumPy alone, and reads only the contract's bytes: from the file itself, or from `<plan>.json`
    beside a plan or an RTX engine.

    Raises:
        ContractError: the file is missing, damaged or no model; it has no contract, or one of another
            version, malformed, or with impossible sizes.
    """
    return format_of(path).entry.contract(path)


def describe(path: str | os.PathLike[str]) -> ModelFile:
    """All that the model file `path` says about itself. Raises as `read_contract` does."""
    return format_of(path).entry.describe(path)


def check_digest(path: str | os.PathLike[str]) -> bool:
    """Whether the model file `path` has a digest, which is then the one of its bytes, as loading it checks.

    Raises:
        ContractError: the bytes are not those that were written, another program has rewritten the file since, or it
            cannot be read.
    """
    return format_of(path).entry.check_digest(path)


def is_gallery(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a gallery of enrolled speakers, by its table of contents. A missing file is none."""
    names = _members(path)
    return names is not None and {"header.npy", "names.npy", "sums.npy"} <= names


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a PyTorch checkpoint or a run's folder, and no model file; by its suffix where it is missing.

    TorchScript has constants.pkl beside data.pkl, and .pt2 has no data.pkl at its top.
    """
    if os.path.isdir(path):
        return True
    names = _members(path)
    if names is None:  # missing or damaged: the suffix says whose reader is to complain
        return _suffix(path) in _CHECKPOINT_SUFFIXES
    inner = {name.partition("/")[2] for name in names}
    return "data.pkl" in inner and not inner & {"constants.pkl", f"extra/{METADATA_KEY}"}


def _members(path: str | os.PathLike[str]) -> set[str] | None:
    """The names in the zip archive `path`; None where it is none, or damaged."""
    if first_bytes(path) != _ZIP:
        return None
    import zipfile  # slow to import, and seldom needed

    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):  # whatever a damaged directory makes zipfile raise
        return None


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """The first four bytes of the file `path`; none where it is missing, or is a pipe that would wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(4)
    except (OSError, ValueError):  # ValueError: a NUL or half a character, which no file's name can hold
        return b""


def _suffix(path: str | os.PathLike[str]) -> str:
    """In small letters; none for a name that no file can have, which is left to the reader of ONNX to refuse."""
    try:
        if b"\0" in os.fsencode(path):
            return ""
    except UnicodeEncodeError:  # half a character
        return ""
    return os.path.splitext(os.fspath(path))[1].lower()

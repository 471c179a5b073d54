"""Features that are stored as files: PyTorch tensors (.pt) and NumPy arrays (.npy)."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import EntryError


def read_stored(path: Path, n_mels: int, declared_frames: int | None) -> npt.NDArray[np.float32]:
    """Read the features of one utterance: float32, shape (frames, n_mels), all finite.

    A .pt file is read with `weights_only=True` and an .npy file without pickle, so that neither runs
    code of whoever made it.

    Raises:
        EntryError: missing, unreadable, of another shape or type, not as long as declared, or not finite.
    """
    try:
        array = _load_npy(path) if path.suffix.lower() == ".npy" else _load_pt(path)
    except FileNotFoundError as problem:
        raise EntryError("missing", "no such file") from problem
    except EntryError:
        raise
    except Exception as problem:  # a damaged archive or pickle can make its reader raise nearly anything
        reason = str(problem).splitlines()[0][:160] if str(problem) else ""
        raise EntryError("unreadable", f"{type(problem).__name__}: {reason}") from problem
    if array.ndim != 2 or array.shape[1] != n_mels:
        hint = "; it is transposed" if array.ndim == 2 and array.shape[0] == n_mels else ""
        raise EntryError("wrong-shape", f"expected (frames, {n_mels}), found {array.shape}{hint}")
    if declared_frames is not None and len(array) != declared_frames:
        raise EntryError("wrong-shape", f"{len(array)} frames, but mel_len says {declared_frames}")
    with np.errstate(over="ignore"):  # float64 beyond float32's range becomes infinite, and is told so
        features = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(features).all():
        bad = int(features.size - np.isfinite(features).sum())
        raise EntryError("not-finite", f"{bad} of {features.size} values are NaN or infinite")
    return features


def _load_npy(path: Path) -> npt.NDArray[Any]:
    array: Any = np.load(path, allow_pickle=False)  # an archive of arrays (.npz) comes as another class
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        raise EntryError("wrong-shape", f"expected an array of floats, found {getattr(array, 'dtype', type(array))}")
    checked: npt.NDArray[Any] = array
    return checked


def _load_pt(path: Path) -> npt.NDArray[Any]:
    import torch  # here, so that the processes that compute features need not load it

    tensor = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensor, torch.Tensor):
        raise EntryError("wrong-shape", f"expected a tensor, found {type(tensor).__name__}")
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise EntryError("wrong-shape", f"expected a dense tensor of floats, found {tensor.dtype} {tensor.layout}")
    array: npt.NDArray[Any] = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).numpy()
    return array

"""What sherpa-onnx wants to find in a speaker model: which frontends it computes, and its metadata.

sherpa-onnx computes features itself, in one of two ways, which a model chooses by its metadata key
`framework`. It reads integers with atoi and dies of a missing key, so everything is decided here.
Source: k2-fsa/sherpa-onnx, sherpa-onnx/csrc/speaker-embedding-extractor-*.cc and features.cc.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxport.export.errors import ExportError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.frontend.spec import Frontend

Framework = Literal["wespeaker", "nemo"]

WESPEAKER_MELS = 80  # fixed in sherpa-onnx's code; no key changes it
EMBEDDING, SCORES = "embs", "logits"  # the names that NeMo gives its outputs; sherpa-onnx goes by position

_PROFILES: Mapping[Framework, str] = MappingProxyType({"wespeaker": "kaldi_fbank80", "nemo": "nemo_mel40"})
_NORMALIZE: Mapping[Framework, str] = MappingProxyType({"wespeaker": "global-mean", "nemo": "per_feature"})


def framework_of(frontend: Frontend) -> Framework:
    """The way in which sherpa-onnx computes `frontend`.

    Raises:
        ExportError: it has none; the message says what it computes instead, and what to train with.
    """
    for framework, name in _PROFILES.items():
        if not _differences(frontend, profile(name)):
            return framework
    near = min(map(profile, _PROFILES.values()), key=lambda each: (each.n_mels != frontend.n_mels, each.name))
    raise ExportError(
        f"frontend {frontend.name}: sherpa-onnx computes features itself, and these it cannot compute: "
        f"{', '.join(_differences(frontend, near))}. It would load the model and give wrong embeddings. "
        "Train the same recipe with features that it does compute: voxport train fit --frontend nemo_mel40 (40 mels) "
        "or --frontend kaldi_fbank80 (80 mels), or deploy this model with: voxport export onnx"
    )


def sherpa_metadata(frontend: Frontend, output_dim: int, language: str, comment: str) -> dict[str, str]:
    """The metadata of a model for `frontend` whose embeddings have `output_dim` numbers.

    Raises:
        ExportError: sherpa-onnx cannot compute the frontend, or the language is blank.
    """
    if not language.strip():  # sherpa-onnx takes an empty value for a missing one, and exits
        raise ExportError("the language is blank, and sherpa-onnx loads no model without one; give --language English")
    framework = framework_of(frontend)
    found = {
        "framework": framework,
        "language": language,
        "comment": comment,
        "output_dim": str(output_dim),
        "sample_rate": str(frontend.sample_rate),
    }
    if frontend.normalize != "none":
        found["feature_normalize_type"] = _NORMALIZE[framework]
    if framework == "wespeaker":
        return {**found, "normalize_samples": "0"}  # 0 multiplies samples by 32768
    return {
        **found,
        "feat_dim": str(frontend.n_mels),
        "window_size_ms": str(frontend.win_length * 1000 // frontend.sample_rate),
        "window_stride_ms": str(frontend.hop_length * 1000 // frontend.sample_rate),
        "window_type": "hann",  # kaldi-native-fbank's `hann` is periodic; its `hanning` is the symmetric one
    }


def feed_of(
    framework: Framework, names: list[str], features_TF: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[Any]]:
    """What sherpa-onnx gives to a graph whose inputs are `names`, for features (T, F) of one utterance."""
    if framework == "wespeaker":
        return {names[0]: features_TF[np.newaxis]}
    length = np.array([len(features_TF)], dtype=np.int64)
    return {names[0]: np.ascontiguousarray(features_TF.T[np.newaxis]), names[1]: length}


def _differences(frontend: Frontend, other: Frontend) -> list[str]:
    """Where `frontend` is not what sherpa-onnx computes, in words."""
    found = []
    for field in dataclasses.fields(Frontend):
        value, wanted = getattr(frontend, field.name), getattr(other, field.name)
        optional = field.name == "normalize" and value == "none"  # a key that may be left out
        if field.name != "name" and value != wanted and not optional:
            found.append(f"{field.name} {_text(value)} (it has {_text(wanted)})")
    return found


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

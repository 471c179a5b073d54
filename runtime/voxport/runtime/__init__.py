"""voxport's runtime: a model file and a sound in, the speaker out. NumPy and onnxruntime or TensorRT.

    from voxport.runtime import SpeakerIdentifier

    identifier = SpeakerIdentifier.load("model.onnx")
    answer = identifier.identify("who.wav")
    print(answer.speaker or "nobody known", answer.ranked, answer.notes)

onnxruntime, soundfile and soxr are imported when they are first needed, not with this package, and torch only
where a TorchScript or .pt2 file is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

from voxport.runtime.backend import Answer, Backend
from voxport.runtime.contract import Contract
from voxport.runtime.contract_io import read_contract
from voxport.runtime.errors import (
    AudioError,
    BackendError,
    BatcherClosedError,
    ChannelError,
    ContractError,
    GalleryError,
    LengthError,
    NoSpeechError,
    QueueFullError,
    VoxportError,
)
from voxport.runtime.explanation import Explanation
from voxport.runtime.frontend_spec import Frontend
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.load import BackendOptions, load_backend
from voxport.runtime.notes import Note
from voxport.runtime.onnx_model import OnnxModel
from voxport.runtime.onnx_session import OnnxOptions
from voxport.runtime.results import Candidate, Identification, Voice
from voxport.runtime.speech import Speech, SpeechRule

if TYPE_CHECKING:
    from voxport.runtime.batch_queue import BatcherOptions
    from voxport.runtime.batcher import Batcher
    from voxport.runtime.gallery import Gallery
    from voxport.runtime.gallery_results import Enrolled, Match, Matches, Verification
    from voxport.runtime.gallery_state import Thresholds
    from voxport.runtime.plan_model import PlanModel, PlanOptions
    from voxport.runtime.scoring import GalleryScorer, ModelScorer, Scorer
    from voxport.runtime.segments import Segment
    from voxport.runtime.stream import Decision, Stream, StreamOptions
    from voxport.runtime.timeline import Timeline, TimelineOptions
    from voxport.runtime.torch_model import TorchModel
    from voxport.runtime.torch_session import TorchOptions
    from voxport.runtime.windows import WindowOptions

__all__ = [
    "Answer",
    "AudioError",
    "Backend",
    "BackendError",
    "BackendOptions",
    "Batcher",
    "BatcherClosedError",
    "BatcherOptions",
    "Candidate",
    "ChannelError",
    "Contract",
    "ContractError",
    "Decision",
    "Enrolled",
    "Explanation",
    "Frontend",
    "Gallery",
    "GalleryError",
    "GalleryScorer",
    "Identification",
    "LengthError",
    "Match",
    "Matches",
    "ModelScorer",
    "NoSpeechError",
    "Note",
    "OnnxModel",
    "OnnxOptions",
    "PlanModel",
    "PlanOptions",
    "QueueFullError",
    "Scorer",
    "Segment",
    "SpeakerIdentifier",
    "Speech",
    "SpeechRule",
    "Stream",
    "StreamOptions",
    "Thresholds",
    "Timeline",
    "TimelineOptions",
    "TorchModel",
    "TorchOptions",
    "Verification",
    "Voice",
    "VoxportError",
    "WindowOptions",
    "load_backend",
    "read_contract",
]

_LATER = {  # imported when first asked for: who only identifies does not pay for galleries and servers
    "Batcher": "batcher",
    "BatcherOptions": "batch_queue",
    "Decision": "stream",
    "Enrolled": "gallery_results",
    "Gallery": "gallery",
    "GalleryScorer": "scoring",
    "Match": "gallery_results",
    "Matches": "gallery_results",
    "ModelScorer": "scoring",
    "PlanModel": "plan_model",
    "PlanOptions": "plan_model",
    "Scorer": "scoring",
    "Segment": "segments",
    "Stream": "stream",
    "StreamOptions": "stream",
    "Thresholds": "gallery_state",
    "Timeline": "timeline",
    "TimelineOptions": "timeline",
    "TorchModel": "torch_model",
    "TorchOptions": "torch_session",
    "Verification": "gallery_results",
    "WindowOptions": "windows",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)

"""voxport's runtime: a model file and a sound in, the speaker out. NumPy and onnxruntime or TensorRT.

    from voxport.runtime import SpeakerIdentifier

    identifier = SpeakerIdentifier.load("model.onnx")
    answer = identifier.identify("who.wav")
    print(answer.speaker or "nobody known", answer.ranked, answer.notes)

onnxruntime, soundfile and soxr are imported when they are first needed, not with this package, and torch only
where a TorchScript or .pt2 file is loaded. Importing this package sets ORT_DISABLE_TELEMETRY, unless you have set it:
see `privacy`.
"""

from typing import TYPE_CHECKING

from voxport.runtime.backends.base import Answer, Backend, Explanation
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.onnxrt.session import OnnxOptions
from voxport.runtime.backends.options import BackendOptions
from voxport.runtime.contract import Contract, Windowing
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
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.imports import on_demand
from voxport.runtime.notes import Note
from voxport.runtime.privacy import keep_private
from voxport.runtime.results import Candidate, Identification, Voice
from voxport.runtime.speech import Speech, SpeechRule

keep_private()  # also for who imports onnxruntime after us, and not through us

if TYPE_CHECKING:
    from voxport.runtime.backends.ov.model import OpenVinoModel
    from voxport.runtime.backends.ov.session import OpenVinoOptions
    from voxport.runtime.backends.pytorch.model import TorchModel
    from voxport.runtime.backends.pytorch.session import TorchOptions
    from voxport.runtime.backends.trt.model import PlanModel, PlanOptions
    from voxport.runtime.gallery.calibration import Strangers
    from voxport.runtime.gallery.gallery import Gallery
    from voxport.runtime.gallery.results import (
        Description,
        Enrolled,
        GalleryCheck,
        Likeness,
        Match,
        Matches,
        Misfit,
        Pair,
        Verification,
    )
    from voxport.runtime.gallery.thresholds import ShortThresholds, Thresholds
    from voxport.runtime.serving.batcher import Batcher
    from voxport.runtime.serving.queue import BatcherOptions
    from voxport.runtime.streaming.scorers import GalleryScorer, ModelScorer, Scorer
    from voxport.runtime.streaming.segments import Segment
    from voxport.runtime.streaming.stream import Decision, Stream, StreamOptions
    from voxport.runtime.streaming.timeline import Timeline, TimelineOptions
    from voxport.runtime.windowing.windows import WindowOptions

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
    "Description",
    "Enrolled",
    "Explanation",
    "Frontend",
    "Gallery",
    "GalleryCheck",
    "GalleryError",
    "GalleryScorer",
    "Identification",
    "LengthError",
    "Likeness",
    "Match",
    "Matches",
    "Misfit",
    "ModelScorer",
    "NoSpeechError",
    "Note",
    "OnnxModel",
    "OnnxOptions",
    "OpenVinoModel",
    "OpenVinoOptions",
    "Pair",
    "PlanModel",
    "PlanOptions",
    "QueueFullError",
    "Scorer",
    "Segment",
    "ShortThresholds",
    "SpeakerIdentifier",
    "Speech",
    "SpeechRule",
    "Strangers",
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
    "Windowing",
    "load_backend",
    "read_contract",
]

_LATER = {  # imported when first asked for: who only identifies does not pay for galleries and servers
    "Batcher": "serving.batcher",
    "BatcherOptions": "serving.queue",
    "Decision": "streaming.stream",
    "Description": "gallery.results",
    "Enrolled": "gallery.results",
    "Gallery": "gallery.gallery",
    "GalleryCheck": "gallery.results",
    "GalleryScorer": "streaming.scorers",
    "Likeness": "gallery.results",
    "Match": "gallery.results",
    "Matches": "gallery.results",
    "Misfit": "gallery.results",
    "ModelScorer": "streaming.scorers",
    "OpenVinoModel": "backends.ov.model",
    "OpenVinoOptions": "backends.ov.session",
    "Pair": "gallery.results",
    "PlanModel": "backends.trt.model",
    "PlanOptions": "backends.trt.model",
    "Scorer": "streaming.scorers",
    "Segment": "streaming.segments",
    "ShortThresholds": "gallery.thresholds",
    "Strangers": "gallery.calibration",
    "Stream": "streaming.stream",
    "StreamOptions": "streaming.stream",
    "Thresholds": "gallery.thresholds",
    "Timeline": "streaming.timeline",
    "TimelineOptions": "streaming.timeline",
    "TorchModel": "backends.pytorch.model",
    "TorchOptions": "backends.pytorch.session",
    "Verification": "gallery.results",
    "WindowOptions": "windowing.windows",
}


__getattr__, __dir__ = on_demand(__name__, _LATER)

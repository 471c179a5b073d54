"""voxport's runtime: a model file and a sound in, the speaker out. NumPy and onnxruntime, never torch.

    from voxport.runtime import SpeakerIdentifier

    identifier = SpeakerIdentifier.load("model.onnx")
    answer = identifier.identify("who.wav")
    print(answer.best.speaker, answer.best.probability)

onnxruntime, soundfile and soxr are imported when they are first needed, not with this package.
"""

from voxport.runtime.backend import Answer, Backend
from voxport.runtime.contract import Contract
from voxport.runtime.contract_io import read_contract
from voxport.runtime.errors import AudioError, BackendError, ContractError, LengthError, VoxportError
from voxport.runtime.frontend_spec import Frontend
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.onnx_model import OnnxModel
from voxport.runtime.onnx_session import OnnxOptions
from voxport.runtime.results import Candidate, Identification

__all__ = [
    "Answer",
    "AudioError",
    "Backend",
    "BackendError",
    "Candidate",
    "Contract",
    "ContractError",
    "Frontend",
    "Identification",
    "LengthError",
    "OnnxModel",
    "OnnxOptions",
    "SpeakerIdentifier",
    "VoxportError",
    "read_contract",
]

"""ONNX files in the engines that take them, and every artefact through the runtime's own API."""

from typing import Any

import numpy as np

from voxport.benchmarks.backends.build import read_facts
from voxport.benchmarks.backends.registry import Array, Lengths
from voxport.benchmarks.core.settings import BackendSpec
from voxport.benchmarks.system.machine import Fact
from voxport.runtime.backends.onnxrt.session import OnnxOptions, import_onnxruntime
from voxport.runtime.errors import BackendError


class OnnxBackend:
    """An artefact through the runtime's own API, as an application calls it."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.onnxrt.model import OnnxModel

        self._spec = spec
        self._model = OnnxModel.load(spec.path, OnnxOptions(device=spec.device, threads=spec.threads))
        self.frontend = self._model.contract.frontend
        self.speakers = len(self._model.contract.labels)

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        return self._model.run(inputs, lengths).scores

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("threads", str(self._spec.threads)), Fact("device", self._spec.device))


class ArtefactBackend:
    """A file that the runtime itself loads: a TensorRT plan, an RTX engine, TorchScript, .pt2, ONNX on a plugin."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.load import load_backend
        from voxport.runtime.backends.options import BackendOptions

        options = BackendOptions(device="auto" if spec.device == "tensorrt" else spec.device, threads=spec.threads)
        self._model = load_backend(spec.path, options)
        self.frontend = self._model.contract.frontend
        self.speakers = len(self._model.contract.labels)

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        return self._model.run(inputs, lengths).scores

    def facts(self) -> tuple[Fact, ...]:
        told = self._model.explain()
        return (Fact("device", told.device), *(Fact("note", note) for note in told.notes))


class PlainOnnxBackend:
    """A plain export in ONNX Runtime with its default options; only the number of threads is fixed, for fairness.

    It has no lengths input, so it answers a padded batch with its padding.
    """

    def __init__(self, spec: BackendSpec) -> None:
        facts = read_facts(spec)
        self.frontend, self.speakers = facts.frontend, facts.speakers
        runtime = import_onnxruntime("cpu")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.log_severity_level = 3
        wanted = [provider_of(runtime, spec)] + ["CPUExecutionProvider"] * (spec.device != "cpu")
        self._session = runtime.InferenceSession(spec.built, options, providers=wanted)
        self._source = self._session.get_inputs()[0].name

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        scores: Array = self._session.run(None, {self._source: inputs})[0]
        return scores

    def facts(self) -> tuple[Fact, ...]:
        return (
            Fact("providers", ", ".join(self._session.get_providers())),
            Fact("lengths", "not taken: a padded batch is answered with its padding"),
        )


def provider_of(runtime: Any, spec: BackendSpec) -> str:
    """ONNX Runtime's name of the engine. Raises BackendError where this build has it not."""
    names = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
    name, offered = names[spec.device], runtime.get_available_providers()
    if name not in offered:
        raise BackendError(f"{spec.name}: this onnxruntime has only {', '.join(offered)}; install onnxruntime-gpu")
    if spec.device != "cpu" and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    return name


class OnnxGraphs:
    """An artefact in ONNX Runtime's CUDA provider with CUDA graphs: fixed addresses, a graph for each shape.

    ONNX Runtime records a graph at the first run with a new `gpu_graph_id` and replays it from then on, so
    every shape keeps its inputs and outputs on the GPU. Where part of the model runs on the CPU, as shape
    arithmetic does, it refuses to record, and that is the reason that the report shows.
    """

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.formats import read_contract

        contract = read_contract(spec.path)
        self.frontend, self.speakers = contract.frontend, len(contract.labels)
        self._source, self._runtime = contract.input_kind, import_onnxruntime("cuda")
        name = provider_of(self._runtime, spec)
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = spec.threads, 3
        cuda = {"enable_cuda_graph": "1", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        self._session = self._runtime.InferenceSession(
            spec.path, options, providers=[(name, cuda), "CPUExecutionProvider"], enable_fallback=0
        )
        if self._session.get_providers()[0] != name:
            raise BackendError(f"{spec.name}: ONNX Runtime did not start {name}; see voxport doctor")
        self._kept: dict[tuple[int, ...], tuple[Any, dict[str, Any], Any]] = {}

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        binding, held, options = self._kept.get(inputs.shape) or self._bind(inputs, lengths)
        held[self._source].update_inplace(inputs)
        held["lengths"].update_inplace(lengths)
        self._session.run_with_iobinding(binding, options)
        scores: Array = held["scores"].numpy()  # waits for the stream
        return scores

    def _bind(self, inputs: Array, lengths: Lengths) -> tuple[Any, dict[str, Any], Any]:
        from_numpy, of_shape = self._runtime.OrtValue.ortvalue_from_numpy, self._runtime.OrtValue
        held = {
            self._source: from_numpy(inputs, "cuda", 0),
            "lengths": from_numpy(lengths, "cuda", 0),
            "scores": of_shape.ortvalue_from_shape_and_type((len(inputs), self.speakers), np.float32, "cuda", 0),
        }
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._source, held[self._source])
        binding.bind_ortvalue_input("lengths", held["lengths"])
        binding.bind_ortvalue_output("scores", held["scores"])
        options = self._runtime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._kept) + 1))
        self._kept[inputs.shape] = (binding, held, options)
        return self._kept[inputs.shape]

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("cuda graphs", f"{len(self._kept)} shapes"), Fact("providers", str(self._session.get_providers())))


class OpenVinoBackend:
    """An artefact's ONNX file in OpenVINO, on the CPU, for latency."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.formats import read_contract
        from voxport.runtime.privacy import import_openvino

        openvino = import_openvino()
        contract = read_contract(spec.path)
        self.frontend, self.speakers = contract.frontend, len(contract.labels)
        self._source, self._threads = contract.input_kind, spec.threads
        core = openvino.Core()
        # OpenVINO computes in bfloat16 by itself where the processor can; here all compute in float32.
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": spec.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._model = core.compile_model(core.read_model(spec.path), "CPU", settings)
        self._version = openvino.__version__

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        return np.array(self._model({self._source: inputs, "lengths": lengths})["scores"])

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("openvino", self._version), Fact("threads", str(self._threads)))

"""ONNX files in the engines that take them, and every artefact through the runtime's own API."""

import sys
from typing import Any

import numpy as np

from voxport.benchmarks.backends.build import read_facts
from voxport.benchmarks.backends.registry import Array, Lengths
from voxport.benchmarks.core.settings import BackendSpec, Cell
from voxport.benchmarks.system.machine import Fact
from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.session import OnnxOptions, import_onnxruntime
from voxport.runtime.errors import BackendError
from voxport.runtime.frontend.spec import Frontend


class _Loaded:
    """A model that the runtime itself loaded, asked as an application asks it."""

    def __init__(self, model: Backend) -> None:
        self._model = model
        self.frontend = model.contract.frontend
        self.speakers = len(model.contract.labels)

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        return self._model.run(inputs, lengths).scores


class OnnxBackend(_Loaded):
    """An artefact through the runtime's own API."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.onnxrt.model import OnnxModel

        super().__init__(OnnxModel.load(spec.path, OnnxOptions(device=spec.device, threads=spec.threads)))
        self._spec = spec

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("threads", str(self._spec.threads)), Fact("device", self._spec.device))


class ArtefactBackend(_Loaded):
    """A file that the runtime itself loads: a TensorRT plan, an RTX engine, TorchScript, .pt2, ONNX on a plugin."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.load import load_backend
        from voxport.runtime.backends.options import BackendOptions

        model = load_backend(spec.path, BackendOptions(device=spec.device, threads=spec.threads))
        super().__init__(model)
        self._explain = model.explain

    def facts(self) -> tuple[Fact, ...]:
        told = self._explain()
        return (Fact("device", told.device), *(Fact("note", note) for note in told.notes))


class SessionBackend:
    """A session of ONNX Runtime as such, without voxport's runtime: what a user has who writes those lines himself.

    It opens `spec.built`, a plain export, with default options but for the number of threads and, on a GPU, for
    products in full float32; or `spec.path`, as the runtime does. A plain export has no lengths input, so it answers
    a padded batch with its padding.

    With `binding` or `graphs` every shape keeps its inputs and outputs on the device. For graphs ONNX Runtime records
    at the first run with a new `gpu_graph_id` and replays from then on. Where part of the model runs on the CPU, as
    shape arithmetic does, it refuses to record, and that is the reason that the report shows.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self._runtime, self._spec = import_onnxruntime("cpu"), spec
        path = spec.built or spec.path
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = spec.threads, 3
        if not spec.built:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        name = provider_of(self._runtime, spec)
        self._session = self._runtime.InferenceSession(
            path, options, providers=self._providers(name), enable_fallback=0
        )
        if self._session.get_providers()[0] != name:  # onnxruntime leaves only a log line
            raise BackendError(f"{spec.name}: ONNX Runtime did not start {name}; see voxport doctor")
        names = [node.name for node in self._session.get_inputs()]
        if spec.input_kind not in names or not set(names) <= {spec.input_kind, "lengths"}:
            raise BackendError(f"{path}: takes {', '.join(names)}; a model with the input {spec.input_kind} is needed")
        self._takes_lengths = "lengths" in names
        self._bound: dict[tuple[int, ...], tuple[Any, dict[str, Any], Any]] = {}

    def _providers(self, name: str) -> list[Any]:
        if self._spec.device == "cpu":
            return [name]
        # The exhaustive search would tune again for every new length, and TF32 would round products to 10 bits.
        cuda = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        if self._spec.graphs:
            cuda["enable_cuda_graph"] = "1"
        if self._spec.device == "cuda":
            return [(name, cuda), _PROVIDERS["cpu"]]
        return [(name, self._profile()), (_PROVIDERS["cuda"], cuda), _PROVIDERS["cpu"]]

    def _profile(self) -> dict[str, str]:
        """One profile over the grid: without it, TensorRT builds an engine anew whenever a shape grows."""
        from voxport.runtime.backends.onnxrt.file import read_onnx

        if not self._spec.grid:
            return {}
        inputs = {each.name: each.shape for each in read_onnx(self._spec.path, "", graph=True).inputs}
        widths = "".join(f"x{size}" for size in inputs[self._spec.input_kind][2:])
        batches, frames = (sorted({value(cell) for cell in self._spec.grid}) for value in (_batch, _frames))
        told = {"trt_cuda_graph_enable": "0"}
        for corner, at in (("min", 0), ("opt", None), ("max", -1)):
            batch, length = (sizes[len(sizes) // 2 if at is None else at] for sizes in (batches, frames))
            lengths = f",lengths:{batch}" if "lengths" in inputs else ""
            told[f"trt_profile_{corner}_shapes"] = f"{self._spec.input_kind}:{batch}x{length}{widths}{lengths}"
        return told

    @property
    def frontend(self) -> Frontend:
        """As the file says, or as was written down beside what was built."""
        return read_facts(self._spec).frontend if self._spec.built else read_contract(self._spec.path).frontend

    @property
    def speakers(self) -> int:
        return read_facts(self._spec).speakers if self._spec.built else len(read_contract(self._spec.path).labels)

    def _feeds(self, inputs: Array, lengths: Lengths) -> dict[str, Any]:
        return {self._spec.input_kind: inputs, **({"lengths": lengths} if self._takes_lengths else {})}

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        feeds = self._feeds(inputs, lengths)
        if not (self._spec.binding or self._spec.graphs):
            scores: Array = self._session.run(["scores"], feeds)[0]
            return scores
        binding, held, options = self._bound.get(inputs.shape) or self._bind(feeds)
        for name, values in feeds.items():
            held[name].update_inplace(values)
        self._session.run_with_iobinding(binding, options)
        bound: Array = held["scores"].numpy()  # waits for the device
        return bound

    def device_ns(self, inputs: Array, lengths: Lengths) -> list[int]:
        """Times between CUDA events of calls on bound memory, where PyTorch, which takes them, is loaded already."""
        bound = self._spec.binding or self._spec.graphs
        if not bound or self._spec.device == "cpu" or "torch" not in sys.modules:
            return []
        from voxport.benchmarks.backends.precision import device_times

        binding, _, options = self._bound.get(inputs.shape) or self._bind(self._feeds(inputs, lengths))
        return device_times(lambda: self._session.run_with_iobinding(binding, options))

    def _bind(self, feeds: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
        place, of_values = "cpu" if self._spec.device == "cpu" else "cuda", self._runtime.OrtValue
        source = feeds[self._spec.input_kind]
        held = {name: of_values.ortvalue_from_numpy(np.ascontiguousarray(one), place, 0) for name, one in feeds.items()}
        speakers = next(node.shape[1] for node in self._session.get_outputs() if node.name == "scores")
        if not isinstance(speakers, int):
            first = {name: values[:1] for name, values in feeds.items()}
            speakers = self._session.run(["scores"], first)[0].shape[1]
        held["scores"] = of_values.ortvalue_from_shape_and_type((len(source), speakers), np.float32, place, 0)
        binding = self._session.io_binding()
        for name, value in held.items():
            (binding.bind_ortvalue_output if name == "scores" else binding.bind_ortvalue_input)(name, value)
        options = self._runtime.RunOptions()
        if self._spec.graphs:
            options.add_run_config_entry("gpu_graph_id", str(len(self._bound) + 1))
        self._bound[source.shape] = (binding, held, options)
        return self._bound[source.shape]

    def facts(self) -> tuple[Fact, ...]:
        found = [
            Fact("onnxruntime", str(self._runtime.__version__)),
            Fact("providers", ", ".join(self._session.get_providers())),
        ]
        if not self._takes_lengths:
            found.append(Fact("lengths", "not taken: a padded batch is answered with its padding"))
        if self._spec.graphs:
            found.append(Fact("cuda graphs", f"{len(self._bound)} shapes"))
        return tuple(found)


def _batch(cell: Cell) -> int:
    return cell.batch


def _frames(cell: Cell) -> int:
    return cell.frames


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def provider_of(runtime: Any, spec: BackendSpec) -> str:
    """ONNX Runtime's name of the engine. Raises BackendError where this build has it not."""
    name, offered = _PROVIDERS[spec.device], runtime.get_available_providers()
    if name not in offered:
        raise BackendError(f"{spec.name}: this onnxruntime has only {', '.join(offered)}; install onnxruntime-gpu")
    if spec.device != "cpu" and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    return name


class OpenVinoBackend(_Loaded):
    """An artefact's ONNX file in OpenVINO through the runtime's own API, in the precision that `spec` asks for."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.backends.ov.model import OpenVinoModel
        from voxport.runtime.backends.ov.session import OpenVinoOptions

        computed = spec.precision
        if computed not in ("fp32", "bf16", "fp16"):
            raise BackendError(f"{spec.name}: OpenVINO does not compute in {computed}")
        model = OpenVinoModel.load(spec.path, OpenVinoOptions(threads=spec.threads, computed=computed))
        super().__init__(model)
        self._explain = model.explain

    def facts(self) -> tuple[Fact, ...]:
        told = self._explain()
        return (Fact("threads", str(told.threads)), Fact("precision", told.precision))

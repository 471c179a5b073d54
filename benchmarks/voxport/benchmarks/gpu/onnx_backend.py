"""ONNX Runtime in `voxport bench gpu`: plain calls, I/O binding, CUDA graphs, and the TensorRT provider."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.gpu.report import GpuSettings
from voxport.benchmarks.gpu.variants import Variant
from voxport.benchmarks.system.machine import Fact
from voxport.runtime.backends.onnxrt.session import import_onnxruntime
from voxport.runtime.errors import BackendError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class OnnxRunner:
    """An ONNX file with the inputs `features` and perhaps `lengths`, and the output `scores`."""

    def __init__(self, variant: Variant, settings: GpuSettings) -> None:
        self._runtime = import_onnxruntime("cpu")
        self._variant, self._place = variant, "cpu" if variant.provider == "cpu" else "cuda"
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = settings.threads, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = self._runtime.InferenceSession(
            variant.path, options, providers=self._providers(settings), enable_fallback=0
        )
        wanted, offered = _NAMES[variant.provider], self._session.get_providers()
        if offered[0] != wanted:  # onnxruntime leaves only a log line
            raise BackendError(f"ONNX Runtime did not start {wanted}; it offers {', '.join(offered)}")
        names = [node.name for node in self._session.get_inputs()]
        if "features" not in names or not set(names) <= {"features", "lengths"}:
            raise BackendError(f"{variant.path}: takes {', '.join(names)}; a model with the input features is needed")
        self._takes_lengths = "lengths" in names
        self._bound: dict[tuple[int, ...], tuple[Any, dict[str, Any], Any]] = {}

    def _providers(self, settings: GpuSettings) -> list[Any]:
        wanted, offered = _NAMES[self._variant.provider], self._runtime.get_available_providers()
        if wanted not in offered:
            raise BackendError(
                f"{wanted} was asked for, but this onnxruntime {self._runtime.__version__} has only "
                f"{', '.join(offered)}; onnxruntime-gpu brings it"
            )
        if self._variant.provider == "cpu":
            return [wanted]
        if hasattr(self._runtime, "preload_dlls"):
            self._runtime.preload_dlls()
        # The exhaustive search would tune again for every new length, and TF32 would round products to 10 bits.
        cuda = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        if self._variant.graph:
            cuda["enable_cuda_graph"] = "1"
        if self._variant.provider == "cuda":
            return [(wanted, cuda), _NAMES["cpu"]]
        return [(wanted, self._profiles(settings)), (_NAMES["cuda"], cuda), _NAMES["cpu"]]

    def _profiles(self, settings: GpuSettings) -> dict[str, str]:
        """One profile over the grid: without it, TensorRT builds an engine anew whenever a shape grows."""
        import onnx

        model = onnx.load(self._variant.path, load_external_data=False)
        width = next(
            node.type.tensor_type.shape.dim[2].dim_value for node in model.graph.input if node.name == "features"
        )
        has_lengths = any(node.name == "lengths" for node in model.graph.input)
        shapes = {}
        corners = {
            "min": (min(settings.batches), min(settings.frames)),
            "opt": (settings.batches[len(settings.batches) // 2], settings.frames[len(settings.frames) // 2]),
            "max": (max(settings.batches), max(settings.frames)),
        }
        for corner, (batch, frames) in corners.items():
            lengths = f",lengths:{batch}" if has_lengths else ""
            shapes[f"trt_profile_{corner}_shapes"] = f"features:{batch}x{frames}x{width}{lengths}"
        return {**shapes, "trt_cuda_graph_enable": "0"}

    def _feeds(self, features: Float32) -> dict[str, npt.NDArray[Any]]:
        feeds: dict[str, npt.NDArray[Any]] = {"features": features}
        if self._takes_lengths:
            feeds["lengths"] = np.full(len(features), features.shape[1], np.int64)
        return feeds

    def run(self, features: Float32) -> Float32:
        if not self._variant.binding:
            scores: Float32 = self._session.run(["scores"], self._feeds(features))[0]
            return scores
        binding, held, options = self._bind(features)
        held["features"].update_inplace(features)
        self._session.run_with_iobinding(binding, options)
        bound: Float32 = held["scores"].numpy()  # waits for the device
        return bound

    def on_device(self, features: Float32) -> Callable[[], object] | None:
        """Only where inputs and outputs stay on the device; ONNX Runtime waits for its stream after each call."""
        if not self._variant.binding or self._place == "cpu":
            return None
        binding, _, options = self._bind(features)
        return lambda: self._session.run_with_iobinding(binding, options)

    def _bind(self, features: Float32) -> tuple[Any, dict[str, Any], Any]:
        if features.shape in self._bound:
            return self._bound[features.shape]
        values = self._runtime.OrtValue
        held = {
            name: values.ortvalue_from_numpy(np.ascontiguousarray(array), self._place, 0)
            for name, array in self._feeds(features).items()
        }
        speakers = next(node.shape[1] for node in self._session.get_outputs() if node.name == "scores")
        if not isinstance(speakers, int):
            speakers = self._session.run(["scores"], self._feeds(features[:1]))[0].shape[1]
        held["scores"] = values.ortvalue_from_shape_and_type((len(features), speakers), np.float32, self._place, 0)
        binding = self._session.io_binding()
        for name, value in held.items():
            (binding.bind_ortvalue_output if name == "scores" else binding.bind_ortvalue_input)(name, value)
        options = self._runtime.RunOptions()
        if self._variant.graph:  # a graph for each shape, recorded at its first run
            options.add_run_config_entry("gpu_graph_id", str(len(self._bound) + 1))
        self._bound[features.shape] = (binding, held, options)
        return self._bound[features.shape]

    def facts(self) -> tuple[Fact, ...]:
        return (
            Fact("onnxruntime", str(self._runtime.__version__)),
            Fact("providers", ", ".join(self._session.get_providers())),
        )

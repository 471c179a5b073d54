"""A TensorRT with a builder: its plans hold the ONNX graph, and ONNX Runtime answers for the engine.

Version by version it has the names that the real one has, and no others. It is as strict: a network of the
wrong kind, a profile that misses an input or a step that is forgotten is an error here too. Every call that
the real API answers with False, None or -1 can be made to fail.
"""

import enum
import importlib.machinery
import io
import json
import types
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tests.fakes import trt as fake_tensorrt
from tests.fakes.cuda import FakeCuda
from tests.fakes.trt import FakeTensorRT, Severity, Shape
from voxport.export.graph.fp16 import value_types

PRODUCTS = ("MatMul", "Gemm", "Conv")
_HALF = onnx.TensorProto.FLOAT16


def _enum(name: str, members: str) -> Any:
    return enum.Enum(name, members)


class BuilderTensorRT(FakeTensorRT):
    """Stands where `tensorrt` would. `silently_float` makes it ignore half, as an old build script would have it."""

    def __init__(self, cuda: FakeCuda, version: str = "10.16.1.11") -> None:
        super().__init__(cuda, version)
        self.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)  # torch looks for it
        self.silently_float = False
        self.untold = False  # the inspector tells no types
        self.builds = 0
        self.interrupt = False  # whether a Ctrl-C comes while it builds
        self.config: Config | None = None
        flags = {8: {"EXPLICIT_BATCH": 0}, 10: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 11: {"STRONGLY_TYPED": 0}}
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Flag", flags.get(self.major, flags[11]))  # type: ignore[misc]
        weak = "" if self.major == 11 else "FP16 INT8 OBEY_PRECISION_CONSTRAINTS "
        self.BuilderFlag = _enum("BuilderFlag", weak + "TF32 VERSION_COMPATIBLE")
        self.HardwareCompatibilityLevel = _enum(
            "Level", "NONE AMPERE_PLUS" + (" SAME_COMPUTE_CAPABILITY" if self.major >= 10 else "")
        )
        self.MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
        self.ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED")
        self.LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE JSON")
        self.LayerType = _enum("LayerType", "NORMALIZATION SOFTMAX REDUCE MATRIX_MULTIPLY")
        self.DataType = _enum("DataType", "FLOAT HALF INT32")
        if self.major >= 10:
            self.IProgressMonitor = ProgressMonitor

    def Builder(self, logger: Any) -> "Builder":
        self.logger = logger
        if self.failing("Builder"):
            raise TypeError("factory function returned nullptr")
        return Builder(self)

    def OnnxParser(self, network: "Network", logger: Any) -> "Parser":
        assert logger is self.logger
        return Parser(self, network)

    def open_engine(self, plan: bytes) -> "Engine":
        return Engine(self, plan)


class ProgressMonitor:
    def __init__(self) -> None:
        self.ready = True


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model = onnx.ModelProto()
        self.layers: list[Any] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> Any:
        return self.layers[index]


class Parser:
    def __init__(self, trt: BuilderTensorRT, network: Network) -> None:
        self._trt, self._network = trt, network
        self.num_errors = 0

    def parse(self, model: bytes) -> bool:
        if self._trt.failing("parse"):
            self.num_errors = 7
            return False
        self._network.model = onnx.load_from_string(model)
        kinds = {"Softmax": "SOFTMAX", "LayerNormalization": "NORMALIZATION", "MatMul": "MATRIX_MULTIPLY"}
        for node in self._network.model.graph.node:
            if node.op_type in kinds:
                self._network.layers.append(Layer(self._trt, self._trt.LayerType[kinds[node.op_type]]))
        return True

    def get_error(self, index: int) -> Any:
        error = types.SimpleNamespace(
            desc=lambda: f"no importer for Strange{index}", node=lambda: index, file=lambda: "Import.cpp",
            line=lambda: 100 + index,
        )  # fmt: skip
        if self._trt.major >= 10:
            error.node_name = lambda: f"layers.{index}/Strange"
            error.node_operator = lambda: f"Strange{index}"
        return error


class Layer:
    def __init__(self, trt: BuilderTensorRT, kind: Any) -> None:
        self._trt, self.type = trt, kind
        self.precision: Any = None

    def get_output(self, index: int) -> Any:
        return types.SimpleNamespace(dtype=self._trt.DataType.FLOAT)


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, name: str, low: Shape, best: Shape, high: Shape) -> None:
        if not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
            raise ValueError(f"shapes of {name} do not rise")
        self.shapes[name] = (low, best, high)


class Cache:
    def __init__(self, trt: BuilderTensorRT, content: bytes) -> None:
        self._trt, self.lines = trt, set(content.split())

    def combine(self, other: "Cache", ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.lines |= other.lines
        return not self._trt.failing("combine")

    def serialize(self) -> bytes | None:
        return None if self._trt.failing("serialize") else b"\n".join(sorted(self.lines))


class Config:
    """8.6 has no progress_monitor: there it must not be set."""

    def __init__(self, trt: BuilderTensorRT) -> None:
        self._trt = trt
        self.flags = {"TF32"}
        self.workspace = 0
        self.profiles: list[Profile] = []
        self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
        self.cache: Cache | None = None
        if trt.major >= 10:
            self.progress_monitor: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        assert name != "progress_monitor" or self._trt.major >= 10
        super().__setattr__(name, value)

    def set_flag(self, flag: Any) -> None:
        if not self._trt.failing("set_flag"):
            self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self.flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.workspace = size if not self._trt.failing("set_memory_pool_limit") else 1

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self.workspace

    def add_optimization_profile(self, profile: Profile) -> int:
        if self._trt.failing("add_optimization_profile"):
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Cache | None:
        if b"damaged" in content:
            self._trt.logger.log(Severity.ERROR, "timing cache header mismatch")
            return None
        return Cache(self._trt, content)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache = cache
        return b"another-gpu" not in cache.lines


class Builder:
    def __init__(self, trt: BuilderTensorRT) -> None:
        self._trt = trt

    def create_network(self, flags: int) -> Network | None:
        return None if self._trt.failing("create_network") else Network(flags)

    def create_builder_config(self) -> Config | None:
        self._trt.config = None if self._trt.failing("create_builder_config") else Config(self._trt)
        return self._trt.config

    def create_optimization_profile(self) -> Profile | None:
        return None if self._trt.failing("create_optimization_profile") else Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        trt = self._trt
        flag = "EXPLICIT_BATCH" if trt.major < 10 else "STRONGLY_TYPED"
        assert network.flags == 1 << int(trt.NetworkDefinitionCreationFlag[flag]), "a network of another kind"
        inputs = {value.name for value in network.model.graph.input}
        assert config.profiles
        assert all(set(profile.shapes) == inputs for profile in config.profiles), "a profile misses an input"
        assert "TF32" not in config.flags
        if not _report(config, trt) or trt.failing("build_serialized_network"):
            return None
        trt.builds += 1
        if config.cache is not None:
            config.cache.lines.add(b"tactic-%d" % trt.builds)
        return _plan(trt, network, config)


def _report(config: Config, trt: BuilderTensorRT) -> bool:
    """Call the monitor as the real builder does; False where it said stop."""
    monitor = getattr(config, "progress_monitor", None)
    if monitor is None:
        return True
    assert monitor.ready
    monitor.phase_start("Building", None, 2)
    monitor.phase_start("Timing", "Building", 1)
    if trt.interrupt:
        import signal

        signal.raise_signal(signal.SIGINT)
    go_on = monitor.step_complete("Timing", 0)
    monitor.phase_finish("Timing")
    monitor.phase_finish("Building")
    return bool(go_on)


def _plan(trt: BuilderTensorRT, network: Network, config: Config) -> bytes:
    weak_half = "FP16" in config.flags
    if weak_half:  # what must stay in float32 was said
        assert "OBEY_PRECISION_CONSTRAINTS" in config.flags
        assert all(
            layer.precision is trt.DataType.FLOAT for layer in network.layers if layer.type.name != "MATRIX_MULTIPLY"
        )
    facts = {
        "weak_half": weak_half and not trt.silently_float,
        "float": trt.silently_float,
        "detailed": config.profiling_verbosity is trt.ProfilingVerbosity.DETAILED,
        "host_code": "VERSION_COMPATIBLE" in config.flags,
        "profiles": [profile.shapes for profile in config.profiles],
    }
    content = io.BytesIO()
    np.savez(content, facts=np.array(json.dumps(facts)), graph=np.frombuffer(network.model.SerializeToString(), "u1"))
    return content.getvalue()


class Engine(fake_tensorrt.Engine):
    """An engine that asks ONNX Runtime."""

    def __init__(self, trt: BuilderTensorRT, plan: bytes) -> None:
        found = np.load(io.BytesIO(plan))
        self.trt = trt
        self.facts: dict[str, Any] = json.loads(str(found["facts"]))
        self.model = onnx.load_from_string(found["graph"].tobytes())
        self.session = onnxruntime.InferenceSession(found["graph"].tobytes(), providers=["CPUExecutionProvider"])
        values = (*self.model.graph.input, *self.model.graph.output)
        self.shapes = {value.name: _dims(value) for value in values}
        self.kind = next(name for name in self.shapes if name in ("features", "waveform"))
        shapes = [profile[self.kind] for profile in self.facts["profiles"]]
        self.profiles = [(tuple(low), tuple(high)) for low, _, high in shapes]
        self.outputs = [value.name for value in self.model.graph.output]
        self.changes = {}
        self.num_io_tensors = len(self.shapes)
        self.num_optimization_profiles = len(self.profiles)
        self.used = set()
        if trt.major >= 10:
            self.device_memory_size_v2 = 4096
        else:
            self.device_memory_size = 4096
            self.create_execution_context_without_device_memory = self._new

    @property
    def host_code(self) -> bool:
        return bool(self.facts["host_code"])

    def create_execution_context(self, strategy: Any = None) -> "Context | None":
        return self._new()

    def _new(self) -> "Context | None":
        return None if self.trt.failing("create_execution_context") else Context(self)

    def create_engine_inspector(self) -> "Inspector | None":
        return None if self.trt.failing("create_engine_inspector") else Inspector(self)


class Context(fake_tensorrt.Context):
    engine: Engine

    def _compute(self) -> None:
        source = self._at(self.engine.kind, "<f4", self.shapes[self.engine.kind])
        lengths = self._at("lengths", "<i8" if self.trt.major >= 10 else "<i4", self.shapes["lengths"])
        feed = {self.engine.kind: source, "lengths": lengths.astype(np.int64)}
        names = self.engine.outputs
        for name, answer in zip(names, self.engine.session.run(names, feed), strict=True):
            self._at(name, "<f4", answer.shape)[:] = answer


class Inspector:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.execution_context: Context | None = None

    def get_engine_information(self, wanted: Any) -> str | None:
        trt = self._engine.trt
        assert isinstance(trt, BuilderTensorRT)
        assert wanted is trt.LayerInformationFormat.JSON
        if trt.failing("get_engine_information"):
            return None
        if not self._engine.facts["detailed"]:
            return json.dumps({"Layers": ["a name", "another"], "Bindings": []})
        context = self.execution_context
        told = context is not None and len(context.shapes) == 2 and not trt.untold
        return json.dumps({"Layers": [self._layer(node, told) for node in self._engine.model.graph.node]})

    def _layer(self, node: onnx.NodeProto, told: bool) -> dict[str, Any]:
        facts = self._engine.facts
        kinds = value_types(self._engine.model)
        weak = facts["weak_half"] and node.op_type in PRODUCTS

        def tensor(name: str) -> dict[str, Any]:
            kind = kinds.get(name, onnx.TensorProto.FLOAT)
            half = weak or (kind == _HALF and not facts["float"])
            word = "Half" if half else "Float" if kind in (1, 10) else "Int64"
            text = word if told else "N/A due to dynamic shapes"
            if self._engine.trt.major >= 11:
                return {"Name": name, "Dimensions": [4, 5], "Format": "Row major linear", "DataType": text}
            return {"Name": name, "Dimensions": [4, 5], "Format/Datatype": text}

        kind = "Reformat" if node.op_type == "Cast" else "gemm" if node.op_type in PRODUCTS else "kgen"
        inputs = [tensor(name) for name in node.input if name]
        return {"Name": node.name, "LayerType": kind, "Inputs": inputs, "Outputs": [tensor(n) for n in node.output]}


def _dims(value: onnx.ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)

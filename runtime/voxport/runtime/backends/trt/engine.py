"""TensorRT itself: a plan made into an engine, its tensors and profiles, and contexts that run it.

Written for TensorRT 8.6, 10 and 11: only names that all three have, others through getattr. TensorRT for RTX
has these names too: its engine is a subclass with another `library`. Every call that reports by False or None is
checked. Source: TensorRT's Python API reference, and its developer guide on dynamic shapes (a context per captured
graph, all of them sharing one activation memory).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from voxport.runtime.backends.trt.library import TENSORRT, Library
from voxport.runtime.contract import TensorSpec
from voxport.runtime.errors import BackendError, ContractError

if TYPE_CHECKING:
    import tensorrt as trt

_AGAIN = "build the plan again"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An input or output of the engine. A dim that varies is -1."""

    name: str
    dtype: str
    shape: Shape

    @property
    def spec(self) -> TensorSpec:
        """As check_tensors compares it. TensorRT 8.6 has no int64: its lengths are int32 and filled as such."""
        dtype = "int64" if (self.name, self.dtype) == ("lengths", "int32") else self.dtype
        return TensorSpec(self.name, dtype, tuple(None if dim < 0 else dim for dim in self.shape))


@dataclass(frozen=True)
class Profile:
    """An optimization profile: the shapes of the source tensor, (rows, length, …), between which it is valid."""

    index: int
    smallest: Shape
    largest: Shape

    @property
    def volume(self) -> int:
        """Rows × length of the largest shape: the smaller, the closer it is tuned to what fits into it."""
        return self.largest[0] * self.largest[1]


class Engine:
    """A deserialized plan. The caller serialises all calls: contexts share their activation memory."""

    library: ClassVar[Library] = TENSORRT

    def __init__(self, plan: bytes, where: str, host_code: bool = False) -> None:
        """Deserialize `plan`; `host_code` lets it bring native code of its own, as version-compatible plans do.

        Raises BackendError where TensorRT is missing or refuses it.
        """
        runtime = self._start()
        if host_code:
            runtime.engine_host_code_allowed = True
        self._runtime = runtime  # must outlive the engine
        self._judge(plan, where)
        attempt = self.library.attempt
        engine: trt.ICudaEngine = attempt(f"loading {where}", lambda: runtime.deserialize_cuda_engine(plan))
        self._engine = engine

    def _start(self) -> "trt.Runtime":
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        library = self.library
        library.log.take()
        runtime: trt.Runtime = library.attempt("starting its runtime", lambda: trt.Runtime(library.log))
        return runtime

    def _judge(self, plan: bytes, where: str) -> None:
        """Raise BackendError where it is known without loading that `plan` does not run here."""

    def tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Inputs and outputs.

        Raises:
            ContractError: a tensor that TensorRT wants in host memory, which no voxport graph has.
        """
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        engine = self._engine
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.is_shape_inference_io(name):
                raise ContractError(
                    f"the plan computes shapes from {name}, which no voxport model does; export it again"
                )
            tensor = Tensor(name, _dtype_name(engine.get_tensor_dtype(name)), _shape(engine.get_tensor_shape(name)))
            (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(tensor)
        return tuple(inputs), tuple(outputs)

    def profiles(self, source: str) -> tuple[Profile, ...]:
        """All optimization profiles, by the shapes that they allow for the input `source`."""
        found = []
        for index in range(self._engine.num_optimization_profiles):
            smallest, _, largest = map(_shape, self._engine.get_tensor_profile_shape(source, index))
            found.append(Profile(index, smallest, largest))
        return tuple(found)

    def activation_bytes(self) -> int:
        """Device memory that a context needs while it runs, whatever its profile."""
        engine: Any = self._engine
        newer = getattr(engine, "device_memory_size_v2", None)  # from TensorRT 10.1 on
        return int(engine.device_memory_size if newer is None else newer)

    def shares_profiles(self) -> bool:
        """Whether several contexts may use one profile: from TensorRT 10 on always, in 8.6 not by default."""
        return self.library.major >= 10

    def context(self, profile: Profile, stream: int, memory: int, size: int) -> "Context":
        """A context for `profile` whose activations live in `memory`, `size` bytes on the device."""
        made: Any = self.library.attempt("creating an execution context", self._new_context)
        self._place_activations(made, memory, size)
        context = Context(made, self.library)
        context.choose(profile.index, stream)
        return context

    def _place_activations(self, context: Any, memory: int, size: int) -> None:
        self.library.attempt("giving a context its memory", lambda: _give_memory(context, memory, size))

    def _new_context(self) -> Any:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        engine: Any = self._engine  # the two ways have no name in common
        strategy = getattr(trt, "ExecutionContextAllocationStrategy", None)
        if strategy is None:  # TensorRT 8.6
            return engine.create_execution_context_without_device_memory()
        return engine.create_execution_context(strategy.USER_MANAGED)


class Context:
    """An execution context with its own shapes."""

    def __init__(self, context: "trt.IExecutionContext", library: Library = TENSORRT) -> None:
        self._context = context
        self._attempt, self._name = library.attempt, library.name

    def choose(self, profile: int, stream: int) -> None:
        """Use an optimization profile, before any shape is set."""
        self._attempt(
            f"choosing profile {profile}", lambda: self._context.set_optimization_profile_async(profile, stream)
        )

    def place(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Tell where each tensor lies on the device."""
        for name, address in addresses:
            self._attempt(f"placing {name}", partial(self._context.set_tensor_address, name, address))

    def reshape(self, inputs: Iterable[tuple[str, Shape]], outputs: Iterable[tuple[str, Shape]]) -> None:
        """Set the shapes of all inputs, and check that the outputs take the shapes that are expected."""
        for name, shape in inputs:
            self._attempt(f"setting {name} to {shape}", partial(self._context.set_input_shape, name, shape))
        missing = self._attempt("inferring shapes", self._context.infer_shapes)
        if missing:
            raise BackendError(f"{self._name}: the plan also wants {', '.join(missing)}; {_AGAIN}")
        for name, shape in outputs:
            found = _shape(self._context.get_tensor_shape(name))
            if found != shape:
                raise BackendError(f"{self._name}: {name} should be {shape}, the plan makes it {found}; {_AGAIN}")

    def enqueue(self, stream: int) -> None:
        """Queue one run on `stream`."""
        self._attempt("a run", lambda: self._context.execute_async_v3(stream))


def _give_memory(context: Any, memory: int, size: int) -> bool:
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(memory, size)
    else:  # TensorRT 8.6
        context.device_memory = memory
    return True  # TensorRT answers neither of the two; a wrong memory shows in the run


def _shape(dims: Any) -> Shape:
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def _dtype_name(dtype: Any) -> str:
    """Names as NumPy has them, so that a contract's tensors can be compared."""
    name = str(getattr(dtype, "name", dtype)).lower()
    return {"float": "float32", "half": "float16"}.get(name, name)

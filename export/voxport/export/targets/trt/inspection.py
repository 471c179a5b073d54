"""TensorRT's engine inspector: what it tells of a plan's layers, once for each profile."""

from voxport.export.targets.trt.settings import PlanSettings
from voxport.runtime.backends.cuda import Cuda, cuda_module
from voxport.runtime.backends.trt.engine import Context, attempt, error_log, import_tensorrt


def inspect_plan(plan: bytes, settings: PlanSettings) -> tuple[str, ...]:
    """The inspector's JSON about all layers, for each profile at the shape that it is tuned for.

    Without shapes the inspector tells neither formats nor types of an engine with free dimensions.

    Raises:
        BackendError: TensorRT or the GPU is missing, or TensorRT refuses anything.
    """
    cuda = Cuda(cuda_module())
    try:
        return _inspect(plan, settings, cuda)
    finally:
        cuda.close()


def _inspect(plan: bytes, settings: PlanSettings, cuda: Cuda) -> tuple[str, ...]:
    import_tensorrt()
    import tensorrt as trt

    error_log().take()
    runtime: trt.Runtime = attempt("starting its runtime", lambda: trt.Runtime(error_log()))
    if settings.version_compatible:
        runtime.engine_host_code_allowed = True  # the plan was built here
    engine: trt.ICudaEngine = attempt("loading the plan", lambda: runtime.deserialize_cuda_engine(plan))
    inspector: trt.EngineInspector = attempt("starting its inspector", engine.create_engine_inspector)
    made: trt.IExecutionContext = attempt("creating an execution context", engine.create_execution_context)
    context = Context(made)
    found = []
    for index, profile in enumerate(settings.profiles):
        context.choose(index, int(cuda.stream))
        cuda.wait()
        context.reshape(((name, tuned) for name, (_, tuned, _) in profile.shapes().items()), ())
        inspector.execution_context = made
        what = f"inspecting profile {index}"
        found.append(str(attempt(what, lambda: inspector.get_engine_information(trt.LayerInformationFormat.JSON))))
    return tuple(found)

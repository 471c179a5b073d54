"""The forms of a network that are worth trying here, and the ways to run them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxport.runtime.errors import VoxportError

if TYPE_CHECKING:
    from voxport.cli.tune.ranking import Clock
    from voxport.export.verification.several import Way
    from voxport.runtime.backends.options import BackendOptions, PrecisionChoice, RuntimeChoice
    from voxport.runtime.contract import Contract

FP32, STATIC, DYNAMIC = "fp32.onnx", "int8-static.onnx", "int8-dynamic.onnx"
OPENVINO, BF16 = "openvino", "openvino_bf16"  # as `bench latency` names them behind a model's name
ALSO = ("onnx_openvino", "onnx_openvino_bf16")


@dataclass(frozen=True)
class Candidate:
    """A form in an engine. `name` is that of its row in `bench latency`, but for the number of threads.

    Candidates are listed with the one that keeps most of the network's precision, and asks for least, first.
    """

    name: str
    form: str
    runtime: "RuntimeChoice"
    precision: "PrecisionChoice | None"

    def options(self, threads: int) -> "BackendOptions":
        """How the runtime is asked for it."""
        from voxport.runtime.backends.options import BackendOptions

        return BackendOptions("cpu", threads, self.precision, runtime=self.runtime)

    def way(self, folder: Path, threads: int) -> "Way":
        """The same for the gate."""
        from voxport.export.verification.several import Way

        return Way(self.name, folder / self.form, self.options(threads))


# Dynamic int8 is left to ONNX Runtime: OpenVINO runs such files slower than those in float32.
CANDIDATES = (
    Candidate(FP32, FP32, "onnxruntime", None),
    Candidate(f"{FP32} ({OPENVINO})", FP32, "openvino", None),
    Candidate(f"{FP32} ({BF16})", FP32, "openvino", "bf16"),
    Candidate(STATIC, STATIC, "onnxruntime", None),
    Candidate(f"{STATIC} ({OPENVINO})", STATIC, "openvino", None),
    Candidate(f"{STATIC} ({BF16})", STATIC, "openvino", "bf16"),
    Candidate(DYNAMIC, DYNAMIC, "onnxruntime", None),
)
NEVER = (f"{DYNAMIC} ({OPENVINO})", f"{DYNAMIC} ({BF16})")


@dataclass(frozen=True)
class Setting:
    """A candidate with a number of threads: what is timed, ranked and chosen."""

    candidate: Candidate
    threads: int

    @property
    def name(self) -> str:
        """That of its row in `bench latency`."""
        from voxport.benchmarks.latency.candidates import threaded

        return threaded(self.candidate.name, self.threads)


def settings_of(candidates: Iterable[Candidate], counts: Sequence[int]) -> tuple[Setting, ...]:
    """Each candidate with each number of threads, in the same order; of one candidate the fewest threads first."""
    return tuple(Setting(each, count) for each in candidates for count in sorted(counts))


def thread_counts(threads: Sequence[int], clock: "Clock", cores: float) -> tuple[int, ...]:
    """The numbers of threads to try, the fewest first. Raises VoxportError where they cannot be told apart here."""
    counts = tuple(sorted(set(threads)))
    if len(counts) > 1 and clock == "cpu":
        raise VoxportError(
            "--clock cpu: processor time adds up over threads and so cannot rank numbers of threads; leave it out, or "
            "give one number with --threads"
        )
    if counts[-1] > math.ceil(cores):
        raise VoxportError(
            f"--threads {','.join(map(str, counts))}: this process may use {cores:g} cores; more threads than cores "
            "only wait for each other"
        )
    return counts


def make_form(form: str, checkpoint: Path, contract: "Contract", output: Path, calibration: Path | None) -> None:
    """Export the checkpoint in int8, with the model's own input, outputs and lengths, proven as every export is.

    Raises:
        VoxportError: it is not proven, or cannot be exported.
    """
    from voxport.export.inputs.corpus_samples import RealOptions
    from voxport.export.quantization.quantizer import QuantizeOptions
    from voxport.export.targets.onnx_graph import ExportOptions
    from voxport.export.targets.onnx_model import export_onnx

    options = ExportOptions(
        input_kind=contract.input_kind,
        outputs=contract.outputs,
        min_frames=contract.min_frames,
        max_frames=contract.max_frames,
        precision="int8",
        as_norm=None if contract.as_norm is None else contract.as_norm.top,
        quantize=QuantizeOptions(scheme="static" if form == STATIC else "dynamic", data=calibration),
        real=RealOptions(0),  # the real utterances come with the proof of each candidate
        force=True,
    )
    export_onnx(checkpoint, output, options)

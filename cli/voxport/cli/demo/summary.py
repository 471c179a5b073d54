"""What the demo says at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxport.cli.demo.corpus import DemoCorpus
from voxport.cli.demo.steps import Answer
from voxport.cli.demo.workspace import DemoFolder

if TYPE_CHECKING:
    from voxport.benchmarks.latency.report import LatencyReport, Row
    from voxport.export.verification.report import ParityReport
    from voxport.train.training.fit import FitResult


@dataclass(frozen=True)
class Speed:
    """One length of `voxport bench latency`: medians in ms, and the speed-up with its 95 % interval."""

    frames: int
    pytorch_ms: float | None
    onnx_ms: float | None
    speed_up: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Summary:
    """The demo in figures. Shares are in [0, 1], times in seconds; `files` names what lies where."""

    speakers: int
    training_files: int
    steps: int
    accuracy_valid: float
    parity_comparisons: int
    parity_max_abs_score: float
    parity_tolerance: float
    parity_top1: float
    model_bytes: int
    speeds: tuple[Speed, ...]
    held_out_files: int
    held_out_right: int
    seconds: Mapping[str, float]
    files: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """The summary as a table: what, result, file."""
        files = self.files
        return [
            ("speech", f"{self.speakers} speakers, {self.training_files + self.held_out_files} files", files["corpus"]),
            ("training", f"{self.steps} steps, {self.accuracy_valid:.1%} of validation", files["checkpoint"]),
            ("", "loss and accuracy", files["training"]),
            ("export", f"ONNX, {self.model_bytes / 1e6:.2f} MB, waveform in", files["model"]),
            (
                "parity",
                f"max |Δscore| {self.parity_max_abs_score:.1e} (tolerance {self.parity_tolerance:.0e}), "
                f"top-1 {self.parity_top1:.1%} of {self.parity_comparisons} answers",
                files["parity"],
            ),
            *((f"latency, {speed.frames} frames", _speed(speed), files["latency"]) for speed in self.speeds),
            ("", "latency chart", files["latency_chart"]),
            ("identify", f"{self.held_out_right} of {self.held_out_files} held-out files right", files["answers"]),
            ("", "confusion matrix", files["confusion"]),
            ("time", f"{sum(self.seconds.values()):.0f} s in all", files["summary"]),
        ]


def _speed(speed: Speed) -> str:
    times = f"PyTorch {_ms(speed.pytorch_ms)}, ONNX {_ms(speed.onnx_ms)}: "
    return times + f"{speed.speed_up:.2f}× [{speed.low:.2f}, {speed.high:.2f}], {speed.verdict}"


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f} ms"


def summarize(
    folder: DemoFolder,
    corpus: DemoCorpus,
    fitted: "FitResult",
    parity: "ParityReport",
    latency: "LatencyReport",
    answers: Sequence[Answer],
    seconds: Mapping[str, float],
) -> Summary:
    """Collect the figures of every step."""
    agreement = parity.agreement
    assert agreement is not None, "an export whose parity is unknown must have failed"
    return Summary(
        speakers=len(corpus.speakers),
        training_files=sum(1 for _ in corpus.train.glob("*/*.ogg")),
        steps=fitted.steps,
        accuracy_valid=fitted.accuracy_whole,
        parity_comparisons=agreement.comparisons,
        parity_max_abs_score=agreement.max_abs_score,
        parity_tolerance=parity.tolerance.score,
        parity_top1=agreement.top1,
        model_bytes=folder.model.stat().st_size,
        speeds=tuple(speeds(latency)),
        held_out_files=len(answers),
        held_out_right=sum(answer.speaker == answer.answered for answer in answers),
        seconds=seconds,
        files={
            "corpus": str(folder.corpus),
            "checkpoint": str(fitted.model),
            "training": str(folder.plots / "training.png"),
            "model": str(folder.model),
            "parity": str(folder.parity),
            "latency": str(folder.latency),
            "latency_chart": str(folder.plots / "latency.png"),
            "answers": str(folder.answers),
            "confusion": str(folder.plots / "confusion.png"),
            "summary": str(folder.summary),
        },
    )


def speeds(latency: "LatencyReport") -> list[Speed]:
    """The rows of the benchmark that compare the model with eager PyTorch."""
    baselines = {item.spec.name for item in latency.backends if item.spec.role == "baseline"}
    candidates = {item.spec.name for item in latency.backends if item.spec.role == "candidate"}
    eager: dict[int, Row] = {row.cell.frames: row for row in latency.rows if row.backend in baselines}
    return [
        Speed(
            row.cell.frames,
            eager[row.cell.frames].p50_ms,
            row.p50_ms,
            row.speed_up.ratio,
            row.speed_up.low,
            row.speed_up.high,
            row.verdict,
        )
        for row in latency.rows
        if row.backend in candidates and row.speed_up is not None
    ]

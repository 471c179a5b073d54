"""The steps of `voxport demo`. Each calls what the command of its name calls."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxport.cli.demo.corpus import CorpusPlan, DemoCorpus, count_files, make_corpus
from voxport.cli.demo.workspace import DemoFolder, write_json
from voxport.runtime.errors import VoxportError

if TYPE_CHECKING:
    from voxport.benchmarks.latency.report import LatencyReport
    from voxport.export.verification.report import ParityReport
    from voxport.train.training.fit import FitResult

RECIPE = "demo"
BENCH_FRAMES = (128, 400)  # 1.3 and 4 s
BENCH_SECONDS = 0.3  # of warm-up at least, and timed, in each of the blocks

_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # from here on, importing torch fails
from voxport.cli.root import main
main()
"""


@dataclass(frozen=True)
class DemoOptions:
    """How the demo is carried out; `train_files` and `held_out_files` are per speaker.

    The export is proven up to `max_frames`, and the model refuses longer sounds.
    """

    seed: int
    steps: int
    progress: bool = True
    train_files: int = 14
    held_out_files: int = 4
    max_frames: int = 1000


@dataclass(frozen=True)
class Answer:
    """What the model said of one held-out file; paths are relative to the demo's folder."""

    file: str
    speaker: str
    answered: str
    probability: float


def speak(folder: DemoFolder, options: DemoOptions) -> DemoCorpus:
    """Make the corpus of sound files."""
    from voxport.train.progress import progress_bar

    plan = CorpusPlan(options.train_files, options.held_out_files, options.seed)
    written = 0
    with progress_bar("Speaking", options.progress) as bar:

        def done() -> None:
            nonlocal written
            written += 1
            bar(written, count_files(plan))

        return make_corpus(folder.corpus, plan, done)


def train(folder: DemoFolder, corpus: DemoCorpus, options: DemoOptions) -> "FitResult":
    """What `voxport train fit` does."""
    from voxport.runtime.frontend.presets import profile
    from voxport.train.data import CorpusOptions
    from voxport.train.plots import plot_run
    from voxport.train.recipe import load_recipe
    from voxport.train.training.fit import FitOptions, fit, with_steps
    from voxport.train.training.run_dir import RunFolder

    recipe = with_steps(load_recipe(RECIPE), options.steps, options.seed)
    recipe = dataclasses.replace(recipe, augment=recipe.augment_for(sounds=True))
    data = CorpusOptions(profile(recipe.frontend_for(sounds=True)), cache=folder.features, progress=options.progress)
    result = fit(corpus.train, recipe, FitOptions(folder.run, data, device="cpu", progress=options.progress))
    plot_run(RunFolder(folder.run), folder.plots / "training.png")
    return result


def export(folder: DemoFolder, checkpoint: Path, options: DemoOptions) -> "ParityReport":
    """What `voxport export onnx --input waveform` does; it raises where the parity gate finds a difference."""
    from voxport.export.inputs.corpus_samples import RealOptions
    from voxport.export.targets.onnx_graph import ExportOptions
    from voxport.export.targets.onnx_model import export_onnx

    real = RealOptions(cache=folder.features, progress=options.progress)
    wanted = ExportOptions(input_kind="waveform", max_frames=options.max_frames, real=real, progress=options.progress)
    return export_onnx(checkpoint, folder.model, wanted)


def bench(folder: DemoFolder, checkpoint: Path, options: DemoOptions) -> "LatencyReport":
    """What `voxport bench latency` does."""
    from voxport.benchmarks.core.settings import LatencySettings
    from voxport.benchmarks.core.timing import BlockRule
    from voxport.benchmarks.latency.chart import draw_latency
    from voxport.benchmarks.latency.report import write_report
    from voxport.benchmarks.latency.runner import measure_latency
    from voxport.train.progress import progress_bar

    rule = BlockRule.lasting(BENCH_SECONDS, BENCH_SECONDS)
    settings = LatencySettings(frames=BENCH_FRAMES, seed=options.seed, rule=rule)
    with progress_bar("Timing", options.progress) as bar:
        report = measure_latency([folder.model], checkpoint, settings, lambda done, total, _: bar(done, total))
    write_report(report, folder.latency)
    draw_latency(report, folder.plots / "latency.png")
    if report.not_compared:
        raise VoxportError(f"{folder.model} could not be compared with PyTorch: {'; '.join(report.notes)}")
    return report


def identify(folder: DemoFolder, corpus: DemoCorpus) -> tuple[Answer, ...]:
    """Run `voxport identify` on the held-out files, in a process in which importing torch fails."""
    files = corpus.held_out_files()
    command = [sys.executable, "-c", _WITHOUT_TORCH, "identify", str(folder.model), *(str(file) for _, file in files)]
    result = subprocess.run([*command, "--json"], capture_output=True, encoding="utf-8", check=False)
    if result.returncode != 0:
        raise VoxportError(f"voxport identify {folder.model} failed: {result.stderr.strip()}")
    found = {item["file"]: item["ranked"][0] for item in json.loads(result.stdout)["results"]}
    answers = tuple(
        Answer(
            str(file.relative_to(folder.path)), speaker, found[str(file)]["speaker"], found[str(file)]["probability"]
        )
        for speaker, file in files
    )
    write_json(answers, folder.answers)
    _plot_confusion(answers, corpus.speakers, folder.plots / "confusion.png")
    return answers


def _plot_confusion(answers: Sequence[Answer], speakers: tuple[str, ...], path: Path) -> None:
    import numpy as np

    from voxport.train.plots import plot_confusion

    number = {speaker: i for i, speaker in enumerate(speakers)}
    counts = np.zeros((len(speakers), len(speakers)), np.int64)
    for answer in answers:
        counts[number[answer.speaker], number[answer.answered]] += 1
    plot_confusion(counts, speakers, f"{np.trace(counts)} of {len(answers)} held-out files named rightly", path)


def check_packages() -> None:
    """Find out before anything is written that a package is missing.

    Raises:
        ModuleNotFoundError: it names the package.
    """
    import importlib.util

    for name in (
        "torch", "pytorch_lightning", "sklearn", "rich", "matplotlib", "soundfile", "soxr",
        "espeakng_loader", "onnx", "onnxscript", "onnxruntime", "psutil",
    ):  # fmt: skip
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

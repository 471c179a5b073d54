"""From a checkpoint, an ONNX model or a TensorRT plan to a model of an NVIDIA Triton repository."""

import dataclasses
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxport.export.errors import ExportError
from voxport.export.network.cohort import as_norm_of, check_as_norm
from voxport.export.network.inference_net import deployable_net
from voxport.export.pipeline import report_stem
from voxport.export.staging import Staging, cannot_write, check_output, refuse_existing, refuse_output
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx
from voxport.export.targets.triton.config import LABELS_FILE, WARMUP_LENGTHS, Served, TritonOptions, config_text
from voxport.export.targets.triton.repository import PERF_FILE, labels_text, perf_input, readme_text, warmup_lengths
from voxport.export.verification.gate import named
from voxport.export.verification.report import ParityError, write_report
from voxport.runtime.backends.base import expected_tensors
from voxport.runtime.backends.formats import check_digest, format_of, is_checkpoint
from voxport.runtime.backends.onnxrt.file import contract_of, read_onnx
from voxport.runtime.backends.trt.file import read_plan, read_sidecar, sidecar_path
from voxport.runtime.contract import METADATA_KEY, Array, Contract, Golden, TensorSpec, Windowing

_REPORTS = (".json", ".md", ".png")


@dataclass(frozen=True)
class TritonModel:
    """A finished model of a repository: its folder, the files in it, and what the client must know."""

    folder: str
    files: tuple[str, ...]
    backend: str
    max_batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    speakers: int
    precision: str


def export_triton(
    model: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    options: TritonOptions,
    graph: ExportOptions | None = None,
) -> TritonModel:
    """Write `repository`/NAME: version 1 of the model, config.pbtxt, labels, contract, README.

    `model` is an ONNX model or a plan of voxport, or a checkpoint, which is exported to ONNX by `graph` and
    proven first. The folder appears whole or not at all; an existing one is replaced only with graph.force.

    Raises:
        ParityError: the checkpoint's ONNX model gives other answers; the report is NAME.parity.* in `repository`.
        ExportError: the options do not fit the model, or the folder exists or cannot be written.
        ContractError: the model is damaged, or none of voxport's.
        CheckpointError: the checkpoint cannot be read.
    """
    chosen, source = graph or ExportOptions(), Path(model)
    output = Path(repository) / options.name
    refuse_output(output, folder=True)
    refuse_existing(output, chosen.force)
    if not is_checkpoint(source):
        return _write(source, output, options)
    with tempfile.TemporaryDirectory(prefix="voxport-") as folder:  # a server may be watching the repository
        made = Path(folder) / "model.onnx"
        _export(source, made, output, chosen)
        return _write(made, output, options)


def _export(source: Path, made: Path, output: Path, graph: ExportOptions) -> None:
    """Export the checkpoint to `made`. Its report names the file as it will be called, not where it is proven.

    Where the gate fails, the report is put beside the folder that is not written.
    """
    where = str(output / "1" / made.name)
    try:
        report = export_onnx(source, made, graph)
    except ParityError as problem:
        if problem.report is None:
            raise
        check_output(output, graph.force, folder=True)
        page = write_report(dataclasses.replace(problem.report, model=where), output.with_name(f"{output.name}.parity"))
        why = problem.report.failures[0]
        raise ParityError(f"{output}: parity failed: {why}; see {page[1]}; no model was written") from problem
    write_report(dataclasses.replace(report, model=where), report_stem(made))


def preview_triton(
    model: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    options: TritonOptions,
    graph: ExportOptions | None = None,
) -> str:
    """The config.pbtxt that `export_triton` would write. Raises as that does, but for what only building shows."""
    source = Path(model)
    served = _promised(source, graph or ExportOptions()) if is_checkpoint(source) else _served(source)[0]
    return config_text(served, options.fitted(served))


def _promised(path: Path, graph: ExportOptions) -> Served:
    """What the ONNX model of a checkpoint would be. Its contract lacks a real golden vector: none is run here."""
    if graph.accuracy is not None:
        graph.accuracy.check()
    source = named(path)
    checkpoint = source.checkpoint
    check_as_norm(checkpoint, graph.as_norm, source.path)
    nothing = Array.of(np.zeros((graph.min_frames, checkpoint.frontend.n_mels), np.float32))
    width = deployable_net(checkpoint).class_weight_ES.shape[0]
    golden = Golden(nothing, Array.of(np.zeros(len(checkpoint.labels))), 1.0, embedding=Array.of(np.zeros(width)))
    contract = Contract(
        labels=checkpoint.labels,
        frontend=checkpoint.frontend,
        input_kind=graph.input_kind,
        min_frames=graph.min_frames,
        max_frames=graph.max_frames,
        precision=graph.precision,
        embedding_size=width,
        score_scale=checkpoint.recipe.model.am_scale,
        recipe=checkpoint.recipe.name,
        checkpoint_sha256=source.sha256,
        golden=golden,
        rejection=checkpoint.rejection,
        temperature=checkpoint.temperature,
        conditions=checkpoint.conditions,
        temperature_by_length=checkpoint.temperature_by_length,
        as_norm=as_norm_of(checkpoint, graph.as_norm),
        outputs=graph.outputs,
        windowing=Windowing.for_export(checkpoint.frontend, graph.min_frames, graph.max_frames),
    )
    return Served("onnxruntime", contract, *expected_tensors(contract))


def _write(source: Path, output: Path, options: TritonOptions) -> TritonModel:
    served, built_with = _served(source)
    options = options.fitted(served)
    check_output(output, force=True, folder=True)
    texts = {
        "config.pbtxt": config_text(served, options),
        LABELS_FILE: labels_text(served.contract),
        "contract.json": json.dumps(json.loads(served.contract.to_json()), indent=1, ensure_ascii=False) + "\n",
        PERF_FILE: perf_input(served, options),
        "README.md": readme_text(served, options, built_with),
    }
    try:
        with Staging(output, folder=True) as staging:
            home = staging.artefact
            (home / "1").mkdir(parents=True)
            (home / "warmup").mkdir()
            shutil.copyfile(source, home / "1" / served.file)
            for name, text in texts.items():
                (home / name).write_text(text, encoding="utf-8")
            (home / "warmup" / WARMUP_LENGTHS).write_bytes(warmup_lengths(served))
            for report in _reports(source):
                shutil.copyfile(report, home / f"parity{report.suffix}")
            files = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
            staging.name()
    except OSError as problem:
        raise cannot_write(output, problem) from problem
    shapes = served.inputs, served.outputs
    facts = len(served.contract.labels), served.contract.precision
    return TritonModel(str(output), tuple(files), served.by, options.max_batch or 0, *shapes, *facts)


def _reports(source: Path) -> tuple[Path, ...]:
    """The parity report beside a model, where it is this one's: model.onnx and model.plan share its name."""
    found = tuple(Path(f"{report_stem(source)}{suffix}") for suffix in _REPORTS)
    try:
        told = json.loads(found[0].read_bytes())
    except (OSError, ValueError):
        return ()
    model = told.get("model") if isinstance(told, dict) else None
    if not isinstance(model, str) or Path(model).name != source.name:
        return ()
    return tuple(each for each in found if each.is_file())


def _served(path: Path) -> tuple[Served, dict[str, str]]:
    """What the file is, and what a plan was built with."""
    found = format_of(path)
    if found.name == "plan":
        return _served_plan(path)
    if found.name != "onnx":
        raise ExportError(
            f"{path}: Triton is given ONNX models and TensorRT plans here, this is {found.title}; "
            "give the checkpoint, or what voxport export onnx made of it"
        )
    file = read_onnx(path, METADATA_KEY, graph=True)
    check_digest(path)  # a damaged file is not served
    contract = contract_of(file, path)
    inputs = _in_order(file.inputs)
    if [spec.name for spec in inputs] != [contract.input_kind, "lengths"]:
        names = ", ".join(spec.name for spec in file.inputs)
        raise ExportError(f"{path}: has the inputs {names}; serve a model that voxport export onnx wrote")
    return Served("onnxruntime", contract, inputs, file.outputs), {}


def _in_order(inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(sorted(inputs, key=lambda spec: spec.name == "lengths"))


def _served_plan(path: Path) -> tuple[Served, dict[str, str]]:
    file = read_sidecar(path)
    read_plan(path, file)  # raises where the two do not belong together
    built_with = dict(file.built_with)
    inputs, outputs = expected_tensors(file.contract)
    if built_with.get("tensorrt", "").startswith("8."):  # it has no int64
        inputs = tuple(dataclasses.replace(s, dtype="int32") if s.name == "lengths" else s for s in inputs)
    profiles = _profiles(json.loads(sidecar_path(path).read_bytes()).get("profiles"), file.contract.input_kind)
    if not profiles:
        raise ExportError(
            f"{sidecar_path(path)}: does not say the plan's profiles; build it with voxport export tensorrt"
        )
    return Served("tensorrt", file.contract, inputs, outputs, profiles), built_with


def _profiles(found: Any, kind: str) -> tuple[tuple[int, int], ...]:
    """Largest rows and length of each profile, from the file beside a plan; none where they are not told."""
    try:
        return tuple((int(each[kind][2][0]), int(each[kind][2][1])) for each in found)
    except (TypeError, KeyError, IndexError, ValueError):
        return ()

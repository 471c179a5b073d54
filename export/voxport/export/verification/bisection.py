"""Where does an ONNX graph part from its checkpoint? Every part of the network is compared, in its order.

The right answer of a part is that of the deployable network in float64. How far an innocent part may be off is
measured: the same network in PyTorch, rounded as the graph's precision rounds, on the same inputs.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import build_batch
from voxport.export.network.frontend import FrontendGraph, num_frames
from voxport.export.network.inference_net import DeployableNet, deployable_net
from voxport.export.verification.activations import Exposed, Values, match_values, module_values, relative
from voxport.export.verification.bisection_report import Bisection, Part
from voxport.export.verification.compare import CaseResult
from voxport.export.verification.gate import Evidence
from voxport.export.verification.reference import few_threads, tolerance
from voxport.export.verification.tolerance import products_in_half, products_in_int8
from voxport.runtime.contract import OUTPUTS, InputKind, Precision

_FACTOR = {"fp32": 10, "fp16": 3, "int8": 3}  # as in each precision's tolerance
_FLOOR = 2.0**-20  # of a part's size, as in the tolerance of fp32
_LONGEST = 400  # frames of the inputs besides the gate's worst case
_MOST_FRAMES = 6000  # in one run: all parts' answers are held at once
_BATCH = 7


def bisect_onnx(path: Path, evidence: Evidence, results: Sequence[CaseResult]) -> Bisection:
    """Compare the graph in `path` part by part, on a few inputs of the gate and on its worst.

    Raises:
        ExportError: `path` is no ONNX file, or its values are not named after the network's parts.
    """
    try:
        model = onnx.load(path)
    except Exception as problem:  # protobuf's own errors are of several kinds
        raise ExportError(f"{path}: only an ONNX file can be searched part by part ({problem!s:.80})") from problem
    del model.metadata_props[:]
    kind: InputKind = "features" if model.graph.input[0].name == "features" else "waveform"
    with few_threads():
        return _Search(path, model, evidence, kind).result(_chosen(evidence, results))


def _chosen(evidence: Evidence, results: Sequence[CaseResult]) -> list[int]:
    """Positions of the cases to look at: short, middling, a padded batch, and where the gate found most."""
    utterances, cases = evidence.utterances, evidence.cases
    alone = [i for i, each in enumerate(cases) if each.kind == "alone" and each.garbage == "none"]
    alone = [i for i in alone if utterances[cases[i].rows[0]].frames <= _LONGEST] or alone[:1]
    chosen = {alone[0], alone[len(alone) // 2], alone[-1]}
    mixed = [i for i, each in enumerate(cases) if each.kind == "mixed lengths" and each.garbage == "NaN"]
    chosen.update(i for i in mixed if len(cases[i].rows) == _BATCH)

    def frames(i: int) -> int:
        return len(cases[i].rows) * max(utterances[row].frames for row in cases[i].rows)

    found = [each for each in results if each.rows and frames(each.case) <= _MOST_FRAMES]
    if found:
        chosen.add(max(found, key=lambda each: max(row.max_abs_score for row in each.rows)).case)
    # A fault of the padding must not hide one that an utterance alone shows; the first input gives the shapes.
    return sorted(chosen, key=lambda i: (len(cases[i].rows) > 1, frames(i)))


class _Search:
    def __init__(self, path: Path, model: onnx.ModelProto, evidence: Evidence, kind: InputKind) -> None:
        self.path, self.model, self.evidence, self.kind = path, model, evidence, kind
        checkpoint = evidence.checkpoint
        self.exact = self._whole(deployable_net(checkpoint)).double()
        self.rough = self._whole(_rounded(deployable_net(checkpoint).float(), evidence.precision)).float()
        self.stack = checkpoint.recipe.model.stack_frames

    def _whole(self, network: DeployableNet) -> nn.Module:
        """The network as it was captured: with the frontend before it for waveform input."""
        from voxport.export.network.inference_net import SoundNet

        if self.kind == "features":
            return network
        return SoundNet(FrontendGraph(self.evidence.checkpoint.frontend), network).eval()

    def result(self, chosen: Sequence[int]) -> Bisection:
        matched: dict[str, str] = {}
        graph: Exposed | None = None
        worst: dict[str, Part] = {}
        order: list[str] = []
        rebuilt = 0.0
        for i in chosen:
            batch, lengths = build_batch(self.evidence.cases[i], self.evidence.utterances, seed=i)
            right, scores = self._answers(self.exact, batch.astype(np.float64), lengths)
            rough, _ = self._answers(self.rough, batch, lengths)
            feed: dict[str, Values] = {self.kind: batch, "lengths": lengths}
            if graph is None:
                order = list(right)
                matched = match_values(self.model, {name: value.shape for name, value in right.items()}, feed)
                named = {each.name for each in self.model.graph.output}
                if not matched:
                    raise ExportError(
                        f"{self.path}: its values are not named after the network's parts, so none can be compared; "
                        "export it again with this voxport, and search the file as it was written"
                    )
                matched |= {name: name for name in OUTPUTS if name in named}
                graph = Exposed(self.model, list(matched.values()))
            eager = self.evidence.reference.scores[list(self.evidence.cases[i].rows)]
            rebuilt = max(rebuilt, float(np.abs(scores - eager).max()))
            self._compare(worst, matched, (right, rough, graph(feed)), batch, lengths, self._address(i))
        parts = _with_growth([worst[name] for name in order if name in worst])
        unmatched = tuple(name for name in order if name not in matched and name not in OUTPUTS)
        return self._judged(parts, rebuilt, tuple(map(self._address, chosen)), unmatched)

    def _answers(self, module: nn.Module, batch: Values, lengths: Values) -> tuple[dict[str, Values], Values]:
        """What each part answers, embedding and scores at last, which no part but the whole gives; and the scores."""
        answers: list[tuple[Tensor, Tensor]] = []

        def run() -> None:
            answers.append(module(torch.from_numpy(batch), torch.from_numpy(lengths)))

        def keep(_: str, value: Tensor) -> Values:
            return value.detach().clone().numpy()

        found = module_values(module, run, keep)
        scores, embedding = (each.numpy() for each in answers[0])
        return {**found, "embedding": embedding, "scores": scores}, scores

    def _compare(
        self,
        worst: dict[str, Part],
        matched: dict[str, str],
        answers: tuple[dict[str, Values], dict[str, Values], dict[str, Values]],
        batch: Values,
        lengths: Values,
        address: str,
    ) -> None:
        """Keep for every part the input on which it is furthest over its bound."""
        right, rough, found = answers
        factor = _FACTOR[self.evidence.precision]
        for name, value in matched.items():
            rows = self._valid(right[name], batch.shape[0], lengths)
            if found[value].shape != right[name].shape:
                difference, size = math.inf, float(np.abs(right[name]).max(initial=0.0))
            else:
                difference, size = relative(found[value][rows], right[name][rows])
            noise, _ = relative(rough[name][rows], right[name][rows])
            bound = max(_FLOOR, factor * noise)
            part = Part(name, value, size, difference, noise, bound, None, address)
            if name not in worst or difference / bound > worst[name].difference / worst[name].bound:
                worst[name] = part

    def _valid(self, answer: Values, batch: int, lengths: Values) -> Any:
        """Which frames of an answer count: (N, …) frames in a row, (B, T, …), or one row for each utterance."""
        counts = lengths
        if self.kind == "waveform":
            counts = num_frames(self.evidence.checkpoint.frontend, torch.from_numpy(lengths)).numpy()
        if answer.ndim == 3:
            return np.arange(answer.shape[1]) < counts[:, None]
        if answer.shape[0] == batch:
            return slice(None)
        valid = np.arange(answer.shape[0] // batch) * self.stack < counts[:, None]
        return valid.reshape(-1)

    def _address(self, i: int) -> str:
        case = self.evidence.cases[i]
        frames = [self.evidence.utterances[row].frames for row in case.rows]
        padding = "" if case.garbage == "none" else f", padded with {case.garbage}"
        span = f"{frames[0]}" if len(frames) == 1 else f"{min(frames)} to {max(frames)}"
        return f"{case.kind}, batch {len(case.rows)}, {span} frames{padding}"

    def _judged(
        self, parts: tuple[Part, ...], rebuilt: float, inputs: tuple[str, ...], unmatched: tuple[str, ...]
    ) -> Bisection:
        bound = tolerance(self.evidence.reference, self.evidence.checkpoint.recipe.model.am_scale).score
        first = next((part for part in parts if part.parts), None)
        verdict = "no part is further off than rounding explains"
        if first is not None:
            verdict = (
                f"the first part to leave is {first.name}: off by {first.difference:.2g} of its size, where rounding "
                f"explains {first.bound:.2g} ({first.worst})"
            )
        elif not rebuilt <= bound:
            verdict = (
                f"the graph is the rebuilt network's, but that is not the eager one: max |Δscore| {rebuilt:.3g}, "
                f"bound {bound:.3g}"
            )
        name = None if first is None else first.name
        return Bisection(parts, name, verdict, (rebuilt, bound), inputs, unmatched)


def _rounded(network: DeployableNet, precision: Precision) -> DeployableNet:
    if precision == "fp16":
        return products_in_half(network)
    return products_in_int8(network) if precision == "int8" else network


def _with_growth(parts: Iterable[Part]) -> tuple[Part, ...]:
    grown: list[Part] = []
    for part in parts:
        before = grown[-1].difference if grown else 0.0
        growth = part.difference / before if before > 0 and math.isfinite(before) else None
        grown.append(Part(**{**vars(part), "growth": growth}))
    return tuple(grown)

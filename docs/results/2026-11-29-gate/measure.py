"""How often the parity gate refuses a right model, and how often it lets a wrong one pass.

    python docs/results/2026-11-29-gate/measure.py measure --out FOLDER --recipes SMALL VOXPORT --seeds 20
    python docs/results/2026-11-29-gate/measure.py measure --out FOLDER --checkpoints RUN/model.pt --speech SPEECH
    python docs/results/2026-11-29-gate/measure.py faults --out FOLDER --recipes SMALL VOXPORT --seeds 20
    python docs/results/2026-11-29-gate/measure.py report --out FOLDER

`measure` writes one file for each network: the noise of each utterance, and how far answers in float32 are from the
reference, in ONNX Runtime with one and two threads and in PyTorch. Networks are random ones of `--recipes`, or those of
`--checkpoints`, which hear pieces of the recordings in `--speech` and one synthetic sound of 499 frames. Run it under
several instruction sets, each a process of its own: ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41, and the
processor's own. `report` compares every reference with every answer, also those of other instruction sets: "proven
here, run there".
"""

import argparse
import copy
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.export.tiny import LABELS, random_network
from voxport.export.graph.cleanup import to_bytes
from voxport.export.inputs.cases import LengthLimits, Utterance, synthetic_utterances
from voxport.export.network.frontend import FrontendGraph
from voxport.export.network.inference_net import DeployableNet, SoundNet, deployable_net
from voxport.export.targets.onnx_graph import ExportOptions, build_graph
from voxport.export.verification import reference as rules
from voxport.export.verification.reference import Reference, eager_reference
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.backends.onnxrt.session import import_onnxruntime
from voxport.runtime.frontend.log_mel import compute_features, min_samples, pad_value
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import Checkpoint, load_checkpoint
from voxport.train.data import Split
from voxport.train.recipe import ModelOptions, Recipe, load_recipe

FRAMES = (20, 64, 160)
SPOKEN_FRAMES, SYNTHETIC_FRAMES = (40, 128, 300), 499  # of trained networks; the last was refused once
FRONTENDS = {"features": "homework_mel40", "waveform": "psf_fbank40"}
SPEAKERS = 60
SMALL = ModelOptions(num_layers=2, d_model=64, num_heads=4, ffn_dim=128, kernel_size=15)
ISA = os.environ.get("ATEN_CPU_CAPABILITY", "native")


def checkpoint_of(recipe: str, kind: str, seed: int) -> Checkpoint:
    """A network of the recipe whose norms, statistics and biases are all random."""
    options = SMALL if recipe == "SMALL" else load_recipe(recipe.lower()).model
    frontend = profile(FRONTENDS[kind])
    network = random_network(options, frontend.n_mels, SPEAKERS, seed)
    return Checkpoint(
        recipe=Recipe(recipe, "for the gate's rates", options, frontend=FRONTENDS[kind]),
        frontend=frontend,
        labels=tuple(f"{LABELS[i % len(LABELS)]} {i}" for i in range(SPEAKERS)),
        state=network.state_dict(),
        split=Split((), ()),
        step=1,
        metrics={},
    )


def utterances_of(checkpoint: Checkpoint, kind: Any, seed: int) -> list[Utterance]:
    """One synthetic utterance of each length."""
    found = []
    for i, frames in enumerate(FRAMES):
        found.append(synthetic_utterances(checkpoint.frontend, kind, LengthLimits(frames, frames), 100 * seed + i)[0])
    return found


def spoken(checkpoint: Checkpoint, kind: Any, seed: int, folder: Path) -> list[Utterance]:
    """Pieces of recordings, loud ones, and a synthetic sound."""
    random, frontend = np.random.default_rng(seed), checkpoint.frontend
    files = sorted(folder.rglob("*.flac"))
    found = []
    for frames in SPOKEN_FRAMES:
        sound = np.zeros(0, np.float32)
        size = min_samples(frontend, frames)
        while len(sound) < size or np.abs(sound).max() < 0.05:
            sound = read_audio(files[random.integers(len(files))], frontend.sample_rate)
            start = int(random.integers(max(1, len(sound) - size)))
            sound = sound[start : start + size]
        values: Any = compute_features(sound, frontend) if kind == "features" else sound
        found.append(Utterance("spoken", True, values, frames))
    limits = LengthLimits(SYNTHETIC_FRAMES, SYNTHETIC_FRAMES)
    return [*found, synthetic_utterances(frontend, kind, limits, 100 * seed)[0]]


def padded(utterances: list[Utterance]) -> tuple[np.ndarray, np.ndarray]:
    """All of them in one batch, padded with NaN."""
    lengths = np.array([len(each.input) for each in utterances])
    batch = np.full((len(utterances), lengths.max(), *utterances[0].input.shape[1:]), np.nan, np.float32)
    for row, each in zip(batch, utterances, strict=True):
        row[: len(each.input)] = each.input
    return batch, lengths


def inputs_of(utterances: list[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray, list[int]]]:
    """Each alone, then all in a batch; with the positions of the rows."""
    for i, each in enumerate(utterances):
        yield each.input[None], np.array([len(each.input)]), [i]
    yield *padded(utterances), list(range(len(utterances)))


def answers(run: Callable[..., Any], utterances: list[Utterance]) -> list[Any]:
    """Scores of each utterance, once alone and once in the batch: [2][utterances][speakers]."""
    found: list[list[Any]] = [[], []]
    for batch, lengths, rows in inputs_of(utterances):
        scores = np.asarray(run(batch, lengths)[0])
        found[len(rows) > 1] += scores.astype(float).tolist()
    return found


def in_onnxruntime(graph: Any, threads: int) -> Callable[..., Any]:
    """The graph on the CPU."""
    runtime = import_onnxruntime("cpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = runtime.InferenceSession(to_bytes(graph), options, providers=["CPUExecutionProvider"])
    source = graph.graph.input[0].name
    return lambda batch, lengths: session.run(["scores"], {source: batch, "lengths": lengths})


def in_torch(checkpoint: Checkpoint, kind: str) -> Callable[..., Any]:
    """The deployable graph in PyTorch."""
    network: Any = deployable_net(checkpoint).float()
    if kind == "waveform":
        network = SoundNet(FrontendGraph(checkpoint.frontend).float(), network)

    def run(batch: np.ndarray, lengths: np.ndarray) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(batch), torch.from_numpy(lengths))

    return run


Subject = tuple[str, str, int, Checkpoint, list[Utterance]]


def subjects(arguments: argparse.Namespace, prefix: str, suffix: str) -> Iterator[tuple[Path, Subject]]:
    """Networks that were not measured yet, with the file to write: recipe, kind of input, seed, utterances."""
    trained = {path.parent.name + "-" + path.stem: path for path in arguments.checkpoints}
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        for name in (*arguments.recipes, *trained):
            for kind in arguments.kinds:
                path = arguments.out / f"{prefix}{name}-{kind}-{seed}{suffix}.json"
                if path.exists():
                    continue
                if name in trained:
                    checkpoint = load_checkpoint(trained[name])
                    utterances = spoken(checkpoint, kind, seed, arguments.speech)
                else:
                    checkpoint = checkpoint_of(name, kind, seed)
                    utterances = utterances_of(checkpoint, kind, seed)
                yield path, (name, kind, seed, checkpoint, utterances)


def measure(arguments: argparse.Namespace) -> None:
    """Noise and answers of each network under this process's instruction set."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path, (recipe, kind, seed, checkpoint, utterances) in subjects(arguments, "", f"-{ISA}"):
        found = eager_reference(checkpoint, utterances, lambda items, _: items)
        with torch.inference_mode():
            plain = _eager_noise(checkpoint, utterances, found)
        document: dict[str, Any] = {
            "recipe": recipe,
            "kind": kind,
            "seed": seed,
            "isa": ISA,
            "noise": found.score_noises.tolist(),
            "plain": plain,
            "reference": found.scores.astype(float).tolist(),
            "scale": checkpoint.recipe.model.am_scale,
            "answers": {"torch": answers(in_torch(checkpoint, kind), utterances)},
        }
        # ONNX Runtime's instruction set cannot be chosen; and capturing the graph is most of the work.
        if ISA == "native" and seed % arguments.onnx == 0:
            lengths = [each.frames for each in utterances]
            options = ExportOptions(input_kind=kind, min_frames=min(lengths), max_frames=max(lengths))
            graph = build_graph(checkpoint, options, "measured").graph
            for threads in (1, 2):
                document["answers"][f"onnxruntime {threads}"] = answers(in_onnxruntime(graph, threads), utterances)
        path.write_text(json.dumps(document))
        print(path.name, flush=True)  # noqa: T201


def _eager_noise(checkpoint: Checkpoint, utterances: list[Utterance], found: Reference) -> float:
    """What the rule before this one measured: one draw, the largest over all utterances."""
    only = dataclasses.replace(found)
    real = rules._Roundings.__call__
    try:
        torch_frontend = rules.TorchFrontend(checkpoint.frontend)
        network = checkpoint.network()

        def one_draw(self: Any, values: Any, precise: Any) -> list[Any]:
            return [rules._answer(network, torch_frontend(torch.from_numpy(values)))] if values.ndim == 1 else []

        rules._Roundings.__call__ = one_draw  # type: ignore[method-assign, assignment]
        only = eager_reference(checkpoint, utterances, lambda items, _: items)
    finally:
        rules._Roundings.__call__ = real  # type: ignore[method-assign]
    return only.score_noise


# ------------------------------------------------------------------------------------------------- faults


def swapped_weight(network: DeployableNet, random: np.random.Generator) -> bool:
    """One weight takes the value of another one of its tensor, drawn by chance: a torn or misread number."""
    tensors = [each for each in network.state_dict().values() if each.is_floating_point() and each.numel() > 1]
    tensor = tensors[random.integers(len(tensors))].view(-1)
    one, other = random.integers(tensor.numel(), size=2)
    tensor[one] = tensor[other]
    return bool(one != other)


def sign_of_a_weight(network: DeployableNet, random: np.random.Generator) -> bool:
    """One weight of a product has the other sign: its highest bit is flipped."""
    tensors = [each for each in network.state_dict().values() if each.is_floating_point() and each.dim() > 1]
    tensor = tensors[random.integers(len(tensors))].view(-1)
    tensor[random.integers(tensor.numel())] *= -1
    return True


def epsilon(network: DeployableNet, value: float) -> bool:
    """Every layer norm has another epsilon."""
    norms = [each for each in network.modules() if hasattr(each, "epsilon")]
    for each in norms:
        each.epsilon = value  # type: ignore[assignment]
    return bool(norms)


FAULTS: dict[str, Callable[[DeployableNet, np.random.Generator], bool]] = {
    "one weight in another's place": swapped_weight,
    "one weight's sign": sign_of_a_weight,
    "epsilon 1e-3 for 1e-5": lambda network, _: epsilon(network, 1e-3),
    "epsilon 1e-6 for 1e-5": lambda network, _: epsilon(network, 1e-6),
}


MASK, LABEL = "one padded frame is heard", "two labels exchanged"


def _unmasked(network: DeployableNet, checkpoint: Checkpoint, utterances: list[Utterance], found: Reference) -> Any:
    """How far scores are off where a row's mask is one frame too long, over silence."""
    off = []
    for i, each in enumerate(utterances):
        longer = np.concatenate([each.input, np.full_like(each.input[:1], pad_value(checkpoint.frontend))])
        with torch.inference_mode():
            scores, _ = network(torch.from_numpy(longer)[None], torch.tensor([len(longer)]))
        off.append(float(np.abs(scores[0].numpy() - found.scores[i]).max()))
    return np.array(off)


def faults(arguments: argparse.Namespace) -> None:
    """The largest share of its tolerance that each fault moves a score by, over the utterances alone."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    assert arguments.kinds == ["features"], "the network is spoiled, not the frontend: --kinds features"
    for path, (recipe, _, seed, checkpoint, utterances) in subjects(arguments, "faults-", ""):
        del utterances[arguments.utterances :]
        found = eager_reference(checkpoint, utterances, lambda items, _: items)
        least = np.maximum(found.score_noises, np.median(found.score_noises))
        right, random = deployable_net(checkpoint).float(), np.random.default_rng(seed)
        shares: dict[str, list[float]] = {name: [] for name in (*FAULTS, MASK, LABEL)}
        shares[MASK].append(max(_unmasked(right, checkpoint, utterances, found) / least))
        for one, other in random.integers(len(checkpoint.labels), size=(arguments.faults, 2)):
            if one != other:  # two columns of the scores are exchanged: two labels
                shares[LABEL].append(float((np.abs(found.scores[:, one] - found.scores[:, other]) / least).max()))
        for name, spoil in FAULTS.items():
            for _ in range(1 if name.startswith("epsilon") else arguments.faults):
                network = copy.deepcopy(right)
                if not spoil(network, random):
                    continue
                moved = []
                with torch.inference_mode():
                    for i, each in enumerate(utterances):
                        scores, _ = network(torch.from_numpy(each.input)[None], torch.tensor([len(each.input)]))
                        moved.append(float(np.abs(scores[0].numpy() - found.scores[i]).max() / least[i]))
                shares[name].append(max(moved))
        path.write_text(json.dumps({"recipe": recipe, "seed": seed, "shares": shares}))
        print(path.name, flush=True)  # noqa: T201


# ------------------------------------------------------------------------------------------------- report


def report(arguments: argparse.Namespace) -> None:
    """Both rates, for factors around the gate's."""
    documents = [json.loads(path.read_text()) for path in sorted(arguments.out.glob("*.json"))]
    documents = [each for each in documents if each["recipe"].startswith(arguments.only)]
    measured = [each for each in documents if "answers" in each]
    largest: list[float] = []  # of each pair of a reference and an answer: noise it is away at most
    before: list[float] = []
    count = 0
    largest_of: dict[tuple[str, ...], list[float]] = {}  # the same by recipe, input, engine and instruction set
    for proof in measured:
        noise = np.array(proof["noise"])
        least = np.maximum(noise, np.median(noise))
        wanted = np.array(proof["reference"])
        floor = rules._FLOOR * proof["scale"] / rules._NOISE_FACTOR
        for run in measured:
            if any(proof[key] != run[key] for key in ("recipe", "kind", "seed")):
                continue
            for engine, found in run["answers"].items():
                off = np.abs(np.array(found) - wanted).max(axis=2)  # alone and in the batch, by utterance
                largest.append(float((off / np.maximum(least, floor)).max()))
                where = "same" if run["isa"] == proof["isa"] else "another"
                key = (proof["recipe"], proof["kind"], engine.split()[0], where)
                largest_of.setdefault(key, []).append(largest[-1])
                before.append(float(off.max() / max(proof["plain"], floor)))
                count += off.size
    lines = [f"{len(measured)} proofs, {len(largest)} pairs of proof and run, {count:,} answers compared", ""]
    lines += ["| | median | 99 % | largest | over 10 |", "|---|--:|--:|--:|--:|"]
    for name, values in (("noise of the utterance, all draws", largest), ("one draw, all utterances", before)):
        cells = (*np.quantile(values, (0.5, 0.99)), max(values))
        lines.append(
            f"| {name} | {' | '.join(f'{each:.2f}' for each in cells)} | {np.mean(np.array(values) > 10):.2%} |"
        )
    lines += ["", _tail(np.log(np.array(largest)), count / len(largest)), ""]
    lines += _by_network(largest_of)
    shares: dict[str, list[float]] = {name: [] for name in (*FAULTS, MASK, LABEL)}
    for each in documents:
        for name, values in each.get("shares", {}).items():
            shares[name] += values
    lines += ["| fault | tried | caught at 10 | caught at 5 | median share of the tolerance |", "|---|--:|--:|--:|--:|"]
    for name, values in shares.items():
        if values:
            found = np.array(values)
            caught = [f"{np.mean(found > factor):.1%}" for factor in (10, 5)]
            lines.append(f"| {name} | {len(found)} | {' | '.join(caught)} | {np.median(found) / 10:.3g} |")
    print("\n".join(lines))  # noqa: T201


def _by_network(largest: dict[tuple[str, ...], list[float]]) -> list[str]:
    lines = ["| network | input | run | instruction set | pairs | median | largest |", "|---|---|---|---|--:|--:|--:|"]
    for key, values in sorted(largest.items()):
        lines.append(f"| {' | '.join(key)} | {len(values)} | {np.median(values):.2f} | {max(values):.2f} |")
    return [*lines, ""]


def _tail(log: np.ndarray, each: float) -> str:
    """The chance that the largest of an export's differences is over ten times the noise, by two tails.

    The largest of `each` comparisons was measured; the gate has some 226, so that its largest is larger.
    """
    goes, mean, spread = np.log(10.0), log.mean(), log.std(ddof=1)
    width = spread * math.sqrt(6) / math.pi  # of a Gumbel distribution with this mean and spread
    middle = mean - 0.5772 * width + width * math.log(226 / each)
    gumbel = 1 - math.exp(-math.exp(-(goes - middle) / width))
    normal = 226 / each * 0.5 * math.erfc((goes - mean) / spread / math.sqrt(2))
    return (
        f"logarithm: mean {mean:.3f}, deviation {spread:.3f}; chance that the largest of 226 is over 10, extrapolated: "
        f"{gumbel:.1e} (Gumbel of the logarithm), {normal:.1e} (lognormal)"
    )


def main() -> None:
    """One of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["measure", "faults", "report"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", nargs="*", default=[])
    parser.add_argument("--checkpoints", nargs="*", type=Path, default=[])
    parser.add_argument("--speech", type=Path, help="Folder of recordings (.flac), for --checkpoints.")
    parser.add_argument("--kinds", nargs="+", default=["features", "waveform"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--onnx", type=int, default=6, help="Every how many-th seed is exported to ONNX too.")
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--utterances", type=int, default=4)
    parser.add_argument("--only", default="", help="report: networks whose names begin so.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"measure": measure, "faults": faults, "report": report}[arguments.step](arguments)


if __name__ == "__main__":
    main()

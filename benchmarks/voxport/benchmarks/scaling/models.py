"""The model whose cost is measured: an artefact, a checkpoint or a fresh network behind the runtime's protocol."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.scaling.report import ScaleSettings
from voxport.runtime.backends.base import Answer, Backend
from voxport.runtime.backends.formats import is_checkpoint
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.options import BackendOptions
from voxport.runtime.contract import Array, Contract, Golden
from voxport.runtime.frontend.presets import profile
from voxport.runtime.frontend.spec import Frontend

if TYPE_CHECKING:
    from voxport.train.models.speaker_net import SpeakerNet
    from voxport.train.recipe import ModelOptions

_SPEAKERS = 600
_LONGEST = 10_000  # frames that a network in PyTorch is asked for


@dataclass(frozen=True)
class Shape:
    """What of a network decides its attention's cost."""

    layers: int
    heads: int
    width: int


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model, and a name for it. `shape` and `network` are None for an artefact, whose file does not tell."""

    backend: Backend
    name: str
    shape: Shape | None
    network: "SpeakerNet | None"


def open_model(settings: ScaleSettings) -> Model:
    """Load or make the model.

    Raises:
        VoxportError: the file, the recipe, the device or a package is not usable.
    """
    path = Path(settings.model) / "model.pt" if settings.model and Path(settings.model).is_dir() else settings.model
    if settings.model and not is_checkpoint(path):
        backend = load_backend(path, BackendOptions(device=settings.device, threads=settings.threads))
        told = backend.explain()
        return Model(backend, f"{Path(path).name} ({told.backend}, {told.device}, {told.precision})", None, None)
    return _torch_model(settings, Path(path) if settings.model else None)


def _torch_model(settings: ScaleSettings, checkpoint: Path | None) -> Model:
    import torch

    from voxport.train.checkpoint import load_checkpoint
    from voxport.train.models.speaker_net import build_network
    from voxport.train.recipe import load_recipe

    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    if checkpoint is not None:
        loaded = load_checkpoint(checkpoint)
        options, frontend, network = loaded.recipe.model, loaded.frontend, loaded.network()
        labels, name = loaded.labels, f"{checkpoint.name} (eager PyTorch, {settings.device})"
    else:
        recipe = load_recipe(settings.recipe)
        options, frontend = recipe.model, profile(recipe.frontend)
        network = build_network(options, frontend.n_mels, _SPEAKERS).eval()
        labels = tuple(f"speaker {i}" for i in range(_SPEAKERS))
        name = f"recipe {recipe.name}, freshly initialised (eager PyTorch, {settings.device})"
    backend = TorchBackend(network, _contract(options, frontend, labels, network.embedding_size), settings.device)
    return Model(backend, name, Shape(options.num_layers, options.num_heads, options.d_model), network)


def _contract(options: "ModelOptions", frontend: Frontend, labels: tuple[str, ...], width: int) -> Contract:
    """A contract for a network that is no artefact; nobody replays its golden vector."""
    empty = Array.of(np.zeros((1, frontend.n_mels), np.float32))
    return Contract(
        labels=labels,
        frontend=frontend,
        input_kind="features",
        min_frames=1,
        max_frames=_LONGEST,
        precision="fp32",
        embedding_size=width,
        score_scale=options.am_scale,
        recipe="",
        checkpoint_sha256="",
        golden=Golden(empty, Array.of(np.zeros(len(labels), np.float32)), tolerance=1.0),
    )


class TorchBackend:
    """A network in eager PyTorch as a back end of the runtime."""

    def __init__(self, network: "SpeakerNet", contract: Contract, device: str) -> None:
        self._network, self._contract, self._device = network.to(device), contract, device

    @property
    def contract(self) -> Contract:
        """Its frontend, labels and lengths."""
        return self._contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a batch; lengths are only used where some row is shorter than the others."""
        import torch

        features, counts = np.asarray(inputs, np.float32), np.asarray(lengths, np.int64)
        full = bool((counts == features.shape[1]).all())
        with torch.inference_mode():
            source = torch.from_numpy(features).to(self._device)
            embedding = self._network.embed(source, None if full else torch.from_numpy(counts).to(self._device))
            scores = self._network.scores(embedding)
            unit = torch.nn.functional.normalize(embedding, dim=-1)
            return Answer(scores.float().cpu().numpy(), unit.float().cpu().numpy())

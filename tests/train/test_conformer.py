"""The Conformer of our own, which stands in where torchaudio is missing, held against torchaudio's."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.optional_packages import import_or_skip

torch = pytest.importorskip("torch")
models = import_or_skip("torchaudio.models")

from voxport.train.models.conformer import OwnConformer  # noqa: E402

SIZES = {"input_dim": 16, "num_heads": 2, "ffn_dim": 24, "num_layers": 2, "depthwise_conv_kernel_size": 5}


def made(kind: Any, seed: int = 3) -> Any:
    torch.manual_seed(seed)
    return kind(**SIZES, dropout=0.2)


def test_a_seed_gives_torchaudios_weights_under_its_names() -> None:
    ours, theirs = made(OwnConformer).state_dict(), made(models.Conformer).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_layers_answer_as_torchaudios_do(training: bool, padded: bool) -> None:
    frames = torch.randn(20, 3, 16, generator=torch.Generator().manual_seed(1))
    padding = torch.arange(20) >= torch.tensor([[20], [13], [7]]) if padded else None
    answers = []
    for kind in (OwnConformer, models.Conformer):
        network, x = made(kind).train(training), frames
        torch.manual_seed(5)  # dropout draws in the same order
        for layer in network.conformer_layers:
            x = layer(x, padding)
        answers.append(x.detach())
    assert torch.equal(*answers)


def test_an_even_kernel_is_refused_as_torchaudio_refuses_it() -> None:
    kinds: tuple[Any, ...] = (OwnConformer, models.Conformer)
    for kind in kinds:
        with pytest.raises(ValueError, match="odd"):
            kind(**{**SIZES, "depthwise_conv_kernel_size": 4})


SCRIPT = """
import sys
if sys.argv[1] == "missing":
    sys.modules["torchaudio"] = None
import torch
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions
torch.manual_seed(1)
network = build_network(ModelOptions(1, d_model=16, num_heads=2, ffn_dim=16, kernel_size=5), 4, 5).eval()
features = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(2))
with torch.no_grad():
    print(network(features, torch.tensor([30, 17])).double().flatten().tolist())
print(type(network.encoder).__mro__[1].__module__, file=sys.stderr)
"""


def test_a_network_is_the_same_without_torchaudio(tmp_path: Path) -> None:
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('undefined symbol: torch_library_impl')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    there, *found = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, one],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env=os.environ | ({"PYTHONPATH": path} if one.startswith("built") else {}),
        )
        for one in ("loads", "missing", "built for another torch")
    ]
    assert there.stderr.strip().splitlines()[-1] == "torchaudio.models.conformer"
    for one in found:
        assert one.stderr.strip().splitlines()[-1] == "voxport.train.models.conformer"
        assert one.stdout == there.stdout

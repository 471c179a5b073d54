"""`voxport export torchscript` and `voxport export pt2`: models that run inside PyTorch."""

from typing import Any

import click

from voxport.cli.common import example
from voxport.cli.export.options import export_options, run_export

_DEPRECATED = (
    "note: PyTorch has deprecated TorchScript; its successor is written by voxport export pt2, "
    "and voxport export onnx needs no PyTorch to run"
)


@click.command(
    epilog=example(
        """
        voxport export torchscript runs/best/model.pt -o model.torchscript
        voxport export torchscript runs/best/model.pt -o sound.torchscript --input waveform
        """
    )
)
@export_options()
def torchscript(**choices: Any) -> None:
    """Write CHECKPOINT as TorchScript, for applications that load models with torch.jit.

    PyTorch has deprecated TorchScript in favour of torch.export; `voxport export pt2` writes that. Batch
    and time are free, the device is chosen at loading, and the contract is an extra file inside. The file
    is proven as ONNX files are.
    """
    run_export("torchscript", choices, note=_DEPRECATED)


@click.command(
    epilog=example(
        """
        voxport export pt2 runs/best/model.pt -o model.pt2
        voxport export pt2 runs/best/model.pt -o native.pt2 --aoti
        voxport export pt2 runs/best/model.pt -o gpu.pt2 --aoti --device cuda
        """
    )
)
@export_options(
    click.option("--aoti", is_flag=True, help="Compile to native code with AOTInductor; needs a C++ compiler."),
    click.option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        help="With --aoti: what to compile for. It must be here, since the proof runs on it.",
    ),
)
def pt2(**choices: Any) -> None:
    """Write CHECKPOINT as a .pt2 file: a torch.export program, or native code with --aoti.

    A program runs on any device of PyTorch. Native code starts faster and runs without Python, but only on
    processors (or GPUs) and releases of PyTorch like the ones here; compiling takes a minute or more. The file
    is proven as ONNX files are.
    """
    run_export("pt2", choices)

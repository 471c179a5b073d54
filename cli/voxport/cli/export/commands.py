"""`voxport export …`: files to deploy, and the proof that they give the original's answers."""

from typing import Any

import click

from voxport.cli.common import example, let_threads_sleep, needs
from voxport.cli.export.check import check
from voxport.cli.export.int8_options import int8_choice, int8_options
from voxport.cli.export.options import export_options, opset_option, precision_option, run_export
from voxport.cli.export.pytorch import pt2, torchscript
from voxport.cli.export.sherpa import sherpa, sherpa_check
from voxport.cli.export.triton import triton
from voxport.cli.export.trt import tensorrt

_PRECISION = (
    "Precision of the graph; fp16 keeps inputs, outputs, norms, softmax and pooling in fp32, int8 all but matrix "
    "products."
)


@click.group()
def export() -> None:
    """Turn a checkpoint into a file to deploy, and prove that both give the same answers."""
    let_threads_sleep()


@export.command(
    epilog=example(
        """
        voxport export onnx runs/best/model.pt -o model.onnx
        voxport export onnx runs/best/model.pt -o sound.onnx --input waveform --max-frames 1000
        voxport export onnx runs/best/model.pt -o half.onnx --precision fp16
        voxport export onnx runs/best/model.pt -o voices.onnx --output embedding
        voxport export onnx runs/best/model.pt -o small.onnx --precision int8 --accuracy-data held-out/
        """
    )
)
@export_options(precision_option(["fp32", "fp16", "int8"], "fp32", _PRECISION), int8_options, opset_option)
@needs("export", "cpu")
def onnx(**choices: Any) -> None:
    """Write CHECKPOINT as one ONNX file that describes itself, proven equal to eager PyTorch.

    Lengths are in frames, of 10 ms each in the usual frontends. The proof covers the whole range, so
    a longer range takes longer to prove. Its report is written beside the file, as NAME.parity.json,
    .md and .png. A file that does not pass is not left under its name, and the exit code is 1.
    """
    run_export("onnx", {"quantize": int8_choice(choices), **choices})


for command in (check, torchscript, pt2, sherpa, sherpa_check, tensorrt, triton):
    export.add_command(command)

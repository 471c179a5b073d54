"""Options of `voxport bench latency` beyond the grid: scenarios, more back ends, truth beside speed."""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from voxport.cli.common import together

if TYPE_CHECKING:
    from voxport.benchmarks.core.settings import LatencySettings

# Written out here, so that `--help` imports no room; a test holds the list against the room's own.
ALSO = (
    "plain_onnx", "torchscript", "compile", "aoti", "eager_cpu", "eager_cuda", "eager_graphs", "compile_graphs",
    "onnx_cpu", "onnx_cuda", "onnx_graphs", "onnx_tensorrt", "onnx_rtx",
    "onnx_openvino", "onnx_openvino_bf16", "all",
)  # fmt: skip


def _enough_starts(_: click.Context, __: click.Parameter, value: int) -> int:
    if value != 0 and value < 10:
        raise click.BadParameter(f"{value} is too few: a median with an interval needs at least 10 processes")
    return value


# How calls follow one another, with which lengths, and on which further back ends.
scenario_options = together(
    click.option(
        "--scenario",
        type=click.Choice(["single-stream", "offline", "server"]),
        default="single-stream",
        help="Load: call after call, a whole set at once, or queries that arrive at random.",
    ),
    click.option(
        "--bound-ms",
        type=click.FloatRange(0, min_open=True),
        default=100.0,
        help="Server: 99 % of the queries must be answered within this time.",
    ),
    click.option("--queries", type=click.IntRange(1), default=64, help="Offline: number of utterances in the set."),
    click.option(
        "--trace",
        default="",
        show_default=False,
        metavar="DATA",
        help="Also time lengths as they come in this corpus, or in a .txt file of lengths in frames.",
    ),
    click.option(
        "--also",
        multiple=True,
        type=click.Choice(ALSO),
        help="Additional back end; repeatable. An unavailable one is reported with the reason.",
    ),
)


# What is measured beside speed.
truth_options = together(
    click.option(
        "--accuracy-data",
        default="",
        show_default=False,
        metavar="DATA",
        help="Labelled corpus on which to measure accuracy; a back end that loses too much is not ranked.",
    ),
    click.option("--accuracy-limit", type=click.IntRange(1), help="Largest number of utterances. Default: all."),
    click.option(
        "--max-drop",
        type=click.FloatRange(0),
        default=0.2,
        help="Points of accuracy that a model may lose against eager PyTorch.",
    ),
    click.option(
        "--cold-start",
        "cold_starts",
        type=int,
        default=0,
        metavar="N",
        callback=_enough_starts,
        help="Also start each back end in N fresh processes, at least 10.",
    ),
    click.option(
        "--limits/--no-limits",
        default=True,
        help="Measure the machine's ceilings and each model's distance from them.",
    ),
    click.option("--profile", is_flag=True, help="Profile the model with the lowest roofline efficiency."),
)


def check_together(context: click.Context) -> None:
    """Refuse options that would have no effect beside the others, rather than leave them out in silence."""
    chosen = context.params
    given = {name for name in chosen if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    scenario = chosen["scenario"]
    for name, option, useless, needed in (
        ("bound_ms", "--bound-ms", scenario != "server", "--scenario server"),
        ("queries", "--queries", scenario != "offline", "--scenario offline"),
        ("accuracy_limit", "--accuracy-limit", not chosen["accuracy_data"], "--accuracy-data"),
        ("max_drop", "--max-drop", not chosen["accuracy_data"], "--accuracy-data"),
        ("profile", "--profile", not chosen["limits"], "--limits, which tell what is furthest from its floor"),
        ("profile", "--profile", scenario != "single-stream", "--scenario single-stream, whose floor is known"),
    ):
        if name in given and useless:
            raise click.BadParameter(f"has an effect only with {needed}", param_hint=option)


def latency_settings(choices: dict[str, Any]) -> "LatencySettings":
    """The settings that a command's options ask for."""
    from voxport.benchmarks.core.settings import LatencySettings, ServerRule, TruthSettings
    from voxport.benchmarks.core.timing import BlockRule

    rest = dict(choices)
    truth = ("accuracy_data", "accuracy_limit", "max_drop", "cold_starts", "limits", "profile")
    return LatencySettings(
        rule=BlockRule.lasting(rest.pop("seconds"), rest.pop("warmup")),
        server=ServerRule(bound_ms=rest.pop("bound_ms")),
        truth=TruthSettings(**{name: rest.pop(name) for name in truth}),
        frames=rest.pop("frames") or None,
        **rest,
    )

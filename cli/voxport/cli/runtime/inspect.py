"""`voxport inspect`: what a model file says about itself."""

from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import CONDITION_COLUMNS, condition_row, emit_json, example, json_option, needs, show_table

if TYPE_CHECKING:
    from voxport.runtime.contract import Contract
    from voxport.runtime.inspection import Inspection
    from voxport.runtime.speech import SpeechRule

Rows = list[tuple[str, object]]

_FIRST_LABELS = 8


@click.command(epilog=example("voxport inspect model.onnx\nvoxport inspect model.pt2 --no-verify --json"))
@click.argument("model", type=click.Path())
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Replay the golden vector: does the model, here and now, still give its recorded answer?",
)
@json_option
@needs("cpu")
def inspect(model: str, verify: bool, as_json: bool) -> None:
    """Show what MODEL says about itself: speakers, frontend, lengths, parity, tensors.

    Exits with 1 where the file is not what it says, or where that could not be checked.
    """
    from voxport.runtime.errors import ContractError
    from voxport.runtime.inspection import inspect_model

    found = inspect_model(model, verify=verify)
    if as_json:
        emit_json(_report(found))
    else:
        _page(found)
    if found.problem is not None:
        raise ContractError(found.problem)


def _page(found: "Inspection") -> None:
    for title, rows in (
        (found.path, _file_rows(found)),
        ("Model", _model_rows(found)),
        ("Frontend", _frontend_rows(found)),
        ("Proof", _proof_rows(found)),
    ):
        show_table(title, ("fact", "value"), rows)
        click.echo()
    if found.contract.conditions:
        title = f"Outside the studio, on {found.contract.conditions[0].measured_on}"
        show_table(title, CONDITION_COLUMNS, [condition_row(line) for line in found.contract.conditions])
        click.echo()


def _file_rows(found: "Inspection") -> Rows:
    file = found.file
    return [
        ("size", f"{found.bytes:,} bytes"),
        ("SHA-256", found.sha256),
        ("format", file.title),
        *file.rows,
        *(("input", tensor) for tensor in file.inputs),
        *(("output", tensor) for tensor in file.outputs),
    ]


def _model_rows(found: "Inspection") -> Rows:
    from voxport.runtime.contract import rule_text

    contract = found.contract
    shown = ", ".join(contract.labels[:_FIRST_LABELS])
    more = len(contract.labels) - _FIRST_LABELS
    shortest, longest = found.seconds
    rejection = contract.rejection
    return [
        ("recipe", contract.recipe),
        ("checkpoint", contract.checkpoint_sha256),
        ("contract version", contract.version),
        ("speakers", f"{len(contract.labels)}: {shown}{f', and {more} more' if more > 0 else ''}"),
        ("takes", "features, or sound through the frontend" if contract.input_kind == "features" else "sound"),
        ("length in frames", f"{contract.min_frames} to {contract.max_frames}"),
        ("length in seconds", f"{shortest:.2f} to {longest:.2f}"),
        ("longer sounds", _windowing(contract)),
        ("precision", contract.precision),
        ("gives", " and ".join(contract.outputs)),
        ("embedding", f"{contract.embedding_size} numbers, unit length"),
        ("score", f"{contract.score_scale:g} × cosine"),
        ("probability", _probability(contract)),
        *([("voices", f"compared {rule_text(contract.as_norm)}")] if contract.as_norm is not None else []),
        ("speech", "every sound is answered" if contract.speech is None else _rule(contract.speech)),
        (
            "unknown speakers",
            "no threshold"
            if rejection is None
            else f"cosine below {rejection.threshold:.4f}, {rejection.false_accept_rate:.2%} accepted wrongly"
            + ("" if rejection.calibrated_on is None else f", on {rejection.calibrated_on}"),
        ),
    ]


def _probability(contract: "Contract") -> str:
    points = contract.temperature_by_length
    if not points:
        return f"softmax of scores / {contract.temperature:.4g}"
    return "softmax of scores / " + ", ".join(f"{each.temperature:.3g} at {each.seconds:.3g} s" for each in points)


def _windowing(contract: "Contract") -> str:
    """How they are heard, in a line."""
    from voxport.runtime.length_range import LengthRange

    allowed, rule = LengthRange.of_windows(contract), contract.windowing
    counted = "those that hold speech" if rule.speech_only and contract.speech is not None else "each of which counts"
    seconds = allowed.seconds(allowed.longest)
    return f"in windows of {seconds:.2f} s, one every {rule.hop * seconds:.2f} s of speech, {counted}"


def _rule(rule: "SpeechRule") -> str:
    return (
        f"from {rule.floor_db:g} dB, {rule.min_seconds:g} s within {rule.range_db:g} dB; level moves by "
        f"{rule.swing_db:g} dB, flatness by {rule.variety_db:g} dB and is above {rule.flatness_db:g} dB"
    )


def _frontend_rows(found: "Inspection") -> Rows:
    from voxport.runtime.storage.serialization import encode

    units = {"sample_rate": "Hz", "f_min": "Hz", "f_max": "Hz"}
    units |= dict.fromkeys(("n_fft", "win_length", "hop_length"), "samples")
    values = encode(found.contract.frontend)
    return [(name, f"{value} {units.get(name, '')}".rstrip()) for name, value in values.items()]


def _proof_rows(found: "Inspection") -> Rows:
    parity, golden = found.contract.parity, found.golden
    rows: Rows = [("parity with the original", "not recorded")]
    if parity is not None:
        rows = [
            ("parity with the original", f"{parity.cases:,} cases"),
            ("max |Δscore|", f"{parity.max_abs_score:.3g}, tolerance {parity.tolerance:.3g}"),
            ("smallest cosine of embeddings", "none" if parity.min_cosine is None else f"{parity.min_cosine:.7f}"),
            ("same best speaker", f"{parity.top1_agreement:.2%}"),
        ]
    if golden is None:
        return [*rows, ("golden vector", "not replayed")]
    verdict = "as recorded" if golden.passed else "NOT as recorded"
    return [
        *rows,
        ("golden vector", f"{verdict}: {golden.measure} {golden.max_abs_score:.3g}, tolerance {golden.tolerance:.3g}"),
    ]


def _report(found: "Inspection") -> dict[str, Any]:
    """The page as JSON. The numbers of the golden vector and the cohort are left out, their shapes stay."""
    from voxport.runtime.storage.serialization import encode

    contract = encode(found.contract)
    contract["golden"] = {
        "input_shape": found.contract.golden.input.shape,
        "tolerance": found.contract.golden.tolerance,
    }
    if contract["as_norm"] is not None:
        del contract["as_norm"]["cohort"]
    return {
        "path": found.path,
        "bytes": found.bytes,
        "sha256": found.sha256,
        "format": found.file.kind,
        **found.file.details,
        "inputs": found.file.inputs,
        "outputs": found.file.outputs,
        "min_seconds": found.seconds[0],
        "max_seconds": found.seconds[1],
        "contract": contract,
        "golden": None if found.golden is None else encode(found.golden) | {"passed": found.golden.passed},
        "problem": found.problem,
    }

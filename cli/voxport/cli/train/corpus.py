"""`voxport train corpus`: what a corpus is taken for, and what it holds, without training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table
from voxport.cli.progress import is_shown, progress_option
from voxport.cli.train.options import layout_options, layout_options_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxport.train.data.survey import Bin, Survey

_WIDTH = 40  # characters of the longest bar


@click.command(
    epilog=example(
        """
        voxport train corpus LibriSpeech/
        voxport train corpus wavs/ --layout split-folders
        voxport train corpus calls.csv --speaker-column agent --json
        """
    )
)
@click.argument("data", type=FILE_PATH)
@layout_options
@click.option("--frontend", help="Frontend of stored features, which tells their seconds.", default="homework_mel40")
@progress_option
@json_option
@needs("train")
def corpus(data: Path, frontend: str, progress: bool | None, as_json: bool, **choices: Any) -> None:
    """Say what DATA is taken for, and how many speakers, utterances and hours it holds.

    Lengths are those that the files' headers claim; nothing is decoded, computed or trained. Exit code 1 where
    files are missing or unreadable.
    """
    from voxport.runtime.frontend.presets import profile
    from voxport.train.data.survey import survey

    found = survey(data, layout_options_of(choices), profile(frontend), is_shown(progress))
    if as_json:
        emit_json(found)
    else:
        _show(found)
    if found.problems:
        raise SystemExit(1)


def _show(found: "Survey") -> None:
    unknown = found.utterances - found.known_lengths
    rows = [
        ("read as", f"{found.title} (--layout {found.layout})"),
        ("speakers", f"{found.speakers:,}"),
        ("utterances", f"{found.utterances:,}"),
        ("hours", f"{found.hours:,.2f}" + (f", and {unknown:,} utterances of unknown length" if unknown else "")),
        *([("test utterances", f"{found.test_utterances:,}")] if found.test_utterances else []),
        *(("note", note) for note in found.notes),
        *(("passed over", f"{name}: {count:,}") for name, count in found.passed.items()),
        *(("problem", f"{kind}: {count:,}") for kind, count in found.problems.items()),
    ]
    show_table("Corpus", ("", found.path), rows)
    _histogram("Seconds an utterance", found.lengths)
    _histogram("Utterances a speaker", found.utterances_per_speaker)
    for problem in found.first_problems:
        click.echo(f"error: {problem.key}: {problem.kind}: {problem.reason}", err=True)


def _histogram(title: str, bins: "Sequence[Bin]") -> None:
    if not bins:
        return
    most = max(each.count for each in bins)
    rows = []
    for each in bins:
        name = f"{each.low:g} or more" if each.high is None else f"{each.low:g} to below {each.high:g}"
        rows.append((name, f"{each.count:,}", "█" * max(1, round(_WIDTH * each.count / most)) if each.count else ""))
    click.echo("")
    show_table(title, ("from", "count", ""), rows)

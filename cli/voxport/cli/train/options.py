"""What the `voxport train` commands share: options, progress, and how a corpus is opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, json_option, together
from voxport.cli.progress import is_shown, progress_option

if TYPE_CHECKING:
    from voxport.train.data import Corpus, CorpusOptions, LayoutOptions
    from voxport.train.recipe import Recipe

LAYOUT_NAMES = ("layout", "speaker_column", "encoding", "channel")


# How a corpus is read, where it does not say so itself.
layout_options = together(
    click.option("--layout", help="Layout of the corpus, where it is not recognised; see docs/training.md."),
    click.option("--speaker-column", help="Column of a table that holds the speaker."),
    click.option("--encoding", help="Encoding of a manifest that is not UTF-8, such as cp1252."),
    click.option(
        "--channel",
        metavar="N|mix|each",
        help="Channel of sounds that have several: its number from 1, their average, or each as an utterance of its "
        "own.  [default: all where they are of one sound; others are refused]",
    ),
)
data_option = together(
    click.option(
        "--data",
        type=FILE_PATH,
        help="Corpus: a directory, a manifest or a shard; `voxport train corpus` says what it is taken for.",
    ),
    layout_options,
)


def layout_options_of(choices: dict[str, Any]) -> "LayoutOptions":
    """What the user decided about the corpus's layout."""
    from voxport.train.data import LayoutOptions

    return LayoutOptions(**{name: choices[name] for name in LAYOUT_NAMES})


def say(line: str) -> None:
    """Tell a person at stderr."""
    click.echo(line, err=True)


frontend_option = click.option("--frontend", help="Frontend profile; for stored features, the one that they came from.")
bad_option = click.option("--skip-bad/--strict", default=False, help="Leave unusable utterances out, or stop at them.")
cache_option = click.option("--cache", type=FILE_PATH, help="Folder of computed features.")
jobs_option = click.option("--jobs", type=click.IntRange(1), help="Processes that compute features.")
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Device of PyTorch."
)
resident_option = click.option(
    "--resident",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    help="Keep the corpus's features in the device's memory; auto: on a GPU with room for them.",
)
compile_option = click.option("--compile", "compiled", is_flag=True, help="Train with torch.compile.")
# What every command ends with that reads a corpus.
reading_options = together(bad_option, cache_option, jobs_option, device_option, progress_option, json_option)
checkpoint_argument = click.argument("checkpoint", type=FILE_PATH)


def bar(title: str, shown: bool) -> Any:
    """A progress bar that takes (done, total)."""
    from voxport.train.progress import progress_bar

    return progress_bar(title, shown)


def default_frontend(recipe: "Recipe", data: Path | None, layout: "LayoutOptions") -> str:
    """The frontend of a recipe for the corpus `data`, where the user named none."""
    from voxport.train.data.builder import holds_sounds

    return recipe.frontend_for(sounds=data is not None and holds_sounds(data, layout))


def corpus_options(choices: dict[str, Any], frontend_name: str, shown: bool) -> "CorpusOptions":
    """Options of the corpus, from a command's choices; `frontend_name` where they name none."""
    from voxport.runtime.frontend.presets import profile
    from voxport.runtime.frontend.spec import Frontend
    from voxport.train.data import CorpusOptions, LayoutOptions

    frontend = choices["frontend"]
    if not isinstance(frontend, Frontend):
        frontend = profile(frontend or frontend_name)
    layout = choices["layout"] if isinstance(choices["layout"], LayoutOptions) else layout_options_of(choices)
    return CorpusOptions(
        frontend, choices["skip_bad"], choices["cache"], choices["jobs"], progress=shown, layout=layout
    )


def corpus_of(checkpoint: Any, choices: dict[str, Any]) -> "Corpus":
    """The corpus of --data, else the one that the checkpoint was trained on."""
    from voxport.train.data import open_corpus

    data = choices["data"] or checkpoint.data
    if data is None:
        raise click.UsageError("the checkpoint does not say which corpus it was trained on; give --data")
    choices["frontend"] = checkpoint.frontend
    if all(choices[name] is None for name in LAYOUT_NAMES):
        choices["layout"] = checkpoint.layout_for(data)
    return open_corpus(Path(data), corpus_options(choices, "", is_shown(choices["progress"])))

"""The `voxport` command: a group that loads a command's module only when that command is called.

`voxport --help` therefore needs click alone and answers at once, whatever extras are installed.
"""

import difflib
import errno
import importlib
import io
import os
import sys
from typing import Any, NamedTuple

import click

from voxport.cli.library_folders import set_library_folders


class Entry(NamedTuple):
    """Where a command is, as `module:attribute`, and its line in `voxport --help`."""

    target: str
    summary: str


COMMANDS = {
    "train": Entry("voxport.cli.train.commands:train", "Train a speaker network, evaluate it, predict with it."),
    "export": Entry("voxport.cli.export.commands:export", "Write a model for deployment and prove it equal."),
    "inspect": Entry("voxport.cli.runtime.inspect:inspect", "Show a model file's metadata."),
    "bench": Entry("voxport.cli.bench.commands:bench", "Benchmark models against each other."),
    "tune": Entry("voxport.cli.tune.command:tune", "Find the fastest proven form of a model on this machine."),
    "identify": Entry("voxport.cli.runtime.identify:identify", "Say who is speaking in sound files."),
    "score": Entry("voxport.cli.scale.score:score", "Score a whole corpus, in as many processes as there are cores."),
    "serve": Entry("voxport.cli.scale.serve:serve", "Answer over HTTP, and with a page for people."),
    "timeline": Entry("voxport.cli.runtime.timeline:timeline", "Say who speaks when in a recording."),
    "stream": Entry("voxport.cli.runtime.stream:stream", "Identify speakers in a live stream."),
    "embed": Entry("voxport.cli.runtime.embed:embed", "Compute speaker embeddings, and compare them."),
    "enroll": Entry("voxport.cli.runtime.enroll:enroll", "Add people to a gallery, without training."),
    "gallery": Entry("voxport.cli.runtime.gallery:gallery", "Inspect and repair a gallery."),
    "verify": Entry("voxport.cli.runtime.verify:verify", "Verify a claimed speaker."),
    "demo": Entry("voxport.cli.demo.command:demo", "Run the whole pipeline once, on synthesized speech."),
    "doctor": Entry("voxport.cli.doctor.command:doctor", "Check the environment, and suggest fixes."),
}


class UserError(click.ClickException):
    """An error to show without a traceback; exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message to stderr."""
        click.secho("error: ", file=file, err=file is None, nl=False, fg="red", bold=True)
        click.echo(self.format_message(), file=file, err=file is None)


class LazyGroup(click.Group):
    """A group over `COMMANDS`; the one place where errors of every command become messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command; None where there is no such name."""
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown name suggests its neighbours."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"commands are {', '.join(COMMANDS)}."
            raise click.UsageError(f"no such command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from `COMMANDS`, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn a user's mistake into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            ctx.exit(130)  # 128 + SIGINT, as shells report it
        except Exception as problem:
            message = _user_message(problem)
            if message is None:
                raise
            raise UserError(message) from problem


def _user_message(problem: Exception) -> str | None:
    """What to tell the user, or None where the exception is click's own or a bug of ours."""
    from voxport.runtime.errors import VoxportError  # not needed for help
    from voxport.runtime.imports import explain_import

    if isinstance(problem, VoxportError):
        return str(problem)
    if (failure := explain_import(problem)) is not None:
        return str(failure)
    if isinstance(problem, OSError) and problem.errno != errno.EPIPE:  # a closed pipe is click's to handle
        why = problem.strerror or str(problem)
        if "usable temporary directory" in why:  # tempfile's, which does not say how to name another
            return f"{why}; set TMPDIR to a folder that can be written"
        return f"{problem.filename}: {why}" if problem.filename else why
    return None


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # slow to import, and rarely wanted

    click.echo(f"voxport {version('voxport')}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="\b\nExample:\n  voxport demo --out demo-out\n  voxport export onnx runs/first/model.pt -o model.onnx",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Take a speaker-identification network from training to the place where it answers."""


def main() -> None:
    """Run the command line; the entry point of the console script."""
    _fill_closed_streams()
    _print_any_text()
    set_library_folders()
    cli(prog_name="voxport")


def _print_any_text() -> None:
    """Print what the output's encoding does not have as escapes, which JSON understands too, and not a traceback.

    Such are names of speakers on a Western European system, and of files whose bytes are no UTF-8.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fill_closed_streams() -> None:
    """Put the null device where a caller (a daemon, a cron job) closed standard input, output or error.

    Else the next file that is opened would get their number, and what a library prints would land in it; and
    Python has None in place of the stream. The exit code still tells how it went.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    # Open as long as the process runs, as the streams that they stand for.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

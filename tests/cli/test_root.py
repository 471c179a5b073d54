"""The root command: quick, lazy, and the one place where mistakes become messages."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from voxport.cli.root import COMMANDS, Entry, cli
from voxport.runtime.errors import AudioError


def python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def run_raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Run `voxport broken`, a command that raises what it is given."""

    def run(problem: BaseException) -> Result:
        @click.command()
        def broken() -> None:
            raise problem

        monkeypatch.setitem(COMMANDS, "broken", Entry(f"{__name__}:broken", "Fails."))
        monkeypatch.setitem(globals(), "broken", broken)
        return CliRunner().invoke(cli, ["broken"])

    return run


def test_help_lists_every_command_and_imports_only_click() -> None:
    code = """
import json, sys
before = set(sys.modules)
from voxport.cli.root import cli
cli(["--help"], prog_name="voxport", standalone_mode=False)
top = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
rooms = sorted(name for name in sys.modules if name.startswith("voxport."))
print(json.dumps([sorted(top), rooms]))
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    *page, last = result.stdout.splitlines()
    top, rooms = json.loads(last)
    assert top == ["click", "voxport"]
    assert rooms == ["voxport.cli", "voxport.cli.library_folders", "voxport.cli.root"]
    listed = {line.split()[0]: line for line in page if line.startswith("  ") and line.split()}
    for name, entry in COMMANDS.items():
        assert entry.summary in listed[name]
    assert "Example:" in "\n".join(page)


@pytest.mark.parametrize(
    "module", ["voxport.cli.root", "voxport.runtime", "voxport.cli.train.commands", "voxport.cli.demo.command"]
)
def test_nothing_that_starts_up_imports_torch(module: str) -> None:
    heavy = "{'torch', 'torchaudio', 'pytorch_lightning', 'onnxruntime', 'onnx', 'matplotlib', 'sklearn'}"
    result = python(f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))")
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("indentify", "identify"), ("benchmark", "bench")])
def test_an_unknown_command_suggests_its_neighbour(typed: str, meant: str) -> None:
    result = CliRunner().invoke(cli, [typed])
    assert result.exit_code == 2
    assert f"no such command {typed!r}; did you mean {meant}" in result.output


def test_an_unknown_command_without_neighbours_lists_all() -> None:
    result = CliRunner().invoke(cli, ["qqqq"])
    assert result.exit_code == 2
    assert all(name in result.output for name in COMMANDS)


def test_a_user_error_is_one_line_on_stderr(run_raising: Callable[[BaseException], Result]) -> None:
    result = run_raising(AudioError("noise.wav: holds no samples"))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: noise.wav: holds no samples\n")


def test_a_file_system_error_names_the_file(run_raising: Callable[[BaseException], Result]) -> None:
    result = run_raising(PermissionError(errno.EACCES, "Permission denied", "/etc/model.onnx"))
    assert (result.exit_code, result.stderr) == (1, "error: /etc/model.onnx: Permission denied\n")


def test_an_interrupt_exits_as_shells_expect(run_raising: Callable[[BaseException], Result]) -> None:
    result = run_raising(KeyboardInterrupt())
    assert result.exit_code == 130
    assert "Traceback" not in result.output


@pytest.mark.parametrize("problem", [ValueError("a bug"), ModuleNotFoundError("no voxport.x", name="voxport.x")])
def test_a_bug_keeps_its_traceback(run_raising: Callable[[BaseException], Result], problem: Exception) -> None:
    assert run_raising(problem).exception is problem


def test_clicks_own_errors_keep_their_exit_code(run_raising: Callable[[BaseException], Result]) -> None:
    result = run_raising(click.BadParameter("must be even"))
    assert result.exit_code == 2
    assert "must be even" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="head and pipefail are POSIX")
def test_a_closed_pipe_is_no_traceback() -> None:
    """The reader is gone before the first byte: `voxport --help | true`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "voxport.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    message = process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
    assert "Traceback" not in message
    assert "Exception ignored" not in message


def test_version_is_the_distributions() -> None:
    from importlib.metadata import version

    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.output) == (0, f"voxport {version('voxport')}\n")


def commands() -> list[tuple[str, click.Command]]:
    """Every command that does something, with the words that a user types."""
    found: list[tuple[str, click.Command]] = []

    def visit(words: str, command: click.Command, context: click.Context) -> None:
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None, name
                visit(f"{words} {name}", child, context)
        else:
            found.append((words, command))

    visit("voxport", cli, click.Context(cli))
    return found


def test_every_command_explains_itself_with_an_example_of_itself() -> None:
    for words, command in commands():
        result: Any = CliRunner().invoke(cli, [*words.split()[1:], "--help"])
        assert result.exit_code == 0, result.output
        assert command.help, words
        assert command.epilog is not None, f"{words} has no example"
        examples = [line.strip() for line in command.epilog.splitlines() if line.strip().startswith("voxport ")]
        assert any(line.startswith(words) for line in examples), f"{words}: {examples}"
        assert all(line in result.output for line in examples), f"{words}: the example was re-wrapped"


def test_every_option_that_an_example_uses_exists() -> None:
    """An example that does not parse is worse than none."""
    for words, command in commands():
        context = click.Context(command)
        known = {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}
        for line in (command.epilog or "").splitlines():
            if line.strip().startswith(words):
                used = {word.partition("=")[0] for word in line.split() if word.startswith("-")}
                assert used <= known, f"{line.strip()}: no option {used - known}"


def test_every_command_reports_as_json() -> None:
    for words, command in commands():
        assert any("--json" in option.opts for option in command.params), words

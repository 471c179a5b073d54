"""What the pages say must be so: links lead somewhere, and commands exist."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.packaging_tools import ROOT
from voxport.cli.root import cli

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_parse(page: Path) -> None:
    """Each line of a code block that begins with `voxport` names a command, and options that it has."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("voxport "):
                check_command(shlex.split(line.partition(" #")[0])[1:])


def check_command(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    known = {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known, f"{command.name}: no option {used - known}"


def test_the_examples_of_python_are_the_librarys() -> None:
    """The lines that embed the library compile, and import what exists."""
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                if line.startswith(("from voxport", "import voxport")):
                    exec(compile(line, page.name, "exec"), {})  # noqa: S102 - our own page
            compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

"""Run commands of voxport one after another in this process, and say what each left behind.

    python tests/commands_in_one_process.py TEMPORARY < commands.json

Standard input is a list of lists of arguments. For each a line of JSON is printed: the arguments, the exit code, the
end of what the command said, and the files that then are in the home and in TEMPORARY. One process, since to
import PyTorch takes longer than most of the commands.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from click.testing import CliRunner

from voxport.cli.library_folders import set_library_folders
from voxport.cli.root import cli


def files_in(folder: Path) -> list[str]:
    """What is below `folder`, by its path in it: files, links, and folders that are empty."""
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found += [os.path.join(root, name) for name in (*names, *links)]
        if not folders and not names and root != os.fspath(folder):
            found.append(root)
    return sorted(os.path.relpath(path, folder) for path in found)


def main() -> None:
    """Read the commands, and run them."""
    temporary = Path(sys.argv[1])
    set_library_folders()  # as the entry point of the console script does
    for arguments in json.load(sys.stdin):
        done = CliRunner().invoke(cli, arguments, prog_name="voxport")
        said = done.output[-2000:]
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            said += "".join(traceback.format_exception(done.exception))
        left = {"home": files_in(Path.home()), "temporary": files_in(temporary)}
        sys.stdout.write(json.dumps({"arguments": arguments, "code": done.exit_code, "said": said} | left) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

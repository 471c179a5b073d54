"""Kill `voxport score` again and again, and hold what it has written in the end against a run that nothing disturbed.

    python kill_score.py CORPUS MODEL [--kills 20] [--engine local]

Each time the whole group of processes, or the parent alone, is killed at a random moment.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.dataset


def command(arguments: argparse.Namespace, out: Path) -> list[str]:
    """The run, with parts so small that many are cut."""
    start = [sys.executable, "-c", "from voxport.cli.root import main; main()", "score"]
    options = ["--engine", arguments.engine, "--part-rows", "2", "--json", "--no-progress"]
    return [*start, arguments.corpus, arguments.model, "--out", str(out), *options]


def parts(out: Path) -> dict[str, int]:
    """Parts that are done, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("part-*.parquet")}


def main() -> None:
    """Run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("model")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", default="local")
    arguments = parser.parse_args()
    choose = random.Random(14)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole"), Path(folder, "broken")
        began = time.monotonic()
        subprocess.run(command(arguments, whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lasted = time.monotonic() - began
        kills, again, done = [], 0, {}
        while len(kills) < arguments.kills:
            run = subprocess.Popen(
                command(arguments, broken),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            # Most of a start is the loading of the model: kills are spread over what follows it too.
            time.sleep(choose.uniform(0.05, 0.6) * lasted)
            if run.poll() is not None:  # it came to its end: begin anew, the kills so far count
                again += 1
                done = {}
                subprocess.run(["rm", "-r", str(broken)], check=True)
                continue
            group = bool(choose.getrandbits(1))
            (os.killpg if group else os.kill)(run.pid, signal.SIGKILL)
            run.wait()
            now = parts(broken)
            changed = [name for name, stamp in done.items() if now.get(name) != stamp]
            assert not changed, f"done before, and written again: {changed}"
            done = now
            kills.append({"group": group, "parts": len(now)})
        last = subprocess.run(command(arguments, broken), check=True, capture_output=True, text=True)
        summary = json.loads(last.stdout)
        changed = [name for name, stamp in done.items() if parts(broken)[name] != stamp]
        assert not changed, f"done before, and written again: {changed}"
        tables = [pyarrow.dataset.dataset(out / "parts").to_table() for out in (whole, broken)]
        assert tables[0].equals(tables[1]), "rows differ"
        keys = tables[1].column("id").to_pylist()
        assert len(set(keys)) == len(keys)
    result = {"engine": arguments.engine, "undisturbed_s": round(lasted, 1), "kills": kills, "complete_runs": again}
    result |= {"rows": len(keys), "resumed_by_the_last": summary["resumed"], "equal": True}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

"""Time and memory of `voxport score`: one process, processes of this machine, and Ray, in turns.

    python measure_score.py SOUNDS MODEL --work FOLDER [--utterances 400] [--rounds 3] [--large 2000] > score.json

SOUNDS is a folder of sound files, which are repeated to make a corpus of the size that is asked for. Wall time is of
little worth where others use the machine: processor time, of all processes that a run has started, stands beside it.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ALONE = """
import sys, uuid
from pathlib import Path
from voxport.scale.scoring.listening import Job, Listener
from voxport.scale.scoring.options import ScoreOptions
from voxport.scale.scoring.parts import PartWriter
from voxport.scale.scoring.plan import make_plan

corpus, model, out = map(Path, sys.argv[1:])
planned = make_plan(corpus, model, out, ScoreOptions(engine="local"))
listener = Listener(Job(str(model), planned.plan.model_sha256, None, "cpu", 1, 5, True))
writer = PartWriter(out, corpus, listener, uuid.uuid4().hex)
for part in planned.parts:
    writer.write(part)
"""
SCORE = "from voxport.cli.root import main; main()"
MODES = {
    "one process, one thread": None,
    "local, 1 worker": ["--engine", "local", "--workers", "1"],
    "local, 2 workers": ["--engine", "local", "--workers", "2"],
    "ray, 2 workers": ["--engine", "ray", "--workers", "2"],
}


def corpus_of(sounds: Path, target: Path, count: int) -> Path:
    """`count` files: the given ones again and again, as links."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    given = sorted(path for path in sounds.rglob("*") if path.suffix in (".flac", ".wav"))
    for number in range(count):
        source = given[number % len(given)]
        (target / f"{number:07d}{source.suffix}").symlink_to(source)
    return target


def tree(process: psutil.Process) -> Iterator[psutil.Process]:
    """A process and all below it."""
    yield process
    yield from process.children(recursive=True)


def watched(command: list[str], environment: dict[str, str], look: Callable[[psutil.Process], None]) -> float:
    """Run the command, and look at each of its processes now and then; the seconds that it took."""
    began = time.monotonic()
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            with contextlib.suppress(psutil.Error):
                for each in tree(psutil.Process(run.pid)):
                    with contextlib.suppress(OSError, ValueError):  # it, or one of its threads, has just ended
                        look(each)
            stop.wait(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    problem = run.communicate()[1]
    stop.set()
    watcher.join()
    assert run.returncode == 0, problem.decode()
    return round(time.monotonic() - began, 2)


def measured(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run; wall and processor seconds, and the largest resident set of each process."""
    # Only the time of those that have ended is the parent's to know, so that of each is kept as it was last seen.
    times: dict[int, float] = {}
    largest: dict[int, int] = {}

    def look(process: psutil.Process) -> None:
        used = process.cpu_times()
        times[process.pid] = used.user + used.system
        largest[process.pid] = max(largest.get(process.pid, 0), process.memory_info().rss)

    wall = watched(command, environment, look)
    sizes = sorted((round(size / 2**20) for size in largest.values()), reverse=True)
    return {"wall_s": wall, "cpu_s": round(sum(times.values()), 2), "rss_mib": sizes}


def command_of(mode: str, corpus: Path, model: Path, out: Path) -> list[str]:
    """The command line of one of MODES."""
    options = MODES[mode]
    if options is None:
        return [sys.executable, "-c", ALONE, str(corpus), str(model), str(out)]
    return [sys.executable, "-c", SCORE, "score", str(corpus), str(model), "--out", str(out), "--no-progress", *options]


def main() -> None:
    """Measure everything, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=2000)
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    arguments = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    small = corpus_of(arguments.sounds.resolve(), arguments.work / "small", arguments.utterances)
    found: dict[str, Any] = {"cpus": os.cpu_count(), "utterances": arguments.utterances, "rounds": [], "load": []}
    for _ in range(arguments.rounds):
        turn = {}
        for mode in arguments.modes:
            out = arguments.work / "out"
            shutil.rmtree(out, ignore_errors=True)
            found["load"].append(round(os.getloadavg()[0], 1))
            turn[mode] = measured(command_of(mode, small, arguments.model, out), environment)
        found["rounds"].append(turn)
    if arguments.large:
        large = corpus_of(arguments.sounds.resolve(), arguments.work / "large", arguments.large)
        twentieth = corpus_of(arguments.sounds.resolve(), arguments.work / "twentieth", arguments.large // 20)
        found["memory"] = {}
        for name, corpus in (("twentieth", twentieth), ("large", large)):
            out = arguments.work / "out"
            shutil.rmtree(out, ignore_errors=True)
            found["memory"][name] = measured(
                command_of("local, 2 workers", corpus, arguments.model, out), environment
            ) | {"utterances": len(list(corpus.iterdir()))}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How much faster `voxport score` is with two workers than with one: processes of this machine, and Ray, in turns.

    python workers.py SOUNDS MODEL --work FOLDER [--small 200] [--large 1600] [--rounds 3] > workers.json

SOUNDS is a folder of sound files, which are repeated as links. Each engine scores a small and a large corpus with one
worker and with two. What the large one takes longer is work without the start, so the rate is the difference of the
utterances over the difference of the times; what is left of the small one's time is the start. Beside the time on the
wall stands how long the workers were ready to run while others had the processors: Linux keeps that in schedstat.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from measure_score import SCORE, corpus_of, watched

ENGINES = ("local", "ray")
WORKERS = (1, 2)


def schedule(pid: int) -> tuple[float, float]:
    """Seconds on a processor, and seconds ready to run without one, of all threads of a process."""
    ran = waited = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        first, second, _ = (thread / "schedstat").read_text().split()
        ran, waited = ran + int(first), waited + int(second)
    return ran / 1e9, waited / 1e9


def measured(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run; time on the wall, and what each process got and waited for, the busiest first."""
    seen: dict[int, tuple[float, float]] = {}
    wall = watched(command, environment, lambda process: seen.update({process.pid: schedule(process.pid)}))
    busiest = sorted(seen.values(), reverse=True)
    return {
        "wall_s": wall,
        "cpu_s": round(sum(ran for ran, _ in busiest), 2),
        "busiest": [{"ran_s": round(ran, 2), "waited_s": round(waited, 2)} for ran, waited in busiest[:3]],
    }


def main() -> None:
    """Measure everything, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--small", type=int, default=200)
    parser.add_argument("--large", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    arguments = parser.parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    sizes = {"small": arguments.small, "large": arguments.large}
    corpora = {
        name: corpus_of(arguments.sounds.resolve(), arguments.work / name, count) for name, count in sizes.items()
    }
    found: dict[str, Any] = {"cpus": os.cpu_count(), "sizes": sizes, "runs": []}
    for turn in range(arguments.rounds):
        for engine in arguments.engines:
            for name, corpus in corpora.items():
                for workers in WORKERS:
                    out = arguments.work / "out"
                    shutil.rmtree(out, ignore_errors=True)
                    load = round(os.getloadavg()[0], 1)
                    command = [sys.executable, "-c", SCORE, "score", str(corpus), str(arguments.model), "--out"]
                    command += [str(out), "--no-progress", "--engine", engine, "--workers", str(workers)]
                    run = measured(command, environment)
                    facts = {"round": turn, "engine": engine, "corpus": name, "workers": workers, "load": load}
                    # Ray's actors are no children of the command: of them the wall alone tells.
                    found["runs"].append(facts | (run if engine == "local" else {"wall_s": run["wall_s"]}))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

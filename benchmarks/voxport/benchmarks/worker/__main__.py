"""A worker's process from its start: `python -m voxport.benchmarks.worker`.

What an application imports as well comes first. The worker's own modules come after it and are timed, so that a cold
start can be told without them.
"""

import importlib
import time


def main() -> None:
    """Become a worker."""
    importlib.import_module("voxport.runtime")  # and NumPy with it
    before = time.monotonic_ns()
    from voxport.benchmarks.worker import server as worker

    worker.main(worker.Worker(own_imports_ns=time.monotonic_ns() - before))


if __name__ == "__main__":
    main()

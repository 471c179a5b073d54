"""The engine on Ray Data: a stream of parts through a pool of actors, one to a CPU or a GPU, here or on a cluster.

Ray Data gives an actor no more than two parts ahead, so that nothing piles up; an actor that dies is replaced, and
what it had is done again. What goes through Ray is the number of a part and its figures: sounds are read, and rows are
written, by the actors, which therefore see the corpus, the model and the output under the same paths on every machine.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from voxport.runtime.errors import VoxportError
from voxport.scale.cluster import ClusterOptions, ray_cluster
from voxport.scale.errors import ScaleError
from voxport.scale.scoring.events import Event, Work
from voxport.scale.scoring.parts import Figures
from voxport.scale.scoring.plan import PLAN, Part

_BLOCKS = 4096  # most pieces of the list of parts; above that several parts go out together


class PartScorer:
    """An actor of the pool: its model is loaded once."""

    def __init__(self, work: Work) -> None:
        from voxport.runtime.storage.atomic import file_sha256
        from voxport.scale.scoring.listening import Listener
        from voxport.scale.scoring.parts import PartWriter

        if not (work.out / PLAN).exists():
            raise ScaleError(f"{work.out}: is not seen on a machine of the cluster; name a folder that all share")
        if file_sha256(work.job.model) != work.job.model_sha256:
            raise ScaleError(f"{work.job.model}: is another file on a machine of the cluster")
        self._writer = PartWriter(work.out, work.corpus, Listener(work.job), work.run)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the parts of a batch; a row of figures for each."""
        found: list[Figures] = []
        for values in zip(*(batch[name].tolist() for name in ("number", "rows", "start", "stop")), strict=True):
            found.append(self._writer.write(Part(*values)))
        return {
            "rows": [each.rows for each in found],
            "errors": [each.errors for each in found],
            "seconds": [each.seconds for each in found],
        }


def spread_over_ray(
    work: Work, parts: Sequence[Part], workers: int | None, cluster: ClusterOptions, gpus: int
) -> Iterator[Event]:
    """Have a pool of actors score `parts`: `workers` of them (None: as many as the cluster has room for).

    `gpus` are what each actor needs.

    Raises:
        ScaleError: Ray does not start, or the actors fail.
        VoxportError: the model cannot be loaded.
    """
    with ray_cluster(cluster) as ray:
        size = workers or _room(ray, gpus)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the command has its own
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        facts = [{"number": each.number, "rows": each.rows, "start": each.start, "stop": each.stop} for each in parts]
        listed = ray.data.from_items(facts, override_num_blocks=min(len(facts), _BLOCKS))
        scored = listed.map_batches(
            _bound(work),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(size, len(facts)), max_tasks_in_flight_per_actor=2),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus or None,
        )
        try:
            for row in scored.iter_rows():
                figures = Figures(int(row["rows"]), int(row["errors"]), float(row["seconds"]))
                yield Event(figures.rows, figures.seconds, figures)
        except ray.exceptions.RayError as problem:
            raise _told(problem) from problem


def _bound(work: Work) -> type[PartScorer]:
    """A class of actors for `work`, which as an argument would lie in Ray's store: a restart would depend on that."""

    class BoundScorer(PartScorer):
        def __init__(self) -> None:
            super().__init__(work)

    return BoundScorer


def _room(ray: Any, gpus: int) -> int:
    resources = ray.cluster_resources()
    room = int(resources.get("GPU", 0) // gpus if gpus else resources.get("CPU", 0))
    if room < 1:
        raise ScaleError(f"the cluster has no {'GPU' if gpus else 'CPU'} that is known to Ray")
    return room


def _told(problem: Exception) -> VoxportError:
    """An actor's own error where there is one, else the first line of what Ray says."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, VoxportError):
            return ScaleError(str(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    lines = [line.strip() for line in str(problem).splitlines() if "Error: " in line]
    return ScaleError(f"Ray gives up: {(lines or [str(problem)])[-1]:.500}")

"""What a benchmark records beside times: builds, memory, energy, queues, cold starts, accuracy, limits, profiles.

Every record is part of the JSON document. None means that nothing was measured, and the text beside it why.
"""

from dataclasses import dataclass

from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.stats.intervals import Estimate
from voxport.runtime.errors import VoxportError
from voxport.train.evaluation.paired import Verdict


@dataclass(frozen=True)
class Build:
    """What was made of the checkpoint at the time of the benchmark, once, before anything was timed."""

    seconds: float
    size_bytes: int
    detail: str  # how it was made


@dataclass(frozen=True)
class Probe:
    """One arrival rate that was tried: queries per second, how many came, how many were answered too late.

    `held` is None where the queries were too few to tell.
    """

    rate: float
    queries: int
    late: int
    p99_ms: float | None
    held: bool | None


@dataclass(frozen=True)
class Served:
    """The Server scenario in one process: the highest rate that was held (0: none), and all that were tried."""

    rate: float
    bound_ms: float
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class ColdSample:
    """One fresh process, in nanoseconds. `process` is from its start until its first message."""

    process: int
    imports: int
    load: int
    first: int
    new_shape: int | None


@dataclass(frozen=True)
class ColdStart:
    """Medians in milliseconds over fresh processes. `total_ms` is process + imports + load + first answer."""

    backend: str
    cell: Cell
    new_cell: Cell | None
    process_ms: Estimate
    imports_ms: Estimate
    load_ms: Estimate
    first_ms: Estimate
    new_shape_ms: Estimate | None
    total_ms: Estimate
    samples: tuple[ColdSample, ...]


@dataclass(frozen=True)
class Accuracy:
    """Right answers on labelled utterances. `drop` is in points below the baseline's accuracy.

    `lost` has the baseline right and not this back end, `gained` the other way round, and `verdict` is what both
    say of the drop (voxport.train.evaluation.paired). `passed` is false only where that is "failed"; it and
    `verdict` are None where nothing could be judged. `note` says why, or what was judged. `wrong` are positions
    among the utterances.
    """

    backend: str
    utterances: int
    correct: int
    accuracy: float | None
    drop: float | None
    allowed_drop: float
    passed: bool | None
    note: str
    wrong: tuple[int, ...] = ()
    lost: int | None = None
    gained: int | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Product:
    """`count` matrix products (batch, m, k) × (batch, k, n) of one call, and the best rate measured for one."""

    batch: int
    m: int
    k: int
    n: int
    count: int
    dtype: str = "float32"
    gflops: float | None = None
    tool: str = ""  # whose product was the fastest

    @property
    def flops(self) -> int:
        """Operations of all `count` products; a multiplication and an addition are two."""
        return 2 * self.batch * self.m * self.k * self.n * self.count


@dataclass(frozen=True)
class Work:
    """What one call of a model has to do, counted from its graph as written, without fused nodes.

    `products` are its matrix products and convolutions, `other_flops` about one operation for each element
    that any other node writes. Bytes: parameters read once; inputs and outputs; what nodes hand each other.
    """

    model: str
    cell: Cell
    products: tuple[Product, ...]
    other_flops: int
    parameter_bytes: int
    io_bytes: int
    activation_bytes: int

    @property
    def product_flops(self) -> int:
        """Operations of all matrix products."""
        return sum(product.flops for product in self.products)


@dataclass(frozen=True)
class Floor:
    """The least time of a call here: products at their ceilings, or parameters at the copy rate if that is longer."""

    model: str
    cell: Cell
    gflop: float
    product_ms: float
    memory_ms: float
    floor_ms: float
    gflops: float  # the ceiling, weighted as this model uses it
    covered: float  # share of the products' operations whose shape was measured


@dataclass(frozen=True)
class Limits:
    """What this machine can do, measured in the same run, and what the models ask of it.

    `copy_gb_s` counts bytes read plus bytes written. `launch_us` is an empty kernel's launch and wait on a GPU.
    """

    device: str
    threads: int
    copy_gb_s: float | None
    launch_us: float | None
    works: tuple[Work, ...]
    floors: tuple[Floor, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpTime:
    """One kind of operation: calls and microseconds per run of the model, and its share of all operations' time."""

    name: str
    calls: float
    us: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Where one back end spends its time at one cell, by its own profiler, which itself costs time."""

    backend: str
    cell: Cell
    tool: str
    runs: int
    total_us: float
    ops: tuple[OpTime, ...]


class ReportError(VoxportError):
    """A benchmark document cannot be read or written."""

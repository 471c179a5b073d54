"""What ONNX Runtime makes of a graph: nodes as written, nodes as run, what it fused, what it only moves.

The profile of a run names the nodes that were really executed. A node whose name the file does not have was
made by ONNX Runtime's optimiser: several of the file's in one, or a change of layout.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxport.runtime.errors import ContractError

LAYOUT = ("ReorderInput", "ReorderOutput")  # to and from the blocks of channels that its convolutions take
MOVES = ("Transpose", "Reshape", "Split", "Slice", "Concat", "Gather", "Squeeze", "Unsqueeze", "Pad", "Expand", "Cast")


@dataclass(frozen=True)
class RunNode:
    """One executed node: its name, its operator, and the median microseconds of a call."""

    name: str
    op: str
    us: float


@dataclass(frozen=True)
class GraphFacts:
    """Counts of nodes. `written` are the file's, `dead` those of them that no output depends on.

    `run` were executed in a call; `fused` of these, by operator, stand for several of the file's; `layout` change
    the layout for a convolution; `moves`, by operator, only copy or relabel data.
    """

    written: int
    dead: int
    run: int
    fused: dict[str, int]
    layout: int
    moves: dict[str, int]

    @property
    def transposes(self) -> int:
        """Executed ones."""
        return self.moves.get("Transpose", 0)


def graph_facts(path: str | Path, nodes: Iterable[RunNode]) -> GraphFacts:
    """Hold the executed `nodes` against the file at `path`.

    Raises:
        ContractError: the file is not ONNX.
    """
    graph = _graph(path)
    written, nodes = {node.name for node in graph.node}, list(nodes)
    made = [node for node in nodes if node.name not in written]
    fused = Counter(node.op for node in made if node.op not in (*LAYOUT, *MOVES) and not _renamed(node, graph.node))
    moves = Counter(node.op for node in nodes if node.op in MOVES)
    return GraphFacts(
        written=len(graph.node),
        dead=len(graph.node) - _live(graph),
        run=len(nodes),
        fused=dict(fused.most_common()),
        layout=sum(node.op in LAYOUT for node in nodes),
        moves=dict(moves.most_common()),
    )


def executed(events: Iterable[Mapping[str, Any]], runs: int) -> tuple[RunNode, ...]:
    """The nodes of one call, in the order in which they ran, from a profile's events.

    They are of `runs` equal calls after a first one, which does not count: it allocates and packs.
    """
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    count, rest = divmod(len(kernels), runs + 1)
    if not count or rest:
        raise ContractError(f"ONNX Runtime's profile holds {len(kernels)} nodes of {runs + 1} equal calls")
    calls = [kernels[start : start + count] for start in range(count, len(kernels), count)]
    found = []
    for same in zip(*calls, strict=True):
        times = sorted(float(event["dur"]) for event in same)
        name = same[0]["name"].removesuffix("_kernel_time")
        found.append(RunNode(name, same[0]["args"]["op_name"], times[len(times) // 2]))
    return tuple(found)


def _graph(path: str | Path) -> Any:
    import onnx  # a start without this command does without it

    try:
        return onnx.load(str(path), load_external_data=False).graph
    except Exception as problem:  # a parser of protobuf's own, with errors of no common base
        raise ContractError(f"{path}: not an ONNX file ({str(problem).splitlines()[0][:200]})") from problem


def _live(graph: Any) -> int:
    """How many of the file's nodes an output depends on."""
    wanted, live = {value.name for value in graph.output}, 0
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            live += 1
            wanted.update(node.input)
            wanted.update(name for attribute in node.attribute for name in _captured(attribute))
    return live


def _captured(attribute: Any) -> Iterable[str]:
    """Values that the bodies of If, Loop and Scan take from outside."""
    bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    for node in (node for body in bodies for node in body.node):
        yield from node.input
        yield from (name for inner in node.attribute for name in _captured(inner))


def _renamed(node: RunNode, written: Iterable[Any]) -> bool:
    """Whether it is one of the file's under another name, in another layout: Conv as Conv_nchwc."""
    return node.name.endswith("_nchwc") and any(f"{each.name}_nchwc" == node.name for each in written)

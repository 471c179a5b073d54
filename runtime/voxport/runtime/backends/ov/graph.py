"""A graph with its frontend inside, cut in two: the frontend, and the network behind it."""

from typing import Any

from voxport.runtime.privacy import import_openvino

_FRONTEND = "frontend/"  # how voxport's export names the frontend's nodes
_SHARED = ("Constant", "Parameter")  # both sides may have them


def cut_frontend(whole: Any) -> tuple[Any, Any]:
    """The frontend of an openvino.Model as a model, and the rest as another, which takes the first one's outputs.

    `whole` is used up. A value that goes from one to the other has the same name on both sides.

    Raises:
        ValueError: the graph has no nodes of a frontend, as where another program renamed them.
    """
    library = import_openvino()
    ends = [node for node in whole.get_ordered_ops() if node.get_friendly_name().startswith(_FRONTEND)]
    inside = _before(ends)  # sizes that the frontend needs are computed outside of its module
    results: list[Any] = []
    parameters: list[Any] = []
    for node in inside.values():
        for output in node.outputs() if node.get_type_name() not in _SHARED else ():
            takers = [each for each in output.get_target_inputs() if each.get_node().get_name() not in inside]
            if not takers:
                continue
            name = f"frontend_{len(results)}"
            parameter = library.opset8.parameter(output.get_partial_shape(), output.get_element_type())
            parameter.output(0).set_names({name})
            for taker in takers:
                taker.replace_source_output(parameter.output(0))
            output.set_names({name})
            results.append(library.opset8.result(output))
            parameters.append(parameter)
    if not results:
        raise ValueError("the graph has no nodes of a frontend")
    network, sources = whole.get_results(), [each.get_node() for each in whole.inputs]
    used = {name for name in _before(network) if name in {each.get_name() for each in sources}}
    front = library.Model(results, sources, "frontend")
    body = library.Model(network, [*parameters, *(each for each in sources if each.get_name() in used)], "network")
    return front, body


def _before(ends: list[Any]) -> dict[str, Any]:
    """By name: `ends`, and all nodes that they depend on."""
    seen: dict[str, Any] = {}
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in seen:
            seen[node.get_name()] = node
            waiting += [each.get_source_output().get_node() for each in node.inputs()]
    return seen

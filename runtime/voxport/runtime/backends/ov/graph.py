"""A graph with its frontend inside, cut in two: the frontend, and the network behind it."""

from typing import Any

from voxport.runtime.privacy import import_openvino

_FRONTEND = "frontend/"  # how voxport's export names the frontend's nodes


def cut_frontend(whole: Any) -> tuple[Any, Any]:
    """The frontend of an openvino.Model as a model, and the rest as another, which takes the first one's outputs.

    `whole` is used up. A value that goes from one to the other has the same name on both sides.

    Raises:
        ValueError: the graph has no nodes of a frontend, as where another program renamed them.
    """
    library = import_openvino()
    inside = {
        node.get_friendly_name(): node
        for node in whole.get_ordered_ops()
        if node.get_friendly_name().startswith(_FRONTEND) and node.get_type_name() != "Constant"
    }
    results: list[Any] = []
    parameters: list[Any] = []
    for node in inside.values():
        for output in node.outputs():
            takers = [each for each in output.get_target_inputs() if each.get_node().get_friendly_name() not in inside]
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
    sources = [each.get_node() for each in whole.inputs]
    front = library.Model(results, [each for each in sources if each in _sources(results)], "frontend")
    network = whole.get_results()
    body = library.Model(network, [*parameters, *(each for each in sources if each in _sources(network))], "network")
    return front, body


def _sources(results: list[Any]) -> list[Any]:
    """The parameters that `results` depend on."""
    seen, found, waiting = set[str](), [], list(results)
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Parameter":
            found.append(node)
        waiting += [each.get_source_output().get_node() for each in node.inputs()]
    return found

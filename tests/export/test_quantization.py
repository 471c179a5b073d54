"""From float to int8: ranges, what each layer costs, what stays in float, how far int8 may be from the network."""

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.export.conftest import LIMITS, SMALL, Exported
from tests.export.test_quantize import LAYERS
from tests.export.tiny import make_checkpoint
from tests.train.corpora import write_homework
from voxport.export.errors import ExportError
from voxport.export.graph.session import OnnxRun
from voxport.export.inputs.cases import Utterance, synthetic_utterances
from voxport.export.network.inference_net import deployable_net
from voxport.export.quantization.calibration import Histogram, activation_ranges
from voxport.export.quantization.qdq import matrix_products
from voxport.export.quantization.quantizer import QuantizationReport, QuantizeOptions, quantize_graph
from voxport.export.quantization.sensitivity import Cost, LayerCost, Sensitivity, keep_float
from voxport.export.verification.gate import Evidence
from voxport.export.verification.tolerance import int8_noise, int8_tolerance, products_in_int8
from voxport.train.data import CorpusError, CorpusOptions, open_corpus


def voices(count: int = 3) -> list[Utterance]:
    return synthetic_utterances(make_checkpoint(SMALL).frontend, "features", LIMITS)[-count:]


def test_a_histogram_grows_and_forgets_nothing() -> None:
    rng, histogram = np.random.default_rng(4), Histogram()
    parts = [rng.normal(scale=scale, size=(50, 40)).astype(np.float32) for scale in (0.01, 1, 30, 2)]
    for part in parts:
        histogram.add(part)
    magnitudes = np.abs(np.concatenate(parts)).ravel()
    assert histogram.counts.sum() == magnitudes.size
    assert histogram.largest == magnitudes.max()
    assert magnitudes.max() <= histogram.range("max") <= magnitudes.max() * 1.01
    quantile = float(np.quantile(magnitudes, 0.9999, method="higher"))
    assert histogram.range("percentile") == pytest.approx(quantile, abs=3 * histogram.width)


def test_rules_differ_where_one_value_is_far_away() -> None:
    rng, histogram = np.random.default_rng(5), Histogram()
    histogram.add(rng.normal(size=(1000, 100)).astype(np.float32))
    histogram.add(np.array([50.0], np.float32))
    assert histogram.range("max") == 50.0
    assert 3.5 < histogram.range("percentile") < 5.0
    assert 2.0 < histogram.range("entropy") < 10.0


def test_entropy_does_not_clip_a_second_crowd() -> None:
    rng, histogram = np.random.default_rng(6), Histogram()
    histogram.add(rng.normal(size=70_000).astype(np.float32))
    histogram.add(rng.normal(loc=30, scale=0.5, size=30_000).astype(np.float32))
    assert histogram.range("entropy") > 30


def test_ranges_are_those_of_the_graphs_values(exported: Exported) -> None:
    graph = onnx.load(exported.model)
    inputs = list(dict.fromkeys(each.input for each in matrix_products(graph.graph)))
    ranges = activation_ranges(graph, inputs, voices(), "max")
    network, seen = deployable_net(exported.checkpoint).float(), list[float]()
    network.project.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0].abs().max())))
    for voice in voices():
        network(torch.from_numpy(voice.input)[None], torch.tensor([voice.frames]))
    assert ranges["Reshape"] == pytest.approx(max(seen), rel=0.01)
    assert set(ranges) == set(inputs)


@pytest.mark.parametrize(("value", "complaint"), [(np.nan, "is not finite"), (0.0, "was always zero")])
def test_bad_calibration_data_is_refused(exported: Exported, value: float, complaint: str) -> None:
    bad = dataclasses.replace(voices(1)[0], input=np.full((30, 40), value, np.float32))
    with pytest.raises(ExportError, match=complaint):
        activation_ranges(onnx.load(exported.model), ["Reshape"], [bad], "max")


def layer(name: str, error: float) -> LayerCost:
    return LayerCost(name, 16, 16, 0.25, Cost(error, error, error))


def test_auto_keeps_the_fewest_that_the_budget_demands() -> None:
    costs = [layer("a", 1e-4), layer("b", 5e-3), layer("c", 2e-3), layer("d", 1e-4)]

    def additive(layers: Collection[str]) -> Cost:
        return Cost(sum(each.cost.mean_error for each in costs if each.layer in layers), 0, 0)

    assert keep_float(costs, "auto", 1e-2, additive)[0] == ()
    assert keep_float(costs, "auto", 3e-3, additive)[0] == ("b",)
    assert keep_float(costs, "auto", 1e-3, additive)[0] == ("b", "c")
    assert keep_float(costs, 1, 1e-9, additive) == (("b",), additive(["a", "c", "d"]))
    # What is hardly any work and costs more than all others together is kept whatever the budget.
    small = dataclasses.replace(layer("e", 6e-2), share=0.01)
    assert keep_float([*costs, small], "auto", 1.0, additive)[0] == ("e",)
    assert keep_float([*costs, layer("e", 6e-2)], "auto", 1.0, additive)[0] == ()
    # Where the whole costs more than its parts, the measurement decides and not the sum.
    worse = keep_float(costs, "auto", 3e-3, lambda layers: Cost(2 * additive(layers).mean_error, 0, 0))
    assert worse[0] == ("b", "c")


def test_a_layer_with_an_outlier_is_found_and_kept(exported: Exported) -> None:
    """One large weight in each column leaves the others no levels; a float copy of the layer mends it."""
    graph = onnx.load(exported.model)
    name = "layers.0.attention.out"
    tensor = next(each for each in graph.graph.initializer if each.name == f"{name}.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0] += 400 * np.abs(values).max()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    options = QuantizeOptions(keep_float=1)
    _, report = quantize_graph(graph, exported.checkpoint, "features", LIMITS, options)
    assert report.kept_float == (name,)
    assert report.worst[0].layer == name
    assert report.worst[0].cost.mean_error > 3 * report.worst[1].cost.mean_error
    assert "layers.0" in report.blame
    assert name not in report.blame


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_homework(tmp_path_factory.mktemp("calibration"))


def test_static_ranges_hold_for_voices_unlike_the_calibration(exported: Exported, corpus: Path) -> None:
    """Every input of a static product stays within its scale, on the corpus and on made-up voices alike."""
    graph = onnx.load(exported.model)
    options = QuantizeOptions("static", data=corpus, keep_float=0)
    small, report = quantize_graph(graph, exported.checkpoint, "features", LIMITS, options)
    assert "made-up voices" in report.utterances
    constants = {each.name: numpy_helper.to_array(each) for each in small.graph.initializer}
    scales = {
        node.input[0]: float(constants[node.input[1]]) for node in small.graph.node if node.op_type == "QuantizeLinear"
    }
    assert set(scales) == {each.input for each in matrix_products(graph.graph)}
    opened = open_corpus(corpus, CorpusOptions(exported.checkpoint.frontend, progress=False))
    real = [opened.features(i) for i in range(len(opened.utterances))]
    made = [each.input for each in synthetic_utterances(exported.checkpoint.frontend, "features", LIMITS, seed=1)]
    run = OnnxRun(_watching(graph, scales))
    for values in (*real, *made):
        for name, found in zip(scales, run(np.array(values), tuple(scales)), strict=True):
            assert np.abs(found).max() <= 127 * scales[name] * (1 + 1e-6), name


def _watching(graph: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    watched.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    return watched


def test_the_cost_is_that_of_the_kind_of_sound_that_pays_most(exported: Exported) -> None:
    graph, made = onnx.load(exported.model), voices(4)
    real = [dataclasses.replace(each, real=True) for each in made[:3]]
    layers = ["layers.0.feed_forward_1.expand"]
    each_alone = [Sensitivity(graph, "dynamic", {}, [voice]).cost(layers).mean_error for voice in made]
    expected = max(np.mean(each_alone[:3]), each_alone[3])
    cost = Sensitivity(graph, "dynamic", {}, [*real, made[3]]).cost(layers)
    assert cost.mean_error == pytest.approx(expected, rel=1e-6)
    assert cost.max_error == pytest.approx(max(each_alone), rel=1e-6)


def test_static_calibrates_on_real_utterances(exported: Exported, corpus: Path) -> None:
    graph = onnx.load(exported.model)
    options = QuantizeOptions("static", corpus, count=6, budget=0.05)
    small, report = quantize_graph(graph, exported.checkpoint, "features", LIMITS, options)
    assert report.utterances == f"6 real ones of {corpus}, and 74 made-up voices"
    assert [each.layer for each in report.layers] == list(LAYERS)
    assert sum(each.share for each in report.layers) == pytest.approx(1)
    assert report.cost.mean_error <= 0.05
    assert report.int8_bytes < report.float_bytes
    again, same = quantize_graph(graph, exported.checkpoint, "features", LIMITS, options)
    assert (again.SerializeToString(), same) == (small.SerializeToString(), report)


def test_dynamic_makes_do_without_data_and_says_so(exported: Exported) -> None:
    _, report = quantize_graph(
        onnx.load(exported.model), exported.checkpoint, "features", LIMITS, QuantizeOptions(budget=0.05)
    )
    assert report.utterances == "made-up voices, because the checkpoint does not say what it was trained on"
    assert report.method is None


def test_what_cannot_calibrate_is_refused(exported: Exported, corpus: Path, tmp_path: Path) -> None:
    graph, checkpoint = onnx.load(exported.model), exported.checkpoint

    def attempt(options: QuantizeOptions) -> QuantizationReport:
        return quantize_graph(graph, checkpoint, "features", LIMITS, options)[1]

    with pytest.raises(ExportError, match=r"no utterance to calibrate with .*give recordings with --calibration"):
        attempt(QuantizeOptions("static"))
    with pytest.raises(CorpusError, match="no such directory"):
        attempt(QuantizeOptions("dynamic", tmp_path / "nothing"))
    bad = write_homework(tmp_path / "bad")
    next(bad.glob("uttr-0*.pt")).write_bytes(b"not a tensor")
    with pytest.raises(CorpusError, match="1 unusable entry"):
        attempt(QuantizeOptions("static", bad))
    longer = dataclasses.replace(LIMITS, min_frames=140)
    with pytest.raises(ExportError, match="no utterance to calibrate with"):
        quantize_graph(graph, checkpoint, "features", longer, QuantizeOptions("static", corpus))
    with pytest.raises(ExportError, match="all 10 matrix products would stay in float"):
        attempt(QuantizeOptions(keep_float=10))
    for wrong in ({"count": 0}, {"keep_float": -1}, {"budget": 0.0}, {"budget": float("nan")}):
        with pytest.raises(ExportError, match=r"give "):
            QuantizeOptions(**wrong)


def test_simulation_rounds_products_and_nothing_else(exported: Exported) -> None:
    plain, rounded = deployable_net(exported.checkpoint).float(), deployable_net(exported.checkpoint).float()
    products_in_int8(rounded)
    weight = rounded.project.weight
    assert max(len(torch.unique(column)) for column in weight.T) <= 40
    steps = plain.project.weight.abs().amax(dim=0) / 64
    assert ((weight - plain.project.weight).abs() <= steps / 2 * 1.001).all()
    assert torch.equal(rounded.class_weight_ES, plain.class_weight_ES)


def test_tolerance_is_the_noise_of_int8(evidence: Evidence) -> None:
    few = evidence.utterances[:4]
    _, embedding_noise = int8_noise(evidence.checkpoint, few, lambda items, _: items)
    found = int8_tolerance(evidence.checkpoint, few, evidence.reference, lambda items, _: items)
    assert 100 * evidence.tolerance.embedding < embedding_noise < 0.2
    assert 3 * embedding_noise <= found.embedding <= 2 * 3 * embedding_noise or found.embedding == 0.2
    assert found.score <= 30 * 0.2 + 1
    assert "accuracy gate" in found.reason


def test_sensitivity_is_zero_where_nothing_is_quantised(exported: Exported) -> None:
    cost = Sensitivity(onnx.load(exported.model), "dynamic", {}, voices()).cost([])
    assert cost.max_abs_score == 0
    assert abs(cost.mean_error) < 1e-6

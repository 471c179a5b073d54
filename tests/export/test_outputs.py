"""`--output scores|embedding|both`: what a model does not give it says, and the rest is proven all the same."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.export.conftest import LIMITS, Exported
from tests.export.test_artefact import one_weight
from voxport.export.graph.cleanup import keep_outputs, to_bytes
from voxport.export.targets import onnx_graph
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx
from voxport.export.verification.check import check
from voxport.export.verification.report import ParityError
from voxport.runtime import Gallery, SpeakerIdentifier
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.contract import Contract, Output
from voxport.runtime.errors import ContractError, VoxportError
from voxport.runtime.serving.batcher import Batcher
from voxport.runtime.storage.seal import SEAL_KEY, SUMS_KEY, seal_onnx

Samples = npt.NDArray[np.float32]


def plain(exported: Exported) -> onnx.ModelProto:
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    return graph


def export(exported: Exported, path: Path, outputs: tuple[Output, ...], graph: onnx.ModelProto | None = None) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "capture", lambda *_: graph or plain(exported))
        options = ExportOptions(min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames, outputs=outputs)
        export_onnx(exported.checkpoint_path, path, options)
    return path


@pytest.fixture(scope="module")
def voices(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(exported, tmp_path_factory.mktemp("voices") / "model.onnx", ("embedding",))


@pytest.fixture(scope="module")
def names(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(exported, tmp_path_factory.mktemp("names") / "model.onnx", ("scores",))


def sounds() -> list[Samples]:
    rng = np.random.default_rng(3)
    return [(0.1 * rng.normal(size=samples)).astype(np.float32) for samples in (16000, 9000, 20000)]


def test_graph_holds_only_what_its_outputs_need(exported: Exported, voices: Path, names: Path) -> None:
    whole, embedding, scores = (onnx.load(path).graph for path in (exported.model, voices, names))
    assert [value.name for value in embedding.output] == ["embedding"]
    assert [value.name for value in scores.output] == ["scores"]
    weights = {tensor.name for tensor in whole.initializer}
    assert weights - {tensor.name for tensor in embedding.initializer} == {"class_weight_ES"}
    assert weights == {tensor.name for tensor in scores.initializer}
    assert len(embedding.node) == len(whole.node) - 1


def test_both_outputs_are_the_whole_graph(exported: Exported) -> None:
    graph = plain(exported)
    assert to_bytes(keep_outputs(graph, ("scores", "embedding"))) == to_bytes(graph)


def test_contract_says_what_the_model_gives(exported: Exported, voices: Path, names: Path) -> None:
    assert read_contract(exported.model).outputs == ("scores", "embedding")
    assert read_contract(names).outputs == ("scores",)
    contract = read_contract(voices)
    assert contract.outputs == ("embedding",)
    assert contract.golden.embedding is not None
    np.testing.assert_allclose(np.linalg.norm(contract.golden.embedding.values), 1, atol=1e-6)
    assert contract.parity is not None
    assert contract.parity.top1_agreement == 1.0
    parity = read_contract(names).parity
    assert parity is not None
    assert parity.min_cosine is None
    for path in (voices, names):
        assert Contract.from_json(read_contract(path).to_json(), "again") == read_contract(path)


def test_contract_of_both_is_as_it_always_was(exported: Exported) -> None:
    text = read_contract(exported.model).to_json()
    assert '"outputs"' not in text
    assert '"embedding":' not in text


def test_embeddings_are_the_same(exported: Exported, voices: Path) -> None:
    both, alone = SpeakerIdentifier.load(exported.model), SpeakerIdentifier.load(voices)
    np.testing.assert_allclose(alone.embed_batch(sounds(), 16000), both.embed_batch(sounds(), 16000), rtol=0, atol=1e-6)
    np.testing.assert_allclose(alone.embed(sounds()[1], 16000), both.embed(sounds()[1], 16000), rtol=0, atol=1e-6)


def test_scores_are_the_same(exported: Exported, names: Path) -> None:
    both, alone = SpeakerIdentifier.load(exported.model), SpeakerIdentifier.load(names)
    found, wanted = (identifier.scores_batch(sounds(), 16000) for identifier in (alone, both))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert found.argmax(axis=1).tolist() == wanted.argmax(axis=1).tolist()


def test_gallery_works_with_embeddings_alone(voices: Path) -> None:
    identifier = SpeakerIdentifier.load(voices)
    gallery = Gallery(identifier.contract)
    first, second, _ = sounds()
    gallery.enroll("Ada", identifier.embed(first, 16000))
    gallery.enroll("Bob", identifier.embed(second, 16000))
    assert gallery.identify(identifier.embed(first, 16000)).ranked[0].speaker == "Ada"
    with Batcher(identifier) as batcher:
        vector = batcher.submit_embed(second, 16000).result(60)
        with pytest.raises(VoxportError, match="--output embedding"):
            batcher.submit(second, 16000)
    np.testing.assert_allclose(vector, identifier.embed(second, 16000), rtol=0, atol=1e-5)


def test_what_a_model_does_not_give_is_refused(voices: Path, names: Path) -> None:
    sound, identifier = sounds()[0], SpeakerIdentifier.load(voices)
    message = r"exported with --output embedding, so it cannot identify .* gallery, or export it again .* both"
    for ask in (identifier.identify, identifier.scores, identifier.identify_features, identifier.scores_features):
        with pytest.raises(VoxportError, match=message):
            ask(sound)
    for ask_all in (identifier.identify_batch, identifier.scores_batch):
        with pytest.raises(VoxportError, match=message):
            ask_all([sound], 16000)
    with pytest.raises(VoxportError, match="--output embedding"):
        identifier.backend.run(np.zeros((1, 50, 40), np.float32), [50]).scores  # noqa: B018
    identifier = SpeakerIdentifier.load(names)
    for embed in (identifier.embed, identifier.embed_features):
        with pytest.raises(VoxportError, match=r"exported with --output scores, so it cannot embed.*--output both"):
            embed(sound)
    with pytest.raises(VoxportError, match="--output scores"):
        identifier.embed_batch([sound], 16000)


def test_wrong_embeddings_do_not_pass(exported: Exported, tmp_path: Path) -> None:
    graph = plain(exported)
    one_weight(graph)
    with pytest.raises(ParityError, match=r"golden vector: ‖Δembedding‖ of the artefact .* \(and 2 more\)"):
        export(exported, tmp_path / "model.onnx", ("embedding",), graph)
    with pytest.raises(ParityError, match=r"max \|Δscore\|"):
        export(exported, tmp_path / "model.onnx", ("scores",), graph)
    assert not (tmp_path / "model.onnx").exists()


def test_check_judges_by_whom_the_embeddings_recognise(exported: Exported, voices: Path, names: Path) -> None:
    for path in (voices, names):
        report = check(path, exported.checkpoint_path)
        assert report.passed, report.failures
        assert report.agreement is not None
        assert 0 < report.agreement.max_abs_score <= report.tolerance.score
        assert (report.agreement.min_cosine is None) == (path == names)


def test_contract_that_promises_what_is_not_there(voices: Path, tmp_path: Path) -> None:
    model = onnx.load(voices)
    assert [model.metadata_props.pop().key for _ in range(2)] == [SEAL_KEY, SUMS_KEY]
    text = model.metadata_props[0].value.replace('"outputs": ["embedding"]', '"outputs": ["scores", "embedding"]')
    model.metadata_props[0].value = text
    (tmp_path / "model.onnx").write_bytes(seal_onnx(model.SerializeToString()))
    with pytest.raises(ContractError, match="promises the output scores"):
        OnnxModel.load(tmp_path / "model.onnx")


def test_impossible_outputs() -> None:
    with pytest.raises(VoxportError, match="outputs must be some of scores, embedding"):
        ExportOptions(outputs=())

"""ONNX models in OpenVINO: the answers, the precision, the lengths, the cache, forks and pickles."""

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.tiny_models import TinyModel, features, make_tiny
from voxport.runtime import BackendError, BackendOptions, ContractError, LengthError, SpeakerIdentifier, load_backend
from voxport.runtime.privacy import import_openvino

try:
    import_openvino()
except (ImportError, OSError) as problem:
    pytest.skip(f"openvino cannot be imported: {problem}", allow_module_level=True)

from voxport.runtime.backends.ov import model as ov_model
from voxport.runtime.backends.ov.model import OpenVinoModel, grid
from voxport.runtime.backends.ov.session import Engine, OpenVinoOptions

HAS_BF16 = "BF16" in Engine(OpenVinoOptions()).capabilities
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor does not compute in bfloat16")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own."""
    monkeypatch.setenv("VOXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def test_every_length_gives_its_own_answer(tiny: TinyModel) -> None:
    model = OpenVinoModel.load(tiny.path)
    for size in range(tiny.contract.min_frames, tiny.contract.max_frames + 1):
        value = features(size, size)
        np.testing.assert_allclose(model.run(value[None], [size]).scores[0], tiny.scores(value), atol=1e-4)
    with pytest.raises(LengthError):
        model.run(features(61)[None], [61])


def test_lengths_are_those_of_a_grid() -> None:
    lengths = range(1, 4000)
    padded_to = [grid(length) for length in lengths]
    assert all(0 <= (to - length) <= max(7, length // 15) for length, to in zip(lengths, padded_to, strict=True))
    assert len({to for to in padded_to if to <= 3000}) < 90
    assert [grid(length) for length in (1, 128, 400, 1000)] == [8, 128, 400, 1024]


def test_explain_says_what_runs(tiny: TinyModel) -> None:
    told = SpeakerIdentifier.load(tiny.path, runtime="openvino", threads=1).explain()
    assert (told.backend, told.device, told.precision, told.threads) == ("OpenVINO", "cpu", "fp32", 1)
    assert told.why == "runtime 'openvino' was asked for"
    assert dict(told.versions)["openvino"].startswith("20")


@needs_bf16
def test_bfloat16_is_computed_only_where_it_is_asked_for(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "model.onnx")
    golden = dataclasses.replace(tiny.contract.golden, tolerance_bf16=0.7, tolerance_fp16=0.1)
    rounded = make_tiny(tmp_path / "rounded.onnx", golden=golden)
    value = features(31)
    exact = OpenVinoModel.load(rounded.path).run(value[None], [31]).scores[0]
    less = SpeakerIdentifier.load(rounded.path, runtime="openvino", precision="bf16")
    moved = np.abs(less.scores_features(value) - exact).max()
    assert 1e-3 < moved < 0.7, "bfloat16 has 8 bits: scores of up to 30 move, but not far"
    assert less.explain().precision == "bf16"
    np.testing.assert_allclose(exact, rounded.scores(value), atol=1e-4)
    with pytest.raises(BackendError, match="does not say how far its answers may move in it; export it again"):
        SpeakerIdentifier.load(tiny.path, runtime="openvino", precision="bf16")
    strict = make_tiny(tmp_path / "strict.onnx", golden=dataclasses.replace(golden, tolerance_bf16=1e-6))
    with pytest.raises(ContractError, match=r"no longer gives its recorded answer: .*tolerance 1e-06"):
        SpeakerIdentifier.load(strict.path, runtime="openvino", precision="bf16")


def test_what_cannot_be_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    for options, said in (
        ({"precision": "bf16"}, "bf16 is computed by OpenVINO alone; ask for runtime 'openvino' as well"),
        ({"runtime": "openvino", "device": "cuda"}, "an ONNX model in OpenVINO cannot run on device 'cuda'"),
        ({"runtime": "openvino", "precision": "int8"}, "precision int8 was asked for, the model is fp32"),
        ({"runtime": "abacus"}, "unknown runtime 'abacus'; choose one of onnxruntime, openvino"),
    ):
        with pytest.raises(BackendError, match=said):
            load_backend(tiny.path, BackendOptions(**options))  # type: ignore[arg-type]
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"ptrt")
    with pytest.raises(BackendError, match="a TensorRT plan does not run in openvino"):
        load_backend(plan, BackendOptions(runtime="openvino"))
    with pytest.raises(BackendError, match="streams must be between 1 and 256"):
        OpenVinoOptions(streams=0)


def test_the_second_start_takes_what_the_first_compiled(
    tiny: TinyModel, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = OpenVinoModel.load(tiny.path)
    (kept,) = own_cache.iterdir()
    compiled: list[str] = []
    real = Engine.compile

    def compile(self: Engine, graph: Any, path: str, computed: Any) -> Any:  # noqa: A001 - what it stands for
        compiled.append(path)
        return real(self, graph, path, computed)

    monkeypatch.setattr(Engine, "compile", compile)
    second, value = OpenVinoModel.load(tiny.path), features(20)
    assert not compiled
    np.testing.assert_array_equal(first.run(value[None], [20]).scores, second.run(value[None], [20]).scores)
    content = bytearray(kept.read_bytes())
    content[100] ^= 1
    kept.write_bytes(bytes(content))
    assert OpenVinoModel.load(tiny.path).run(value[None], [20]).scores.shape == (1, 5)
    assert len(compiled) == 1, "a damaged entry is made anew"
    OpenVinoModel.load(tiny.path, OpenVinoOptions(keep=False))
    assert len(compiled) == 2
    assert [each.name for each in own_cache.iterdir()] == [kept.name]


def test_another_file_under_the_same_name_is_never_answered_from_the_cache(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "model.onnx"
    make_tiny(path, seed=0)
    stat = path.stat()
    OpenVinoModel.load(path)
    other = make_tiny(path, seed=1)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    value = features(20)
    np.testing.assert_allclose(
        OpenVinoModel.load(path).run(value[None], [20]).scores[0], other.scores(value), atol=1e-4
    )
    assert len(list(own_cache.iterdir())) == 2


def test_a_start_without_a_place_for_the_cache_says_so(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = OpenVinoModel.load(tiny.path, OpenVinoOptions(cache=tmp_path / "file"))
    assert "the compiled model is not kept for the next start" in str(model.explain())


def test_threads_share_a_model(tiny: TinyModel) -> None:
    model = OpenVinoModel.load(tiny.path, OpenVinoOptions(threads=1, streams=2))
    values = [features(5 + number % 50, number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda value: model.run(value[None], [len(value)]).scores[0], values))
    np.testing.assert_allclose(answers, [tiny.scores(value) for value in values], atol=1e-4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_answers_like_its_parent_and_ends(tiny: TinyModel, threads: int) -> None:
    code = f"""
import os, sys, time
import numpy as np
from voxport.runtime import SpeakerIdentifier
identifier = SpeakerIdentifier.load({str(tiny.path)!r}, runtime="openvino", threads={threads})
values = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
said = identifier.scores_features(values)
child = os.fork()
if child == 0:
    print(np.array_equal(identifier.scores_features(values), said), flush=True)
    sys.exit(0)
deadline = time.monotonic() + 30
while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
    time.sleep(0.01)
if ended[0] == 0:
    os.kill(child, 9)
    sys.exit("the child does not end")
print(ended[1], np.array_equal(identifier.scores_features(values), said))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines() == ["True", "0 True"], done.stderr


def test_large_runs_give_their_memory_back(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = OpenVinoModel.load(tiny.path)
    (part,) = model._parts
    released = []
    monkeypatch.setattr(ov_model._Part, "release", lambda self: released.append(self))
    model._kept = 100
    model.run(features(60)[None], [60])
    assert not released
    model.run(np.zeros((2, 60, 40), np.float32), [60, 60])
    assert released == [part]

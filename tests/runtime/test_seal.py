"""The digest at the end of a model file: every flipped bit is found, and other readers take the file as before."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.runtime.tiny_models import TinyModel
from voxport.runtime import ContractError, SpeakerIdentifier, load_backend
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.pytorch.file import read_torch
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.inspection import inspect_model
from voxport.runtime.storage.seal import SEAL_KEY, check_seal, seal_archive, seal_onnx

FLIPS = 400


@pytest.fixture
def sealed(tiny: TinyModel, tmp_path: Path) -> Path:
    path = tmp_path / "sealed.onnx"
    path.write_bytes(seal_onnx(tiny.path.read_bytes()))
    return path


@pytest.fixture
def archive(tiny: TinyModel, tmp_path: Path) -> Path:
    """Not a network, but a zip archive as the writer of PyTorch's files makes it."""
    path = tmp_path / "sealed.pt2"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/archive_format", "pt2")
        file.writestr("archive/models/model.json", "{}")
        file.writestr("archive/data/weights/weight_0", np.arange(500, dtype="<f4").tobytes())
        file.writestr(f"archive/extra/{METADATA_KEY}", tiny.contract.to_json())
    path.write_bytes(seal_archive(path.read_bytes()))
    return path


def flipped(path: Path, bit: int) -> Path:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.with_name(f"flipped{path.suffix}").write_bytes(content)
    return path.with_name(f"flipped{path.suffix}")


def positions(path: Path) -> list[int]:
    """Random bits of the whole file, and every bit of its last 90 bytes, where the digest is."""
    bits = path.stat().st_size * 8
    chosen = np.random.default_rng(7).choice(bits, size=FLIPS, replace=False).tolist()
    return [*map(int, chosen), *range(bits - 8 * 90, bits)]


def test_the_digest_is_that_of_all_bytes_before_it(sealed: Path, archive: Path) -> None:
    for path in (sealed, archive):
        content = path.read_bytes()
        assert content[-64:].decode() == hashlib.sha256(content[:-64]).hexdigest()
        assert check_seal(path)


def test_every_flipped_bit_of_an_onnx_file_is_refused_by_name(sealed: Path) -> None:
    for bit in positions(sealed):
        changed = flipped(sealed, bit)
        with pytest.raises(ContractError) as caught:
            OnnxModel.load(changed)
        assert str(changed) in str(caught.value), bit


def test_every_flipped_bit_of_an_archive_is_refused_by_name(archive: Path) -> None:
    def look(path: Path) -> None:  # as TorchModel.load begins, for which a real network would be needed
        read_torch(path)
        if not check_seal(path):
            raise AssertionError("the flipped bit took the digest away")

    look(archive)
    for bit in positions(archive):
        changed = flipped(archive, bit)
        with pytest.raises(ContractError) as caught:
            look(changed)
        assert str(changed) in str(caught.value), bit


def test_a_flipped_weight_that_the_golden_vector_forgives_is_found(sealed: Path, tiny: TinyModel) -> None:
    """The last bit of a weight moves no score by as much as the tolerance; without the digest nothing sees it."""
    at = sealed.read_bytes().index(tiny.project.tobytes())
    changed = flipped(sealed, at * 8)
    assert OnnxModel.load(changed, verify=False).contract == tiny.contract
    plain = tiny.path.with_name("plain.onnx")
    plain.write_bytes(tiny.path.read_bytes())
    OnnxModel.load(flipped(plain, plain.read_bytes().index(tiny.project.tobytes()) * 8))
    with pytest.raises(ContractError, match="is damaged or was changed"):
        OnnxModel.load(changed)


def test_only_verify_switches_it_off(sealed: Path) -> None:
    changed = flipped(sealed, (sealed.stat().st_size - 1) * 8)  # the digest itself
    for load in (SpeakerIdentifier.load, load_backend, OnnxModel.load):
        with pytest.raises(ContractError, match="is damaged or was changed"):
            load(changed)
        load(changed, verify=False)
    told = inspect_model(changed)
    assert told.problem is not None
    assert "is damaged or was changed" in told.problem
    assert inspect_model(changed, verify=False).problem is None


def test_a_file_of_before_has_no_digest_and_loads(tiny: TinyModel) -> None:
    assert not check_seal(tiny.path)
    SpeakerIdentifier.load(tiny.path)


def test_other_readers_take_a_sealed_file_as_before(sealed: Path, tiny: TinyModel) -> None:
    model = onnx.load(sealed)
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata.pop(SEAL_KEY) == sealed.read_bytes()[-64:].decode()
    assert metadata == {entry.key: entry.value for entry in onnx.load(tiny.path).metadata_props}
    values = tiny.contract.golden.input.values[None]
    lengths = np.array([values.shape[1]])
    same = [load_backend(path).run(values, lengths).scores for path in (sealed, tiny.path)]
    np.testing.assert_array_equal(same[0], same[1])


def test_another_program_that_rewrites_the_file_is_told(sealed: Path) -> None:
    model = onnx.load(sealed)
    model.metadata_props.add(key="note", value="by somebody")
    onnx.save(model, sealed)
    with pytest.raises(ContractError, match="rewritten by another program"):
        OnnxModel.load(sealed)
    assert "rewritten by another program" in str(inspect_model(sealed).problem)
    OnnxModel.load(sealed, verify=False)


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 500])
def test_a_file_that_is_cut_short_is_refused(sealed: Path, cut: int) -> None:
    sealed.write_bytes(sealed.read_bytes()[:-cut])
    with pytest.raises(ContractError, match=r"sealed\.onnx"):
        OnnxModel.load(sealed)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_model_has_no_digest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not check_seal(tmp_path / "file")
    with pytest.raises(ContractError, match="cannot be read"):
        check_seal(tmp_path / "nothing")


def test_an_archive_is_sealed_once(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="comment"):
        seal_archive(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        assert json.loads(file.read(f"archive/extra/{METADATA_KEY}"))["labels"]

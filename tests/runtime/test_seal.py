"""The digest at the end of a model file: every flipped bit is found, and other readers take the file as before."""

import contextlib
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.runtime.tiny_models import TinyModel
from voxport.runtime import ContractError, SpeakerIdentifier, load_backend
from voxport.runtime.backends.onnxrt.entry import check_digest
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.pytorch.file import read_torch
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.inspection import inspect_model
from voxport.runtime.storage.seal import SEAL_KEY, SUMS_KEY, check_seal, seal_archive, seal_onnx

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


def positions(path: Path, end: int) -> list[int]:
    """Random bits of the whole file, and every third of its last `end` bytes, where checksum and digest are."""
    bits = path.stat().st_size * 8
    chosen = np.random.default_rng(7).choice(bits, size=FLIPS, replace=False).tolist()
    return [*map(int, chosen), *range(bits - 8 * end, bits, 3)]


def test_the_digest_is_that_of_all_bytes_before_it(sealed: Path, archive: Path) -> None:
    for path in (sealed, archive):
        content = path.read_bytes()
        assert content[-64:].decode() == hashlib.sha256(content[:-64]).hexdigest()
        assert check_seal(path)


def test_every_flipped_bit_of_an_onnx_file_is_refused_by_name(sealed: Path) -> None:
    """By whoever loads it, but for other digits of the digest, of which no answer comes; these by `voxport inspect`."""
    digits = (sealed.stat().st_size - 64) * 8
    for bit in positions(sealed, 180):
        changed = flipped(sealed, bit)
        with pytest.raises(ContractError) as caught:
            (OnnxModel.load if bit < digits else check_digest)(changed)
        assert str(changed) in str(caught.value), bit
        if bit >= digits:
            with contextlib.suppress(ContractError):  # taken, or an error of ours: never another program's
                OnnxModel.load(changed)


def sums_by_hand(content: bytes) -> str:
    """The checksum, word by word, in Python's own integers."""
    row = 4099 * 8
    sums = [0] * (4099 + len(content) // (8 * row))
    for number in range(len(content) // row):
        for column in range(4099):
            at = number * row + 8 * column
            sums[column + number // 8] += int.from_bytes(content[at : at + 8], "little")
    said = b"".join((each % 2**64).to_bytes(8, "little") for each in sums)
    return hashlib.sha256(said + content[len(content) // row * row :]).hexdigest()


@pytest.mark.parametrize("size", [0, 7, 32792, 32792 * 8, 32792 * 17 + 13])
def test_the_checksum_is_of_sums_of_columns(size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    entry = seal_onnx(content)[size : size + 200]
    assert entry.partition(b"voxport.sums\x12\x40")[2][:64].decode() == sums_by_hand(content)


def test_pages_that_changed_places_are_found(tmp_path: Path) -> None:
    """A sum forgets the order of what it is of."""
    content, path = np.random.default_rng(1).bytes(700_000), tmp_path / "model.onnx"
    path.write_bytes(seal_onnx(content))
    assert check_seal(path, fast=True)
    for size in (8, 512, 4096):
        for other in (size, 32768, 262144, 600 * 1024):
            changed = bytearray(seal_onnx(content))
            changed[:size], changed[other : other + size] = content[other : other + size], content[:size]
            path.write_bytes(changed)
            with pytest.raises(ContractError, match="is damaged or was changed"):
                check_seal(path, fast=True)


def test_a_digest_without_a_checksum_is_compared_itself(tiny: TinyModel, tmp_path: Path) -> None:
    """Files of before have it."""
    content = tiny.path.read_bytes() + b"\x72\x52\x0a\x0evoxport.sha256\x12\x40"
    path = tmp_path / "before.onnx"
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    OnnxModel.load(path)
    with pytest.raises(ContractError, match="is damaged or was changed"):
        OnnxModel.load(flipped(path, (path.stat().st_size - 1) * 8))


def test_every_flipped_bit_of_an_archive_is_refused_by_name(archive: Path) -> None:
    def look(path: Path) -> None:  # as TorchModel.load begins, for which a real network would be needed
        read_torch(path)
        if not check_seal(path):
            raise AssertionError("the flipped bit took the digest away")

    look(archive)
    for bit in positions(archive, 90):
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
    changed = flipped(sealed, sealed.stat().st_size * 8 - 64 * 8 - 200)
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
    assert len(metadata.pop(SUMS_KEY)) == 64
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

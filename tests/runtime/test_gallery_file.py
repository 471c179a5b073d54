"""A gallery's file: round trip, its model, damage and malice, and several processes that write it."""

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.runtime.tiny_models import SIZE, TinyModel
from voxport.runtime import Gallery, GalleryError
from voxport.runtime.contract import Contract
from voxport.runtime.gallery.embeddings import read_embeddings, write_embeddings
from voxport.runtime.gallery.state import MAX_EMBEDDING_SIZE, check_name
from voxport.runtime.gallery.thresholds import MAX_SPEAKERS
from voxport.runtime.storage import lock as gallery_lock

MEMBERS = ("header", "names", "counts", "sums", "kept", "owners")
MORE = ("seconds", "trained", "pieces", "piece_owners", "piece_seconds", "spoken", "piece_spoken")

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def contract(tiny: TinyModel) -> Contract:
    return tiny.contract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.gallery"


@pytest.fixture
def saved(contract: Contract, path: Path) -> Gallery:
    """A gallery that was saved to `path`."""
    generator = np.random.default_rng(3)
    gallery = Gallery(contract)
    gallery.enroll_many({name: generator.normal(size=(3, SIZE)) for name in ("Ada", "Борис", "지수")})
    gallery.set_thresholds(0.25, 0.5)
    gallery.save(path)
    return gallery


def same(a: Gallery, b: Gallery) -> None:
    first, second = a._state, b._state
    assert (first.names, first.thresholds) == (second.names, second.thresholds)
    assert a.checkpoint_sha256 == b.checkpoint_sha256
    for field in ("counts", "sums", "voices", "kept", "owners"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), strict=True)


def usable_name(text: str) -> bool:
    try:
        check_name(text)
    except GalleryError:
        return False
    return True


names = st.text(min_size=1, max_size=20).filter(usable_name).map(check_name)
rows = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.just(SIZE)), elements=st.floats(0.01, 1))
cosines = st.none() | st.floats(-1, 1)


# --- round trip ---------------------------------------------------------------------------------------


@given(speakers=st.dictionaries(names, rows, max_size=6), verify=cosines, identify=cosines)
@settings(shared_folder, max_examples=30)
def test_a_gallery_comes_back_equal_and_equal_galleries_give_equal_bytes(
    contract: Contract, tmp_path: Path, speakers: dict[str, Any], verify: float | None, identify: float | None
) -> None:
    gallery = Gallery(contract)
    gallery.enroll_many(speakers)
    gallery.set_thresholds(verify, identify)
    gallery.save(tmp_path / "a")
    again = Gallery.load(tmp_path / "a", contract)
    same(again, gallery)
    again.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again.enroll("someone", np.ones(SIZE))  # what was loaded can be changed


def test_calibrated_thresholds_come_back(saved: Gallery, contract: Contract, path: Path) -> None:
    expected = saved.calibrate(0.2)
    saved.save(path)
    assert Gallery.load(path, contract).thresholds == expected


def test_numpy_reads_the_file_without_pickle(saved: Gallery, path: Path) -> None:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        assert sorted(arrays) == sorted((*MEMBERS, *MORE))
        assert bytes(arrays["names"]).decode().split("\n") == ["Ada", "Борис", "지수"]
        assert json.loads(bytes(arrays["header"]))["checkpoint_sha256"] == saved.checkpoint_sha256
        assert arrays["counts"].tolist() == [3, 3, 3]


def test_a_gallery_written_by_numpy_itself_is_read(saved: Gallery, contract: Contract, path: Path) -> None:
    with path.open("rb") as file, np.load(file) as arrays:
        content = dict(arrays)
    with path.open("wb") as target:
        np.savez(target, **content)
    same(Gallery.load(path, contract), saved)


# --- the model that it belongs to ---------------------------------------------------------------------


def test_artefacts_of_one_checkpoint_share_a_gallery(saved: Gallery, contract: Contract, path: Path) -> None:
    other = contract.replace(precision="int8", input_kind="waveform", min_frames=20)
    same(Gallery.load(path, other), saved)


@pytest.mark.parametrize("change", [{"checkpoint_sha256": "0" * 64}, {"embedding_size": SIZE + 1}])
def test_another_models_gallery_is_refused(
    saved: Gallery, contract: Contract, path: Path, change: dict[str, object]
) -> None:
    other = contract.replace(**change)
    message = r"people\.gallery: enrolled with another model .* enroll again with this model"
    with pytest.raises(GalleryError, match=message):
        Gallery.load(path, other)
    before = path.read_bytes()
    with pytest.raises(GalleryError, match=message), Gallery.edit(path, other) as gallery:
        gallery.enroll("Eve", np.ones(gallery.embedding_size))
    assert path.read_bytes() == before
    with pytest.raises(GalleryError, match="the gallery: enrolled with another model"):
        saved.check_model(other)
    assert len(Gallery.load(path, None)) == 3  # to look at it needs no model


# --- files that cannot be used ------------------------------------------------------------------------


def refuse(path: Path, match: str) -> None:
    with pytest.raises(GalleryError, match=match) as caught:
        Gallery.load(path, None)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 500


def test_a_missing_file_is_told_how_to_become_one(tmp_path: Path) -> None:
    refuse(tmp_path / "absent", "there is no such file; give a voxport gallery, or make one")
    for empty in ("", ".", "/"):  # the first is what an unset variable of a shell script becomes
        with pytest.raises(GalleryError, match="cannot be the name of a file"):
            Gallery.load(Path(empty), None)
        with pytest.raises(GalleryError, match="cannot be the name of a file"), Gallery.edit(empty, None):
            pytest.fail("there is nothing to edit")


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rewrite(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A zip of `content` with checksums that are right: what damage cannot make and malice can."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in content.items():
            archive.writestr(name, value)


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), version=(1, 0), **options)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return npy(np.frombuffer(value.encode("utf-8", "surrogatepass"), np.uint8))


def header(path: Path, **changes: Any) -> bytes:
    with path.open("rb") as file, np.load(file) as arrays:
        values = json.loads(bytes(arrays["header"]))
    values |= changes
    return text(json.dumps(values))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


FORGERIES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "no JSON": (lambda _: text("{"), "header is not JSON"),
    "deep JSON": (lambda _: text("[" * 60_000), "header is not JSON"),
    "huge number": (lambda _: text("9" * 60_000), "header"),
    "long header": (lambda _: text("{" + " " * 70_000 + "}"), "the array header"),
    "other format": (lambda path: header(path, format="zip"), "no voxport header"),
    "version": (lambda path: header(path, version=5), "version 5, this voxport reads versions 1 to 4"),
    "unknown key": (lambda path: header(path, extra=1), "unknown key extra"),
    "more speakers": (lambda path: header(path, speakers=4), "its names are not 4"),
    "no speakers": (lambda path: header(path, speakers=0), "its names are not 0"),
    "too many": (lambda path: header(path, speakers=MAX_SPEAKERS + 1), "speakers must be between"),
    "negative": (lambda path: header(path, speakers=-1), "speakers must be between"),
    "size": (lambda path: header(path, embedding_size=SIZE + 1), r"sums has shape \(3, 8\), not \(3, 9\)"),
    "largest": (lambda path: header(path, embedding_size=MAX_EMBEDDING_SIZE), "the array sums has shape"),
    "threshold": (lambda path: header(path, thresholds={"verify": 2.0}), "between -1 and 1"),
    "counts": (lambda _: npy(np.array([3, 0, 3])), "not those of enrolled voices"),
    "int32": (lambda _: npy(np.array([3, 3, 3], np.int32)), "counts is not of type <i8"),
    "objects": (lambda _: npy(np.array([Bomb(Path("ran"))] * 3), allow_pickle=True), "counts is not of type"),
    "NaN": (lambda _: npy(np.full((3, SIZE), np.nan)), "not those of enrolled voices"),
    "infinite": (lambda _: npy(np.full((3, SIZE), np.inf)), "not those of enrolled voices"),
    "zeros": (lambda _: npy(np.zeros((3, SIZE))), "cancel each other out"),
    "fortran": (lambda _: npy(np.asfortranarray(np.ones((3, SIZE)))), "sums is not of type"),
    "longer": (lambda _: npy(np.ones((3, SIZE))) + b"\x00" * 8, "the array sums has shape"),
    "kept": (lambda _: npy(np.full((9, SIZE), 7, np.float32)), "not those of enrolled voices"),
    "owners": (lambda _: npy(np.arange(9)), "not those of enrolled voices"),
    "seconds": (lambda _: npy(np.full(9, -1, np.float32)), "not those of enrolled voices"),
    "endless": (lambda _: npy(np.full(9, np.inf, np.float32)), "not those of enrolled voices"),
    "trained": (lambda _: npy(np.zeros(4, np.uint8)), "the array trained has shape"),
    "pieces": (lambda _: npy(np.full((2, SIZE), 7, np.float32)), "the array piece_owners has shape"),
    "no pieces": (lambda _: npy(np.zeros((0, SIZE + 1), np.float32)), "the array pieces has shape"),
    "one name twice": (lambda _: text("Ada\nAda\nBob"), "a name is there twice"),
    "decomposed": (lambda _: text("Ada\nBob\ne\u0301"), "composed form"),
    "control": (lambda _: text("Ada\nBob\n\x1b[2J"), "a name is none"),
    "blank": (lambda _: text("Ada\n\nBob"), "a name is none"),
    "surrogate": (lambda _: text("Ada\nBob\n\ud800"), "a name is none"),
    "long name": (lambda _: text("Ada\nBob\n" + "x" * 201), "a name is none"),
}
TARGETS = {
    "counts": "counts", "int32": "counts", "objects": "counts", "kept": "kept", "owners": "owners",
    "NaN": "sums", "infinite": "sums", "zeros": "sums", "fortran": "sums", "longer": "sums",
    "seconds": "seconds", "endless": "seconds", "trained": "trained", "pieces": "pieces", "no pieces": "pieces",
    "one name twice": "names", "decomposed": "names", "control": "names", "blank": "names",
    "surrogate": "names", "long name": "names",
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_array_is_refused(saved: Gallery, path: Path, forgery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    make, message = FORGERIES[forgery]
    content = members(path) | {f"{TARGETS.get(forgery, 'header')}.npy": make(path)}
    rewrite(path, content)
    refuse(path, message)
    assert not Path("ran").exists()


def test_an_honest_rewrite_is_read(saved: Gallery, contract: Contract, path: Path) -> None:
    """So the refusals above are for what was forged, not for the rewriting."""
    rewrite(path, members(path))
    same(Gallery.load(path, contract), saved)


def test_a_compressed_gallery_is_refused(saved: Gallery, path: Path) -> None:
    rewrite(path, members(path), zipfile.ZIP_DEFLATED)
    refuse(path, "compressed or encrypted")


@pytest.mark.parametrize("name", MEMBERS)
def test_a_missing_and_a_further_array_are_refused(saved: Gallery, path: Path, name: str) -> None:
    content = members(path)
    rewrite(path, {key: value for key, value in content.items() if key != f"{name}.npy"})
    refuse(path, "does not hold the arrays")
    rewrite(path, content | {"more.npy": b""})
    refuse(path, "does not hold the arrays")


@given(target=st.sampled_from(MEMBERS), data=st.data())
@shared_folder
def test_any_array_with_a_right_checksum_is_read_or_refused(
    saved: Gallery, path: Path, target: str, data: st.DataObject
) -> None:
    """What is read answers: no forged gallery may fail later."""
    content = members(path)
    value = bytearray(content[f"{target}.npy"])
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    forged = path.with_name("forged")
    rewrite(forged, content | {f"{target}.npy": bytes(value)})
    try:
        gallery = Gallery.load(forged, None)
    except GalleryError:
        return
    assert -1 <= gallery.identify(np.ones(SIZE)).best.cosine <= 1
    gallery.enroll("one more", np.ones(SIZE))
    gallery.remove(gallery.speakers[0].speaker)


def test_a_file_that_claims_much_costs_little(saved: Gallery, path: Path) -> None:
    speakers = MAX_SPEAKERS // 10
    claims = header(path, speakers=speakers, embedding_size=MAX_EMBEDDING_SIZE)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        huge, {"descr": "<f8", "fortran_order": False, "shape": (speakers, MAX_EMBEDDING_SIZE)}
    )
    names = text("\n".join(f"{i}" for i in range(speakers)))
    counts = npy(np.ones(speakers, np.int64))
    forged = {"header.npy": claims, "names.npy": names, "counts.npy": counts, "sums.npy": huge.getvalue()}
    rewrite(path, members(path) | forged)
    bound = 40 * path.stat().st_size  # short names are most of it; the claim is 1.6 GB
    tracemalloc.start()
    refuse(path, "the array sums has shape")
    assert tracemalloc.get_traced_memory()[1] < bound
    tracemalloc.stop()


def test_a_long_table_of_contents_is_not_read(path: Path) -> None:
    rewrite(path, {f"{i:08}": b"" for i in range(4_000)})
    tracemalloc.start()
    refuse(path, "table of contents is too long")
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


# --- files of embeddings ------------------------------------------------------------------------------


@given(data=st.data())
@shared_folder
def test_a_changed_file_of_embeddings_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "voices.npz"
    vectors = np.random.default_rng(0).normal(size=(3, SIZE)).astype(np.float32)
    write_embeddings(path, ["a.wav", "Борис.wav", "c"], vectors, "ab" * 32)
    np.testing.assert_array_equal(read_embeddings(path, "ab" * 32, SIZE), vectors, strict=True)
    content = members(path)
    target = data.draw(st.sampled_from(sorted(content)))
    value = bytearray(content[target])
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    rewrite(path, content | {target: bytes(value)})
    with contextlib.suppress(GalleryError):
        assert read_embeddings(path, "ab" * 32, SIZE).shape == (3, SIZE)


# --- writing ------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    saved: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    saved.enroll("Eve", np.ones(SIZE))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GalleryError, match=r"people\.gallery: cannot be written \(No space left"):
        saved.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_folder_is_named(saved: Gallery, contract: Contract, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="absent/people: cannot be written"):
        saved.save(tmp_path / "absent/people")
    with (
        pytest.raises(GalleryError, match=r"absent/people: there is no folder .*absent; make it"),
        Gallery.edit(tmp_path / "absent/people", contract),
    ):
        pytest.fail("there is nothing to edit")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_permissions_and_links_stay(saved: Gallery, contract: Contract, path: Path) -> None:
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    with Gallery.edit(link, contract) as gallery:
        gallery.remove("Ada")
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(Gallery.load(path, contract)) == 2


def test_edit_begins_a_gallery_and_saves_it_once_it_went_well(contract: Contract, path: Path) -> None:
    def fail_halfway() -> None:
        with Gallery.edit(path, contract) as gallery:
            gallery.enroll("Ada", np.ones(SIZE))
            gallery.enroll("Bob", np.zeros(SIZE))

    with pytest.raises(GalleryError, match="all zeros"):
        fail_halfway()
    assert os.listdir(path.parent) == []
    with Gallery.edit(path, contract) as gallery:
        gallery.enroll("Ada", np.ones(SIZE))
    assert os.listdir(path.parent) == [path.name]
    assert "Ada" in Gallery.load(path, contract)
    with pytest.raises(GalleryError, match="no such file"), Gallery.edit(path.with_name("other"), None):
        pytest.fail("without a model nothing can begin")


def test_an_edit_that_changes_nothing_writes_nothing(saved: Gallery, contract: Contract, path: Path) -> None:
    before = path.stat()
    with Gallery.edit(path, contract) as gallery:
        assert len(gallery) == 3
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_second_editor_waits_and_then_gives_up(saved: Gallery, contract: Contract, path: Path) -> None:
    with Gallery.edit(path, contract):
        message = r"people\.gallery: another process is changing it, waited 0.05 s"
        with pytest.raises(GalleryError, match=message), Gallery.edit(path, contract, timeout_s=0.05):
            pytest.fail("two editors at once")
    with Gallery.edit(path, contract, timeout_s=0.05) as gallery:
        gallery.remove("Ada")


def test_the_lock_of_a_process_that_died_is_free(saved: Gallery, contract: Contract, path: Path) -> None:
    path.with_name(f".{path.name}.lock").touch()
    with Gallery.edit(path, contract, timeout_s=0) as gallery:
        gallery.remove("Ada")
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("made_again", [False, True])
def test_a_lock_file_that_was_removed_meanwhile_locks_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, made_again: bool
) -> None:
    """Another process let go between opening the file and taking it, and perhaps a third one came."""
    take = gallery_lock._take

    def take_late(handle: int) -> bool:
        path.rename(path.with_name("old"))  # as good as removed, and its inode is not used again
        if made_again:
            path.touch()
        return take(handle)

    monkeypatch.setattr(gallery_lock, "_take", take_late)
    assert gallery_lock._try(path) is None
    monkeypatch.undo()
    handle = gallery_lock._try(path)
    assert handle is not None
    assert gallery_lock._try(path) is None
    os.close(handle)


def test_threads_that_edit_one_file_lose_nothing(contract: Contract, path: Path) -> None:
    def work(which: int) -> None:
        for turn in range(8):
            with Gallery.edit(path, contract, timeout_s=120) as gallery:
                gallery.enroll(f"{which}-{turn}", np.ones(SIZE))

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Gallery.load(path, contract)) == 32
    assert os.listdir(path.parent) == [path.name]


def test_processes_that_edit_one_file_lose_nothing(tiny: TinyModel, path: Path) -> None:
    code = """
import sys
import numpy as np
from voxport.runtime import Gallery, read_contract

contract = read_contract(sys.argv[1])
for turn in range(8):
    with Gallery.edit(sys.argv[2], contract, timeout_s=120) as gallery:
        gallery.enroll(f"{sys.argv[3]}-{turn}", np.ones(contract.embedding_size))
        voice = 1 + np.random.default_rng((ord(sys.argv[3]), turn)).uniform(size=contract.embedding_size)
        gallery.enroll("everybody", voice)
"""
    commands = [[sys.executable, "-W", "error", "-c", code, str(tiny.path), str(path), which] for which in "abc"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        assert process.communicate(timeout=240)[1] == ""
    counts = {entry.speaker: entry.utterances for entry in Gallery.load(path, tiny.contract).speakers}
    assert counts.pop("everybody") == 24
    assert counts == {f"{which}-{turn}": 1 for which in "abc" for turn in range(8)}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_gallery_and_no_lock(
    tiny: TinyModel, path: Path
) -> None:
    """Killed at ten moments: the file holds every enrolment that was reported, and the next writer need not wait."""
    code = """
import sys
import numpy as np
from voxport.runtime import Gallery, read_contract

contract = read_contract(sys.argv[1])
turn = int(sys.argv[3])
while True:
    with Gallery.edit(sys.argv[2], contract) as gallery:
        gallery.enroll(f"{turn}", np.ones((50, contract.embedding_size)))
    print(turn, flush=True)
    turn += 1
"""
    reported = 0
    for attempt in range(10):
        command = [sys.executable, "-c", code, str(tiny.path), str(path), str(reported)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == str(reported)
            time.sleep(0.003 * attempt)
            process.kill()
            reported += 1 + len(process.stdout.read().splitlines())
        with Gallery.edit(path, tiny.contract, timeout_s=5) as gallery:
            found = len(gallery)
        assert found in (reported, reported + 1)  # the last may be there though nobody heard of it
        reported = found
    leftovers = [name for name in os.listdir(path.parent) if name != path.name]
    assert all(name.endswith(".part") for name in leftovers)


def test_what_a_killed_process_left_is_removed_once_it_is_old(saved: Gallery, path: Path) -> None:
    names = (f".{path.name}.1-2.part", f".{path.name}.3-4.part", ".else.5-6.part")
    old, new, other = map(path.with_name, names)
    for leftover in (old, new, other):
        leftover.write_bytes(b"voices")
    for leftover in (old, other):
        os.utime(leftover, (time.time() - 7200,) * 2)
    saved.save(path)
    assert sorted(os.listdir(path.parent)) == sorted([*names[1:], path.name])


# --- names that no file can have ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\0b.gallery", "\ud800.gallery"])
def test_an_impossible_name_is_refused_as_such(tiny: TinyModel, name: str) -> None:
    gallery = Gallery(tiny.contract)
    for work in (lambda: Gallery.load(name, None), lambda: gallery.save(name), lambda: edit(name, tiny)):
        with pytest.raises(GalleryError, match="cannot be the name of a file"):
            work()


def edit(name: str, tiny: TinyModel) -> None:
    with Gallery.edit(name, tiny.contract):
        raise AssertionError("it was opened")

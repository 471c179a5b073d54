"""The store of voices: what a gallery would hold, shared by processes that lose nothing of each other's."""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.tiny_models import SIZE, TinyModel, make_tiny
from voxport.runtime import Gallery
from voxport.runtime.contract import AsNorm
from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.thresholds import Thresholds
from voxport.runtime.results import Voice
from voxport.scale.errors import ScaleError
from voxport.scale.service.store import VoiceStore

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def voice(seed: int, seconds: float = 2.0) -> Voice:
    vector = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    return Voice(vector / np.linalg.norm(vector), seconds)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL of the tests' own, which listens on a socket in a folder alone."""
    pytest.importorskip("psycopg")
    if not POSTGRES:
        pytest.skip("PostgreSQL is not installed; Debian: apt-get install postgresql")
    bin_folder = POSTGRES[-1].parent
    folder = Path("/tmp") / f"voxport-pg-{os.getpid()}"  # a socket's path has 107 characters at most
    folder.mkdir()
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    try:
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        initdb = [*as_user, bin_folder / "initdb", "-D", data, "-U", "voices", "-A", "trust", "--no-sync"]
        subprocess.run([str(word) for word in initdb], check=True, capture_output=True, timeout=120)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        control = [*as_user, bin_folder / "pg_ctl", "-D", data, "-w", "-l", data / "log"]
        subprocess.run([*map(str, control), "-o", options, "start"], check=True, capture_output=True, timeout=120)
        try:
            yield f"postgresql://voices@/postgres?host={folder}"
        finally:
            subprocess.run(
                [*map(str, control), "-m", "immediate", "stop"], check=True, capture_output=True, timeout=120
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "voices.db")
    found: str = request.getfixturevalue("postgres")
    import psycopg

    with psycopg.connect(found, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS facts, voices")
    return found


def same(store: VoiceStore, gallery: Gallery) -> None:
    found, wanted = store.gallery().state, gallery.state
    assert found.names == wanted.names
    for name in ("counts", "sums", "voices", "trained"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-6)
    for name in ("whole", "pieces"):
        kept, told = getattr(found, name), getattr(wanted, name)
        by_speaker = np.argsort(told.owners, kind="stable")  # a gallery has them in the order in which they came
        for each in ("vectors", "owners", "lengths"):
            np.testing.assert_array_equal(getattr(kept, each), getattr(told, each)[by_speaker])
    assert found.thresholds == wanted.thresholds


@pytest.fixture
def opened(url: str, model: TinyModel) -> Iterator[Callable[[], VoiceStore]]:
    """Opens the store once more, as another replica does."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(VoiceStore(url, model.contract)))


def test_it_holds_what_a_gallery_holds_whoever_writes(opened: Callable[[], VoiceStore], model: TinyModel) -> None:
    one, other = opened(), opened()
    gallery = Gallery(model.contract)
    for number, (store, name) in enumerate([(one, "Ada"), (other, "Bo"), (other, "Ada"), (one, "Cy"), (one, "Anna")]):
        given = voice(number // 2 * 7 + number, 1.0 + number)
        assert store.enroll(name, [given]) == gallery.enroll(name, given)
        same(one, gallery)
        same(other, gallery)
    other.remove("Bo")
    gallery.remove("Bo")
    same(one, gallery)
    one.enroll("Bo", [voice(99)])
    gallery.enroll("Bo", voice(99))
    same(other, gallery)
    same(opened(), gallery)
    with pytest.raises(GalleryError, match="not enrolled"):
        one.remove("Dee")


def test_thresholds_are_those_of_all_replicas(opened: Callable[[], VoiceStore], model: TinyModel) -> None:
    one, other = opened(), opened()
    gallery = Gallery(model.contract)
    for number in range(12):
        one.enroll(f"speaker {number}", [voice(number)])
        gallery.enroll(f"speaker {number}", voice(number))
    found = one.calibrate(0.1)
    gallery.calibrate(0.1)
    assert isinstance(found, Thresholds)
    assert other.gallery().thresholds == gallery.thresholds == found


def enroll_many(url: str, folder: str, first: int) -> None:
    contract = make_tiny(Path(folder) / f"{first}.onnx", "waveform").contract
    with contextlib.closing(VoiceStore(url, contract)) as store:
        for number in range(20):
            store.enroll("everybody's", [voice(first + number)])
            store.enroll(f"own {first + number}", [voice(first + number)])


def test_processes_that_enroll_at_once_lose_nothing(url: str, opened: Callable[[], VoiceStore], tmp_path: Path) -> None:
    store = opened()
    context = multiprocessing.get_context("spawn")
    crowd = [context.Process(target=enroll_many, args=(url, str(tmp_path), 100 * number)) for number in (1, 2)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join(120)
        assert each.exitcode == 0
    state = store.gallery().state
    assert len(state.names) == 41
    assert state.counts[state.index["everybody's"]] == 40
    total = sum(voice(seed).embedding.astype(np.float64) for seed in (*range(100, 120), *range(200, 220)))
    np.testing.assert_allclose(state.sums[state.index["everybody's"]], total, atol=1e-5)


def test_voices_of_another_model_are_refused(tmp_path: Path, model: TinyModel) -> None:
    VoiceStore(str(tmp_path / "voices.db"), model.contract).close()
    with pytest.raises(GalleryError, match="another model"):
        VoiceStore(str(tmp_path / "voices.db"), model.contract.replace(checkpoint_sha256="0" * 64))


def test_a_model_that_normalises_scores_is_refused_not_answered_by_cosines(tmp_path: Path, model: TinyModel) -> None:
    contract = model.contract.replace(as_norm=AsNorm.of(3, model.classes.T))
    with pytest.raises(GalleryError, match=r"normalises scores .* without --as-norm"):
        VoiceStore(str(tmp_path / "voices.db"), contract)
    assert not (tmp_path / "voices.db").exists()


def test_what_is_no_store_is_refused_in_a_sentence(tmp_path: Path, model: TinyModel) -> None:
    (tmp_path / "text.db").write_text("This is no database, and long enough to be looked at as one." * 20)
    for url in (str(tmp_path / "text.db"), str(tmp_path / "nowhere" / "voices.db")):
        with pytest.raises(ScaleError, match="cannot be used as a store"):
            VoiceStore(url, model.contract)


def test_a_server_that_does_not_answer_is_told(tmp_path: Path, model: TinyModel) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ScaleError, match="does not answer"):
        VoiceStore(f"postgresql://voices@/postgres?host={tmp_path}", model.contract)


def test_who_is_forgotten_leaves_no_bytes_in_the_file(tmp_path: Path, model: TinyModel) -> None:
    path = tmp_path / "voices.db"
    store = VoiceStore(str(path), model.contract)
    store.enroll("Somebody Unmistakable", [voice(5)])
    kept = voice(5).embedding.astype("<f4").tobytes()
    files = [path, Path(f"{path}-wal")]
    assert any(b"Unmistakable" in each.read_bytes() for each in files if each.exists())
    store.remove("Somebody Unmistakable")
    for each in files:
        if each.exists():
            assert b"Unmistakable" not in each.read_bytes()
            assert kept not in each.read_bytes()
    store.close()

"""Any bytes, and real files with changed bytes: an answer or an error of ours, in bounded memory."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.archives import SIZES, archive_of, program_members, script_members
from fuzz.engines import BETWEEN, ENGINE
from fuzz.live import CHUNK, HEAD, chunks_of, identifier
from fuzz.mutations import KINDS, LIES, edit
from fuzz.run import NAMES
from fuzz.seeds import SEEDS, a_contract, engines, galleries, gallery_members, recordings, sound_files
from fuzz.targets import FRONTEND, TARGETS, model_file
from fuzz.values import VALUES, paths, put
from voxport.runtime import Gallery, Stream, VoxportError, read_contract
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.backends.pytorch.file import open_archive, read_torch
from voxport.runtime.backends.pytorch.program_check import check_program, is_plain_expression
from voxport.runtime.backends.pytorch.script_check import check_script
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.inspection import inspect_model

EDITS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(LIES)),
        st.booleans(),  # in the head, where the lies do most
    ),
    max_size=6,
)
HERE = [name for name in sorted(TARGETS) if name != "media" or find_spec("av")]
QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def changed(data: bytes, edits: list[tuple[str, float, bytes, bool]]) -> bytes:
    for each in edits:
        data = edit(data, *each)
    return data


@pytest.mark.parametrize("name", HERE)
def test_every_target_has_seeds_and_takes_them(name: str) -> None:
    seeds = SEEDS[name]()
    assert len(seeds) >= 2
    for seed in seeds:
        TARGETS[name](seed)


def test_the_seeds_are_what_they_seem(tmp_path: Path) -> None:
    """A fuzzer that starts from files which are refused at the door tests the door."""
    for seed in sound_files():
        (tmp_path / "sound").write_bytes(seed)
        assert len(read_audio(tmp_path / "sound", 16000)) >= 1600
    (tmp_path / "model").write_bytes(model_file(a_contract().to_json().encode()))
    assert read_contract(tmp_path / "model") == a_contract()
    stream = Stream(identifier())
    chunks = list(chunks_of(recordings()[0][HEAD.size :]))
    assert len(chunks) == 5
    assert sum(len(stream.push(chunk)) for chunk in chunks) > 10
    assert CHUNK.size + 32 == (len(recordings()[0]) - HEAD.size) / 5
    (tmp_path / "gallery").write_bytes(galleries()[1])
    assert len(Gallery.load(tmp_path / "gallery", a_contract()).speakers) == 3
    assert len(gallery_members()) == 13
    assert sorted(NAMES) == sorted(TARGETS) == sorted(SEEDS)


@pytest.mark.parametrize("name", HERE)
@QUICK
@given(edits=EDITS, which=st.integers(0, 1000))
def test_changed_files_are_read_or_refused(name: str, edits: list[tuple[str, float, bytes, bool]], which: int) -> None:
    seeds = SEEDS_OF[name]
    TARGETS[name](changed(seeds[which % len(seeds)], edits))


@pytest.mark.parametrize("name", HERE)
@QUICK
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_every_value_may_be_any_other() -> None:
    """Each place of a contract, and of the JSON in a program, in turn: what unhashable lists and huge numbers do."""
    text = a_contract().to_json()
    tried = 0
    for changed_text in all_changes(text):
        TARGETS["contract"](changed_text)
        tried += 1
    members = program_members(text.encode())
    for name in (name for name in members if name.endswith((".json", "built_with"))):
        for changed_text in all_changes(members[name].decode()):
            TARGETS["torch"](archive_of({**members, name: changed_text}))
            tried += 1
    beside = json.loads(engines()[1].partition(BETWEEN)[2])
    around = [path for path in paths(beside) if METADATA_KEY not in path]  # the contract in it was tried above
    for path, value in itertools.product(around, VALUES):
        TARGETS["rtx"](ENGINE + BETWEEN + json.dumps(put(beside, path, value)).encode())
        tried += 1
    assert tried > 2000


def all_changes(text: str) -> Iterator[bytes]:
    document = json.loads(text)
    return (json.dumps(put(document, path, value)).encode() for path in paths(document) for value in VALUES)


def test_the_engines_that_are_changed_are_whole_unchanged(tmp_path: Path) -> None:
    (tmp_path / "model.rtx").write_bytes(ENGINE)
    for seed in engines():
        (tmp_path / "model.rtx.json").write_bytes(seed.partition(BETWEEN)[2])
        found = inspect_model(tmp_path / "model.rtx", verify=False)
        assert (found.file.kind, found.problem) == ("rtx", None)
        assert found.contract.labels == a_contract().labels


def test_the_archives_that_are_changed_pass_every_check_unchanged(tmp_path: Path) -> None:
    text = a_contract().to_json().encode()
    for kind, members in (("torchscript", script_members(text)), ("program", program_members(text))):
        (tmp_path / "model.pt2").write_bytes(archive_of(members))
        assert read_torch(tmp_path / "model.pt2").kind == kind
        with open_archive(tmp_path / "model.pt2") as archive:
            (check_script if kind == "torchscript" else check_program)(archive)
    assert all(map(is_plain_expression, SIZES))


SEEDS_OF = {name: SEEDS[name]() for name in HERE}

# In a process of its own, which may neither grow nor run on: a crash, a hang or a flood is an exit status.
LIMITED = """
import random, resource, sys
from fuzz.mutations import lies
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

name = sys.argv[1]
seeds = SEEDS[name]()
for seed in seeds:
    TARGETS[name](seed)  # all libraries are loaded now
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
chance = random.Random(7)
for _ in range(400):
    TARGETS[name](lies(chance.choice(seeds), chance))
print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limits are Linux's")
@pytest.mark.parametrize("name", ["audio", "gallery"])
def test_lying_headers_cost_neither_memory_nor_time(name: str) -> None:
    command = [sys.executable, "-c", LIMITED, name]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=200)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr[-2000:]


def test_a_small_file_of_long_silence_is_refused_before_it_is_all_decoded(tmp_path: Path) -> None:
    """A decompression bomb: ten minutes in a few kilobytes."""
    import numpy as np
    import soundfile

    path = tmp_path / "silence.flac"
    soundfile.write(path, np.zeros(600 * 16000, np.int16), 16000)
    assert path.stat().st_size < 100_000
    with pytest.raises(VoxportError, match="longer than 60 s"):
        read_audio(path, FRONTEND.sample_rate, max_seconds=60)

"""Identifiers, galleries and batchers of a process that forks: the child answers like its parent, and ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.tiny_models import TinyModel, features
from voxport.runtime import BackendError, OnnxModel

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# A hang is what the limit is for: children that end do so within a fraction of it, even on a busy machine.
LIMIT_S = 20
START = """
import os, sys, time
import numpy as np
from voxport.runtime import Batcher, Gallery, SpeakerIdentifier, VoxportError
identifier = SpeakerIdentifier.load(sys.argv[1], threads=int(sys.argv[2]))
sound = np.random.default_rng(3).uniform(-0.5, 0.5, 6000).astype(np.float32)
said = identifier.identify(sound, 16000)
ask = lambda: identifier.identify(sound, 16000)
"""
# sys.exit and not os._exit: the end of the interpreter is what hung.
CHILD = """
child = os.fork()
if child == 0:
    {child}
    sys.exit(0)
deadline = time.monotonic() + {limit}
while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
    time.sleep(0.01)
if ended[0] == 0:
    os.kill(child, 9)
    sys.exit("the child does not end")
print(os.waitstatus_to_exitcode(ended[1]), ask() == said)
"""


def run(tiny: TinyModel, threads: int, child: str, before: str = "") -> list[str]:
    code = START + before + CHILD.format(child=child.replace("\n", "\n    "), limit=LIMIT_S)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny.path), str(threads)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_child_answers_like_its_parent_and_ends(tiny_waveform: TinyModel, threads: int) -> None:
    child = "print(ask() == said, ask() == said, flush=True)"
    assert run(tiny_waveform, threads, child) == ["True True", "0 True"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_that_asks_nothing_ends_as_well(tiny_waveform: TinyModel, threads: int) -> None:
    assert run(tiny_waveform, threads, "pass") == ["0 True"]
    assert run(tiny_waveform, threads, "del identifier, ask") == ["0 True"]


def test_threads_of_a_child_share_its_session_and_a_grandchild_has_its_own(tiny_waveform: TinyModel) -> None:
    child = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: answers = list(pool.map(lambda _: ask(), range(8)))\n"
        "print(all(answer == said for answer in answers), flush=True)\n"
        "grandchild = os.fork()\n"
        "print(ask() == said, flush=True)\n"
        "if grandchild: os.waitpid(grandchild, 0)\n"
    )
    assert run(tiny_waveform, 2, child) == ["True", "True", "True", "0 True"]


def test_a_lock_that_was_held_at_the_fork_is_not_waited_for(tiny_waveform: TinyModel) -> None:
    before = "gallery = Gallery(identifier.contract)\ngallery._writing.acquire(); identifier.backend._lock.acquire()\n"
    child = (
        "gallery.enroll('Ada', identifier.embed(sound, 16000))\n"
        "print(gallery.identify(identifier.embed(sound, 16000)).best.speaker, len(gallery), flush=True)\n"
    )
    assert run(tiny_waveform, 2, child, before) == ["Ada 1", "0 True"]


def test_a_batcher_says_so_and_the_child_ends(tiny_waveform: TinyModel) -> None:
    before = "batcher = Batcher(identifier)\nassert batcher.submit(sound, 16000).result() == said\n"
    child = (
        "try: batcher.submit(sound, 16000)\n"
        "except VoxportError as problem: print(problem, flush=True)\n"
        "with Batcher(identifier) as own: print(own.submit(sound, 16000).result() == said, flush=True)\n"
    )
    told, *rest = run(tiny_waveform, 2, child, before)
    assert "made before the process forked" in told
    assert rest == ["True", "0 True"]


def test_another_file_under_the_name_is_refused(tiny_waveform: TinyModel, tiny: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.path.read_bytes())
    model = OnnxModel.load(path)
    path.write_bytes(tiny_waveform.path.read_bytes())
    model.after_fork()  # as in a child
    with pytest.raises(Exception, match=f"{path}: another model lies there"):
        model.run(features(9)[None], [9])


def test_a_session_that_voxport_did_not_open_is_refused(tiny: TinyModel) -> None:
    own = OnnxModel.load(tiny.path)
    model = OnnxModel(tiny.contract, own._session)
    model.after_fork()
    model._process = 0  # as in a child
    with pytest.raises(BackendError, match="loaded before this process forked"):
        model.run(features(9)[None], [9])

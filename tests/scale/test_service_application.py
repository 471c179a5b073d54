"""The service for configuration files of Ray Serve: what its arguments may be. Nothing of Ray is started here."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.tiny_models import TinyModel
from voxport.runtime.errors import VoxportError
from voxport.scale.errors import ScaleError

pytest.importorskip("ray.serve")


def test_arguments_are_the_options_of_the_command(model: TinyModel, tmp_path: Path) -> None:
    from voxport.scale.service.replicas import build

    (tmp_path / "keys").write_text("sixteen characters at least\n")
    store = str(tmp_path / "voices.db")
    found = build({"model": str(model.path), "store": store, "keys": tmp_path / "keys", "threads": 2, "drain": 7.0})
    deployment = found._bound_deployment
    assert deployment.name == "voxport"
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment._deployment_config.graceful_shutdown_timeout_s == 7.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"store": ""}, "store must be given"),
        ({"port": 80}, "port is said by"),
        ({"colour": "red"}, "colour"),
        ({"keys": "nowhere"}, "nowhere"),
        ({"model": "nowhere.onnx"}, "nowhere.onnx"),
        ({"queue": 0}, "queue must be above 0"),
    ],
)
def test_what_is_wrong_with_them_is_told(model: TinyModel, wrong: dict[str, Any], words: str) -> None:
    from voxport.scale.service.replicas import build

    with pytest.raises(VoxportError, match=words) as found:
        build({"model": str(model.path), "store": "voices.db"} | wrong)
    assert isinstance(found.value, ScaleError) or "model" in wrong


def _folders_lie_in(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(parent))
    monkeypatch.setattr("voxport.scale.cluster._LONGEST", 1000)  # no socket lies there


def test_a_node_that_does_not_come_up_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray raises a bare Exception where its node is not there in time, as on a machine that is busy."""
    import ray

    from voxport.scale.cluster import ClusterOptions, ray_cluster

    def late(*_: Any, **__: Any) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr(ray, "init", late)
    _folders_lie_in(tmp_path, monkeypatch)
    words = r"Ray does not start on this machine \(The current node timed out"
    with pytest.raises(ScaleError, match=words), ray_cluster(ClusterOptions()):
        raise AssertionError("there is no cluster")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_goes_after_all_processes_that_work_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray ends its own children; a replica among theirs may still be logging when `shutdown` returns."""
    import ray

    from voxport.scale.cluster import ClusterOptions, ray_cluster

    log = "import sys, time; from pathlib import Path\n"
    log += "for n in range(40): Path(sys.argv[1], str(n)).mkdir(parents=True); time.sleep(0.05)\n"
    log += "Path(sys.argv[2]).write_text('ended')"
    raylet = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]); time.sleep(60)"
    ended = tmp_path / "ended"
    started: list[subprocess.Popen[bytes]] = []

    def init(*_: Any, _temp_dir: str, **__: Any) -> None:
        started.append(subprocess.Popen([sys.executable, "-c", raylet, log, _temp_dir, str(ended)]))

    def shutdown() -> None:
        started[0].kill()
        started[0].wait()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    _folders_lie_in(tmp_path, monkeypatch)
    with ray_cluster(ClusterOptions()):
        (folder,) = tmp_path.iterdir()
        until = time.monotonic() + 60
        while not (folder / "0").is_dir():
            assert time.monotonic() < until
            time.sleep(0.01)
    assert list(tmp_path.iterdir()) == [ended]


def test_a_folder_that_somebody_writes_to_is_removed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray

    from voxport.scale.cluster import ClusterOptions, ray_cluster

    remove, tries = shutil.rmtree, 0

    def busy(path: str, **options: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            remove(path, **options)

    monkeypatch.setattr(ray, "init", lambda *_, **__: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(shutil, "rmtree", busy)
    _folders_lie_in(tmp_path, monkeypatch)
    with ray_cluster(ClusterOptions()):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []

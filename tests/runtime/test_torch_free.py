"""The runtime needs NumPy and onnxruntime. A process in which nothing else can be imported proves it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone

TRAINING = [
    "torch",
    "torchaudio",
    "pytorch_lightning",
    "onnx",
    "onnxscript",
    "scipy",
    "sklearn",
    "librosa",
    "matplotlib",
]
LAZY = ["onnxruntime", "soundfile", "soxr"]


def run_without(forbidden: list[str], code: str, *arguments: object) -> str:
    """Run `code` in a fresh interpreter where importing any of `forbidden` raises, and return its output."""
    guard = f"""
        import sys

        class Guard:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {forbidden!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Guard())
    """
    script = textwrap.dedent(guard) + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_guard_forbids_what_it_says() -> None:
    code = """
        try:
            import json, torch
        except ModuleNotFoundError as problem:
            print(problem.name)
    """
    assert run_without(["torch"], code).strip() == "torch"


def test_identifying_works_where_no_training_package_can_be_imported(either: TinyModel, tmp_path: Path) -> None:
    """A file at another rate and an array: every part of the runtime is used."""
    soundfile.write(tmp_path / "who.wav", tone(0.4, 8000), 8000)
    code = """
        import json, sys
        import numpy as np
        from voxport.runtime import SpeakerIdentifier

        identifier = SpeakerIdentifier.load(sys.argv[1])
        from_file = identifier.identify(sys.argv[2])
        from_array = identifier.identify(np.linspace(-0.5, 0.5, 6400, dtype=np.float32), 16000)
        ours = sorted({name.partition(".")[0] for name in sys.modules})
        print(json.dumps([from_file.best.speaker, from_array.best.speaker, ours]))
    """
    first, second, modules = json.loads(run_without(TRAINING, code, either.path, tmp_path / "who.wav"))
    assert first in either.contract.labels
    assert second in either.contract.labels
    assert not set(TRAINING) & set(modules)
    assert {"onnxruntime", "soundfile", "soxr"} <= set(modules)


def test_importing_the_runtime_imports_nothing_but_numpy() -> None:
    """Only what is imported now counts, not what a caller may import later."""
    code = """
        import sys
        import numpy
        before = set(sys.modules)
        import voxport.runtime
        top = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(name for name in top - {"voxport", "numpy"} if name not in sys.stdlib_module_names))
    """
    assert run_without(TRAINING + LAZY, code).strip() == ""


def test_a_contract_is_read_with_numpy_alone(tiny: TinyModel) -> None:
    code = """
        import sys
        from voxport.runtime import read_contract
        print(len(read_contract(sys.argv[1]).labels))
    """
    assert run_without([*TRAINING, *LAZY, "click", "google"], code, tiny.path).strip() == "5"


def test_samples_at_the_right_rate_need_no_audio_package(either: TinyModel) -> None:
    code = """
        import sys
        import numpy as np
        from voxport.runtime import SpeakerIdentifier
        scores = SpeakerIdentifier.load(sys.argv[1]).scores(np.load(sys.argv[2]), 16000)
        print(int(scores.argmax()))
    """
    samples = tone(0.4)
    path = either.path.with_name("samples.npy")
    np.save(path, samples)
    found = run_without([*TRAINING, "soundfile", "soxr"], code, either.path, path)
    assert 0 <= int(found) < len(either.contract.labels)


@pytest.mark.parametrize(("missing", "command"), [("onnxruntime", "voxport[cpu]"), ("soundfile", "voxport[audio]")])
def test_what_is_missing_is_named_with_its_pip_command(tiny: TinyModel, missing: str, command: str) -> None:
    code = """
        import sys
        from voxport.runtime import BackendError, SpeakerIdentifier
        try:
            SpeakerIdentifier.load(sys.argv[1]).identify("who.wav")
        except BackendError as problem:
            print(problem)
    """
    found = run_without([missing], code, tiny.path)
    assert missing in found
    assert f'pip install "{command}"' in found

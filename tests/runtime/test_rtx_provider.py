"""NVIDIA's plugin provider in ONNX Runtime: a fake whose sessions compute on the CPU, and the real one's refusal."""

import importlib.util
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.runtime.tiny_models import TinyModel, features
from voxport.runtime import BackendError, BackendOptions, load_backend
from voxport.runtime.backends.onnxrt import rtx_provider
from voxport.runtime.backends.onnxrt.rtx_provider import RTX, rtx_devices

MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
REAL = onnxruntime.InferenceSession


class Plugin:
    """What the fakes were asked for, and what they are to answer."""

    def __init__(self) -> None:
        self.registered: list[tuple[str, str]] = []
        self.options: dict[str, str] = {}
        self.gpus = 1
        self.problem = ""
        self.starts = True
        self.rows: list[int] = []

    def register(self, name: str, library: str) -> None:
        self.registered.append((name, library))
        if self.problem:
            raise RuntimeError(self.problem)

    def devices(self) -> list[Any]:
        hardware = types.SimpleNamespace(vendor_id=0x10DE, device_id=0x2684)
        own = [types.SimpleNamespace(ep_name=RTX, device=hardware)] * self.gpus
        return [types.SimpleNamespace(ep_name="CPUExecutionProvider", device=hardware), *own]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plugin:
    made = Plugin()
    module = types.ModuleType(MODULE)
    module.__version__ = "0.5.0"  # type: ignore[attr-defined]
    module.get_library_path = lambda: str(tmp_path / "plugin.so")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)

    class Settings(onnxruntime.SessionOptions):  # type: ignore[misc]
        def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
            assert [each.ep_name for each in devices] == [RTX]
            made.options = options

    class Session:
        """It runs on the CPU, and says that it does not."""

        def __init__(self, path: str, sess_options: Any, providers: Any, **rest: Any) -> None:
            assert isinstance(sess_options, Settings)
            assert providers is None, "a plugin's provider comes with the options"
            self._session = REAL(path, sess_options, ["CPUExecutionProvider"], **rest)

        def get_providers(self) -> list[str]:
            return [*([RTX] if made.starts else []), "CPUExecutionProvider"]

        def run(self, outputs: Any, feeds: dict[str, Any], options: Any = None) -> Any:
            made.rows.append(len(feeds["lengths"]))
            return self._session.run(outputs, feeds, options)

        def __getattr__(self, name: str) -> Any:
            if name == "get_provider_graph_assignment_info":
                raise AttributeError(name)
            return getattr(self._session, name)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Settings)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", made.register, raising=False)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", made.devices, raising=False)
    monkeypatch.setattr(rtx_provider, "_registered", set())
    return made


def test_a_model_runs_on_the_plugin_in_its_profile_s_rows(plugin: Plugin, tiny: TinyModel, tmp_path: Path) -> None:
    options = BackendOptions(device="rtx", cache=tmp_path / "cache", max_batch=2)
    model = load_backend(tiny.path, options)
    plugin.rows.clear()
    rows = features([20, 7, 33])
    batch = np.zeros((3, 33, rows[0].shape[1]), np.float32)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    answer = model.run(batch, np.array([20, 7, 33]))
    for scores, row in zip(answer.scores, rows, strict=True):
        np.testing.assert_allclose(scores, tiny.scores(row), atol=1e-4)
    assert plugin.rows == [2, 1]
    assert plugin.registered == [(RTX, str(tmp_path / "plugin.so"))]
    load_backend(tiny.path, options)
    assert len(plugin.registered) == 1  # once a process
    told = model.explain()
    assert told.device == "rtx"
    assert told.providers[0] == RTX
    assert ("onnxruntime-ep-nv-tensorrt-rtx", "0.5.0") in told.versions


def test_the_plugin_gets_one_profile_and_a_folder_for_its_kernels(
    plugin: Plugin, tiny: TinyModel, tmp_path: Path
) -> None:
    load_backend(tiny.path, BackendOptions(device="rtx", cache=tmp_path / "cache", max_batch=4))
    found = plugin.options
    contract = tiny.contract
    mels = contract.frontend.n_mels
    assert found["nv_profile_min_shapes"] == f"features:1x{contract.min_frames}x{mels},lengths:1"
    assert found["nv_profile_max_shapes"] == f"features:4x{contract.max_frames}x{mels},lengths:4"
    assert found["enable_cuda_graph"] == "0"
    folder = Path(found["nv_runtime_cache_path"])
    assert folder.is_dir()
    assert folder.parent == tmp_path / "cache" / "rtx-provider"


def test_what_is_missing_is_one_sentence_each(
    plugin: Plugin, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(said: str) -> None:
        with pytest.raises(BackendError, match=said) as told:
            load_backend(tiny.path, BackendOptions(device="rtx", cache=tmp_path / "cache"))
        assert "\n" not in str(told.value)

    plugin.problem = "Failed to load library: libcuda.so.1: cannot open shared object file"
    refused("there is no NVIDIA driver.*device 'cuda' or 'cpu'")
    plugin.problem = "Failed to load library: an undefined symbol\nand more"
    refused(r"cannot load NVIDIA's plugin \(Failed to load library: an undefined symbol\)")
    plugin.problem, plugin.gpus = "", 0
    refused(r"finds no GPU that it takes.*not H100 and H200 \(9\.0\).*build a plan")
    plugin.gpus, plugin.starts = 1, False
    refused("NVIDIA's plugin could not start it .*it offers CPUExecutionProvider")
    plugin.starts = True
    with pytest.raises(BackendError, match="precision fp16 was asked for, the model is fp32"):
        load_backend(tiny.path, BackendOptions(device="rtx", precision="fp16"))
    monkeypatch.setitem(sys.modules, MODULE, None)
    refused(r'is not installed.*pip install "voxport\[rtx-provider\]"')
    monkeypatch.delattr(onnxruntime, "register_execution_provider_library")
    refused("needs ONNX Runtime 1.24, and")


@pytest.mark.skipif(importlib.util.find_spec(MODULE) is None, reason='pip install "voxport[rtx-provider]"')
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a driver")
def test_the_real_plugin_without_a_driver_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "")  # which the package changes when it is imported
    with pytest.raises(BackendError, match="there is no NVIDIA driver, without which NVIDIA's plugin does not load"):
        rtx_devices(onnxruntime)

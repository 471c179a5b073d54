"""What runs where, and why: the answer to "is it really on the GPU?"."""

import platform
from dataclasses import dataclass

_WIDTH = 11  # of the longest name in the printed form


@dataclass(frozen=True)
class Explanation:
    """How a loaded model runs. `str()` gives it as lines for a person or a log.

    `device` is "cpu", "cuda" or "tensorrt", and never "auto". `providers` are ONNX Runtime's, in order of
    preference; empty for a TensorRT plan. `threads` is None where the CPU does not compute. `precision` is
    that of the computation, as far as the file and the options decide it.
    """

    backend: str
    device: str
    device_name: str
    why: str
    precision: str
    providers: tuple[str, ...] = ()
    threads: int | None = None
    versions: tuple[tuple[str, str], ...] = ()  # (package, version)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [("back end", self.backend), ("device", f"{self.device}: {self.device_name}"), ("why", self.why)]
        if self.providers:
            lines.append(("providers", ", ".join(self.providers)))
        if self.threads is not None:
            lines.append(("threads", str(self.threads)))
        lines.append(("precision", self.precision))
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in self.versions)))
        lines += [("note", note) for note in self.notes]
        return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in lines)


def cpu_name() -> str:
    """The processor's name as Linux tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

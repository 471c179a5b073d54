"""What the clock covers, in words that stand in every output."""

from collections.abc import Sequence

from voxport.benchmarks.core.settings import Engine, Scenario
from voxport.runtime.contract import InputKind

SCENARIOS: dict[Scenario, str] = {
    "single-stream": "single stream: one caller, who sends the next call when the last is answered",
    "offline": "offline: the whole set is there at once, sorted by length and answered batch after batch; "
    "one time is one pass over the set",
    "server": "server: queries of one utterance come at random (Poisson), and what waits is answered together, "
    "as many as the batch allows; a time counts from the moment at which the query was due, waiting included",
}
_INPUTS: dict[InputKind, str] = {
    "features": "features in, scores out; float32 arrays in host memory; no file decoding, no frontend",
    "waveform": "waveform in, scores out; float32 arrays in host memory; frontend included; no file decoding",
}


def boundary_text(kind: InputKind, devices: Sequence[Engine], scenario: Scenario) -> str:
    """The boundary of one kind of input."""
    copies = "no copies to a device"
    if any(device != "cpu" for device in devices):
        copies = "copies to and from the GPU included, and its work has finished"
    waiting = "; waiting in the queue included" if scenario == "server" else ""
    return f"{_INPUTS[kind]}; {copies}{waiting}"

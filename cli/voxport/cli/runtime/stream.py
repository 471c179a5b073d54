"""`voxport stream`: who is speaking now?"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import click
from click.core import ParameterSource

from voxport.cli.common import example, json_option, needs
from voxport.cli.runtime.arguments import refuse_gallery
from voxport.cli.runtime.shared import (
    channel_option,
    check_output,
    check_threshold,
    gallery_scorer,
    live_options,
    titled,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from voxport.runtime import Decision
    from voxport.runtime.audio.channels import Channel, ChannelChoice

_FORMATS = {"s16": "<i2", "f32": "<f4"}  # little-endian, as nearly every recorder writes
_READ = 1 << 14  # bytes taken from standard input at most at a time
_WATCHED_SECONDS = 30.0  # of a live sound's channels
_CONTAINERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg"}


@click.command(
    epilog=example(
        """
        arecord -q -f S16_LE -r 16000 -c 1 -t raw | voxport stream model.onnx
        ffmpeg -v error -i talk.mp4 -ac 1 -ar 16000 -f f32le - | voxport stream model.onnx --format f32 --json
        voxport stream model.onnx talk.wav --firm
        ffmpeg -v error -i call.wav -ar 16000 -f s16le - | voxport stream model.onnx --channels 2 --channel each
        voxport stream model.onnx talk.wav --gallery people.gallery --threshold 0.5
        """
    )
)
@click.argument("model", type=click.Path())
@click.argument("file", type=click.Path(), default="-", metavar="[FILE|-]")
@click.option("--rate", type=int, default=16000, help="Sample rate of raw PCM input, in Hz.")
@click.option("--channels", type=click.IntRange(1, 8), default=1, help="Channels of raw PCM input, interleaved.")
@click.option("--format", "kind", type=click.Choice(list(_FORMATS)), default="s16",
              help="Sample format of raw PCM input, little-endian.")  # fmt: skip
@click.option("--firm", "only_firm", is_flag=True, help="Print firm decisions only.")
@click.option("--window", type=float, metavar="SECONDS", help="Length of a window.  [default: 2, if the model allows]")
@click.option("--hop", type=float, metavar="SECONDS", help="Step from window to window.  [default: a quarter window]")
@click.option("--top", type=click.IntRange(1, 1000), default=3, help="Number of speakers in a decision.")
@channel_option("others are decided each, and channels of standard input are averaged")
@live_options
@json_option
@needs("cpu", "audio")
def stream(
    model: str,
    file: str,
    only_firm: bool,
    as_json: bool,
    device: Any,
    threads: int | None,
    verify: bool,
    channel: "ChannelChoice | None",
    gallery: str | None,
    threshold: float | None,
    **options: Any,
) -> None:
    """Say who is speaking, while the sound comes: raw PCM on standard input, or FILE played through.

    A decision is printed for each window of speech; with --json each is one line of JSON. `firm` marks
    those that have settled. Silence gives none. At the end of the sound the tail is decided too.
    """
    from voxport.runtime import SpeakerIdentifier, Stream, StreamOptions
    from voxport.runtime.audio.decode import audio_blocks

    refuse_gallery(model)
    check_threshold(gallery, threshold)
    _check_raw_options(file)
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads, verify=verify)
    check_output(identifier, model, "scores" if gallery is None else "embedding")
    settings = StreamOptions(window_s=options["window"], hop_s=options["hop"], top=options["top"])
    rate = options["rate"] if file == "-" else identifier.contract.frontend.sample_rate
    scorer = gallery_scorer(identifier, gallery, threshold)
    chosen = _channels(file, options["channels"], channel)
    streams = [Stream(identifier, rate, settings, scorer=scorer, channel=each) for each in chosen]
    line = _json_line if as_json else _line if scorer is None else partial(_cosine_line, scorer.scale)
    # What is decided before a fault in the sound is printed before the fault is told.
    decided = 0
    if file == "-":
        watch = _ChannelWatch(rate) if channel is None and options["channels"] > 1 else None
        for chunk in _raw_chunks(_standard_input(), options["kind"], options["channels"]):
            if watch is not None:
                watch.push(chunk)
            decided += sum(_print(live.push(chunk), only_firm, line) for live in streams)
        if watch is not None:
            watch.finish()
    else:
        for blocks in zip(*(audio_blocks(file, rate, channel=each) for each in chosen), strict=True):
            for live, block, each in zip(streams, blocks, chosen, strict=True):
                decided += _print(live.push(_as_channel(block, each)), only_firm, line)
    decided += sum(_print(live.close(), only_firm, line) for live in streams)
    if not decided:  # nothing at all on the screen would look like a fault
        what = "firm decision" if only_firm else "decision"
        click.echo(
            f"note: no {what} in {streams[0].seconds:.2f} s of sound: too short, silence, or too little speech",
            err=True,
        )


def _check_raw_options(file: str) -> None:
    """Refuse options of raw PCM where a sound file tells its own rate, channels and type."""
    source = click.get_current_context().get_parameter_source
    options = {"rate": "--rate", "channels": "--channels", "kind": "--format"}
    typed = [shown for name, shown in options.items() if source(name) is ParameterSource.COMMANDLINE]
    if file != "-" and typed:
        raise click.UsageError(f"{', '.join(typed)}: of raw PCM on standard input; {file} tells its own, leave it out")


def _as_channel(block: "npt.NDArray[np.float32]", channel: "Channel") -> "npt.NDArray[np.float32]":
    """A block (n,) of one channel in the place where a stream looks for that channel."""
    import numpy as np

    return block if channel == "mix" else np.broadcast_to(block[:, None], (len(block), channel))


class _ChannelWatch:
    """Compares the channels of a live sound that are averaged for want of a choice, and tells where that is wrong."""

    def __init__(self, rate: int) -> None:
        from voxport.runtime.audio.channels import ChannelMeter

        self._meter, self._left, self._heard = ChannelMeter(rate), round(_WATCHED_SECONDS * rate), False

    def push(self, chunk: "npt.NDArray[np.generic]") -> None:
        from voxport.runtime.audio.samples import check_values

        if self._left > 0:
            self._meter.push(check_values(chunk, "standard input"))
            self._left, self._heard = self._left - len(chunk), True
            if self._left <= 0:
                self._tell()

    def finish(self) -> None:
        """The sound has ended."""
        if self._left > 0 and self._heard:
            self._tell()

    def _tell(self) -> None:
        found = self._meter.finish()
        if found.differ or found.cancel:
            what = "hold different sounds" if found.differ else "cancel each other"
            click.echo(f"warning: the channels {what}, and their average is heard; choose with --channel", err=True)


def _channels(file: str, channels: int, wanted: "ChannelChoice | None") -> "tuple[Channel, ...]":
    """The channels to hear, each with a stream of its own."""
    from voxport.runtime import AudioError
    from voxport.runtime.audio.channels import cancel_text
    from voxport.runtime.audio.preprocess import heard_channels

    if file != "-":
        found, chosen = heard_channels(file, None, file, wanted)
        if found is not None and found.cancel and wanted is None:
            click.echo(f"note: {file}: {cancel_text(found, chosen[0])}", err=True)
        return chosen
    if wanted is None:
        if channels > 1:
            click.echo(f"note: {channels} channels are averaged; hear each with --channel each", err=True)
        return ("mix",)
    if wanted == "each":
        return tuple(range(1, channels + 1))
    if wanted != "mix" and wanted > channels:
        raise AudioError(f"standard input has no channel {wanted}: --channels says {channels}")
    return (wanted,)


def _standard_input() -> BinaryIO:
    from voxport.runtime import VoxportError

    if sys.stdin is None or sys.stdin.isatty():
        raise VoxportError("standard input is no pipe; send raw PCM into one, or name a sound FILE")
    return sys.stdin.buffer


def _raw_chunks(source: BinaryIO, kind: str, channels: int) -> Iterator["npt.NDArray[np.generic]"]:
    """Samples (n, channels) as they come. A last sample that is not whole is left out, and said so."""
    import numpy as np

    from voxport.runtime import AudioError

    dtype = np.dtype(_FORMATS[kind])
    size = dtype.itemsize * channels
    # read1 gives what is there: no decision waits for bytes that have yet to come.
    read: Callable[[int], bytes] = getattr(source, "read1", source.read)
    head = left = b""
    while data := read(_READ):
        left += data
        if len(head) < 4:
            head = (head + data)[:4]
            if head in _CONTAINERS:
                raise AudioError(
                    f"standard input: a {_CONTAINERS[head]} file, but raw PCM is expected; "
                    "name the file instead, or decode it, for example: ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -"
                )
        whole = len(left) - len(left) % size
        if whole:
            yield np.frombuffer(left[:whole], dtype).reshape(-1, channels)
            left = left[whole:]
    if left:
        click.echo(
            f"warning: standard input ended within a sample: {len(left)} of {size} bytes, left out "
            f"(is it really --format {kind} --channels {channels}?)",
            err=True,
        )


def _print(decisions: tuple["Decision", ...], only_firm: bool, line: Callable[["Decision"], str]) -> int:
    """Print the decisions that are wanted; how many there were."""
    wanted = [decision for decision in decisions if decision.firm or not only_firm]
    for decision in wanted:
        click.echo(line(decision))  # echo flushes: a pipe sees it now
    return len(wanted)


def _json_line(decision: "Decision") -> str:
    from voxport.runtime.storage.serialization import encode

    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    return json.dumps({"speaker": decision.speaker} | encode(decision), ensure_ascii=ascii_only, allow_nan=False)


def _line(decision: "Decision") -> str:
    return _worded(decision, f"{decision.best.probability:6.1%}")


def _cosine_line(scale: float, decision: "Decision") -> str:
    """Of an enrolled voice a person wants the cosine, or normalised score, which thresholds are set in."""
    return _worded(decision, f"{decision.best.score / scale:6.3f}")


def _worded(decision: "Decision", likeness: str) -> str:
    best = decision.best
    name = best.speaker if decision.speaker is not None else f"(unknown; most like {best.speaker})"
    who = titled(name, decision.channel)
    mark = "firm" if decision.firm else "    "
    return f"{decision.start_s:9.2f} – {decision.end_s:8.2f} s  {mark}  {likeness}  {who}"

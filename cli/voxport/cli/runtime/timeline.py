"""`voxport timeline`: who speaks when in a recording?"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table
from voxport.cli.progress import counting_bar, is_shown
from voxport.cli.runtime.arguments import refuse_gallery
from voxport.cli.runtime.shared import (
    channel_option,
    check_output,
    check_place,
    check_threshold,
    gallery_scorer,
    live_options,
    written_whole,
)

if TYPE_CHECKING:
    from voxport.runtime import GalleryScorer, Segment
    from voxport.runtime.audio.channels import ChannelChoice


@click.command(
    epilog=example(
        """
        voxport timeline model.onnx meeting.flac
        voxport timeline model.onnx meeting.flac --rttm meeting.rttm --plot meeting.png
        voxport timeline model.onnx meeting.flac --window 3 --hop 1 --json
        voxport timeline model.onnx meeting.flac --gallery people.gallery --threshold 0.5
        """
    )
)
@click.argument("model", type=click.Path())
@click.argument("file", type=click.Path())
@click.option("--rttm", type=FILE_PATH, help="Also write RTTM, which diarisation tools read.")
@click.option("--plot", type=FILE_PATH, help="Also draw a picture (.png, .svg or .pdf).")
@click.option("--window", type=float, metavar="SECONDS", help="Length of a window.  [default: 2, if the model allows]")
@click.option("--hop", type=float, metavar="SECONDS", help="Step from window to window.  [default: a quarter window]")
@click.option("--switch-penalty", type=float, default=0.25, help="Cost of a change of speaker, in cosine.")
@click.option("--min-segment", type=float, default=0.5, metavar="SECONDS", help="Shortest segment, in seconds.")
@click.option("--max-gap", type=float, default=0.5, metavar="SECONDS", help="Longest pause within a segment.")
@channel_option("others are divided each")
@live_options
@json_option
@needs("cpu", "audio")
def timeline(
    model: str, file: str, rttm: Path | None, plot: Path | None, device: Any, threads: int | None, verify: bool,
    as_json: bool, channel: "ChannelChoice | None", gallery: str | None, threshold: float | None, **options: Any,
) -> None:  # fmt: skip
    """Say who speaks when in FILE, a sound file of any length.

    The recording is cut into windows; each is compared with MODEL's speakers, and the most plausible
    sequence of speakers is taken. Silence is left out. A voice below the threshold, where the model or the
    gallery has one, is unknown. Memory does not grow with the recording.
    """
    from voxport.runtime import SpeakerIdentifier, Timeline, TimelineOptions
    from voxport.runtime.audio.decode import audio_seconds

    refuse_gallery(model)
    check_threshold(gallery, threshold)
    for place in (rttm, plot):
        check_place(place)
    if plot is not None:
        from voxport.cli.runtime.timeline_plot import picture_kind

        picture_kind(plot)
    settings = TimelineOptions(
        window_s=options["window"],
        hop_s=options["hop"],
        switch_penalty=options["switch_penalty"],
        min_segment_s=options["min_segment"],
        max_gap_s=options["max_gap"],
    )
    identifier = SpeakerIdentifier.load(model, device=device, threads=threads, verify=verify)
    check_output(identifier, model, "scores" if gallery is None else "embedding")
    scorer = gallery_scorer(identifier, gallery, threshold)
    engine = Timeline(identifier, settings, scorer=scorer)
    length = audio_seconds(file)  # also says at once what is wrong with the file
    seconds = 0.0
    with counting_bar("Listening", is_shown() and length is not None) as show:

        def heard(done: float) -> None:
            nonlocal seconds
            seconds = done
            show(done, length or 0)

        segments = engine.segments(file, progress=heard, channel=channel)
    if rttm is not None:
        _write_rttm(segments, file, rttm)
    if plot is not None:
        from voxport.cli.runtime.timeline_plot import draw_timeline

        draw_timeline(segments, seconds, f"Who speaks when in {os.path.basename(file)}", plot)
    if as_json:
        among = {}
        if scorer is not None:  # the threshold that windows full of speech were held to
            used = scorer.threshold_for(min(engine.window_s, seconds))
            among = {"gallery": gallery, "threshold": used}
        emit_json({"model": model, **among, "file": file, "duration_s": seconds, "segments": _encoded(segments)})
    else:
        _show(file, seconds, segments, scorer)


def _write_rttm(segments: tuple["Segment", ...], file: str, path: Path) -> None:
    from voxport.runtime.streaming.rttm import rttm_lines

    with written_whole(path) as part:
        part.write_text("".join(f"{line}\n" for line in rttm_lines(segments, Path(file).stem)), encoding="utf-8")


def _show(file: str, seconds: float, segments: tuple["Segment", ...], scorer: "GalleryScorer | None") -> None:
    """`scorer` is that of enrolled speakers, shown with a cosine or a normalised score; None for the model's own."""
    if not segments:
        click.echo(f"{file}: nobody speaks in its {seconds:.1f} s")
        return
    several = any(segment.channel is not None for segment in segments)
    rows = [
        (
            *([segment.channel] if several else []),
            clock(segment.start_s),
            clock(segment.end_s),
            f"{segment.duration_s:.2f} s",
            "(unknown)" if segment.speaker is None else segment.speaker,
            *(
                [f"{segment.probability:.1%}", f"{segment.score:.2f}"]
                if scorer is None
                else [f"{segment.score / scorer.scale:.3f}"]
            ),
        )
        for segment in segments
    ]
    likeness: tuple[str, ...] = ("probability", "score")
    if scorer is not None:
        likeness = ("cosine",) if scorer.as_norm is None else ("normalised",)
    columns = (*(("channel",) if several else ()), "from", "to", "length", "speaker", *likeness)
    show_table(f"Who speaks when in {file}", columns, rows)


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS.cc."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}.{rest % 100:02d}"


def _encoded(segments: tuple["Segment", ...]) -> Any:
    from voxport.runtime.storage.serialization import encode

    return encode(segments)

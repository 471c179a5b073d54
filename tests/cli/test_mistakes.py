"""One matrix of mistakes: a command line, its exit code, and what is said; nothing is written and no traceback shown.

Each block has the mistakes that users make with one command. Names of files are those of the fixture `place`.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.benchmarks.bench_documents import train, write
from tests.export.tiny import make_checkpoint, write_checkpoint
from tests.runtime.tiny_models import make_tiny, tone
from tests.train.corpora import write_homework, write_recipe
from voxport.cli.root import cli
from voxport.runtime import Gallery, SpeakerIdentifier

MISTAKES = r"""
identify model.onnx | 2 | Missing argument 'FILE...'
identify model.onnx low.wav --top 0 | 2 | 0 is not in the range
identify model.onnx low.wav --threads 0 | 2 | 0 is not in the range
identify model.onnx low.wav --device tpu | 2 | 'tpu' is not one of
identify model.onnx low.wav --no-such-option | 2 | No such option
identify model.onnx low.wav --threshold 0.5 | 2 | needs --gallery
identify model.onnx low.wav --gallery people --threshold nan | 2 | such as a cosine between -1 and 1, found nan
identify people low.wav | 2 | people is a gallery; MODEL comes first, and the gallery with
identify absent.onnx low.wav | 1 | absent.onnx: cannot be read
identify empty.onnx low.wav | 1 | empty.onnx: not a whole ONNX file
identify notes.txt low.wav | 1 | notes.txt: not a whole ONNX file
identify sound.onnx who.npy | 1 | who.npy: the features: this model takes sound
identify model.onnx low.wav --gallery notes.txt | 1 | notes.txt: no voxport gallery
inspect notes.txt | 1 | notes.txt: not a whole ONNX file
inspect absent.onnx | 1 | absent.onnx: cannot be read
inspect . | 1 | .: not a file; give a voxport model
inspect people | 1 | a gallery of enrolled speakers, not a model

timeline model.onnx absent.wav | 1 | absent.wav: No such file
timeline model.onnx low.wav --window 9 | 1 | window_s: this model takes
timeline model.onnx low.wav --hop nan | 1 | hop_s must be
timeline model.onnx low.wav --plot x.jpeg2000 | 1 | pictures end in
timeline model.onnx low.wav --rttm no/such/folder.rttm | 1 | no/such: there is no such folder
timeline model.onnx low.wav --plot . | 1 | is a folder
timeline people low.wav | 2 | people is a gallery; MODEL comes first
timeline model.onnx low.wav --gallery people --threshold nan | 2 | found nan
stream model.onnx absent.wav | 1 | absent.wav: No such file
stream model.onnx low.wav --window 9 | 1 | window_s
stream model.onnx low.wav --rate 8000 | 2 | --rate: of raw PCM on standard input
stream model.onnx low.wav --channels 2 | 2 | --channels: of raw PCM on standard input
stream model.onnx low.wav --format f32 | 2 | --format: of raw PCM on standard input
stream people low.wav | 2 | people is a gallery; MODEL comes first
stream model.onnx low.wav --gallery people --threshold nan | 2 | found nan

embed people low.wav | 2 | people is a gallery; MODEL comes first
embed model.onnx -o low.wav low.wav | 2 | does not end in .npz
embed model.onnx -o absent/voices.npz never-read.wav | 1 | absent: there is no such folder
embed model.onnx -o folder.npz never-read.wav | 1 | is a folder
enroll people | 2 | give NAME and FILEs to enroll
enroll people Eve | 2 | no sound of 'Eve' was given
enroll people Eve eve.wav | 2 | voxport enroll MODEL GALLERY NAME FILE...
enroll people --calibrate 0 | 2 | --calibrate
enroll people --calibrate 1 | 2 | --calibrate
enroll people --list --strangers voices.npz | 2 | --strangers are for --calibrate
enroll people --model model.onnx low.wav high.wav | 2 | NAME comes before the FILEs
enroll people --model absent.onnx a\nb low.wav | 1 | has control characters; rename the speaker
enroll notes.txt --list | 1 | notes.txt: no voxport gallery
enroll notes.txt --model model.onnx Eve low.wav | 1 | notes.txt: no voxport gallery
enroll absent --remove Eve | 1 | absent: there is no such file
enroll notes.txt new Ada low.wav | 1 | notes.txt: not a whole ONNX file
enroll absent.onnx people Ada low.wav | 1 | absent.onnx: cannot be read
enroll model.onnx people --model model.onnx Ada low.wav | 2 | MODEL is given twice
verify notes.txt --model model.onnx Eve low.wav | 1 | notes.txt: no voxport gallery
verify people --model model.onnx Eve low.wav --threshold 0.5 | 1 | 'Eve' is not enrolled; see who is: voxport gallery
verify people --model model.onnx Low low.wav --threshold nan | 2 | found nan
verify absent.onnx people Ada low.wav | 1 | absent.onnx: cannot be read
verify model.onnx people --model model.onnx Ada low.wav | 2 | MODEL is given twice
verify people Ada low.wav | 2 | expected MODEL GALLERY NAME FILE...
verify model.onnx people Ada | 2 | expected MODEL GALLERY NAME FILE...
verify model.onnx | 2 | expected MODEL GALLERY NAME FILE...
gallery calibrate people 0 | 2 | 0 is not in the range

train fit --out run | 2 | --data and --recipe are needed
train fit --out run --data corpus --recipe nonesuch | 1 | no recipe 'nonesuch'
train fit --out run --data nowhere --recipe tiny.toml | 1 | nowhere
train fit --out run --data corpus --recipe tiny.toml --noise corpus | 1 | --noise and --rirs change sounds
train fit --out run --data corpus --recipe tiny.toml --frontend nonesuch | 1 | homework_mel40
train fit --out run --resume | 1 | no run to resume
train fit --out run --resume --steps 4 | 2 | leave out --steps
train fit --out run --resume --skip-bad | 2 | leave out --skip-bad
train predict absent.pt --csv nowhere/a.csv | 1 | there is no folder nowhere
train predict tiny.toml --csv a.csv | 1 | tiny.toml: not a readable checkpoint
train evaluate absent.pt | 1 | absent.pt: no such checkpoint
train evaluate absent.pt --save | 2 | say for which --false-accept-rate
train ablate --out out | 2 | --data is needed
train ablate --data corpus --out out --recipes , | 2 | no recipe

export onnx absent.pt -o new.onnx --opset 26 | 1 | opset 26: choose 18 to 22
export onnx model.pt --output new.onnx | 2 | the file to write is given with -o
export check absent.onnx absent.pt | 1 | absent.onnx
export check absent.onnx model.pt --accuracy-data held-out | 1 | held-out: no such directory or manifest; give a
export check model.onnx | 2 | Missing argument 'B'
export torchscript absent.pt -o m.pt2 | 1 | would mislead
export pt2 absent.pt -o m.pt | 1 | only by the suffix .pt2
export pt2 absent.pt -o m.pt2 --device cuda | 1 | --device is for --aoti
export tensorrt model.pt -o m.plan --batch 1,2 | 2 | must be three numbers
export tensorrt model.pt -o m.plan --batch 1,0,2 | 2 | not a list of positive numbers
export tensorrt model.pt -o m.plan --batch 2,1,4 | 1 | batch 2,1,4: 1 ≤ MIN ≤ OPT ≤ MAX must hold
export tensorrt model.pt -o m.plan --buckets 200,x | 2 | not a list of positive numbers
export tensorrt model.pt -o m.plan --onnx m.onnx --precision fp16 | 2 | the file says that already; leave out --pre

bench latency | 2 | Missing argument
bench latency model.onnx | 2 | Missing option '--against'
bench latency model.onnx --against absent.pt | 1 | absent.pt: no such checkpoint
bench latency absent.onnx --against model.onnx | 1 | absent.onnx
bench latency model.onnx --against model.onnx --frames 9999 | 1 | --frames 9999: model.onnx takes 5 to 60 frames
bench latency model.onnx --against model.onnx -o no/x.json | 2 | no such folder
bench latency model.onnx --against model.onnx -o . | 2 | is a folder
bench latency model.onnx --against model.onnx --plot x.jpeg | 2 | must end in .png, .svg or .pdf
bench latency model.onnx --against model.onnx --rounds 4 | 2 | 4 is not in the range x>=5
bench latency model.onnx --against model.onnx --cold-start 9 | 2 | 9 is too few
bench latency model.onnx --against model.onnx --also abacus | 2 | 'abacus' is not one of
bench latency model.onnx --against model.pt --bound-ms 50 | 2 | only with --scenario server
bench latency model.onnx --against model.pt --scenario offline --bound-ms 50 | 2 | only with --scenario server
bench latency model.onnx --against model.pt --queries 10 | 2 | only with --scenario offline
bench latency model.onnx --against model.pt --accuracy-limit 10 | 2 | only with --accuracy-data
bench latency model.onnx --against model.pt --max-drop 1 | 2 | only with --accuracy-data
bench latency model.onnx --against model.pt --profile --no-limits | 2 | only with --limits
bench latency model.onnx --against model.pt --profile --scenario server | 2 | only with --scenario single-stream
bench compare train.json notes.txt | 1 | notes.txt: not a readable benchmark
bench compare train.json empty.json | 1 | empty.json: no benchmark of voxport's
bench report empty.json -o none.html | 1 | empty.json: no benchmark of voxport's
bench scale --sizes gallery=9,3 | 2 | must be positive, and grow
bench scale --sizes gallery=x | 2 | expected numbers
bench scale --sizes moon=1 | 2 | curves are length
bench gpu --out new --onnx absent.onnx | 2 | no such file
bench gpu --out new --onnx model.onnx | 2 | needs the --checkpoint
score nowhere model.onnx --out new | 1 | nowhere: no such directory
"""
ROWS = [tuple(part.strip() for part in line.split("|")) for line in MISTAKES.strip().splitlines() if line]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a right file of each kind, and wrong ones."""
    folder = tmp_path_factory.mktemp("place")
    tiny = make_tiny(folder / "model.onnx")
    make_tiny(folder / "sound.onnx", "waveform")
    for name, hertz in (("low", 200.0), ("high", 3000.0)):
        soundfile.write(folder / f"{name}.wav", tone(0.4, hertz=hertz), 16000)
    gallery = Gallery(tiny.contract)
    gallery.enroll("Low", SpeakerIdentifier.load(tiny.path).embed(folder / "low.wav"))
    gallery.save(folder / "people")
    np.save(folder / "who.npy", np.ones((20, 40), np.float32))
    (folder / "folder.npz").mkdir()
    (folder / "notes.txt").write_text("hello")
    (folder / "empty.onnx").touch()
    (folder / "empty.json").write_text("{}")
    write_checkpoint(folder / "model.pt", make_checkpoint())
    write(train(), folder / "train.json")
    write_homework(folder / "corpus")
    write_recipe(folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("line", "code", "says"), ROWS, ids=[row[0].replace("\n", " ") for row in ROWS])
def test_a_mistake_is_told_in_words_and_costs_nothing(
    place: Path, line: str, code: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("VOXPORT_CACHE", str(tmp_path / "cache"))
    before = contents(place)
    result = CliRunner().invoke(cli, [word.replace("\\n", "\n") for word in line.split(" ") if word])
    said = " ".join(result.stderr.split())
    assert (result.exit_code, says in said) == (int(code), True), result.output
    assert result.stdout == ""
    assert "Traceback" not in said
    lines = [line for line in result.stderr.splitlines() if not line.strip().startswith("0/")]
    assert code == "2" or (lines[0].startswith("error: ") and lines[1:] in ([], ["1 of 1 files could not be answered"]))
    assert contents(place) == before

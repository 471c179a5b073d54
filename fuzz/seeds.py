"""Real, small inputs for each target: what a fuzzer changes from."""

import hashlib
import io
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile

from fuzz.archives import SIZES, archive_of, program_members, script_members
from fuzz.arrays import DTYPES
from fuzz.engines import engine_file
from fuzz.live import CHUNK, HEAD
from fuzz.targets import model_file
from fuzz.values import edits
from voxport.runtime import Contract, Gallery
from voxport.runtime.contract import Array, Golden, Parity, Rejection
from voxport.runtime.frontend.presets import profile

FORMATS = (
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "MS_ADPCM"), ("WAVEX", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"),
    ("AU", "ULAW"), ("CAF", "ALAC_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"),
)  # fmt: skip


def sound_files() -> list[bytes]:
    """A tenth of a second of noise and tone in every common format, mono and stereo."""
    generator = np.random.default_rng(0)
    sound = 0.3 * np.sin(np.arange(1600) / 5) + generator.normal(0, 0.05, 1600)
    files = []
    for (container, subtype), channels in ((each, channels) for each in FORMATS for channels in (1, 2)):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.stack([sound] * channels, 1), 16000, subtype, format=container)
        files.append(buffer.getvalue())
    return files


def media_files() -> list[bytes]:
    """A third of a second in every kind of file of the media tests; needs PyAV."""
    from tests.runtime.media_files import KINDS, av, encode, voice

    with tempfile.TemporaryDirectory() as folder:
        kinds = [kind for kind in KINDS.values() if kind.codec in av.codecs_available]
        made = [encode(Path(folder, f"a{kind.suffix}"), voice(kind.rate, 0.3), kind) for kind in kinds]
        fragments = {"movflags": "frag_keyframe+empty_moov"}
        made.append(encode(Path(folder, "b.mp4"), voice(16000, 0.3), KINDS["voxceleb"], fragments))
        return [path.read_bytes() for path in made]


def a_contract() -> Contract:
    """A contract with every part in it."""
    frontend = profile("homework_mel40")
    source = np.zeros((6, frontend.n_mels), np.float32)
    return Contract(
        labels=("Ada", "Bo"),
        frontend=frontend,
        input_kind="features",
        min_frames=5,
        max_frames=60,
        precision="fp32",
        embedding_size=4,
        score_scale=30.0,
        recipe="seed",
        checkpoint_sha256=hashlib.sha256(b"seed").hexdigest(),
        golden=Golden(Array.of(source), Array.of([1.0, 2.0]), tolerance=1e-3),
        parity=Parity(cases=1, max_abs_score=0.0, min_cosine=1.0, top1_agreement=1.0, tolerance=1e-3),
        rejection=Rejection(threshold=0.3, false_accept_rate=0.01),
        speech=None,  # the recordings are tones and noise, which are to be heard
    )


def contracts() -> list[bytes]:
    """Two contracts as JSON."""
    whole = a_contract()
    return [each.to_json().encode() for each in (whole, whole.replace(parity=None, rejection=None))]


def model_files() -> list[bytes]:
    """The contract in the frame of a model file, without a graph."""
    return [model_file(text) for text in contracts()]


def galleries() -> list[bytes]:
    """An empty gallery, and one of three people."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.gallery"
        gallery = Gallery(a_contract())
        gallery.save(path)
        found.append(path.read_bytes())
        generator = np.random.default_rng(0)
        for name in ("Ada", "Bo", "Chén"):
            gallery.enroll(name, generator.normal(size=(2, 4)).astype(np.float32))
        gallery.save(path)
        found.append(path.read_bytes())
    return found


def gallery_members() -> list[bytes]:
    """Each member of a gallery, behind the byte that chooses it."""
    with zipfile.ZipFile(io.BytesIO(galleries()[1])) as archive:
        return [bytes([i]) + archive.read(name) for i, name in enumerate(sorted(archive.namelist()))]


def arrays() -> list[bytes]:
    """A tone in each type of number that has one, mono and stereo, at 8, 16 and 48 kHz."""
    tone = np.sin(np.arange(2000)) * 0.5
    bodies = {i: tone * (2**15 if "i" in name else 1) for i, name in enumerate(DTYPES) if name[1] in "fi"}
    return [
        struct.pack("<BBbBi", kind, columns, 1, 0, rate + 1000) + body.astype(DTYPES[kind]).tobytes()
        for kind, body in bodies.items()
        for columns, rate in ((0, 16000), (2, 8000), (1, 48000))
    ]


def recordings() -> list[bytes]:
    """Tones and silence in chunks of several types: HEAD (rate, window, hop, share of speech), then the chunks."""
    wave = np.sin(np.arange(32) * np.pi / 4) * 0.5
    tones = {i: (wave * (2**15 if "i" in name else 1)).astype(name) for i, name in enumerate(DTYPES[:5])}
    chunks = [CHUNK.pack(kind, 0, 1, 0, 24_000) + tone.tobytes()[:32].ljust(32, b"\0") for kind, tone in tones.items()]
    silence = CHUNK.pack(0, 2, 1, 0, 40_000) + bytes(32)
    wrong = CHUNK.pack(7, 0, 1, 0, 100) + bytes(32)
    return [
        HEAD.pack(0, rate, window, hop, 80) + b"".join(rows)
        for rate, window, hop in ((0, 0, 0), (1, 30, 4), (2, 60, 1))
        for rows in (chunks, [chunks[0], silence, chunks[3], wrong, chunks[1]], chunks[:1])
    ]


def engines() -> list[bytes]:
    """An engine for RTX GPUs beside each contract, without profiles and with them."""
    bare, whole = contracts()
    return [engine_file(bare), engine_file(whole, {"profiles": [{"features": [[1, 5, 40], [2, 20, 40], [4, 60, 40]]}]})]


def torch_files() -> list[bytes]:
    """A TorchScript file and a program, as far as their checks look."""
    text = contracts()[1]
    return [archive_of(script_members(text)), archive_of(program_members(text))]


def torch_members() -> list[bytes]:
    """Each member of both, behind the byte that chooses it."""
    text = contracts()[1]
    return [
        bytes([2 * place + kind]) + members[name]
        for kind, members in enumerate((script_members(text), program_members(text)))
        for place, name in enumerate(sorted(members))
    ]


SEEDS: Mapping[str, Callable[[], list[bytes]]] = {
    "audio": sound_files,
    "contract": contracts,
    "contract_values": edits,
    "gallery": galleries,
    "gallery_member": gallery_members,
    "media": media_files,
    "onnx": model_files,
    "onnx_contract": contracts,
    "rtx": engines,
    "rtx_values": edits,
    "samples": arrays,
    "stream": recordings,
    "timeline": recordings,
    "torch": torch_files,
    "torch_member": torch_members,
    "torch_values": lambda: [bytes([place]) + edit for place in range(4) for edit in edits()],
    "torch_size": lambda: [text.encode() for text in SIZES],
}

"""The homework's directory: metadata.json, mapping.json, testdata.json and one `uttr-*.pt` per utterance.

The layout is that of the speaker-identification homework of NTU's machine-learning course
(2021–2023): `metadata.json` lists each speaker's utterances, `mapping.json` numbers the speakers, and
`testdata.json`, if it is there, lists utterances whose speakers are not told.
"""

import json
import posixpath
from pathlib import Path
from typing import Any

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry, Listing

METADATA, MAPPING, TESTDATA = "metadata.json", "mapping.json", "testdata.json"


def list_homework(path: Path) -> Listing:
    """List the corpus in the directory `path`.

    Raises:
        CorpusError: one of the JSON files is missing (but for testdata.json), damaged, or contradicts another.
    """
    metadata = _read_table(path / METADATA, "n_mels", "speakers")
    n_mels, speakers = metadata["n_mels"], metadata["speakers"]
    if type(n_mels) is not int or not isinstance(speakers, dict):
        raise CorpusError(f'{path / METADATA}: expected {{"n_mels": number, "speakers": {{name: [utterance, …]}}}}')
    labels = _read_mapping(path / MAPPING)
    unmapped = sorted(set(speakers) - set(labels))
    if unmapped:
        raise CorpusError(f"{path / MAPPING}: {len(unmapped)} speakers of {METADATA} have no id, first {unmapped[0]}")
    entries: list[Entry] = []
    problems: list[Problem] = []
    for speaker in labels:
        _list_utterances(path, METADATA, speaker, speakers.get(speaker, []), entries, problems)
    if (path / TESTDATA).is_file():
        testdata = _read_table(path / TESTDATA, "n_mels", "utterances")
        if testdata["n_mels"] != n_mels:
            raise CorpusError(f"{path / TESTDATA}: n_mels {testdata['n_mels']!r}, but {METADATA} says {n_mels}")
        _list_utterances(path, TESTDATA, None, testdata["utterances"], entries, problems)
    return Listing("homework", path, labels, tuple(entries), tuple(problems), n_mels)


def _list_utterances(
    folder: Path, file: str, speaker: str | None, items: Any, entries: list[Entry], problems: list[Problem]
) -> None:
    """Add the entries, and the problems, of one list of utterances."""
    where = f"{file}: {speaker or 'utterances'}"
    if not isinstance(items, list):
        raise CorpusError(f"{folder / file}: {where}: expected a list of utterances, found {type(items).__name__}")
    for number, item in enumerate(items):
        name = item.get("feature_path") if isinstance(item, dict) else None
        frames = item.get("mel_len") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name or type(frames) is not int:
            reason = 'expected {"feature_path": text, "mel_len": number}, ' + f"found {item!r:.80}"
            problems.append(Problem(f"{where}[{number}]", "malformed", reason))
            continue
        entries.append(Entry(posixpath.normpath(name), folder / name, speaker, frames))


def _read_mapping(path: Path) -> tuple[str, ...]:
    """The speakers in the order of their ids."""
    mapping = _read_table(path, "speaker2id", "id2speaker")
    ids, names = mapping["speaker2id"], mapping["id2speaker"]
    if not isinstance(ids, dict) or any(type(number) is not int for number in ids.values()):
        raise CorpusError(f'{path}: expected {{"speaker2id": {{name: number}}}}')
    if sorted(ids.values()) != list(range(len(ids))):
        raise CorpusError(f"{path}: the ids of speaker2id must be 0 to {len(ids) - 1}, each once")
    if names != {str(number): name for name, number in ids.items()}:
        raise CorpusError(f"{path}: id2speaker is not the inverse of speaker2id")
    return tuple(sorted(ids, key=lambda name: int(ids[name])))


def _read_table(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object that has `keys`."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as problem:
        raise CorpusError(f"{path}: no such file; the homework's directory has {METADATA} and {MAPPING}") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise CorpusError(f"{path}: not a readable JSON file ({problem})") from problem
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise CorpusError(f"{path}: no {' and no '.join(missing)}; expected an object with {', '.join(keys)}")
    assert isinstance(content, dict)
    return content

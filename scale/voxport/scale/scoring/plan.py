"""What a run has to do, written down before it begins: which utterances make which part, and for which model.

The folder of a run holds `plan.json`, `utterances.jsonl` (a line for each, in the order of the parts), `parts/`
with a Parquet file for each part that is done, and `summary.json` once all are. A part's name appears when all of its
rows are on disk; it has the same rows whoever writes it, so that a run that is killed goes on with the parts that are
missing, and no row is lost or written twice.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry, Listing, Span
from voxport.corpora.layouts.members import ParquetCell, TarMember
from voxport.corpora.recordings import list_recordings
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.storage.atomic import file_sha256, writing
from voxport.runtime.storage.serialization import decode, encode
from voxport.scale.errors import ScaleError
from voxport.scale.scoring.options import ScoreOptions

VERSION = 1
PLAN, UTTERANCES, PARTS, SUMMARY = "plan.json", "utterances.jsonl", "parts", "summary.json"
_PARTS_WANTED, _FEWEST, _MOST = 64, 32, 1024


@dataclass(frozen=True)
class Plan:
    """What decides the rows. Two runs with equal plans write equal parts.

    `listing_sha256` is that of `utterances.jsonl`; `starts` are the bytes at which the parts begin in it, and its end.
    """

    version: int
    corpus: str
    layout: str
    model: str
    model_sha256: str
    gallery: str | None
    gallery_sha256: str | None
    top: int
    embeddings: bool
    utterances: int
    part_rows: int
    listing_sha256: str
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Rows `first` to `first + rows` of the corpus: the bytes from `start` to `stop` of `utterances.jsonl`."""

    number: int
    rows: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Planned:
    """A plan, and what was said about the corpus while it was made."""

    plan: Plan
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        plan, found = self.plan, []
        for number, (start, stop) in enumerate(zip(plan.starts, plan.starts[1:], strict=False)):
            rows = min(plan.part_rows, plan.utterances - number * plan.part_rows)
            found.append(Part(number, rows, start, stop))
        return tuple(found)


def make_plan(corpus: Path, model: Path, out: Path, options: ScoreOptions) -> Planned:
    """The plan of the run in the folder `out`: a new one, or the one that is there, where it is for the same work.

    Raises:
        ScaleError: another corpus, model or choice began in `out`, or `out` holds something else.
        CorpusError: there is no such corpus.
        ContractError: the model cannot be read.
        OSError: `out` cannot be written.
    """
    read_contract(model)
    corpus = Path(os.path.abspath(corpus.expanduser()))
    before = _read(out) if (out / PLAN).exists() else None
    if before is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ScaleError(f"{out}: is there already, and no run of `voxport score` began in it; name a new folder")
    try:
        listing = list_recordings(corpus, options.layout)
    except OSError as problem:
        raise CorpusError(f"{corpus}: cannot be listed ({problem})") from problem
    lines = _lines(listing)
    part_rows = options.part_rows or min(max(-(-len(lines) // _PARTS_WANTED), _FEWEST), _MOST)
    if before is not None and options.part_rows is None:
        part_rows = before.part_rows
    gallery = None if options.gallery is None else os.path.abspath(options.gallery)
    plan = Plan(
        version=VERSION,
        corpus=str(corpus),
        layout=listing.layout,
        model=os.path.abspath(model),
        model_sha256=file_sha256(model),
        gallery=gallery,
        gallery_sha256=None if gallery is None else file_sha256(gallery),
        top=options.top,
        embeddings=options.embeddings,
        utterances=len(lines),
        part_rows=part_rows,
        listing_sha256=_digest(lines),
        starts=_starts(lines, part_rows),
    )
    if before is None:
        (out / PARTS).mkdir(parents=True, exist_ok=True)
        _write(out / UTTERANCES, b"".join(lines))
        _write(out / PLAN, json.dumps(encode(plan), indent=1, ensure_ascii=False).encode())
    elif changed := _differences(before, plan):
        raise ScaleError(
            f"{out}: a run began here with another {' and another '.join(changed)}; name a new folder, or delete this"
        )
    return Planned(plan, listing.notes)


def _read(out: Path) -> Plan:
    try:
        content = json.loads((out / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ScaleError(f"{out / PLAN}: cannot be read ({problem}); delete {out}, and score again") from problem
    if isinstance(content, dict) and content.get("version") != VERSION:
        raise ScaleError(f"{out / PLAN}: of version {content.get('version')}; this voxport resumes version {VERSION}")
    return decode(Plan, content, str(out / PLAN), ScaleError)


_NAMES = {"model_sha256": "model", "gallery_sha256": "gallery", "listing_sha256": "list of utterances"}
_FREE = {"starts", "model", "gallery", "corpus", "layout"}  # told by the hashes; a corpus may be mounted elsewhere


def _differences(before: Plan, now: Plan) -> list[str]:
    names = [name for name in vars(now) if name not in _FREE and getattr(before, name) != getattr(now, name)]
    if "listing_sha256" in names:
        names = [name for name in names if name != "utterances"]
    return [_NAMES.get(name, name) for name in names]


def _starts(lines: Sequence[bytes], part_rows: int) -> tuple[int, ...]:
    starts, at = [], 0
    for number, line in enumerate(lines):
        if number % part_rows == 0:
            starts.append(at)
        at += len(line)
    return (*starts, at)


def _digest(lines: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    with writing(path) as part:
        part.write_bytes(content)


# --- utterances as lines ------------------------------------------------------------------------------


def _lines(listing: Listing) -> list[bytes]:
    found = [_line(_facts(entry, listing.path)) for entry in listing.entries]
    found += [_line({"key": each.key, "problem": f"{each.kind}: {each.reason}"}) for each in listing.problems]
    if not found:
        raise CorpusError(f"{listing.path}: holds no utterance")
    return found


def _line(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, ensure_ascii=True).encode() + b"\n"  # ASCII holds names that are no UTF-8, too


def _facts(entry: Entry, root: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"key": entry.key, "path": _relative(entry.path, root)}
    for name in ("speaker", "frames", "channel"):
        if (value := getattr(entry, name)) is not None:
            facts[name] = value
    if entry.span is not None:
        facts["span"] = [entry.span.start, entry.span.end, entry.span.unit]
    if isinstance(entry.member, TarMember):
        facts["tar"] = [entry.member.name, entry.member.offset, entry.member.size]
    elif entry.member is not None:
        facts["cell"] = [entry.member.name, entry.member.row, entry.member.column]
    return facts


def _relative(path: Path, root: Path) -> str:
    """Below the corpus relative to it, so that a resumed run may find the corpus mounted elsewhere."""
    try:
        return str(path.relative_to(root))
    except ValueError:
        return str(path)


def read_part(utterances: Path, part: Part, root: Path) -> Iterator[Entry | Problem]:
    """The utterances of one part; what the listing found wrong comes as a problem.

    Raises:
        OSError: the file is gone, or shorter than the plan says.
    """
    with open(utterances, "rb") as file:
        file.seek(part.start)
        content = file.read(part.stop - part.start)
    if len(content) != part.stop - part.start:
        raise OSError(f"{utterances}: ends within part {part.number}")
    for line in content.splitlines():
        facts = json.loads(line)
        if "problem" in facts:
            yield Problem(facts["key"], "malformed", facts["problem"])
            continue
        entry = Entry(facts["key"], root / facts["path"], facts.get("speaker"), facts.get("frames"))
        member: TarMember | ParquetCell | None = None
        if "tar" in facts:
            member = TarMember(*facts["tar"])
        elif "cell" in facts:
            member = ParquetCell(*facts["cell"])
        span = Span(*facts["span"]) if "span" in facts else None
        yield replace(entry, span=span, member=member, channel=facts.get("channel"))

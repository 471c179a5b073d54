"""What the boxes of an MP4 file (ISO 14496-12) claim, held against its size before FFmpeg believes them.

FFmpeg 8 keeps an entry for every sample that a table claims, so that memory and time follow the claim and not the file.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

_FIRST = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot", b"uuid", b"sidx", b"udta")
_PARENTS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta"})
_ENTRY_BITS = {b"stts": 64, b"ctts": 64, b"stsc": 96, b"stco": 32, b"co64": 64, b"stss": 32}
_MAX_DEPTH = 12
_MAX_BOXES = 1_000_000  # an hour in fragments of 20 ms has 720,000
_TRUN_FIELDS = (0x100, 0x200, 0x400, 0x800)  # of each sample: duration, size, flags, composition time


def has_boxes(head: bytes) -> bool:
    """Whether a file that begins with `head`, 8 bytes or more, is one of boxes."""
    return head[4:8] in _FIRST


def check_boxes(file: BinaryIO) -> None:
    """Refuse tables that claim more than the file can hold: an entry needs its bytes, a sample one byte.

    Raises:
        ValueError: one does, or the header is compressed, which nobody writes any more.
    """
    file.seek(0, 2)
    size = file.tell()
    samples = 0
    for number, (kind, start, end) in enumerate(_boxes(file, 0, size, 0)):
        if number >= _MAX_BOXES:
            raise ValueError(f"more than {_MAX_BOXES:,} boxes")
        if kind == b"cmov":
            raise ValueError("its header is compressed (cmov), which is not read")
        claimed, needed = _claim(file, kind, start)
        if needed > end - start:
            raise ValueError(f"its {kind.decode()} box claims {claimed:,} entries, more than it holds")
        samples += claimed if kind in (b"stsz", b"stz2", b"trun") else 0
        if samples > size:
            raise ValueError(f"its tables claim {samples:,} samples in {size:,} bytes")


def _boxes(file: BinaryIO, start: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of each box from `start` to `end`, inner ones behind their parents."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, kind, behind = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, behind = int.from_bytes(head[8:16], "big"), 16
        stop = end if size == 0 else min(start + size, end)
        if 0 < size < behind:
            return
        yield kind, start + behind, stop
        if kind in _PARENTS and depth < _MAX_DEPTH:
            yield from _boxes(file, start + behind, stop, depth + 1)
        start = stop


def _claim(file: BinaryIO, kind: bytes, start: int) -> tuple[int, int]:
    """How many entries a table claims, and the bytes that its content then needs."""
    if kind not in _ENTRY_BITS and kind not in (b"stsz", b"stz2", b"trun"):
        return 0, 0
    file.seek(start)
    head = file.read(12)
    if (len(head) < 12 and kind not in _ENTRY_BITS) or len(head) < 8:
        return 0, 0
    flags, first, second = struct.unpack(">III", head.ljust(12, b"\0"))
    if kind == b"stsz":
        return second, 12 + (4 * second if first == 0 else 0)
    if kind == b"stz2":
        return second, 12 + (second * (first & 0xFF) + 7) // 8
    if kind == b"trun":
        fields = sum(bool(flags & field) for field in _TRUN_FIELDS)
        return first, 8 + 4 * fields * first
    return first, 8 + first * _ENTRY_BITS[kind] // 8

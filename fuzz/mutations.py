"""Damage to whole files, as disks, networks and strangers do it: what every reader of a file must survive."""

import random
from collections.abc import Callable, Iterator, Mapping

KINDS = ("replace", "insert", "delete", "cut", "repeat")
LIES = (bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f")  # as sizes and counts: none, the most, 2 GB
# Whole files that are something else.
OTHERS: Mapping[str, bytes] = {
    "nothing": b"",
    "a word": b"hello",
    "text": b"this is no such file\n" * 100,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "the head of an archive": b"PK\x03\x04" + bytes(100),
    "an empty archive": b"PK\x05\x06" + bytes(18),
    "an empty object": b"{}",
    "brackets": b"[" * 100_000,
    "a long number": b'{"version":' + b"1" * 5000 + b"}",
    "no UTF-8": b"\xff\xfe\xff" * 40,
    "zeros": bytes(300),
    "a pickle": b"\x80\x02cos\nmkdir\nX\x04\x00\x00\x00evil\x85R.",
}


def edit(data: bytes, kind: str, place: float, content: bytes, head: bool) -> bytes:
    """One edit of KINDS with `content` at the share `place` of the file, or of its first 64 bytes."""
    at = int(place * (min(64, len(data)) if head else len(data)))
    if kind == "replace":
        return data[:at] + content + data[at + len(content) :]
    if kind == "insert":
        return data[:at] + content + data[at:]
    if kind == "delete":
        return data[:at] + data[at + len(content) :]
    return data[:at] if kind == "cut" else data[:at] + data[at : at + 4096] + data[at:]


def cuts(data: bytes, count: int = 40) -> Iterator[bytes]:
    """The file without its end: evenly spread, and short of a few bytes alone."""
    sizes = {len(data) * i // count for i in range(count)} | {len(data) - short for short in (1, 2, 5, 30)}
    return (data[:size] for size in sorted(sizes) if 0 <= size < len(data))


def bits(data: bytes, chance: random.Random) -> bytes:
    """One to three bytes changed, the length kept."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def lies(data: bytes, chance: random.Random) -> bytes:
    """One to four numbers replaced, most of them near the start, where sizes stand."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(changed), chance.choice((64, 1 << 20))))
        changed[at : at + 4] = chance.choice((*LIES, chance.randbytes(4)))
    return bytes(changed)


def edits(data: bytes, chance: random.Random) -> bytes:
    """One to three edits of any kind."""
    for _ in range(chance.randint(1, 3)):
        content = chance.choice((*LIES, chance.randbytes(chance.randint(1, 8))))
        data = edit(data, chance.choice(KINDS), chance.random(), content, chance.random() < 0.5)
    return data


MUTATIONS: Mapping[str, Callable[[bytes, random.Random], bytes]] = {"bits": bits, "lies": lies, "edits": edits}


def damaged(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """`count` files that each mutation in turn makes of one."""
    chance, kinds = random.Random(seed), tuple(MUTATIONS.values())
    return (kinds[i % len(kinds)](data, chance) for i in range(count))

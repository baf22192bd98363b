"""Reads from FASTQ files, one or two at a time, with every fault of the files named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from genokit.genomics.step import fault, unpacked


class Read(NamedTuple):
    """A read; ``name`` is without "/1" or "/2", and ``quality`` is Phred+33."""

    name: str
    bases: str
    quality: str


def templates(paths: Sequence[Path], addresses: Sequence[str]) -> Iterator[list[Read]]:
    """The reads of each DNA fragment: one, or two whose names agree. Raises StepFailed, naming the address."""
    count = 0
    for count, reads in enumerate(zip_longest(*map(_reads, paths, addresses)), 1):
        if None in reads:
            short, other = addresses if reads[0] is None else reversed(addresses)
            raise fault(short, f"it ends after {count - 1:,} reads, and its mate '{other}' has more")
        if len({read.name for read in reads}) > 1:
            first, second = (read.name for read in reads)
            raise fault(addresses[1], f"read {count:,} is '{second}', and in its mate '{addresses[0]}' it is '{first}'")
        yield list(reads)
    if not count:
        raise fault(addresses[0], "it has no reads")


def _reads(path: Path, address: str) -> Iterator[Read]:
    with unpacked(path, address) as lines:
        for number, head in enumerate(lines, 1):
            bases, plus, quality = (next(lines, "").rstrip() for _ in range(3))
            if not head[1:].strip() or head[0] != "@" or plus[:1] != "+" or len(bases) != len(quality) or not bases:
                raise fault(address, f"its read {number:,} is not four lines of FASTQ, or is cut short")
            yield Read(head[1:].split(None, 1)[0].removesuffix("/1").removesuffix("/2"), bases, quality)

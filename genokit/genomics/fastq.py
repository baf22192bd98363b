"""Reads from FASTQ files, one or two at a time, with every fault of the files named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from genokit.genomics.step import fault

Read = tuple[str, str, str]  # its name without "/1" or "/2", its bases, and its qualities as Phred+33


def templates(paths: Sequence[Path], addresses: Sequence[str]) -> Iterator[list[Read]]:
    """The reads of each DNA fragment: one, or two whose names agree. Raises StepFailed, naming the address."""
    count = 0
    for count, reads in enumerate(zip_longest(*map(_reads, paths, addresses)), 1):
        if None in reads:
            short, other = addresses if reads[0] is None else reversed(addresses)
            raise fault(short, f"it has no read {count:,}, but its mate '{other}' has")
        if reads[0][0] != reads[-1][0]:
            raise fault(addresses[1], f"read {count:,} is '{reads[1][0]}', and in its mate '{addresses[0]}' it is "
                        f"'{reads[0][0]}'")  # fmt: skip
        yield list(reads)
    if not count:
        raise fault(addresses[0], "it has no reads")


def _reads(path: Path, address: str) -> Iterator[Read]:
    import pysam

    pysam.set_verbosity(0)  # the error says it
    number = 0
    try:
        with pysam.FastxFile(str(path), persist=False) as file:
            for read in file:
                if not read.name or not read.quality:
                    raise ValueError(read.name)
                number += 1
                yield read.name.removesuffix("/1").removesuffix("/2"), read.sequence, read.quality
    except ValueError as error:
        raise fault(address, f"its data are damaged or cut short: read {number + 1:,} is not FASTQ") from error

"""Pairs of reads that an aligner has to tell apart, with the flags that their lines in a BAM must have."""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path

import pysam
from numpy.random import default_rng

from genokit import Dataset

TURN = str.maketrans("ACGTN", "TGCAN")
INWARD, TURNED = (99, 147), (83, 163)  # proper pairs: the first read forward, or reverse
LOST, ONE_LOST = (77, 141), (73, 133)


def turned(bases: str) -> str:
    return bases.translate(TURN)[::-1]


def sequences(cohort: Dataset) -> dict[str, str]:
    lines = [one.partition("\n") for one in cohort["reference"].read_text().split(">")[1:]]
    return {name: bases.replace("\n", "") for name, _, bases in lines}


def written(cohort: Dataset, folder: Path) -> tuple[list[Path], dict[str, tuple[int, ...]]]:
    """The two FASTQ files of the pairs, and by name the flags of their lines, without that of a supplementary one."""
    one, two = sequences(cohort).values()
    rng = default_rng(1)

    def noise(length: int) -> str:
        return "".join(rng.choice(list("ACGT"), length))

    def pair(start: int, end: int, bases: str = one) -> tuple[str, str]:
        return bases[start : start + 150], turned(bases[end - 150 : end])

    first, second = pair(1000, 1400)
    short = one[3000:3100]
    pairs: dict[str, tuple[str, str, tuple[int, ...]]] = {
        "inward": (first, second, INWARD),
        "turned": (second, first, TURNED),
        "clipped": (noise(30) + first[30:130] + noise(20), noise(10) + second[10:110] + noise(40), INWARD),
        "clipped and turned": (noise(10) + second[10:110] + noise(40), noise(30) + first[30:130] + noise(20), TURNED),
        "shorter than its reads": (short + noise(50), turned(short) + noise(50), INWARD),
        "with N": (first[:40] + "N" + first[41:], second[:90] + "NN" + second[92:], INWARD),
        "with a deletion": (one[2000:2070] + one[2075:2155], turned(one[2250:2400]), INWARD),
        "far apart": (*pair(1000, 4000), (97, 145)),
        "outward": (turned(first), turned(second), (81, 161)),
        "on one strand": (first, turned(second), (65, 129)),
        "on two sequences": (first, turned(two[2000:2150]), (97, 145)),
        "one lost": (first, noise(150), ONE_LOST),
        "one too short": (first, second[:15], ONE_LOST),
        "lost": (noise(150), noise(150), LOST),
        # Of a read in two parts, the one that its mate goes with is the primary line, whichever comes first.
        "split, mate at the second": (one[5000:5075] + two[3000:3075], turned(two[3200:3350]), (*INWARD, 97)),
        "split, mate at the first": (one[5000:5075] + two[3000:3075], turned(one[5200:5350]), (*INWARD, 97)),
        "split and turned": (turned(two[3200:3350]), one[5000:5075] + two[3000:3075], (*TURNED, 161)),
    }
    files = [folder / f"pairs_{mate}.fastq.gz" for mate in (1, 2)]
    for mate, path in enumerate(files):
        lines = []
        for name, of_pair in pairs.items():
            quality = "".join(map(chr, rng.integers(40, 73, len(of_pair[mate]))))
            lines.append(f"@{name.replace(' ', '_')}/{mate + 1}\n{of_pair[mate]}\n+\n{quality}\n")
        path.write_bytes(gzip.compress("".join(lines).encode()))
    return files, {name.replace(" ", "_"): flags for name, (*_, flags) in pairs.items()}


def flags_of(bam: Path) -> dict[str, tuple[int, ...]]:
    """The flags of each pair's lines: first read, second read, supplementary ones without the flag that says so."""
    found: dict[str, list[tuple[bool, int]]] = defaultdict(list)
    with pysam.AlignmentFile(str(bam)) as file:
        for read in file:
            found[read.query_name].append((read.is_supplementary, read.flag & ~0xC00))
    return {name: tuple(flag for _, flag in sorted(lines)) for name, lines in found.items()}


def check_records(bam: Path, reference: dict[str, str], reads: list[Path]) -> None:
    """Bases, clips, mismatches and mates of all lines are those of the FASTQ files, the reference and one another."""
    expected = {}
    for number, path in enumerate(reads):
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        for name, bases, quality in zip(lines[::4], lines[1::4], lines[3::4], strict=True):
            expected[name[1:].removesuffix(f"/{number + 1}"), number] = bases, quality
    primary = {}
    with pysam.AlignmentFile(str(bam)) as file:
        for read in file:
            bases, quality = read.query_sequence, read.qual
            as_read = (turned(bases), quality[::-1]) if read.is_reverse else (bases, quality)
            assert as_read == expected[read.query_name, int(read.is_read2)]
            assert read.is_read1 != read.is_read2
            if not read.is_unmapped:
                there, pairs = reference[read.reference_name], read.get_aligned_pairs(matches_only=True)
                mismatches = sum(bases[q] != there[r] for q, r in pairs)
                gaps = sum(n for kind, n in read.cigartuples if kind in (1, 2))
                assert read.get_tag("NM") == mismatches + gaps
                assert mismatches < 10, read
            if not read.is_supplementary:
                assert (read.query_name, read.is_read2) not in primary
                primary[read.query_name, read.is_read2] = read
        assert len(primary) == len(expected)
        for (name, is_second), read in primary.items():
            mate = primary[name, not is_second]
            assert read.is_proper_pair == mate.is_proper_pair
            assert (read.mate_is_unmapped, read.mate_is_reverse) == (mate.is_unmapped, mate.is_reverse)
            assert (read.next_reference_id, read.next_reference_start) == (mate.reference_id, mate.reference_start)
            assert read.template_length == -mate.template_length
            if not mate.is_unmapped:
                assert (read.get_tag("MC"), read.get_tag("MQ")) == (mate.cigarstring, mate.mapping_quality)
                assert read.has_tag("ms")

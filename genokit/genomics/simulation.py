"""A simulated cohort: a reference, genes, and samples with reads and the variants that are true for them.

Everything is drawn at random from a seed; no person's genome is in it. It shows that a chain of tools finds what is
there; it says nothing about how well the chain does on real genomes, which are harder.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from genokit.data import Dataset, Manifest
from genokit.errors import ConfirmationNeeded, InvalidParameters
from genokit.files import replaced_folder, write_atomic
from genokit.genomics.step import check_name

MARK = "simulated.json"
COLUMNS = ("patient", "sample", "lane", "fastq_1", "fastq_2")  # of the sample sheet, as nf-core/sarek has them

Bases = NDArray[np.uint8]  # the letters of a sequence
LETTERS = np.frombuffer(b"ACGT", np.uint8)
COMPLEMENT = np.frombuffer(bytes.maketrans(b"ACGT", b"TGCA"), np.uint8)
STOPS = ("TAA", "TAG", "TGA")
CODONS = np.array([a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT" if a + b + c not in STOPS])

READ = 150  # bases
FRAGMENT = (400, 80)  # bases: mean and standard deviation
DUPLICATES = 0.02  # share of pairs that are copies of the pair before
SNV_EVERY, INDEL_EVERY = 700, 2500  # bases between two variants of one sample
FREQUENCY = (1, 1.6)  # of a variant in the population, a beta distribution: het to hom is 62 to 38
CARRIED = 0.555  # the share of sites that differ from the reference in one sample, for this distribution
LONGEST_INDEL = 40  # bases
CHUNK = 50_000  # pairs made at once


class Contig(NamedTuple):
    """A sequence of the reference, its repeats as (start, length of the unit), and where variants cannot be called."""

    name: str
    bases: Bases
    repeats: list[tuple[int, int]]
    hard: list[tuple[int, int]]


class Site(NamedTuple):
    """A place where the population has two alleles; ``start`` counts from 0."""

    start: int
    ref: bytes
    alt: bytes
    frequency: float


def simulate(
    folder: str | os.PathLike[str],
    samples: int | Sequence[str] = 2,
    seed: int = 7,
    *,
    bases: int = 200_000,
    contigs: int = 2,
    coverage: float = 30,
    lanes: int = 1,
) -> Dataset:
    """Simulate a cohort and write it into a folder: the same arguments give the same files.

    The folder gets ``reference.fa`` (isochores, three families of repeats, short tandem repeats and a duplication),
    ``genes.gff3``, ``truth.vcf.gz`` (normalised, phased), ``confident.bed``, paired reads of 150 bases in ``reads``
    and ``samples.csv`` with the columns of nf-core/sarek. The paths in the sheet are relative to it. An older
    simulated cohort in the folder is replaced.

    Parameters
    ----------
    folder : str or path
        Where the files are written: a new or empty folder, or one with an older simulated cohort.
    samples : int or sequence of str, default 2
        The names of the samples, or how many: "S1", "S2" and so on. A sample does not depend on the others.
    seed : int, default 7
        Another seed gives another reference and other samples.
    bases : int, default 200,000
        Length of the reference, in bases, at least 10,000 a contig.
    contigs : int, default 2
        Number of sequences in the reference, of equal length.
    coverage : float, default 30
        Mean number of reads over a base, for each sample.
    lanes : int, default 1
        Number of lanes, each with its own files, over which a sample's reads are spread.

    Returns
    -------
    Dataset
        The files, verified by sha256: ``cohort["reference"]``, ``cohort["samples"]``, ``cohort["truth-vcf"]``.

    Raises
    ------
    InvalidParameters
        A parameter is out of range, or a name is not allowed.
    ConfirmationNeeded
        The folder has other files, which would be lost.

    Examples
    --------
    >>> import tempfile
    >>> from genokit import genomics
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cohort = genomics.simulate(f"{folder}/cohort", samples=1, bases=20_000, coverage=1)
    ...     cohort.title, cohort["reference"].name
    ('Simulated cohort: 1 sample, seed 7', 'reference.fa')
    """
    names = [f"S{n + 1}" for n in range(samples)] if isinstance(samples, int) else list(map(check_name, samples))
    wrong = not names or len({*names}) < len(names) or seed < 0
    if wrong or not (1 <= contigs <= 1000 and bases >= 10_000 * contigs and coverage > 0 and 1 <= lanes <= 999):
        raise InvalidParameters(
            f"A cohort cannot be simulated with {samples=}, {seed=}, {bases=}, {contigs=}, {coverage=}, {lanes=}. "
            "Expected: at least one sample and no name twice, seed 0 or more, 1 to 1000 contigs of at least 10,000 "
            "bases each, coverage above 0, 1 to 999 lanes."
        )
    place = Path(folder).absolute()
    if place.exists() and (not place.is_dir() or (any(place.iterdir()) and not (place / MARK).is_file())):
        message = f"'{place}' has files other than a simulated cohort, which would be lost. Name a new folder."
        raise ConfirmationNeeded(message, losses=[str(place)])
    with replaced_folder(place) as staged:
        (staged / "reads").mkdir()
        _write(staged, names, seed, bases // contigs, contigs, coverage, lanes)
        about = {"simulated": True, "samples": names, "seed": seed, "bases": bases, "contigs": contigs}
        write_atomic(staged / MARK, json.dumps(about | {"coverage": coverage, "lanes": lanes}) + "\n")
        title = f"Simulated cohort: {len(names)} sample{'s' * (len(names) > 1)}, seed {seed}"
        Manifest.freeze(staged, "simulated-cohort", title=title, licence="CC0-1.0")
    return Manifest(place).fetch(progress=False)


def _write(folder: Path, names: list[str], seed: int, length: int, contigs: int, coverage: float, lanes: int) -> None:
    rng = default_rng([seed, 0])
    families = [_random(rng, size, 0.5) for size in (300, 150, 1200)]
    genes: list[str] = ["##gff-version 3\n"]
    reference = [_contig(rng, f"chr{n + 1}", length, families, genes) for n in range(contigs)]
    (folder / "reference.fa").write_text("".join(_fasta(one) for one in reference))
    (folder / "genes.gff3").write_text("".join(genes))
    (folder / "confident.bed").write_text("".join(f"{c.name}\t{a}\t{b}\n" for c in reference for a, b in _confident(c)))
    sites = [_sites(default_rng([seed, 1, n]), one) for n, one in enumerate(reference)]
    rows, genotypes = [], []
    for name in names:
        own = default_rng([seed, 2, zlib.crc32(name.encode())])
        carried = [own.random((2, len(here))) < [site.frequency for site in here] for here in sites]
        genotypes.append(carried)
        haplotypes = [_haplotype(c.bases, s, g) for c, s, both in zip(reference, sites, carried, strict=True)
                      for g in both]  # fmt: skip
        for lane in range(1, lanes + 1):
            files = [f"reads/{name}_L{lane:03d}_{mate}.fastq.gz" for mate in (1, 2)]
            pairs = round(length * contigs * coverage / (2 * READ) / lanes)
            _write_reads(own, [folder / file for file in files], f"{name}:L{lane:03d}", haplotypes, pairs)
            rows.append((name, name, f"L{lane:03d}", *files))
    _write_truth(folder / "truth.vcf.gz", reference, names, sites, genotypes)
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\n").writerows([COLUMNS, *rows])
    (folder / "samples.csv").write_text(sheet.getvalue())


def _random(rng: Generator, length: int, gc: float) -> Bases:
    return rng.choice(LETTERS, length, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])


def _mutated(rng: Generator, bases: Bases, rate: float) -> Bases:
    """A copy in which each base is another one with probability ``rate``."""
    others = LETTERS[(np.searchsorted(LETTERS, bases) + rng.integers(1, 4, bases.shape)) % 4]
    return np.where(rng.random(bases.shape) < rate, others, bases)


def _contig(rng: Generator, name: str, length: int, families: list[Bases], genes: list[str]) -> Contig:
    """A sequence of isochores, with repeats of each family, short tandem repeats, a duplication and genes."""
    bases = np.concatenate([_random(rng, 10_000, rng.choice([0.37, 0.4, 0.43, 0.48, 0.53]))
                            for _ in range(-(-length // 10_000))])[:length]  # fmt: skip
    for family in families:
        for start in rng.integers(0, length - len(family), length // 15_000):
            bases[start : start + len(family)] = _mutated(rng, family, 0.12)
    # One slot of the contig holds at most one thing, so that nothing is written over.
    slots = rng.permutation(np.arange(1000, length - 5000, 2000))
    hard: list[tuple[int, int]] = [(0, 500), (length - 500, length)]
    repeats: list[tuple[int, int]] = []
    if length >= 50_000:
        size = min(1500, length // 20)
        first, second, slots = slots[0], slots[1], slots[2:]
        bases[second : second + size] = _mutated(rng, bases[first : first + size], 0.015)
        hard += [(int(start), int(start) + size) for start in (first, second)]
    for n, start in enumerate(map(int, slots)):
        if n % 4 == 0:
            _gene(rng, name, bases, start, genes)
        else:
            unit = _random(rng, int(rng.integers(1, 7)), 0.4)
            repeat = np.tile(unit, int(rng.integers(6, 12 + 12 // len(unit))))
            bases[start : start + len(repeat)] = repeat
            repeats.append((start, len(unit)))
    return Contig(name, bases, repeats, hard)


def _gene(rng: Generator, contig: str, bases: Bases, start: int, lines: list[str]) -> None:
    """Write a gene of up to four coding exons into the sequence, with splice sites, and its lines in GFF3."""
    count, strand = int(rng.integers(1, 5)), str(rng.choice(["+", "-"]))
    sizes = 40 + rng.multinomial(int(rng.integers(60, 200)) * 3 - 40 * count % 3, [1 / count] * count)
    sizes[-1] += -sizes.sum() % 3
    coding = np.frombuffer(("ATG" + "".join(rng.choice(CODONS, sizes.sum() // 3 - 2)) + "TAA").encode(), np.uint8)
    edges = np.cumsum([0, *sizes])
    shift = start + np.cumsum([0, *rng.integers(70, 150, count - 1)])
    exons = list(zip((edges[:-1] + shift).tolist(), (edges[1:] + shift).tolist(), strict=True))
    end, spliced = exons[-1][1], coding if strand == "+" else COMPLEMENT[coding][::-1]
    donor, acceptor = (b"GT", b"AG") if strand == "+" else (b"CT", b"AC")
    for (a, b), (low, high) in zip(pairwise(edges), exons, strict=True):
        bases[low:high] = spliced[a:b]
    for (_, low), (high, _) in pairwise(exons):
        bases[low : low + 2], bases[high - 2 : high] = np.frombuffer(donor, np.uint8), np.frombuffer(acceptor, np.uint8)
    gene, coded, biotype = f"{contig}_{start}", 0, "biotype=protein_coding"
    head = f"{contig}\tsimulated\t%s\t%d\t%d\t.\t{strand}\t%s\t%s\n"
    lines.append(head % ("gene", start + 1, end, ".", f"ID=gene:G{gene};Name=G{gene};{biotype}"))
    lines.append(head % ("mRNA", start + 1, end, ".", f"ID=transcript:T{gene};Parent=gene:G{gene};{biotype}"))
    for low, high in exons if strand == "+" else exons[::-1]:
        lines.append(head % ("exon", low + 1, high, ".", f"Parent=transcript:T{gene}"))
        lines.append(head % ("CDS", low + 1, high, -coded % 3, f"Parent=transcript:T{gene}"))
        coded += high - low


def _fasta(contig: Contig) -> str:
    text = contig.bases.tobytes().decode()
    return f">{contig.name}\n" + "".join(f"{text[i : i + 60]}\n" for i in range(0, len(text), 60))


def _confident(contig: Contig) -> Iterator[tuple[int, int]]:
    """The stretches in which variants can be called: without the ends and the duplication."""
    start = 0
    for low, high in sorted(contig.hard):
        if low > start:
            yield start, low
        start = max(start, high)


def _sites(rng: Generator, contig: Contig) -> list[Site]:
    """The places where the population varies: left-aligned, and no two that touch."""
    bases, length = contig.bases, len(contig.bases)
    found: list[Site] = []
    for start in map(int, rng.integers(0, length, round(length / SNV_EVERY / CARRIED))):
        alt = _mutated(rng, bases[start : start + 1], 1.0)
        found.append(Site(start, bases[start : start + 1].tobytes(), alt.tobytes(), rng.beta(*FREQUENCY)))
    for n in range(round(length / INDEL_EVERY / CARRIED)):
        start, size = int(rng.integers(1, length - 100)), min(int(rng.geometric(0.3)), LONGEST_INDEL)
        if n % 3 == 0 and contig.repeats:
            start, unit = contig.repeats[int(rng.integers(len(contig.repeats)))]
            size = unit * int(rng.integers(1, 3))
            inserted = bases[start : start + size].tobytes()
        else:
            inserted = _random(rng, size, 0.4).tobytes()
        deletes = bool(rng.random() < 0.5)
        found.append(_left_aligned(bases, start, size if deletes else 0, inserted, rng.beta(*FREQUENCY)))
    kept: list[Site] = []
    for site in sorted(found):
        if not kept or site.start > kept[-1].start + len(kept[-1].ref):
            kept.append(site)
    return kept


def _left_aligned(bases: Bases, start: int, deleted: int, inserted: bytes, frequency: float) -> Site:
    """The deletion of some bases at ``start``, or else the insertion before it, as far left as it can be written."""
    moved = bases[start : start + deleted].tobytes() if deleted else inserted
    while start > 1 and bases[start - 1] == moved[-1]:
        moved, start = moved[-1:] + moved[:-1], start - 1
    before = bases[start - 1 : start].tobytes()
    return Site(start - 1, *((before + moved, before) if deleted else (before, before + moved)), frequency)


def _haplotype(bases: Bases, sites: list[Site], carried: NDArray[np.bool_]) -> Bases:
    pieces, done = [], 0
    for site, has in zip(sites, carried, strict=True):
        if has:
            pieces += [bases[done : site.start], np.frombuffer(site.alt, np.uint8)]
            done = site.start + len(site.ref)
    return np.concatenate([*pieces, bases[done:]])


def _write_reads(rng: Generator, paths: list[Path], name: str, haplotypes: list[Bases], pairs: int) -> None:
    """Paired reads from fragments of the haplotypes, in random order."""
    lengths = np.array([len(one) for one in haplotypes])
    genome, offsets = np.concatenate(haplotypes), np.cumsum([0, *lengths[:-1]])
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        outs = [stack.enter_context(gzip.GzipFile("", "wb", 4, file, mtime=0)) for file in files]
        for first in range(0, pairs, CHUNK):
            count = min(CHUNK, pairs - first)
            which = rng.choice(len(lengths), count, p=lengths / lengths.sum())
            size = np.clip(np.rint(rng.normal(*FRAGMENT, count)), READ, 2 * FRAGMENT[0]).astype(np.int64)
            start = offsets[which] + (rng.random(count) * (lengths[which] - size)).astype(np.int64)
            copies = np.flatnonzero(rng.random(count - 1) < DUPLICATES) + 1
            start[copies], size[copies] = start[copies - 1], size[copies - 1]
            left = genome[start[:, None] + np.arange(READ)]
            right = COMPLEMENT[genome[(start + size - 1)[:, None] - np.arange(READ)]]
            turned = (rng.random(count) < 0.5)[:, None]
            for mate, out in enumerate(outs):
                read = np.where(turned, left, right) if mate else np.where(turned, right, left)
                out.write(_fastq(rng, f"@{name}:".encode(), np.arange(first, first + count), read, mate))


def _fastq(rng: Generator, prefix: bytes, numbers: NDArray[np.int64], reads: Bases, mate: int) -> bytes:
    """The lines of some reads: quality falls with the cycle, and errors are as frequent as it says."""
    count = len(reads)
    falling = 37 - (6 + 4 * mate) * (np.arange(READ) / READ) ** 2
    quality = falling + rng.normal(0, 1.5, (count, 1)) + rng.normal(0, 2, (count, READ))
    quality = np.clip(np.rint(quality), 2, 40).astype(np.uint8)
    reads = _mutated(rng, reads, np.float_power(10, quality / -10.0))  # type: ignore[arg-type]
    digits = (numbers[:, None] // 10 ** np.arange(8, -1, -1) % 10 + ord("0")).astype(np.uint8)

    def same(text: bytes) -> Bases:
        return np.broadcast_to(np.frombuffer(text, np.uint8), (count, len(text)))

    parts: list[Any] = [same(prefix), digits, same(b"/%d\n" % (mate + 1)), reads, same(b"\n+\n"), quality + 33]
    return np.concatenate([*parts, same(b"\n")], axis=1).tobytes()


def _write_truth(
    path: Path, reference: list[Contig], names: list[str], sites: list[list[Site]], genotypes: list[Any]
) -> None:
    import pysam

    with pysam.BGZFile(str(path), "wb", None) as out:
        head = [
            "##fileformat=VCFv4.3",
            "##source=genokit, simulated",
            '##FILTER=<ID=PASS,Description="All filters passed">',
        ]
        head += [f"##contig=<ID={one.name},length={len(one.bases)}>" for one in reference]
        head += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">']
        head += ["\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *names])]
        out.write("".join(f"{line}\n" for line in head).encode())
        for n, contig in enumerate(reference):
            for k, site in enumerate(sites[n]):
                own = [carried[n][:, k] for carried in genotypes]
                if np.any(own):
                    calls = "\t".join(f"{int(a)}|{int(b)}" for a, b in own)
                    ref, alt = site.ref.decode(), site.alt.decode()
                    out.write(f"{contig.name}\t{site.start + 1}\t.\t{ref}\t{alt}\t.\tPASS\t.\tGT\t{calls}\n".encode())

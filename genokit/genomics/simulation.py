"""A simulated cohort: a reference, genes, and samples with reads and the variants that are true for them.

Everything is drawn at random from a seed; no person's genome is in it. It shows that a chain of tools finds what is
there; it says nothing about how well the chain does on real genomes, which are harder.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import compress, pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from genokit.data import Dataset, Manifest
from genokit.errors import InvalidParameters
from genokit.files import replaced_folder, write_atomic
from genokit.genomics.step import check_name, package

MARK = "simulated.json"
COLUMNS = ("patient", "sample", "lane", "fastq_1", "fastq_2")  # of the sample sheet, as nf-core/sarek has them

Bases = NDArray[np.uint8]  # the letters of a sequence
LETTERS = np.frombuffer(b"ACGT", np.uint8)
COMPLEMENT = np.frombuffer(bytes.maketrans(b"ACGT", b"TGCA"), np.uint8)
STOPS = ("TAA", "TAG", "TGA")
CODONS = [codon for codon in map("".join, product("ACGT", repeat=3)) if codon not in STOPS]

READ = 150  # bases
FRAGMENT = (400, 80)  # bases: mean and standard deviation
DUPLICATES = 0.02  # share of pairs that are copies of the pair before
SNV_EVERY, INDEL_EVERY = 700, 2500  # bases between two variants of one sample
SUBSTITUTIONS = {1: 1 / 6, 2: 2 / 3, 3: 1 / 6}  # of SNVs: how far on in ACGT the other base is; 2 is a transition
FREQUENCY = (1, 1.6)  # of a variant in the population, a beta distribution: het to hom is 62 to 38
CARRIED = 0.555  # the share of sites that differ from the reference in one sample, for this distribution
LONGEST_INDEL = 40  # bases
CHUNK = 50_000  # pairs made at once
TRUTH = """##fileformat=VCFv4.3
##source=genokit, simulated
##FILTER=<ID=PASS,Description="All filters passed">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
"""


class Site(NamedTuple):
    """A place where the population has two alleles; ``start`` counts from 0."""

    start: int
    ref: bytes
    alt: bytes
    frequency: float


class Contig(NamedTuple):
    """A sequence of the reference, its genes in GFF3, where variants can be called, and where the population varies."""

    name: str
    bases: Bases
    genes: str
    confident: NDArray[np.int64]  # start and end of each stretch, counted from 0
    sites: list[Site]


def simulate(
    folder: str | os.PathLike[str],
    samples: int | str | Sequence[str] = 2,
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
    and ``samples.csv`` with the columns of nf-core/sarek. The paths in the sheet are relative to it. Two in three SNVs
    are transitions: Ti/Tv is 2, about that of a human genome. An older simulated cohort in the folder is replaced.

    Parameters
    ----------
    folder : str or path
        Where the files are written: a new or empty folder, or one with an older simulated cohort.
    samples : int, str or sequence of str, default 2
        The name or names of the samples, or how many: "S1", "S2" and so on. A sample does not depend on the others.
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
    given = [samples] if isinstance(samples, str) else samples
    names = [f"S{n + 1}" for n in range(given)] if isinstance(given, int) else list(map(check_name, given))
    wrong = not names or len({*names}) < len(names) or seed < 0 or contigs < 1 or bases < 10_000 * contigs
    if wrong or coverage <= 0 or lanes < 1:
        raise InvalidParameters(
            f"A cohort cannot be simulated with {samples=}, {seed=}, {bases=}, {contigs=}, {coverage=}, {lanes=}. "
            "Expected: at least one sample and no name twice, seed 0 or more, at least one contig of at least 10,000 "
            "bases, coverage above 0, at least one lane."
        )
    place = Path(folder).absolute()
    with replaced_folder(place, marker=MARK, kind="a simulated cohort") as staged:
        _write(staged, names, seed, bases // contigs, contigs, coverage, lanes)
        about = {"simulated": True, "samples": names, "seed": seed, "bases": bases, "contigs": contigs}
        write_atomic(staged / MARK, json.dumps(about | {"coverage": coverage, "lanes": lanes}) + "\n")
        title = f"Simulated cohort: {len(names)} sample{'s' * (len(names) > 1)}, seed {seed}"
        Manifest.freeze(staged, "simulated-cohort", title=title, licence="CC0-1.0")
    return Manifest(place).fetch(progress=False)


def _write(folder: Path, names: list[str], seed: int, length: int, contigs: int, coverage: float, lanes: int) -> None:
    package("pysam")  # before all the work
    rng = default_rng([seed, 0])
    families = [_random(rng, size, 0.5) for size in (300, 150, 1200)]
    reference = [_contig(rng, f"chr{n + 1}", length, families) for n in range(contigs)]
    fasta = [f">{one.name}\n" + re.sub("(.{1,60})", "\\1\n", one.bases.tobytes().decode()) for one in reference]
    (folder / "reference.fa").write_text("".join(fasta))
    (folder / "genes.gff3").write_text("##gff-version 3\n" + "".join(one.genes for one in reference))
    bed = [f"{one.name}\t{low}\t{high}\n" for one in reference for low, high in one.confident]
    (folder / "confident.bed").write_text("".join(bed))
    (folder / "reads").mkdir()
    pairs = round(length * contigs * coverage / (2 * READ) / lanes)
    genotypes: dict[str, list[str]] = {}
    sheet: list[tuple[str, ...]] = [COLUMNS]
    for name in names:
        own = default_rng([seed, 1, zlib.crc32(name.encode())])
        genotypes[name], haplotypes = _genome(own, reference)
        for lane in (f"L{n + 1:03d}" for n in range(lanes)):
            files = [f"reads/{name}_{lane}_{mate}.fastq.gz" for mate in (1, 2)]
            _write_reads(own, [folder / file for file in files], f"{name}:{lane}", haplotypes, pairs)
            sheet.append((name, name, lane, *files))
    (folder / "samples.csv").write_text("".join(",".join(row) + "\n" for row in sheet))
    _write_truth(folder / "truth.vcf.gz", reference, genotypes)


def _genome(rng: Generator, reference: list[Contig]) -> tuple[list[str], list[Bases]]:
    """A sample's genotype at each site, and both haplotypes of each sequence."""
    genotypes: list[str] = []
    haplotypes: list[Bases] = []
    for one in reference:
        carried = rng.random((2, len(one.sites))) < [site.frequency for site in one.sites]
        genotypes += [f"{first}|{second}" for first, second in carried.T.astype(int)]
        haplotypes += [_haplotype(one.bases, compress(one.sites, has)) for has in carried]
    return genotypes, haplotypes


def _write_truth(path: Path, reference: list[Contig], genotypes: dict[str, list[str]]) -> None:
    """The VCF of all sites at which a sample differs from the reference."""
    lines = [f"##contig=<ID={one.name},length={len(one.bases)}>" for one in reference]
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *genotypes]))
    sites = [(one.name, site) for one in reference for site in one.sites]
    for (contig, site), calls in zip(sites, zip(*genotypes.values(), strict=True), strict=True):
        if {*calls} != {"0|0"}:
            alleles = site.ref.decode(), site.alt.decode()
            lines.append("\t".join([contig, str(site.start + 1), ".", *alleles, ".", "PASS", ".", "GT", *calls]))
    with package("pysam").BGZFile(str(path), "wb", None) as out:
        out.write((TRUTH + "\n".join([*lines, ""])).encode())


def _random(rng: Generator, length: int, gc: float) -> Bases:
    return rng.choice(LETTERS, length, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])


def _mutated(rng: Generator, bases: Bases, rate: float | NDArray[np.float64]) -> Bases:
    """A copy in which each base is another one with probability ``rate``."""
    others = LETTERS[(np.searchsorted(LETTERS, bases) + rng.integers(1, 4, bases.shape)) % 4]
    return np.where(rng.random(bases.shape) < rate, others, bases)


def _contig(rng: Generator, name: str, length: int, families: list[Bases]) -> Contig:
    """A sequence of isochores, with repeats of each family, short tandem repeats, a duplication and genes."""
    isochores = [_random(rng, 10_000, gc) for gc in rng.choice([0.37, 0.4, 0.43, 0.48, 0.53], length // 10_000 + 1)]
    bases = np.concatenate(isochores)[:length]
    for family in families:
        for start in rng.integers(0, length - len(family), length // 15_000):
            bases[start : start + len(family)] = _mutated(rng, family, 0.12)
    # One slot of the contig holds at most one thing, so that nothing is written over.
    slots = rng.permutation(np.arange(1000, length - 5000, 2000)).tolist()
    easy = np.ones(length, bool)
    easy[:500] = easy[-500:] = False
    if length >= 50_000:
        first, second, *slots = slots
        size = min(1500, length // 20)
        bases[second : second + size] = _mutated(rng, bases[first : first + size], 0.015)
        easy[first : first + size] = easy[second : second + size] = False
    genes = "".join(_gene(rng, name, bases, start) for start in slots[::4])
    del slots[::4]
    repeats = []
    for start in slots:
        unit = _random(rng, int(rng.integers(1, 7)), 0.4)
        repeat = np.tile(unit, rng.integers(6, 12 + 12 // len(unit)))
        bases[start : start + len(repeat)] = repeat
        repeats.append((start, len(unit)))
    edges = np.flatnonzero(np.diff(easy, prepend=False, append=False))
    return Contig(name, bases, genes, edges.reshape(-1, 2), _sites(rng, bases, repeats))


def _gene(rng: Generator, contig: str, bases: Bases, start: int) -> str:
    """Write a gene of up to four coding exons, with splice sites, into the sequence; returns its lines in GFF3."""
    text = "ATG" + "".join(rng.choice(CODONS, rng.integers(60, 200))) + "TAA"
    cuts = [0, *sorted(rng.choice(np.arange(40, len(text) - 40, 40), rng.integers(4), replace=False)), len(text)]
    pieces: list[str] = []
    for (low, high), size in zip(pairwise(cuts), rng.integers(70, 150, len(cuts) - 1), strict=True):
        pieces += [text[low:high], f"GT{_random(rng, size, 0.4).tobytes().decode()}AG"]
    del pieces[-1]  # no intron follows the last exon
    gene, edges = np.frombuffer("".join(pieces).encode(), np.uint8), np.cumsum([0, *map(len, pieces)])
    end, strand, own = start + len(gene), str(rng.choice(["+", "-"])), f"{contig}_{start}"
    bases[start:end] = gene if strand == "+" else COMPLEMENT[gene][::-1]

    def line(kind: str, first: int, last: int, phase: object, about: str) -> str:
        return f"{contig}\tsimulated\t{kind}\t{first}\t{last}\t.\t{strand}\t{phase}\t{about}\n"

    lines = line("gene", start + 1, end, ".", f"ID=gene:G{own};Name=G{own};biotype=protein_coding")
    lines += line("mRNA", start + 1, end, ".", f"ID=transcript:T{own};Parent=gene:G{own};biotype=protein_coding")
    coded = 0
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        first, last = (start + low + 1, start + high) if strand == "+" else (end - high + 1, end - low)
        lines += line("exon", first, last, ".", f"Parent=transcript:T{own}")
        lines += line("CDS", first, last, -coded % 3, f"Parent=transcript:T{own}")
        coded += high - low
    return lines


def _sites(rng: Generator, bases: Bases, repeats: list[tuple[int, int]]) -> list[Site]:
    """The places where the population varies: left-aligned, and no two that touch."""
    length, found = len(bases), []
    starts = rng.integers(0, length, round(length / SNV_EVERY / CARRIED))
    steps = rng.choice([*SUBSTITUTIONS], len(starts), p=[*SUBSTITUTIONS.values()])
    alts = LETTERS[(np.searchsorted(LETTERS, bases[starts]) + steps) % 4]
    for start, alt in zip(starts.tolist(), alts, strict=True):
        found.append(Site(start, bases[start : start + 1].tobytes(), alt.tobytes(), rng.beta(*FREQUENCY)))
    for n in range(round(length / INDEL_EVERY / CARRIED)):
        start, size = int(rng.integers(1, length - 100)), min(int(rng.geometric(0.3)), LONGEST_INDEL)
        inserted = _random(rng, size, 0.4)
        if n % 3 == 0 and repeats:
            start, unit = repeats[rng.integers(len(repeats))]
            size = unit * int(rng.integers(1, 3))
            inserted = bases[start : start + size]
        deletes = rng.random() < 0.5
        moved = (bases[start : start + size] if deletes else inserted).tobytes()
        while start > 1 and bases[start - 1] == moved[-1]:  # as far left as it can be written
            moved, start = moved[-1:] + moved[:-1], start - 1
        before = bases[start - 1 : start].tobytes()
        alleles = (before + moved, before) if deletes else (before, before + moved)
        found.append(Site(start - 1, *alleles, rng.beta(*FREQUENCY)))
    kept: list[Site] = []
    for site in sorted(found):
        if not kept or site.start > kept[-1].start + len(kept[-1].ref):
            kept.append(site)
    return kept


def _haplotype(bases: Bases, sites: Iterable[Site]) -> Bases:
    pieces, done = [], 0
    for site in sites:
        pieces += [bases[done : site.start], np.frombuffer(site.alt, np.uint8)]
        done = site.start + len(site.ref)
    return np.concatenate([*pieces, bases[done:]])


def _write_reads(rng: Generator, paths: list[Path], name: str, haplotypes: list[Bases], pairs: int) -> None:
    """Paired reads from fragments of the haplotypes, in random order."""
    lengths = np.array([len(one) for one in haplotypes])
    genome, offsets = np.concatenate(haplotypes), np.cumsum([0, *lengths[:-1]])
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
        for mate, path in enumerate(paths, 1):
            read, quality = _sequenced(rng, np.where(turned, *((left, right) if mate == 2 else (right, left))), mate)
            lines = (b"@%s:%09d/%d\n%s\n+\n%s\n" % (name.encode(), first + n, mate, *both)
                     for n, both in enumerate(zip(read, quality, strict=True)))  # fmt: skip
            with path.open("ab") as file:
                file.write(gzip.compress(b"".join(lines), 4, mtime=0))


def _sequenced(rng: Generator, reads: Bases, mate: int) -> list[list[bytes]]:
    """The letters and the qualities of reads: quality falls with the cycle, and errors are as frequent as it says."""
    falling = 37 - (2 + 4 * mate) * (np.arange(READ) / READ) ** 2
    quality = falling + rng.normal(0, 1.5, (len(reads), 1)) + rng.normal(0, 2, reads.shape)
    quality = np.clip(np.rint(quality), 2, 40)
    reads = _mutated(rng, reads, 10 ** (quality / -10))
    return [letters.view(f"S{READ}")[:, 0].tolist() for letters in (reads, (quality + 33).astype(np.uint8))]

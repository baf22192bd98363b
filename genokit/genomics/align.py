"""``python -m genokit.genomics.align``: reads to one sorted BAM of a sample, with duplicates marked.

Forks of this process align with minibwa or mappy; samtools pairs, sorts and marks duplicates meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from genokit.errors import AccessDenied, InvalidParameters, NotFound, StepFailed
from genokit.genomics.fastq import Read, templates
from genokit.genomics.step import ALIGNERS, Reference, Step, check_name, fault, is_full, main, package, versions

BATCH = 1000  # templates aligned in one go
# An index too; level 4 takes half the time of the default, and the BAM is 1.5 percent larger.
OUTPUT = ("--write-index", "--output-fmt-option", "level=4")
FRAGMENT = 800  # bases: the longest fragment of a proper pair, as in minimap2's preset "sr"
PAIRED, PROPER, UNMAPPED, REVERSE, FIRST, SECOND, SUPPLEMENTARY = 0x1, 0x2, 0x4, 0x10, 0x40, 0x80, 0x800
TURN = str.maketrans("ACGTacgt", "TGCAtgca")
OPTIONS: dict[str, dict[str, Any]] = {
    "aligner": {"choices": ALIGNERS, "default": "minibwa", "help": "default: minibwa"},
    "reads": {
        "nargs": "+", "action": "append", "metavar": "FASTQ",
        "help": "one FASTQ, or the two of a pair, gzip or not; again for each lane",
    },
    "lane": {"action": "append", "help": "name of the lane of each --reads (default: L001, L002, ...)"},
    "lanes": {
        "type": lambda text: dict(json.loads(text)), "metavar": "JSON",
        "help": 'instead of --reads and --lane: the lanes with their files, as {"L001": ["1.fastq.gz", "2.fastq.gz"]}',
    },
}  # fmt: skip


class Hit(NamedTuple):
    """A line of SAM: its flags, where it is, and from where to where in the read as it was sequenced."""

    flag: int
    contig: str
    position: int
    mapq: int
    start: int
    end: int
    cigar: str
    tags: str


Aligner = Callable[[list[Read]], list[list[Hit]]]  # the reads of a fragment, and the hits of each


def align(step: Step) -> None:
    """Align the lanes of a sample to one BAM with marked duplicates. Raises StepFailed, InvalidParameters."""
    given, tool = step.given, package(step.given.aligner)
    if given.lanes:
        given.lane, given.reads = list(given.lanes), list(given.lanes.values())
    given.reads = given.reads or []
    lanes = [check_name(lane) for lane in given.lane or [f"L{n + 1:03d}" for n in range(len(given.reads))]]
    if not lanes or len({*lanes}) != len(given.reads) or any(len(files) > 2 for files in given.reads):
        raise InvalidParameters(
            f"--reads must have one or two files, and each --reads its own --lane; got {given.reads} for lanes {lanes}."
        )
    reads = [[step.input(address) for address in files] for files in given.reads]
    reference = step.reference(given.reference)
    aligner = (_minibwa if given.aligner == "minibwa" else _mappy)(tool, step, reference)
    bam, metrics = step.out / f"{step.sample}.bam", step.out / f"{step.sample}.markdup.txt"
    tools = step.start(
        ", ".join(address for files in given.reads for address in files),
        ("samtools", "fixmate", "-m", "-u", "-", "/dev/stdout"),
        ("samtools", "sort", "-u", "-@", step.threads - 1, "-T", step.folder / "sort", "-o", "/dev/stdout", "-"),
        ("samtools", "markdup", "-@", step.threads - 1, *OUTPUT, "-f", metrics, "-", f"{bam}##idx##{bam}.bai"),
        feed=True,
    )
    head = [f"@SQ\tSN:{name}\tLN:{length}\tM5:{md5}" for name, (length, md5) in reference.sequences.items()]
    head += [f"@RG\tID:{step.sample}.{lane}\tSM:{step.sample}\tLB:{step.sample}\tPU:{lane}\tPL:ILLUMINA"
             for lane in lanes]  # fmt: skip
    name, version = given.aligner, versions(given.aligner)[given.aligner]
    head.append(f"@PG\tID:{name}\tPN:{name}\tVN:{version}\tCL:{ALIGNERS[name]}")
    tools.write("\n".join(["@HD\tVN:1.6\tGO:query", *head, ""]).encode())
    workers = deque(_fork(aligner) for _ in range(step.threads))
    try:
        for lane, paths, addresses in zip(lanes, reads, given.reads, strict=True):
            found = templates(paths, addresses)
            while batch := list(islice(found, BATCH)):
                lines = workers[0].recv_bytes()
                workers[0].send((batch, f"{step.sample}.{lane}"))
                workers.rotate(-1)
                tools.write(lines)
        for worker in workers:
            tools.write(worker.recv_bytes())
    except (EOFError, ConnectionError) as error:
        reason = "a process that aligned its reads was killed, as happens when the memory is too small"
        raise StepFailed(f"'{step.sample}': {reason}.", path=step.sample, reason=reason) from error
    tools.finish()
    step.do(str(bam), ("samtools", "quickcheck", bam))


def _minibwa(minibwa: Any, step: Step, reference: Reference) -> Aligner:
    """minibwa, with the index in the files .l2b and .mbw beside the reference, or else a new one."""
    prefix, lengths = step.folder / "index", {name: length for name, (length, _) in reference.sequences.items()}
    try:
        for ending in (".l2b", ".mbw"):
            prefix.with_suffix(ending).symlink_to(step.input(f"{reference.address}{ending}"))
    except (NotFound, AccessDenied):  # S3 denies what is absent to those who may not list
        prefix = step.folder / "new"
        minibwa.Index.build(str(reference.fasta), str(prefix), threads=step.threads)
        # On a full disk minibwa writes a part of the index and says nothing, and most reads are then not aligned.
        if prefix.with_suffix(".mbw").stat().st_size < 2 * sum(lengths.values()) or is_full(step.folder):
            raise fault(step.given.scratch, f"it has no room for the index of '{reference.address}'") from None
    index = minibwa.Index.load(str(prefix))
    if dict(index.contigs()) != lengths:
        raise fault(f"{reference.address}.mbw", f"it is not the index of '{reference.address}'")

    def aligned(reads: list[Read]) -> list[list[Hit]]:
        options, pairs = minibwa.Opts(), len(reads) == 2
        options.set_paired(pairs)
        queries = [text for name, bases, _ in reads for text in (name, bases)]
        found = minibwa.map_pair(index, options, *queries) if pairs else [minibwa.map(index, options, *queries)]
        return [[hit(one, read) for one in own if not one.is_secondary] for read, own in zip(reads, found, strict=True)]

    def hit(one: Any, read: Read) -> Hit:
        flag, start, end = REVERSE * one.reverse | PROPER * one.proper_pair, one.query_start, one.query_end
        tags = f"NM:i:{one.blen - one.mlen + read[1].count('N', start, end)}\tAS:i:{one.score}"
        return Hit(flag, one.contig, one.ref_start, one.mapq, start, end, one.cigar_string, tags)

    return aligned


def _mappy(mappy: Any, step: Step, reference: Reference) -> Aligner:
    """minimap2 with its preset for short reads, and an index in memory.

    mappy does not say what is a proper pair: here the first hits of both reads that can be the ends of one fragment.
    """
    index = mappy.Aligner(str(reference.fasta), preset="sr", n_threads=step.threads)
    if index.seq_names != [*reference.sequences]:  # without an index mappy aligns nothing and says nothing
        raise fault(reference.address, "mappy cannot index it")

    def aligned(reads: list[Read]) -> list[list[Hit]]:
        hits = [one for one in index.map(*(bases for _, bases, _ in reads), name=reads[0][0]) if one.is_primary]
        found = [[one for one in hits if one.read_num == number] for number, _ in enumerate(reads, 1)]
        proper = next(filter(_is_proper, product(*found)), ())
        return [[hit(one, read, one in proper) for one in own] for read, own in zip(reads, found, strict=True)]

    def hit(one: Any, read: Read, proper: bool) -> Hit:
        flag, length = REVERSE * (one.strand < 0) | PROPER * proper, len(read[1])
        # mappy turns the second read, and counts its bases from what was its end.
        ends = (length - one.q_en, length - one.q_st) if one.read_num == 2 else (one.q_st, one.q_en)
        return Hit(flag, one.ctg, one.r_st, one.mapq, *ends, one.cigar_str, f"NM:i:{one.NM}")

    return aligned


def _is_proper(pair: Sequence[Any]) -> bool:
    """Whether hits of mappy's are two that face each other on one contig, not too far apart."""
    by = {one.strand: one for one in pair}
    return len(by) == 2 and bool(by[1].ctg == by[-1].ctg and 0 < by[-1].r_en - by[1].r_st <= FRAGMENT)


def _fork(aligner: Aligner) -> Connection:
    """Start a process that makes lines of SAM: threads would wait for each other, and an index cannot be sent."""
    ours, theirs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    fork.Process(target=_serve, args=(aligner, theirs), daemon=True).start()
    theirs.close()
    return ours


def _serve(aligner: Aligner, connection: Connection) -> None:
    """Answer batches of templates with their lines of SAM until the step ends."""
    os.closerange(3, connection.fileno())  # of the pipes of others, this process would keep the ends open
    os.closerange(connection.fileno() + 1, 1024)
    lines: list[str] = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send_bytes("".join(lines).encode())
            batch, group = connection.recv()
            lines = []
            for reads in batch:
                flags = (PAIRED | FIRST, PAIRED | SECOND) if len(reads) == 2 else (0,)
                for read, hits, flag in zip(reads, aligner(reads), flags, strict=True):
                    lines += _records(read, hits, flag, group)


def _records(read: Read, hits: Sequence[Hit], flag: int, group: str) -> Iterator[str]:
    """A read's lines: supplementary but for the proper pair's hit, or else the best. fixmate adds the mate's fields."""
    name, bases, quality = read
    if not hits:
        yield f"{name}\t{flag | UNMAPPED}\t*\t0\t0\t*\t*\t0\t0\t{bases}\t{quality}\tRG:Z:{group}\n"
    primary = next((hit for hit in hits if hit.flag & PROPER), hits[0] if hits else None)
    for hit in hits:
        flags = flag | hit.flag | (0 if hit is primary else SUPPLEMENTARY)
        ends, text = [f"{n}S" if n else "" for n in (hit.start, len(bases) - hit.end)], f"{bases}\t{quality}"
        if hit.flag & REVERSE:
            ends, text = ends[::-1], f"{bases.translate(TURN)[::-1]}\t{quality[::-1]}"
        yield (
            f"{name}\t{flags}\t{hit.contig}\t{hit.position + 1}\t{hit.mapq}\t"
            f"{ends[0]}{hit.cigar}{ends[1]}\t*\t0\t0\t{text}\t{hit.tags}\tRG:Z:{group}\n"
        )


if __name__ == "__main__":
    sys.exit(main(align, "reference", "sample", "out", more=OPTIONS))

"""``python -m genokit.genomics.align``: reads to one sorted BAM of a sample, with duplicates marked.

minibwa aligns in this process; samtools pairs, sorts and marks duplicates while it does.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

from genokit.errors import AccessDenied, InvalidParameters, NotFound
from genokit.genomics.fastq import Read, templates
from genokit.genomics.step import Reference, Step, check_name, fault, is_full, main, package, versions

BATCH = 1000  # templates aligned in one go
# An index too; level 4 takes half the time of the default, and the BAM is 1.5 percent larger.
OUTPUT = ("--write-index", "--output-fmt-option", "level=4")
PAIRED, PROPER, UNMAPPED, REVERSE, FIRST, SECOND, SUPPLEMENTARY = 0x1, 0x2, 0x4, 0x10, 0x40, 0x80, 0x800
TURN = str.maketrans("ACGTacgt", "TGCAtgca")
OPTIONS: dict[str, dict[str, Any]] = {
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


def align(step: Step) -> None:
    """Align the lanes of a sample to one BAM with marked duplicates. Raises StepFailed, InvalidParameters."""
    minibwa, given = package("minibwa"), step.given
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
    index = _index(minibwa, step, reference)
    bam, metrics = step.out / f"{step.sample}.bam", step.out / f"{step.sample}.markdup.txt"
    tools = step.start(
        ", ".join(address for files in given.reads for address in files),
        ("samtools", "fixmate", "-m", "-u", "-", "/dev/stdout"),
        ("samtools", "sort", "-u", "-@", step.threads - 1, "-T", step.folder / "sort", "-o", "/dev/stdout", "-"),
        ("samtools", "markdup", "-@", step.threads - 1, *OUTPUT, "-f", metrics, "-", f"{bam}##idx##{bam}.bai"),
        feed=True,
    )
    with ThreadPoolExecutor(step.threads) as pool:
        head = [f"@SQ\tSN:{name}\tLN:{length}\tM5:{md5}" for name, (length, md5) in reference.sequences.items()]
        head += [f"@RG\tID:{step.sample}.{lane}\tSM:{step.sample}\tLB:{step.sample}\tPU:{lane}\tPL:ILLUMINA"
                 for lane in lanes]  # fmt: skip
        head.append(f"@PG\tID:minibwa\tPN:minibwa\tVN:{versions()['minibwa']}")
        tools.write("\n".join(["@HD\tVN:1.6\tGO:query", *head, ""]).encode())
        for lane, paths, addresses in zip(lanes, reads, given.reads, strict=True):
            found = templates(paths, addresses)
            waiting: deque[Future[bytes]] = deque()
            while batch := list(islice(found, BATCH)):
                waiting.append(pool.submit(_aligned, minibwa, index, batch, f"{step.sample}.{lane}"))
                if len(waiting) > 2 * step.threads:
                    tools.write(waiting.popleft().result())
            for future in waiting:
                tools.write(future.result())
    tools.finish()
    step.do(str(bam), ("samtools", "quickcheck", bam))


def _index(minibwa: Any, step: Step, reference: Reference) -> Any:
    """minibwa's index: the files .l2b and .mbw beside the reference, or else a new one."""
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
    return index


def _aligned(minibwa: Any, index: Any, batch: list[list[Read]], group: str) -> bytes:
    """The lines in SAM of some templates."""
    options = minibwa.Opts()
    options.set_paired(len(batch[0]) == 2)
    lines: list[str] = []
    for reads in batch:
        if len(reads) == 1:
            lines += _records(reads[0], minibwa.map(index, options, reads[0].name, reads[0].bases), 0, group)
            continue
        queries = [text for read in reads for text in (read.name, read.bases)]
        for read, hits, mate in zip(reads, minibwa.map_pair(index, options, *queries), (FIRST, SECOND), strict=True):
            lines += _records(read, hits, PAIRED | mate, group)
    return "".join(lines).encode()


def _records(read: Read, hits: Sequence[Any], flag: int, group: str) -> Iterator[str]:
    """A read's lines: its best hit, then supplementary ones. fixmate adds what its mate has to say."""
    kept = [hit for hit in hits if hit.is_primary or hit.is_supplementary]
    if not kept:
        yield f"{read.name}\t{flag | UNMAPPED}\t*\t0\t0\t*\t*\t0\t0\t{read.bases}\t{read.quality}\tRG:Z:{group}\n"
    for hit in kept:
        ends = [f"{n}S" if n else "" for n in (hit.query_start, len(read.bases) - hit.query_end)]
        bases, quality, turned = read.bases, read.quality, 0
        if hit.reverse:
            bases, quality, turned, ends = bases.translate(TURN)[::-1], quality[::-1], REVERSE, ends[::-1]
        turned |= (PROPER if hit.proper_pair else 0) | (SUPPLEMENTARY if hit.is_supplementary else 0)
        yield (
            f"{read.name}\t{flag | turned}\t{hit.contig}\t{hit.ref_start + 1}\t{hit.mapq}\t"
            f"{ends[0]}{hit.cigar_string}{ends[1]}\t*\t0\t0\t{bases}\t{quality}\t"
            f"NM:i:{hit.blen - hit.mlen}\tAS:i:{hit.score}\tRG:Z:{group}\n"
        )


if __name__ == "__main__":
    sys.exit(main(align, "reference", "sample", "out", more=OPTIONS))

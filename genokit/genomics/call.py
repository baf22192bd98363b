"""``python -m genokit.genomics.call``: a BAM to the small variants of a sample, normalised, by bcftools."""

from __future__ import annotations

import re
import sys
from collections import deque
from pathlib import Path

from genokit.genomics.step import Step, Tools, main

WINDOW = 10_000_000  # bases called by one process: the same whatever the number of threads, and so are the results
QUALITY = 20  # of a variant, Phred-scaled: below it, at 30x, more are false than true


def windows(lengths: dict[str, int], size: int = WINDOW) -> list[str]:
    """The sequences cut into windows of at most ``size`` bases; each is a file of regions for bcftools.

    >>> windows({"chr1": 150, "HLA:1": 30, "HLA:2": 30}, 100)
    ['chr1\\t1\\t100\\n', 'chr1\\t101\\t150\\nHLA:1\\t1\\t30\\n', 'HLA:2\\t1\\t30\\n']
    """
    found: list[list[str]] = []
    room = 0
    for name, length in lengths.items():
        for start in range(0, length, size):
            end = min(start + size, length)
            if end - start > room:
                found.append([])
                room = size
            found[-1].append(f"{name}\t{start + 1}\t{end}\n")
            room -= end - start
    return ["".join(regions) for regions in found]


def call(step: Step) -> None:
    """Call a sample's SNVs and indels. Raises StepFailed."""
    given = step.given
    reference = step.reference(given.reference)
    bam = step.bam(given.bam, reference)
    vcf, running = step.out / f"{step.sample}.vcf.gz", deque[Tools]()
    parts: list[Path] = []
    for window in windows({name: length for name, (length, _) in reference.sequences.items()}):
        if len(running) == step.threads:
            running.popleft().finish()
        parts.append(step.folder / f"{len(parts)}.bcf")
        regions = parts[-1].with_suffix(".txt")  # not an option: a name may have a colon
        regions.write_text(window)
        pile = ("bcftools", "mpileup", "-X", "illumina", "-q", 20, "-Q", 13, "-a", "AD,DP", "-R", regions)
        running.append(step.start(
            given.bam, (*pile, "-f", reference.fasta, "-Ou", "-o", "/dev/stdout", bam),
            ("bcftools", "call", "-mv", "-a", "GQ", "-Ob", "-o", parts[-1], "-"),
        ))  # fmt: skip
    for tools in running:
        tools.finish()
    listed, whole, head = step.folder / "parts.txt", step.folder / "whole.vcf.gz", step.folder / "head.txt"
    listed.write_text("".join(f"{part}\n" for part in parts))
    step.do(
        given.bam, ("bcftools", "concat", "-f", listed, "-Ou", "-o", "/dev/stdout"),
        ("bcftools", "norm", "-f", reference.fasta, "-m", "-any", "-d", "exact", "-Ou", "-o", "/dev/stdout", "-"),
        ("bcftools", "view", "-i", f"QUAL>={QUALITY}", "-Oz", "-o", whole, "-"),
    )  # fmt: skip
    # The next step has to know which reference this was.
    step.do(given.bam, ("bcftools", "view", "--no-version", "-h", whole, "-o", head))
    contig = re.compile(r"^(##contig=<ID=([^,>]+)[^>]*)>", re.MULTILINE)
    head.write_text(contig.sub(lambda m: f"{m[1]},md5={reference.sequences[m[2]][1]}>", head.read_text()))
    step.do(given.bam, ("bcftools", "reheader", "-h", head, "-o", vcf, whole))
    step.do(given.bam, ("bcftools", "index", "-t", vcf))


if __name__ == "__main__":
    sys.exit(main(call, "bam", "reference", "sample", "out"))

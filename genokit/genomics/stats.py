"""``python -m genokit.genomics.stats``: the statistics of a sample's BAM by samtools, as MultiQC reads them."""

from __future__ import annotations

import sys

from genokit.genomics.step import Step, main


def stats(step: Step) -> None:
    """Write samtools' stats, flagstat and coverage of a sample. Raises StepFailed."""
    reference = step.reference(step.given.reference)
    bam = step.bam(step.given.bam, reference)
    for command in (("stats", "-@", step.threads - 1, "-r", reference.fasta), ("flagstat",), ("coverage",)):
        out = step.out / f"{step.sample}.{command[0]}.txt"
        step.do(step.given.bam, ("samtools", *command, bam, ">", out))


if __name__ == "__main__":
    sys.exit(main(stats, "bam", "reference", "sample", "out"))

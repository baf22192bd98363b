"""``python -m genokit.genomics.stats``: the statistics of a sample's BAM by samtools, as MultiQC reads them."""

from __future__ import annotations

import sys

from genokit.genomics.step import Step, main, unpacked


def stats(step: Step) -> None:
    """Write samtools' stats, flagstat and coverage of a sample. Raises StepFailed."""
    reference = step.reference(step.given.reference)
    bam = step.bam(step.given.bam, reference)
    running = []
    for command in (("stats", "-r", reference.fasta), ("flagstat",), ("coverage",)):
        out = step.out / f"{step.sample}.{command[0]}.txt"
        running.append(step.start(step.given.bam, ("samtools", *command, "-", ">", out), feed=True))
    with unpacked(bam, step.given.bam, "rb") as source:  # once for all three
        while part := source.read(2**16):  # what a pipe holds, so that no tool waits for another
            for tools in running:
                tools.write(part)
    for tools in running:
        tools.finish()


if __name__ == "__main__":
    sys.exit(main(stats, "bam", "reference", "sample", "out"))

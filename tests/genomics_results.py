"""The results of the workflow's steps for a simulated cohort, made by their commands without jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from genokit import Dataset


def made(cohort: Dataset, samples: list[str], results: Path) -> Path:
    """Run all steps for samples of one lane; returns the folder of the results."""
    for sample in samples:
        own = results / sample
        reads = [cohort[f"reads-{sample.lower()}-l001-{mate}-fastq"] for mate in (1, 2)]
        bam, vcf = own / f"bam/{sample}.bam", own / f"vcf/{sample}.vcf.gz"
        for step, place, options in (
            ("align", "bam", ["--reads", *reads]),
            ("call", "vcf", ["--bam", bam]),
            ("stats", "stats", ["--bam", bam]),
            ("annotate", "annotated_vcf", ["--vcf", vcf, "--genes", cohort["genes"]]),
        ):
            given = [*options, "--reference", cohort["reference"], "--sample", sample, "--out", own / place]
            subprocess.run([sys.executable, "-m", f"genokit.genomics.{step}", *map(str, given)], check=True)
    return results

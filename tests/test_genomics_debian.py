"""Debian's samtools and bcftools, which are older than the kit's, read its results and count the same.

Collected only where both are installed (``conftest.py``); the CI installs them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from genomics_results import made

from genokit import genomics


def said(*command: object) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("debian")
    cohort = genomics.simulate(folder / "cohort", 1, 5, bases=20_000, contigs=2, coverage=30)
    return made(cohort, ["S1"], folder / "results")


def test_samtools_accepts_the_bam_and_its_index_and_counts_the_same(results):
    bam, row = results / "S1/bam/S1.bam", genomics.qc(results).table().loc[0]
    said("samtools", "quickcheck", "-v", bam)
    assert int(said("samtools", "view", "-c", "-F", "0x900", bam)) == row["reads"]
    assert int(said("samtools", "view", "-c", bam, "chr2:1-10000")) > 500  # by the index
    assert said("samtools", "flagstat", bam) == (results / "S1/stats/S1.flagstat.txt").read_text()
    lines = [
        [
            line
            for line in text.splitlines()
            if line.startswith(("SN\t", "IS\t", "COV\t", "FFQ\t")) and "sorted" not in line
        ]
        for text in (said("samtools", "stats", bam), (results / "S1/stats/S1.stats.txt").read_text())
    ]
    assert lines[0] == lines[1]


def test_bcftools_accepts_the_vcfs_and_their_indexes_and_counts_the_same(results):
    row = genomics.qc(results).table().loc[0]
    for name in ("vcf/S1.vcf.gz", "annotated_vcf/S1.annotated.vcf.gz"):
        vcf = results / "S1" / name
        stats = said("bcftools", "stats", vcf)
        assert f"number of SNPs:\t{row['snvs']}\n" in stats
        assert f"number of indels:\t{row['insertions'] + row['deletions']}\n" in stats
        assert said("bcftools", "index", "--nrecords", vcf).strip() == str(len(genomics.variants(results)))
    consequences = said("bcftools", "query", "-f", "[%TBCSQ\\n]", results / "S1/annotated_vcf/S1.annotated.vcf.gz")
    assert "|protein_coding|" in consequences

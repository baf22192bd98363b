"""mappy as the aligner, in an environment that has it and not minibwa: `make test-clients` compiles it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pysam
import pytest
from hard_pairs import INWARD, check_records, flags_of, sequences, written

from genokit import Dataset, genomics

pytestmark = pytest.mark.clients

PYTHON = (Path(os.environ.get("CLIENTS", ".venv-clients")) / "bin/python").absolute()


def run(cohort: Dataset, step: str, *options: object, out: Path) -> Path:
    given = [*options, "--reference", cohort["reference"], "--sample", "S1", "--out", out]
    more = ["--aligner", "mappy"] if step == "align" else []
    subprocess.run([PYTHON, "-m", f"genokit.genomics.{step}", *more, *map(str, given)], check=True)
    return out


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return genomics.simulate(tmp_path_factory.mktemp("cohort"), 1, 5, bases=20_000, contigs=2, coverage=2)


def test_variants_of_simulated_genomes_are_found_with_their_genotypes_and_debians_samtools_accepts_the_bam(tmp_path):
    scores = []
    for seed in range(11, 17):  # so many that one indel changes F1 by less than 0.002
        own = genomics.simulate(tmp_path / f"{seed}", 1, seed, coverage=30)
        reads = [own[f"reads-s1-l001-{mate}-fastq"] for mate in (1, 2)]
        results = tmp_path / f"results-{seed}/S1"
        bam = run(own, "align", "--reads", *reads, "--key", "k", out=results / "bam") / "S1.bam"
        vcf = run(own, "call", "--bam", bam, out=results / "vcf") / "S1.vcf.gz"
        subprocess.run(["samtools", "quickcheck", "-v", bam], check=True)
        scores.append(genomics.compare(vcf, own["truth-vcf"], own["reference"], own["confident"]))
    check_records(bam, sequences(own), reads)
    sums = pd.concat(scores).groupby(["Type", "Genotypes"]).sum()
    print(sums.to_string())
    f1 = 2 * sums["TRUTH.TP"] / (2 * sums["TRUTH.TP"] + sums["TRUTH.FN"] + sums["QUERY.FP"])
    assert sums.loc[("SNP", True), "TRUTH.TP"] > 1000
    assert f1["SNP", True] >= 0.995
    assert f1["INDEL", True] >= 0.98

    version = json.loads((results / "bam/S1.align.json").read_text())["versions"]["mappy"]
    assert f"For each of 1 samples, mappy {version} (-x sr) aligned the reads; samtools fixmate " in (
        genomics.qc(results.parent).methods
    )


def test_pairs_that_are_clipped_split_lost_or_not_proper_have_the_flags_and_mates_that_sam_asks_for(cohort, tmp_path):
    reads, flags = written(cohort, tmp_path)
    flags["split,_mate_at_the_first"] = INWARD  # minimap2 leaves the other part out
    bam = run(cohort, "align", "--reads", *reads, out=tmp_path / "out") / "S1.bam"
    assert flags_of(bam) == flags
    check_records(bam, sequences(cohort), reads)


def test_the_result_does_not_depend_on_the_number_of_threads_and_single_reads_have_no_mates(cohort, tmp_path):
    reads = [cohort[f"reads-s1-l001-{mate}-fastq"] for mate in (1, 2)]
    bams = [
        run(cohort, "align", "--reads", *reads, "--threads", count, out=tmp_path / f"{count}") / "S1.bam"
        for count in (1, 2)
    ]
    single = run(cohort, "align", "--reads", reads[1], out=tmp_path / "single") / "S1.bam"
    with pysam.AlignmentFile(bams[0]) as one, pysam.AlignmentFile(bams[1]) as two, pysam.AlignmentFile(single) as alone:
        assert [str(read) for read in one] == [str(read) for read in two]
        assert {read.flag & ~0x400 for read in alone} == {0, 16}

"""The chain finds the variants of simulated genomes, genotypes included; a second comparison agrees with the kit's."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pandas as pd
import pysam
import pytest

from genokit import Dataset, genomics

Variant = tuple[str, int, str, str]


def called(cohort: Dataset, sample: str, folder: Path) -> Path:
    """The VCF that align and call make of a sample."""
    reads = [cohort[f"reads-{sample.lower()}-l001-{mate}-fastq"] for mate in (1, 2)]
    for step, options in (("align", ["--reads", *reads]), ("call", ["--bam", folder / "align" / f"{sample}.bam"])):
        given = [*options, "--reference", cohort["reference"], "--sample", sample, "--out", folder / step]
        subprocess.run([sys.executable, "-m", f"genokit.genomics.{step}", *map(str, given)], check=True)
    return folder / "call" / f"{sample}.vcf.gz"


def genotypes(path: Path, sample: str, regions: list[tuple[str, int, int]]) -> dict[Variant, tuple[int, ...]]:
    """The variants of a sample that lie in the regions, each with its genotype."""
    found = {}
    with pysam.VariantFile(str(path)) as file:
        for one in file:
            genotype = tuple(sorted(one.samples[sample]["GT"]))
            if any(genotype) and any(c == one.chrom and low < one.pos <= high for c, low, high in regions):
                found[one.chrom, one.pos, one.ref, one.alts[0]] = genotype
    return found


def haplotypes(variants: dict[Variant, tuple[int, ...]], bases: str) -> set[tuple[str, ...]]:
    """The pairs of haplotypes that the genotypes of a few variants of one sequence allow, over all phasings."""
    pairs = set()
    for phases in product((0, 1), repeat=len(variants)):
        pair = []
        for side in (0, 1):
            text = bases
            for (variant, genotype), phase in sorted(zip(variants.items(), phases, strict=True), reverse=True):
                _, pos, ref, alt = variant
                if genotype == (1, 1) or phase == side:
                    text = text[: pos - 1] + alt + text[pos - 1 + len(ref) :]
            pair.append(text)
        pairs.add(tuple(sorted(pair)))
    return pairs


def same_haplotypes(
    truth: dict[Variant, tuple[int, ...]], calls: dict[Variant, tuple[int, ...]], sequences: dict[str, str]
) -> set[Variant]:
    """The variants that both sides have, written in different records: an insertion and an SNV, or the like."""
    equal: set[Variant] = set()
    for contig, pos, *_ in [variant for variant in truth if calls.get(variant) != truth[variant]]:
        near = [
            {one: gt for one, gt in side.items() if one[0] == contig and abs(one[1] - pos) <= 50}
            for side in (truth, calls)
        ]
        if haplotypes(near[0], sequences[contig]) & haplotypes(near[1], sequences[contig]):
            equal |= near[0].keys() | near[1].keys()
    return equal


@pytest.mark.slow
def test_snvs_and_indels_of_simulated_genomes_are_found_with_their_genotypes(tmp_path):
    right, wrong = {"SNP": 0, "INDEL": 0}, {"SNP": 0, "INDEL": 0}  # a false negative and a false positive are two wrong
    scores = []
    for seed in range(11, 17):  # so many that one indel changes F1 by less than 0.002
        cohort = genomics.simulate(tmp_path / f"{seed}", 1, seed, coverage=30)
        fields = [line.split("\t") for line in cohort["confident"].read_text().splitlines()]
        regions = [(contig, int(low), int(high)) for contig, low, high in fields]
        truth = genotypes(cohort["truth-vcf"], "S1", regions)
        vcf = called(cohort, "S1", tmp_path / f"{seed}-results")
        calls = genotypes(vcf, "S1", regions)
        scores.append(genomics.compare(vcf, cohort["truth-vcf"], cohort["reference"], cohort["confident"]))
        lines = [one.partition("\n") for one in cohort["reference"].read_text().split(">")[1:]]
        equal = same_haplotypes(truth, calls, {name: bases.replace("\n", "") for name, _, bases in lines})
        for variant, genotype in truth.items():
            kind = "SNP" if len(variant[2]) == len(variant[3]) else "INDEL"
            found = variant in equal or calls.get(variant) == genotype
            right[kind] += found
            wrong[kind] += not found
        for variant, genotype in calls.items():
            kind = "SNP" if len(variant[2]) == len(variant[3]) else "INDEL"
            wrong[kind] += variant not in equal and truth.get(variant) != genotype
    f1 = {kind: 2 * right[kind] / (2 * right[kind] + wrong[kind]) for kind in right}
    sums = pd.concat(scores).groupby(["Type", "Genotypes"]).sum()
    print(sums.to_string())
    for kind in right:
        row = sums.loc[kind, True]
        assert (row["TRUTH.TP"], row["TRUTH.FN"] + row["QUERY.FP"]) == (right[kind], wrong[kind])
    assert right["SNP"] > 1400
    assert right["INDEL"] > 300
    assert f1["SNP"] >= 0.995
    assert f1["INDEL"] >= 0.98

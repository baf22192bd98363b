"""A simulated cohort: the same bytes every time, a truth that is what the reads say, genes with whole codons."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genokit import Dataset, genomics
from genokit.errors import ConfirmationNeeded, InvalidParameters


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort")
    return genomics.simulate(folder, ["mother", "child"], 3, bases=60_000, contigs=1, coverage=20, lanes=2)


def fastq(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    return [lines[i : i + 4] for i in range(0, len(lines), 4)]


def test_the_same_arguments_make_the_same_bytes_and_another_seed_makes_others(tmp_path):
    def sha256(seed: int) -> str:
        return genomics.simulate(tmp_path / "cohort", 1, seed, bases=10_000, contigs=1, coverage=2).sha256

    first = sha256(1)
    assert sha256(1) == first != sha256(2)


def test_a_sample_does_not_depend_on_the_others(tmp_path):
    one, both = (
        genomics.simulate(tmp_path / str(len(names)), names, bases=10_000, contigs=1, coverage=2)
        for names in (["S2"], ["S1", "S2"])
    )
    assert one.hashes["reads-s2-l001-1-fastq"] == both.hashes["reads-s2-l001-1-fastq"]


def test_a_single_name_is_one_sample(tmp_path):
    cohort = genomics.simulate(tmp_path / "cohort", "child", bases=10_000, contigs=1, coverage=1)
    assert cohort.title == "Simulated cohort: 1 sample, seed 7"
    assert '"samples": ["child"]' in cohort["simulated"].read_text()


def test_it_is_called_simulated_wherever_it_says_what_it_is(cohort):
    assert cohort.title == "Simulated cohort: 2 samples, seed 3"
    assert '"simulated": true' in cohort["simulated"].read_text()
    assert b"simulated" in gzip.decompress(cohort["truth-vcf"].read_bytes())[:200]
    assert "\tsimulated\t" in cohort["genes"].read_text()


def test_the_sample_sheet_has_sareks_columns_and_a_row_for_each_lane(cohort):
    with cohort["samples"].open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["patient", "sample", "lane", "fastq_1", "fastq_2"]
    assert [(row["sample"], row["lane"]) for row in rows] == [
        ("mother", "L001"), ("mother", "L002"), ("child", "L001"), ("child", "L002"),
    ]  # fmt: skip
    assert all((cohort["samples"].parent / row[mate]).is_file() for row in rows for mate in ("fastq_1", "fastq_2"))


def test_reads_are_pairs_whose_errors_are_as_frequent_as_their_qualities_say(cohort):
    one, two = (fastq(cohort[f"reads-mother-l001-{mate}-fastq"]) for mate in (1, 2))
    assert len(one) == len(two) == 2000
    assert all(a[0][:-2] == b[0][:-2] and len(a[1]) == len(a[3]) == 150 for a, b in zip(one, two, strict=True))
    quality = np.array([list(read[3].encode()) for read in two]) - 33
    assert quality[:, :10].mean() > quality[:, -10:].mean() + 5
    reference = "".join(cohort["reference"].read_text().splitlines()[1:])
    turned = reference[::-1].translate(str.maketrans("ACGT", "TGCA"))
    clean = np.array([read[1] in reference or read[1] in turned for read in one])
    expected = np.prod(1 - 10 ** (-(np.array([list(read[3].encode()) for read in one]) - 33) / 10), axis=1).mean()
    assert 0.6 * expected < clean.mean() < expected  # some reads lie over a variant


def test_the_truth_is_normalised_and_the_alternative_alleles_are_in_the_reads(cohort, tmp_path):
    (tmp_path / "reference.fa").write_bytes(cohort["reference"].read_bytes())
    code = "import pysam.bcftools, sys; pysam.bcftools.norm(*sys.argv[1:], catch_stdout=False)"
    arguments = ["-f", tmp_path / "reference.fa", "-m", "-any", cohort["truth-vcf"], "-o", tmp_path / "normalised.vcf"]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)

    def records(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("#")]

    truth = records(gzip.decompress(cohort["truth-vcf"].read_bytes()).decode())
    assert truth == records((tmp_path / "normalised.vcf").read_text())
    assert len({tuple(line.split("\t")[:2]) for line in truth}) == len(truth) > 50
    names = [f"reads-mother-l00{lane}-{mate}-fastq" for lane in (1, 2) for mate in (1, 2)]
    reads = "\n".join(read[1] for name in names for read in fastq(cohort[name]))
    both_ways = reads + reads[::-1].translate(str.maketrans("ACGT", "TGCA"))
    reference = "".join(cohort["reference"].read_text().splitlines()[1:])
    homozygous, seen = 0, 0
    for contig, pos, _, ref, alt, *_, mother, _ in (line.split("\t") for line in truth):
        start = int(pos) - 1
        assert (contig, reference[start : start + len(ref)]) == ("chr1", ref)
        if mother == "1|1":
            homozygous += 1
            seen += reference[start - 15 : start] + alt + reference[start + len(ref) :][:15] in both_ways
    assert seen > 0.7 * homozygous > 7  # another variant may lie within the 15 bases


def test_two_in_three_snvs_are_transitions_as_in_a_human_genome(tmp_path):
    cohort = genomics.simulate(tmp_path / "cohort", 1, bases=1_000_000, contigs=1, coverage=0.01)
    lines = gzip.decompress(cohort["truth-vcf"].read_bytes()).decode().splitlines()
    changes = [line.split("\t")[3] + line.split("\t")[4] for line in lines if line[0] != "#"]
    snvs = [one for one in changes if len(one) == 2]
    share = sum(one in ("AG", "GA", "CT", "TC") for one in snvs) / len(snvs)
    assert abs(share - 2 / 3) < 3 * (2 / 9 / len(snvs)) ** 0.5 < 0.04  # three standard errors
    assert {*snvs} == {a + b for a in "ACGT" for b in "ACGT" if a != b}


def test_every_gene_is_read_from_its_start_codon_to_its_stop_codon(cohort):
    reference = "".join(cohort["reference"].read_text().splitlines()[1:])
    genes: dict[str, list[list[str]]] = {}
    for line in cohort["genes"].read_text().splitlines()[1:]:
        fields = line.split("\t")
        if fields[2] == "CDS":
            genes.setdefault(fields[8], []).append(fields)
    assert {lines[0][6] for lines in genes.values()} == {"+", "-"}
    for lines in genes.values():
        pieces = [reference[int(line[3]) - 1 : int(line[4])] for line in lines]
        if lines[0][6] == "-":
            pieces = [piece[::-1].translate(str.maketrans("ACGT", "TGCA")) for piece in pieces]
        coding = "".join(pieces)
        codons = [coding[i : i + 3] for i in range(0, len(coding), 3)]
        assert codons[0] == "ATG"
        assert [n for n, codon in enumerate(codons) if codon in ("TAA", "TAG", "TGA")] == [len(codons) - 1]
        assert [int(line[7]) for line in lines] == [-sum(map(len, pieces[:n])) % 3 for n in range(len(pieces))]


def test_confident_regions_lie_within_the_reference_and_do_not_touch(cohort):
    regions = [line.split("\t") for line in cohort["confident"].read_text().splitlines()]
    edges = [int(edge) for _, *both in regions for edge in both]
    assert edges == sorted(set(edges))
    assert 50_000 < sum(edges[1::2]) - sum(edges[::2]) < 60_000


def test_another_folders_files_are_not_lost(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfirmationNeeded, match="files other than a simulated cohort"):
        genomics.simulate(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize(
    "arguments",
    [{"samples": 0}, {"samples": ["a", "a"]}, {"samples": ["../a"]}, {"bases": 100}, {"coverage": 0}, {"lanes": 0},
     {"seed": -1}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(InvalidParameters):
        genomics.simulate(tmp_path / "cohort", **arguments)
    assert not list(tmp_path.iterdir())

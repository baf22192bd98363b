"""Calls are compared with the truth by haplotype; bcftools, which compares records, agrees where spellings do."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest

from genokit import backends, genomics, storage
from genokit.errors import InvalidParameters, NotFound

#            0         1         2         3         4         5         6         7         8         9
BASES = "GATTACAGATCCAAAAAACGTGTCATGCAGTCAGCTAGCTTACGGACTACGCATGATCGATTTGCGACTGACTGCATCGACGACGTTGCAAGCT"
FAR = BASES[::-1] * 3  # more than 30 bases without a variant
GENOME = BASES + FAR + BASES + FAR


def vcf(path: Path, *records: tuple[object, ...], sample: str = "S1", contig: str = "chr1") -> Path:
    """A VCF of records of one sample: position from 1, REF, ALT, genotype, and perhaps FILTER."""
    lines = ["##fileformat=VCFv4.2", f"##contig=<ID={contig},length={len(GENOME)}>", '##FILTER=<ID=q10,Description="">',
             '##FORMAT=<ID=GT,Number=1,Type=String,Description="">',
             f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{sample}"]  # fmt: skip
    for pos, ref, alt, genotype, *filters in records:
        lines.append(f"{contig}\t{pos}\t.\t{ref}\t{alt}\t30\t{(filters or ['PASS'])[0]}\t.\tGT\t{genotype}")
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture
def counts(tmp_path):
    """Compare records with records: for SNVs and for indels true positives, false negatives, false positives, FP.gt."""
    (tmp_path / "reference.fa").write_text(f">chr1 of a test\n{GENOME[:60]}\n{GENOME[60:]}\n")

    def compared(truth: list[tuple[object, ...]], calls: list[tuple[object, ...]]) -> dict[str, list[int]]:
        files = vcf(tmp_path / "calls.vcf", *calls), vcf(tmp_path / "truth.vcf", *truth)
        table = genomics.compare(*files, tmp_path / "reference.fa")
        with_genotypes = table[table["Genotypes"]].set_index("Type")
        columns = ["TRUTH.TP", "TRUTH.FN", "QUERY.FP", "FP.gt"]
        return {kind: with_genotypes.loc[kind, columns].tolist() for kind in ("SNP", "INDEL")}

    return compared


def test_an_indel_is_the_same_wherever_in_a_repeat_it_is_written(counts):
    assert BASES[11:18] == "CAAAAAA"
    assert counts([(12, "CA", "C", "0/1")], [(16, "AA", "A", "0/1")])["INDEL"] == [1, 0, 0, 0]
    assert counts([(12, "C", "CAA", "1/1")], [(17, "A", "AAA", "1/1")])["INDEL"] == [1, 0, 0, 0]


def test_a_substitution_of_two_bases_is_the_same_as_its_two_snvs(counts):
    assert BASES[4:6] == "AC"
    assert counts([(5, "AC", "GT", "0/1")], [(5, "A", "G", "0/1"), (6, "C", "T", "0/1")])["SNP"] == [2, 0, 0, 0]


def test_an_insertion_and_an_snv_may_be_written_as_another_insertion_and_another_snv(counts):
    assert BASES[4:8] == "ACAG"
    truth = [(6, "C", "CTT", "0/1"), (8, "G", "T", "0/1")]
    assert counts(truth, [(6, "CAG", "CTTAT", "0/1")]) == {"SNP": [1, 0, 0, 0], "INDEL": [1, 0, 0, 0]}
    assert counts(truth, [(7, "A", "T", "0/1"), (8, "G", "TAT", "0/1")])["INDEL"] == [1, 0, 0, 0]
    assert counts(truth, [(7, "A", "T", "1/1"), (8, "G", "TAT", "0/1")])["INDEL"] == [0, 1, 1, 0]


def test_an_insertion_in_a_long_repeat_and_an_snv_at_its_end_may_be_written_as_one_insertion_at_its_end(tmp_path):
    (tmp_path / "reference.fa").write_text(f">chr1\n{BASES}{'CCTGTA' * 11}GGAC{BASES}\n")
    start, end = len(BASES), len(BASES) + 66
    insertion, snv = (start, "T", "TCCTGTA", "0/1"), (end, "A", "G", "0/1")
    truth = vcf(tmp_path / "truth.vcf", insertion, snv)
    calls = vcf(tmp_path / "calls.vcf", (end, "A", "ACCTGTG", "0/1"))
    table = genomics.compare(calls, truth, tmp_path / "reference.fa")
    assert BASES[-1] == "T"
    assert table[["TRUTH.TP", "QUERY.FP"]].values.tolist() == [[1, 0], [1, 0], [1, 0], [1, 0]]


def test_an_allele_with_the_wrong_genotype_is_wrong_and_counted_as_such(counts, tmp_path):
    truth, calls = [(3, "T", "C", "1/1"), (12, "CA", "C", "0/1")], [(3, "T", "C", "0/1"), (12, "CA", "C", "1|1")]
    assert counts(truth, calls) == {"SNP": [0, 1, 1, 1], "INDEL": [0, 1, 1, 1]}
    table = genomics.compare(tmp_path / "calls.vcf", tmp_path / "truth.vcf", tmp_path / "reference.fa")
    without = table[~table["Genotypes"]]
    assert without["TRUTH.TP"].tolist() == without["QUERY.TP"].tolist() == [1, 1]
    assert without["METRIC.F1_Score"].tolist() == [1, 1]


def test_a_variant_that_is_called_twice_is_right_once(counts):
    one = (3, "T", "C", "0/1")
    assert counts([one], [one, one])["SNP"] == [1, 0, 1, 0]
    assert counts([(12, "C", "CAA", "0/1")], [(12, "C", "CAA", "0/1"), (17, "A", "AAA", "0/1")])["INDEL"] == [
        1,
        0,
        1,
        0,
    ]


def test_two_alternative_alleles_of_one_record_are_two_variants(counts):
    truth = [(12, "CA", "C,CAA", "1|2"), (5, "A", "C,G", "2/1")]
    calls = [(12, "CA", "C", "0/1"), (12, "C", "CA", "0/1"), (5, "A", "G", "0/1"), (5, "A", "C", "0/1")]
    assert counts(truth, calls) == {"SNP": [2, 0, 0, 0], "INDEL": [2, 0, 0, 0]}


def test_sides_without_variants_count_nothing(counts):
    one = [(3, "T", "C", "0/1")]
    assert counts(one, [])["SNP"] == [0, 1, 0, 0]
    assert counts([], one)["SNP"] == [0, 0, 1, 0]
    assert counts([], [])["SNP"] == [0, 0, 0, 0]
    assert counts(one, [(3, "T", "C", "0/0")])["SNP"] == [0, 1, 0, 0]


def test_where_nothing_is_counted_there_is_no_score(counts, tmp_path):
    counts([], [])
    table = genomics.compare(tmp_path / "calls.vcf", tmp_path / "truth.vcf", tmp_path / "reference.fa")
    assert table[["METRIC.Recall", "METRIC.Precision", "METRIC.F1_Score"]].isna().all(axis=None)
    counts([(3, "T", "C", "0/1")], [(5, "A", "C", "0/1")])
    table = genomics.compare(tmp_path / "calls.vcf", tmp_path / "truth.vcf", tmp_path / "reference.fa")
    assert table.loc[0, ["METRIC.Recall", "METRIC.Precision", "METRIC.F1_Score"]].tolist() == [0, 0, 0]


def test_an_error_does_not_spread_to_variants_thirty_bases_away(counts):
    near, far = (3, "T", "C", "0/1"), (len(BASES + FAR) + 6, "CAG", "CTTAT", "0/1")
    other = [(far[0], "C", "CTT", "0/1"), (far[0] + 2, "G", "T", "0/1")]
    assert counts([near, far], other)["INDEL"] == [1, 0, 0, 0]
    assert counts([near, far], other)["SNP"] == [0, 1, 0, 0]


def test_only_variants_in_the_regions_count_and_filtered_ones_nowhere(counts, tmp_path):
    calls = [(3, "T", "C", "0/1"), (8, "G", "A", "0/1"), (20, "G", "A", "0/1", "q10"), (50, "C", "T", "0/1", ".")]
    counts([(3, "T", "C", "0/1")], calls)
    (tmp_path / "some.bed").write_text("# confident\nchr1\t0\t7\tname\nchr1\t40\t60\n")
    files = (tmp_path / name for name in ("calls.vcf", "truth.vcf", "reference.fa", "some.bed"))
    row = genomics.compare(*files).loc[0]
    assert row[["TRUTH.TP", "QUERY.TOTAL", "QUERY.FP", "QUERY.UNK"]].tolist() == [1, 3, 1, 1]


def test_a_wrong_reference_sequence_or_sample_and_damaged_files_are_refused(counts, tmp_path):
    counts([(3, "T", "C", "0/1")], [(3, "T", "C", "0/1")])
    calls, truth, reference = (tmp_path / name for name in ("calls.vcf", "truth.vcf", "reference.fa"))
    with pytest.raises(NotFound, match="has no sample 'S2'"):
        genomics.compare(calls, truth, reference, sample="S2")
    several = tmp_path / "several.vcf"
    several.write_text(calls.read_text().replace("FORMAT\tS1", "FORMAT\tS3\tS4").replace("0/1", "0/1\t0/1"))
    with pytest.raises(NotFound, match=r"several.vcf' has 2 samples. Name one with sample=: S3, S4"):
        genomics.compare(several, truth, reference)
    wrong = tmp_path / "wrong.fa"
    wrong.write_text(f">chr1\n{BASES[::-1]}\n")
    with pytest.raises(InvalidParameters, match=r"another reference: it has T at chr1:3, where the "):
        genomics.compare(calls, truth, wrong)
    vcf(calls, (3, "T", "C", "0/1"), contig="chr2")
    with pytest.raises(InvalidParameters, match=r"calls.vcf' has variants on 'chr2', which is not in"):
        genomics.compare(calls, truth, reference)
    calls.write_bytes(b"photo" * 99)
    with pytest.raises(InvalidParameters, match=r"calls.vcf' cannot be read by pysam's VariantFile"):
        genomics.compare(calls, truth, reference)
    wrong.write_text("chr1\tlow\thigh\n")
    with pytest.raises(InvalidParameters, match=r"wrong.fa' is not a BED"):
        genomics.compare(truth, truth, reference, wrong)
    wrong.write_bytes(gzip.compress(b"chr1\t0\t7\n"))
    with pytest.raises(InvalidParameters, match=r"wrong.fa' is not a BED, or is compressed"):
        genomics.compare(truth, truth, reference, wrong)


def test_regions_none_of_which_is_on_a_sequence_of_the_reference_are_refused(counts, tmp_path):
    counts([(3, "T", "C", "0/1")], [(3, "T", "C", "0/1")])
    files = [tmp_path / name for name in ("calls.vcf", "truth.vcf", "reference.fa", "some.bed")]
    files[3].write_text("1\t0\t7\n2\t0\t7\n")
    with pytest.raises(InvalidParameters, match=r"some.bed' has regions on '1', which is not in '.*reference.fa'"):
        genomics.compare(*files)
    files[3].write_text("chr1\t0\t7\nchr2\t0\t7\n")  # of a larger reference
    assert genomics.compare(*files)["TRUTH.TP"].tolist() == [1, 1, 0, 0]


def test_files_may_be_on_s3_and_the_truth_may_name_the_sample_differently(counts, tmp_path, account):
    counts([(3, "T", "C", "0/1")], [])
    clients = backends.Clients(account)
    there = f"s3://{clients.bucket}/truth"
    truth = vcf(tmp_path / "truth.vcf", (3, "T", "C", "0/1"), sample="HG002")
    for path in (truth, tmp_path / "reference.fa"):
        storage.upload(path, f"{there}/{path.name}", clients=clients)
    calls = vcf(tmp_path / "calls.vcf", (3, "T", "C", "1/0"))
    table = genomics.compare(calls, f"{there}/truth.vcf", f"{there}/reference.fa", clients=clients)
    assert table["TRUTH.TP"].tolist() == [1, 1, 0, 0]


def bcftools(*arguments: object, out: Path) -> Path:
    code = "import sys, pysam.bcftools as b; getattr(b, sys.argv[1])(*sys.argv[2:], catch_stdout=False)"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments), "-o", str(out)], check=True)
    return out


def test_bcftools_counts_the_same_where_calls_differ_in_alleles_and_genotypes(tmp_path):
    """Calls made from the truth with known errors; bcftools normalises both, and sets of their records are compared."""
    cohort = genomics.simulate(tmp_path / "cohort", 1, 21, bases=100_000, contigs=1, coverage=1)
    head, body = [], []
    for line in gzip.decompress(cohort["truth-vcf"].read_bytes()).decode().splitlines():
        (head if line.startswith("#") else body).append(line)
    rng, calls = random.Random(3), []
    for line in body:
        *fields, genotype = line.split("\t")
        fate = rng.random()
        if fate < 0.1:  # a wrong genotype
            genotype = "0/1" if genotype == "1|1" else "1/1"
        if fate < 0.15 and len(fields[3]) == len(fields[4]):  # another allele
            fields[4] = next(base for base in "ACGT" if base not in (fields[3], fields[4]))
        if fate < 0.9:  # or it is not found
            calls.append("\t".join([*fields, genotype.replace("|", "/")]))
    reference = tmp_path / "reference.fa"
    reference.write_bytes(cohort["reference"].read_bytes())
    records = {}
    for name, lines in (("truth", body), ("calls", calls)):
        (tmp_path / f"{name}.vcf").write_text("\n".join([*head, *lines, ""]))
        normal = bcftools("norm", "-f", reference, "-a", tmp_path / f"{name}.vcf", out=tmp_path / f"{name}.norm.vcf")
        fields = [line.split("\t") for line in normal.read_text().splitlines() if line[0] != "#"]
        records[name] = {(*one[:2], *one[3:5]): "".join(sorted(one[9].replace("|", "/"))) for one in fields}
    table = genomics.compare(tmp_path / "calls.vcf", tmp_path / "truth.vcf", reference)
    for row in table.to_dict("records"):
        truth, query = (
            {key: genotype if row["Genotypes"] else "" for key, genotype in side.items()
             if (len(key[2]) == len(key[3])) == (row["Type"] == "SNP")}
            for side in (records["truth"], records["calls"])
        )  # fmt: skip
        both = len(truth.items() & query.items())
        assert row["TRUTH.TP"] == row["QUERY.TP"] == both > 10
        assert (row["TRUTH.FN"], row["QUERY.FP"]) == (len(truth) - both, len(query) - both)
        assert row["METRIC.F1_Score"] == pytest.approx(2 * both / (len(truth) + len(query)))

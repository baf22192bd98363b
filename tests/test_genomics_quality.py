"""What a workflow's results say about its samples: variants, quality, and the reads at one place."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import pysam
import pytest
from genomics_results import made

from genokit import Dataset, backends, genomics, plots, storage
from genokit.errors import InvalidParameters, NotFound

mpl.use("Agg")


class Cohort(NamedTuple):
    """Two simulated samples, and what the workflow's steps made of them."""

    inputs: Dataset
    results: Path

    def path(self, sample: str, kind: str) -> Path:
        (found,) = self.results.glob(f"{sample}/*/{sample}.{kind}")
        return found


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("cohort")
    inputs = genomics.simulate(folder / "inputs", 2, 8, bases=60_000, contigs=2, coverage=30)
    return Cohort(inputs, made(inputs, ["S1", "S2"], folder / "results"))


@pytest.fixture(autouse=True)
def _figures_close():
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


def bcftools(*arguments: object) -> None:
    code = "import sys, pysam.bcftools as b; getattr(b, sys.argv[1])(*sys.argv[2:], catch_stdout=False)"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


def test_each_row_of_the_variants_is_an_allele_of_the_vcf_with_its_depths(cohort):
    table = genomics.variants(cohort.results)
    assert list(table) == list(genomics.variant_table.COLUMNS)
    for sample, own in table.groupby("sample"):
        with pysam.VariantFile(str(cohort.path(sample, "vcf.gz"))) as file:
            expected = [
                (one.chrom, one.pos, one.ref, one.alts[0], *one.samples[0]["AD"], one.samples[0]["DP"]) for one in file
            ]
        columns = ["chrom", "pos", "ref", "alt", "ref_depth", "alt_depth", "depth"]
        assert list(own[columns].itertuples(index=False, name=None)) == expected
        fraction = own["alt_depth"] / (own["ref_depth"] + own["alt_depth"])
        assert np.allclose(own["allele_fraction"], fraction.astype(float))
    assert set(table["type"]) == {"SNV", "insertion", "deletion"}
    assert set(table["genotype"]) == {"0/1", "1/1"}
    assert genomics.variants(cohort.results, "S2").equals(table[table["sample"] == "S2"].reset_index(drop=True))


def test_annotated_variants_have_the_gravest_consequence_and_compound_ones_have_it_at_every_variant(cohort, tmp_path):
    bases = dict(one.split("\n", 1) for one in cohort.inputs["reference"].read_text().split(">")[1:])
    bases = {name: text.replace("\n", "") for name, text in bases.items()}
    exons = (line.split("\t") for line in cohort.inputs["genes"].read_text().splitlines() if "\tCDS\t" in line)
    contig, start = next((one[0], int(one[3])) for one in exons if one[6] == "+" and one[7] == "0")
    codon = bases[contig][start + 2 : start + 5]  # the second codon; the first two bases of it change
    lines = ["##fileformat=VCFv4.2", *(f"##contig=<ID={name},length={len(text)}>" for name, text in bases.items())]
    lines += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="">',
              "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS9"]  # fmt: skip
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    for n in (0, 1):
        lines.append(f"{contig}\t{start + 3 + n}\t.\t{codon[n]}\t{other[codon[n]]}\t50\tPASS\t.\tGT\t1/1")
    (tmp_path / "plain.vcf").write_text("\n".join([*lines, ""]))
    reference = tmp_path / "reference.fa"
    shutil.copy(cohort.inputs["reference"], reference)
    place = tmp_path / "results/S9/annotated_vcf"
    place.mkdir(parents=True)
    bcftools("csq", "-f", reference, "-g", cohort.inputs["genes"], "-p", "a", "-Oz", "-o",
             place / "S9.annotated.vcf.gz", tmp_path / "plain.vcf")  # fmt: skip
    table = genomics.variants(tmp_path / "results")
    assert table["consequence"].nunique() == table["amino_acid_change"].nunique() == table["gene"].nunique() == 1
    assert re.fullmatch(r"2[A-Z*]>2[A-Z*]", table["amino_acid_change"][0])
    assert table["depth"].isna().all()
    found = genomics.variants(cohort.results)
    assert {"missense", "intron", "synonymous", "frameshift"} & set(found["consequence"].dropna())


def test_a_sample_without_results_is_named(cohort, tmp_path):
    with pytest.raises(NotFound, match="There is no sample 'S3'"):
        genomics.variants(cohort.results, "S3")
    with pytest.raises(NotFound, match="There are no results in"):
        genomics.variants(tmp_path)
    place = tmp_path / "S1/vcf"
    place.mkdir(parents=True)
    (tmp_path / "S1/S1.txt").write_text("an unfinished run")
    for sample, whose in ((None, "No sample has a"), ("S1", "Sample 'S1' has no")):
        with pytest.raises(NotFound, match=f"{whose} VCF in"):
            genomics.variants(tmp_path, sample)
    (place / "S1.vcf.gz").write_bytes(cohort.path("S1", "vcf.gz").read_bytes()[:3000])
    with pytest.raises(InvalidParameters, match=r"S1.vcf.gz' cannot be read by pysam's VariantFile"):
        genomics.variants(tmp_path)


def test_the_figures_of_the_reads_are_those_that_pysam_counts(cohort):
    table = genomics.qc(cohort.results).table().set_index("sample")
    for sample, row in table.iterrows():
        with pysam.AlignmentFile(str(cohort.path(sample, "bam"))) as file:
            lengths, reads = file.lengths, [one for one in file if not one.is_supplementary]
        assert row["reads"] == len(reads)
        assert row["mapped_percent"] == 100 * np.mean([not one.is_unmapped for one in reads])
        assert row["properly_paired_percent"] == 100 * np.mean([one.is_proper_pair for one in reads])
        assert row["duplicate_percent"] == pytest.approx(100 * np.mean([one.is_duplicate for one in reads]))
        assert row["base_quality"] == pytest.approx(np.mean([one.query_qualities for one in reads]), abs=0.051)
        letters = "".join(one.query_sequence for one in reads)
        assert row["gc_percent"] == pytest.approx(100 * sum(map(letters.count, "GC")) / len(letters))
        covered = [one for one in reads if not one.is_duplicate]
        depth = sum(one.get_overlap(0, max(lengths)) for one in covered) / sum(lengths)
        assert row["mean_coverage"] == pytest.approx(depth, rel=0.01)
        assert 99 < row["covered_percent"] <= 100
        inserts = [one.template_length for one in reads if one.template_length > 0]
        assert row["insert_size"] == pytest.approx(np.mean(inserts), rel=0.02)  # samtools leaves out the longest
        assert row["insert_size_sd"] == pytest.approx(np.std(inserts), rel=0.1)


def test_the_figures_of_the_variants_are_those_of_bcftools_stats(cohort, tmp_path):
    table = genomics.qc(cohort.results).table().set_index("sample")
    for sample, row in table.iterrows():
        out = tmp_path / f"{sample}.txt"
        code = "import sys, pysam.bcftools as b; b.stats('-s', '-', sys.argv[1], save_stdout=sys.argv[2])"
        subprocess.run([sys.executable, "-c", code, str(cohort.path(sample, "vcf.gz")), str(out)], check=True)
        fields = [line.split("\t") for line in out.read_text().splitlines()]
        sums = {one[2].rstrip(":"): int(one[3]) for one in fields if one[0] == "SN"}
        (tstv,) = (one for one in fields if one[0] == "TSTV")
        (own,) = (one for one in fields if one[0] == "PSC")
        assert row["snvs"] == sums["number of SNPs"]
        assert row["insertions"] + row["deletions"] == sums["number of indels"]
        assert row["ti_tv"] == int(tstv[2]) / int(tstv[3])
        (indels,) = (one for one in fields if one[0] == "PSI")
        heterozygous = int(own[5]) + int(indels[7]) + int(indels[8])
        assert row["het_hom"] == heterozygous / (int(own[4]) + int(indels[9]) + int(indels[10]))


def test_the_distributions_are_those_of_the_reads(cohort):
    data = genomics.qc(cohort.results).data
    with pysam.AlignmentFile(str(cohort.path("S1", "bam"))) as file:
        reads = [one for one in file if not one.is_supplementary]
    qualities = np.array([one.query_qualities[::-1] if one.is_reverse else one.query_qualities for one in reads])
    quality = data["base_quality"].query("sample == 'S1'")
    assert quality["x"].tolist() == list(range(1, 151))
    assert np.allclose(quality["y"], qualities.mean(0))
    bins = np.zeros(199)  # as samtools fills them: a read is in every bin that its share of G and C covers
    for one in reads:
        count = sum(map(one.query_sequence.count, "GC"))
        bins[count * 199 // 150 : (count + 1) * 199 // 150] += 1
    gc = data["gc"].query("sample == 'S1'")
    expected = {n: 100 * bins[n] / bins.sum() for n in np.flatnonzero(bins)}
    assert dict(zip((gc["x"] * 1.99).round().astype(int), gc["y"], strict=True)) == pytest.approx(expected)
    for name in ("coverage", "insert_size", "gc"):
        assert data[name].groupby("sample")["y"].sum().tolist() == pytest.approx([100, 100])
    variants = genomics.variants(cohort.results)
    kinds = data["variants"].set_index(["sample", "x"])["y"]
    assert kinds.to_dict() == variants.groupby(["sample", "type"]).size().to_dict()


def copies(cohort: Cohort, to: Path, *changes: tuple[str, str]) -> Path:
    """Results of as many samples as there are changes: S1's, with a line of its samtools stats changed."""
    for number, (line, changed) in enumerate(changes, 1):
        place = to / f"N{number}/stats"
        place.mkdir(parents=True)
        stats = cohort.path("S1", "stats.txt").read_text()
        assert line in stats
        (place / f"N{number}.stats.txt").write_text(stats.replace(line, changed))
        shutil.copy(cohort.path("S1", "coverage.txt"), place / f"N{number}.coverage.txt")
        (to / f"N{number}/vcf").mkdir()
        shutil.copy(cohort.path("S1", "vcf.gz"), to / f"N{number}/vcf/N{number}.vcf.gz")
    return to


def test_a_sample_far_from_the_others_is_marked_and_so_is_one_outside_the_limits(cohort, tmp_path):
    average = re.search("SN\tinsert size average:\t.*", cohort.path("S1", "stats.txt").read_text())[0]
    changes = [(average, f"SN\tinsert size average:\t{size}") for size in (400, 401, 402, 403, 404, 500)]
    quality = genomics.qc(copies(cohort, tmp_path / "six", *changes))
    assert quality.marked[["sample", "figure", "value"]].values.tolist() == [["N6", "insert_size", 500.0]]
    assert quality.marked["why"][0] == "the median is 402.5, and the MAD 2.22"
    assert quality.table()["marked"].tolist() == [0, 0, 0, 0, 0, 1]
    four = genomics.qc(copies(cohort, tmp_path / "four", *changes[2:]))
    assert four.marked.empty  # too few to say what is far
    stats = cohort.path("S1", "stats.txt").read_text()
    reads = re.search("SN\treads duplicated:\t(\\d+)", stats)[0]
    (tmp_path / "four/N1/vcf/N1.vcf.gz").unlink()
    (tmp_path / "four/N2/stats/N2.stats.txt").write_text(stats.replace(reads, "SN\treads duplicated:\t9000"))
    marked = genomics.qc(tmp_path / "four").marked
    assert marked[["sample", "figure", "why"]].values.tolist() == [
        ["N2", "duplicate_percent", "expected 30 or less"],
        ["N1", "snvs", "its result is missing"],
    ]


def test_the_methods_name_the_programs_that_were_used_with_versions_and_settings_and_no_paths(cohort):
    quality = genomics.qc(cohort.results)
    methods = quality.methods
    assert methods.startswith("For each of 2 samples, minibwa ")
    for words in ("aligned the reads; samtools fixmate", "bcftools call 1.", "(-mv -a GQ) called SNVs and indels",
                  "(-i QUAL>=20) selected variants", "(-p a) predicted"):  # fmt: skip
        assert words in methods
    assert "/" not in methods
    assert "samtools sort 1.24 sorted the reads; samtools markdup 1.24 marked" in methods  # not how they write
    assert "Date" not in methods
    assert " or " not in methods  # both samples were made with the same


def test_the_page_is_one_file_that_loads_nothing_and_shows_names_as_text(cohort, tmp_path, account):
    strange = tmp_path / "<img src=x>"
    shutil.copytree(cohort.results, strange)
    quality = genomics.qc(strange)
    page = Path(quality.save(tmp_path / "quality.html")).read_text()
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page
    assert not re.search(r"<script|<link|https?://|@import", page)
    assert page.count("data:image/png") == len(quality.names) == 6
    assert all(f"<h2>{title}</h2>" in page for title in ("Samples", "What stands out", "Cohort", "GC", "Methods"))
    assert quality._repr_html_().count("<details>") == 3
    assert repr(quality) == f"<CohortQuality of 2 samples, {len(quality.marked)} values marked>"
    clients = backends.Clients(account)
    there = quality.save(f"s3://{clients.bucket}/quality.html", clients=clients)
    assert storage.read(there, clients=clients).decode() == page


def test_results_on_s3_give_the_same_tables(cohort, account):
    clients = backends.Clients(account)
    there = f"s3://{clients.bucket}/results"
    for path in cohort.results.rglob("*.*"):
        storage.upload(path, f"{there}/{path.relative_to(cohort.results).as_posix()}", clients=clients)
    assert genomics.variants(there, clients=clients).equals(genomics.variants(cohort.results))
    assert genomics.qc(there, clients=clients).table().equals(genomics.qc(cohort.results).table())
    ax = genomics.pileup(there, "S1", "chr1", 9000, reference=cohort.inputs["reference"], clients=clients)
    assert ax.get_title("left").startswith("S1, chr1:9,000: ")


def test_other_files_beside_the_results_are_no_results(cohort, tmp_path):
    shutil.copytree(cohort.results, tmp_path / "results")
    genomics.qc(tmp_path / "results").save(tmp_path / "results/quality.html")
    assert genomics.qc(tmp_path / "results").table().equals(genomics.qc(cohort.results).table())
    with pytest.raises(NotFound, match="There are no results in"):
        genomics.qc(cohort.inputs["reference"].parent)


def test_statistics_that_samtools_did_not_write_are_refused(tmp_path):
    place = tmp_path / "S1/stats"
    place.mkdir(parents=True)
    (place / "S1.stats.txt").write_text("SN\treads:\tmany\n")
    with pytest.raises(InvalidParameters, match=r"S1.stats.txt' was not written by its tool"):
        genomics.qc(tmp_path)
    (place / "S1.stats.txt").unlink()
    (place / "S1.coverage.txt").write_text("#rname\tendpos\tcovbases\tmeandepth\n")
    quality = genomics.qc(tmp_path)
    assert quality.table()["mean_coverage"].isna().all()
    (tmp_path / "S1/bam").mkdir()
    (tmp_path / "S1/bam/S1.bam").write_bytes(b"photo" * 99)
    with pytest.raises(InvalidParameters, match=r"S1.bam' was not written by its tool"):
        genomics.qc(tmp_path)
    with pytest.raises(NotFound, match=r"There is no picture 'coverag'. Did you mean 'coverage'"):
        quality.plot("coverag")


def test_the_files_begin_as_multiqc_expects_and_are_named_by_the_sample(cohort):
    """Its search patterns: modules samtools stats, flagstat, coverage and markdup."""
    begin = {kind: cohort.path("S1", kind).read_text()[:2000] for kind in
             ("stats.txt", "flagstat.txt", "coverage.txt", "markdup.txt")}  # fmt: skip
    assert "This file was produced by samtools stats" in begin["stats.txt"]
    assert re.search(r"in total \(QC-passed reads \+ QC-failed reads\)", begin["flagstat.txt"])
    expected = "#rname\tstartpos\tendpos\tnumreads\tcovbases\tcoverage\tmeandepth\tmeanbaseq\tmeanmapq\n"
    assert begin["coverage.txt"].startswith(expected)
    assert begin["markdup.txt"].startswith("COMMAND: samtools markdup")


def test_every_picture_draws_each_sample_and_of_many_only_marked_ones_in_colour(cohort):
    quality = genomics.qc(cohort.results)
    for name in quality.names:
        ax = quality.plot(name)
        assert len(ax.lines) == 2
        assert sorted(text.get_text() for text in ax.get_legend().get_texts()) == ["S1", "S2"]
        if name in ("variants", "consequences"):  # no mark hides that of another sample
            assert not {*map(tuple, ax.lines[0].get_xydata())} & {*map(tuple, ax.lines[1].get_xydata())}
    many = quality.data["coverage"].query("sample == 'S1'")
    twelve = pd.concat([many.assign(sample=f"N{n}") for n in range(12)])
    ax = plots.genomics.cohort(twelve, "coverage", marked=["N3"])
    assert len(ax.lines) == 12
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["N3"]
    assert ax.get_legend().get_title().get_text() == "grey: 11 other samples"


def test_a_pileup_shows_the_bases_that_differ_insertions_and_deletions(cohort):
    table = genomics.variants(cohort.results, "S1")
    snv = table[(table["type"] == "SNV") & (table["genotype"] == "1/1")].iloc[0]
    inserted = table[(table["type"] == "insertion") & (table["genotype"] == "1/1")].iloc[0]
    deleted = table[table["type"] == "deletion"].iloc[0]

    def drawn(one):
        return genomics.pileup(cohort.results, "S1", one["chrom"], one["pos"], reference=cohort.inputs["reference"])

    letters = [text.get_text() for text in drawn(snv).texts if text.get_position()[0] == snv["pos"]]
    assert letters[0] == snv["ref"]  # the reference is above the reads
    assert letters.count(snv["alt"]) >= 0.8 * (len(letters) - 1) > 5
    counts = [text.get_text() for text in drawn(inserted).texts if text.get_position()[0] == inserted["pos"] + 0.5]
    assert counts.count(str(len(inserted["alt"]) - 1)) > 5
    ends = [line.get_xdata().tolist() for line in drawn(deleted).lines]
    assert [deleted["pos"] + 0.5, deleted["pos"] + len(deleted["ref"]) - 0.5] in ends


def test_a_pileup_says_when_it_shows_fewer_reads_and_refuses_places_that_are_none(cohort, tmp_path):
    from genokit.genomics import read_view

    deep = tmp_path / "results/S1/bam"
    deep.mkdir(parents=True)
    with pysam.AlignmentFile(str(cohort.path("S1", "bam"))) as file:
        reads = list(file.fetch("chr1", 5000, 5001))
        with pysam.AlignmentFile(str(deep / "S1.bam"), "wb", header=file.header) as out:
            for read in reads:
                for _ in range(4):
                    out.write(read)
    pysam.index(str(deep / "S1.bam"))
    ax = genomics.pileup(tmp_path / "results", "S1", "chr1", 5001, reference=cohort.inputs["reference"], width=40)
    count = 4 * sum(not read.is_duplicate for read in reads)
    assert count > read_view.MOST
    assert ax.get_title("left") == f"S1, chr1:5,001: {count} reads, 60 of them drawn"
    assert ax.get_xlim() == (4981 - 0.5, 5020.5)
    given = {"reference": cohort.inputs["reference"]}
    for pos in (0, 10**9):
        with pytest.raises(InvalidParameters, match="There is nothing to draw at"):
            genomics.pileup(cohort.results, "S1", "chr1", pos, **given)
    with pytest.raises(NotFound, match=r"There is no sequence 'chr9' in '.*S1.bam'. Did you mean 'chr"):
        genomics.pileup(cohort.results, "S1", "chr9", 1, **given)
    (deep / "S1.bam.bai").unlink()
    with pytest.raises(NotFound, match="Sample 'S1' has no BAM with an index in"):
        genomics.pileup(tmp_path / "results", "S1", "chr1", 1, **given)
    other = tmp_path / "other.fa"
    other.write_text(given["reference"].read_text().replace("A", "C", 1))
    with pytest.raises(InvalidParameters, match=r"S1.bam' was made with another reference than '.*other.fa'"):
        genomics.pileup(cohort.results, "S1", "chr1", 5001, reference=other)

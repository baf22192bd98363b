"""Align, call, annotate and stats as commands: what they make, and that a fault leaves nothing behind."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import minibwa
import psutil
import pysam
import pytest
from hard_pairs import check_records, flags_of, sequences, written

from genokit import Dataset, Settings, backends, genomics, storage
from genokit.genomics import align, annotate, call, stats
from genokit.genomics.step import Reference

MODULES = {"align": align, "call": call, "annotate": annotate, "stats": stats}


class Result(NamedTuple):
    code: int
    error: str
    out: Path


class Bench(NamedTuple):
    """A small cohort, and the results of all steps for its sample S1."""

    cohort: Dataset
    results: Path

    def reads(self, lane: int = 1) -> list[Path]:
        return [self.cohort[f"reads-s1-l00{lane}-{mate}-fastq"] for mate in (1, 2)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    cohort = genomics.simulate(folder / "cohort", 1, 5, bases=20_000, contigs=2, coverage=30, lanes=2)
    made = Bench(cohort, folder / "results")
    reads = [option for lane in (1, 2) for option in ("--reads", *made.reads(lane))]
    reference, bam, vcf = cohort["reference"], made.results / "align/S1.bam", made.results / "call/S1.vcf.gz"
    for step, options in {
        "align": [*reads, "--threads", 2],
        "call": ["--bam", bam],
        "stats": ["--bam", bam],
        "annotate": ["--vcf", vcf, "--genes", cohort["genes"]],
    }.items():
        result = run(folder / "scratch", step, "--reference", reference, *options, out=made.results / step)
        assert result.code == 0, result.error
    return made


def command(scratch: Path, step: str, *options: object, out: object) -> list[str]:
    scratch.mkdir(exist_ok=True)
    given = [*options, "--sample", "S1", "--out", out, "--scratch", scratch]
    return [sys.executable, "-m", f"genokit.genomics.{step}", *map(str, given)]


def run(scratch: Path, step: str, *options: object, out: Path) -> Result:
    done = subprocess.run(command(scratch, step, *options, out=out), capture_output=True, text=True)
    assert not list(scratch.iterdir())
    return Result(done.returncode, done.stderr, out)


@pytest.fixture
def fails(tmp_path: Path) -> Callable[..., str]:
    """Run a step that has to fail without a trace; returns its error."""

    def failed(step: str, *options: object) -> str:
        result = run(tmp_path / "scratch", step, *options, out=tmp_path / "out")
        assert result.code == 1
        assert "Traceback" not in result.error
        assert not result.out.exists() or not list(result.out.iterdir())
        return result.error

    return failed


def rewritten(path: Path, change: Callable[[list[str]], list[str]], to: Path) -> Path:
    """A FASTQ with changed lines."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    to.write_bytes(gzip.compress("".join(f"{line}\n" for line in change(lines)).encode(), 1))
    return to


def test_the_lanes_of_a_sample_become_one_sorted_bam_with_read_groups_and_marked_duplicates(bench):
    with pysam.AlignmentFile(str(bench.results / "align/S1.bam")) as file:
        head, reads = file.header.to_dict(), list(file)
    assert head["HD"]["SO"] == "coordinate"
    assert [(one["ID"], one["SM"], one["PU"]) for one in head["RG"]] == [
        ("S1.L001", "S1", "L001"),
        ("S1.L002", "S1", "L002"),
    ]
    primary = [read for read in reads if not read.is_supplementary]
    assert len(primary) == 4000
    assert {read.get_tag("RG") for read in reads} == {"S1.L001", "S1.L002"}
    assert 0.005 < sum(read.is_duplicate for read in primary) / 4000 < 0.05  # 2 percent of the pairs are copies
    assert sum(read.is_proper_pair for read in primary) > 3900
    assert {read.template_length > 0 for read in primary if read.is_proper_pair} == {True, False}


def test_every_base_and_quality_that_was_read_is_in_the_bam(bench):
    def both_ways(bases: str, quality: str, turned: bool) -> tuple[str, str]:
        back = bases[::-1].translate(str.maketrans("ACGT", "TGCA"))
        return (back, quality[::-1]) if turned else (bases, quality)

    with pysam.AlignmentFile(str(bench.results / "align/S1.bam")) as file:
        aligned = sorted(
            both_ways(read.query_sequence, read.qual, read.is_reverse) for read in file if not read.is_supplementary
        )
    read = []
    for path in (path for lane in (1, 2) for path in bench.reads(lane)):
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        read += zip(lines[1::4], lines[3::4], strict=True)
    assert aligned == sorted(read)


def test_clips_and_mismatches_of_each_record_agree_with_the_reference(bench):
    sequences = [one.partition("\n") for one in bench.cohort["reference"].read_text().split(">")[1:]]
    reference = {name: bases.replace("\n", "") for name, _, bases in sequences}
    with pysam.AlignmentFile(str(bench.results / "align/S1.bam")) as file:
        for read in file.fetch():
            if not read.is_unmapped:
                bases, pairs = reference[read.reference_name], read.get_aligned_pairs(matches_only=True)
                mismatches = sum(read.query_sequence[q] != bases[r] for q, r in pairs)
                assert read.get_tag("NM") == mismatches + sum(n for kind, n in read.cigartuples if kind in (1, 2))


def test_pairs_that_are_clipped_split_lost_or_not_proper_have_the_flags_and_mates_that_sam_asks_for(bench, tmp_path):
    reads, flags = written(bench.cohort, tmp_path)
    given = ("--reads", *reads, "--reference", bench.cohort["reference"])
    bam = run(tmp_path / "scratch", "align", *given, out=tmp_path / "out").out / "S1.bam"
    assert flags_of(bam) == flags
    check_records(bam, sequences(bench.cohort), reads)


def test_the_bam_names_the_m5_of_the_reference_and_so_does_the_vcf(bench):
    lines = bench.cohort["reference"].read_text().split(">")[1:]
    expected = {one.split("\n")[0]: hashlib.md5("".join(one.split("\n")[1:]).encode()).hexdigest() for one in lines}
    with pysam.AlignmentFile(str(bench.results / "align/S1.bam")) as file:
        assert {one["SN"]: one["M5"] for one in file.header.to_dict()["SQ"]} == expected
    with pysam.VariantFile(str(bench.results / "call/S1.vcf.gz")) as file:
        assert {one["ID"]: one["md5"] for one in file.header.records if one.key == "contig"} == expected


def test_nearly_all_variants_are_found_and_annotated_with_their_consequence(bench):
    def found(path: Path) -> dict[tuple[object, ...], tuple[int, ...]]:
        with pysam.VariantFile(str(path)) as file:
            assert list(file.header.samples) == ["S1"]
            return {(one.chrom, one.pos, one.ref, one.alts): tuple(sorted(one.samples[0]["GT"])) for one in file}

    truth, called = found(bench.cohort["truth-vcf"]), found(bench.results / "call/S1.vcf.gz")
    assert len(truth.items() & called.items()) > 0.85 * max(len(truth), len(called))
    with pysam.VariantFile(str(bench.results / "annotate/S1.annotated.vcf.gz")) as file:
        annotated = [one.info["BCSQ"][0].split("|")[0] for one in file if "BCSQ" in one.info]
    assert {"missense", "synonymous", "intron"} & set(annotated)


def test_statistics_are_of_all_reads(bench):
    sums = (bench.results / "stats/S1.stats.txt").read_text()
    assert "SN\traw total sequences:\t4000\t" in sums
    assert "4000 + 0 primary\n" in (bench.results / "stats/S1.flagstat.txt").read_text()
    assert "chr2\t1\t10000\t" in (bench.results / "stats/S1.coverage.txt").read_text()


def test_each_output_has_its_checksum_beside_it(bench):
    done = [path for path in bench.results.glob("*/*") if path.suffix != ".sha256"]
    assert len(done) == 10
    for path in done:
        said = path.with_name(f"{path.name}.sha256").read_text()
        assert said == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"


def test_a_result_does_not_depend_on_the_number_of_threads(bench, tmp_path):
    options = ("--bam", bench.results / "align/S1.bam", "--reference", bench.cohort["reference"], "--threads", 2)
    again = run(tmp_path / "scratch", "call", *options, out=tmp_path / "out")
    with (
        pysam.VariantFile(str(again.out / "S1.vcf.gz")) as two,
        pysam.VariantFile(str(bench.results / "call/S1.vcf.gz")) as one,
    ):
        assert list(map(str, one)) == list(map(str, two))


def test_names_of_sequences_may_have_colons_and_stars(bench, tmp_path):
    reference = tmp_path / "hla.fa"
    reference.write_text(bench.cohort["reference"].read_text().replace(">chr2", ">HLA-A*01:01"))
    given = ("--reference", reference)
    made = run(tmp_path / "scratch", "align", "--reads", *bench.reads(), *given, out=tmp_path / "bam")
    done = run(tmp_path / "scratch", "call", "--bam", made.out / "S1.bam", *given, out=tmp_path / "vcf")
    assert done.code == 0, done.error
    with pysam.VariantFile(str(done.out / "S1.vcf.gz")) as file:
        assert {one.chrom for one in file} == {"chr1", "HLA-A*01:01"}


def test_an_index_beside_the_reference_is_used_unless_it_is_of_another(bench, tmp_path, fails):
    reference = tmp_path / "reference.fa"
    reference.write_bytes(bench.cohort["reference"].read_bytes())
    minibwa.Index.build(str(reference), str(reference))
    options = ["--reads", *bench.reads(), "--reads", *bench.reads(2), "--reference", reference]
    done = run(tmp_path / "scratch", "align", *options, out=tmp_path / "bam")
    assert done.code == 0, done.error
    with (
        pysam.AlignmentFile(str(done.out / "S1.bam")) as with_index,
        pysam.AlignmentFile(str(bench.results / "align/S1.bam")) as without,
    ):
        assert list(map(str, with_index)) == list(map(str, without))
    reference.write_text(reference.read_text() + ">chr3\nACGT\n")
    assert "reference.fa.mbw' cannot be used: it is not the index of" in fails("align", *options)


def test_single_reads_are_aligned_without_mates(bench, tmp_path):
    first = rewritten(bench.reads()[0], lambda lines: lines[:400], tmp_path / "one.fq.gz")
    plain = tmp_path / "plain.fq"
    plain.write_bytes(gzip.decompress(first.read_bytes()))
    done = run(
        tmp_path / "scratch", "align", "--reads", first, "--reads", plain, "--lane", "packed", "--lane", "plain",
        "--reference", bench.cohort["reference"], out=tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.error
    with pysam.AlignmentFile(str(done.out / "S1.bam")) as file:
        reads = [read for read in file if not read.is_supplementary]
    assert len(reads) == 200
    assert not any(read.is_paired for read in reads)
    assert {read.get_tag("RG") for read in reads} == {"S1.packed", "S1.plain"}


def test_inputs_and_results_may_be_on_s3(bench, tmp_path, account, monkeypatch):
    for name, value in account.environ().items():
        monkeypatch.setenv(name, value)
    clients = backends.clients(Settings.load())
    there = f"s3://{clients.bucket}/cohort"
    reads = [rewritten(path, lambda lines: lines[:800], tmp_path / path.name) for path in bench.reads()]
    for path in (*reads, bench.cohort["reference"]):
        storage.upload(path, f"{there}/{path.name}", clients=clients)
    options = ["--reads", *(f"{there}/{path.name}" for path in reads), "--reference", f"{there}/reference.fa"]
    done = subprocess.run(command(tmp_path / "scratch", "align", *options, out=f"{there}/bam"), check=False)
    assert done.returncode == 0
    names = [address.rpartition("/")[2] for address in storage.files(f"{there}/bam", clients=clients)]
    assert names == sorted(f"S1.{end}{more}" for end in ("bam", "bam.bai", "markdup.txt") for more in ("", ".sha256"))
    bam = ["--bam", f"{there}/bam/S1.bam", "--reference", f"{there}/reference.fa"]
    assert run(tmp_path / "scratch", "stats", *bam, out=tmp_path / "stats").code == 0


def cut_gzip(reads: list[Path], folder: Path) -> list[Path]:
    half = folder / "half.fastq.gz"
    half.write_bytes(reads[1].read_bytes()[: reads[1].stat().st_size // 2])
    return [reads[0], half]


def empty_file(reads: list[Path], folder: Path) -> list[Path]:
    (folder / "empty.fastq.gz").touch()
    return [reads[0], folder / "empty.fastq.gz"]


def no_reads(reads: list[Path], folder: Path) -> list[Path]:
    return [rewritten(path, lambda _: [], folder / f"none{n}.fastq.gz") for n, path in enumerate(reads)]


def other_names(reads: list[Path], folder: Path) -> list[Path]:
    def swapped(lines: list[str]) -> list[str]:
        return [*lines[:40], *lines[44:48], *lines[40:44], *lines[48:]]

    return [reads[0], rewritten(reads[1], swapped, folder / "swapped.fastq.gz")]


def fewer_mates(reads: list[Path], folder: Path) -> list[Path]:
    return [reads[0], rewritten(reads[1], lambda lines: lines[:-4], folder / "fewer.fastq.gz")]


def cut_record(reads: list[Path], folder: Path) -> list[Path]:
    return [reads[0], rewritten(reads[1], lambda lines: [*lines[:-1], lines[-1][:9]], folder / "short.fastq.gz")]


def not_fastq(reads: list[Path], folder: Path) -> list[Path]:
    (folder / "photo.fastq.gz").write_bytes(bytes(range(256)) * 99)
    return [reads[0], folder / "photo.fastq.gz"]


def flipped_bit(reads: list[Path], folder: Path) -> list[Path]:
    data = bytearray(reads[1].read_bytes())
    data[len(data) // 2] ^= 8
    (folder / "flipped.fastq.gz").write_bytes(data)
    return [reads[0], folder / "flipped.fastq.gz"]


@pytest.mark.parametrize(
    ("damage", "file", "reason"),
    [
        (cut_gzip, "half.fastq.gz", "its data are damaged or cut short"),
        (empty_file, "empty.fastq.gz", "it is empty"),
        (no_reads, "none0.fastq.gz", "it has no reads"),
        (other_names, "swapped.fastq.gz", "read 11 is 'S1:L001:000000011'"),
        (fewer_mates, "fewer.fastq.gz", "it has no read 1,000, but its mate"),
        (cut_record, "short.fastq.gz", "damaged or cut short: read 1,000 is not FASTQ"),
        (not_fastq, "photo.fastq.gz", "damaged or cut short"),
        (flipped_bit, "flipped.fastq.gz", ""),
    ],
)
def test_damaged_reads_fail_with_the_file_and_the_reason_and_leave_nothing(
    bench, tmp_path, fails, damage, file, reason
):
    reads = damage(bench.reads(), tmp_path)
    error = fails("align", "--reads", *reads, "--reference", bench.cohort["reference"])
    assert error.startswith(f"StepFailed: '{tmp_path / file}' cannot be used: ")
    assert reason in error


@pytest.mark.parametrize("step", ["call", "stats", "annotate"])
def test_a_wrong_reference_of_the_same_length_and_names_is_refused(bench, tmp_path, fails, step):
    wrong = tmp_path / "wrong.fa"
    text = bench.cohort["reference"].read_text()
    wrong.write_text(text[:3000] + ("A" if text[3000] != "A" else "C") + text[3001:])
    of = {"annotate": ["--vcf", bench.results / "call/S1.vcf.gz", "--genes", bench.cohort["genes"]]}
    error = fails(step, *of.get(step, ["--bam", bench.results / "align/S1.bam"]), "--reference", wrong)
    assert "S1." in error
    assert f"made with another reference than '{wrong}': the M5 of sequence 'chr1' is" in error


def test_an_input_that_is_not_what_its_checksum_says_is_refused(bench, tmp_path, fails):
    for path in (bench.results / "align").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / "S1.bam").read_bytes()
    (tmp_path / "S1.bam").write_bytes(data[: len(data) // 2])
    error = fails("call", "--bam", tmp_path / "S1.bam", "--reference", bench.cohort["reference"])
    assert f"'{tmp_path / 'S1.bam'}' cannot be used: its SHA-256 is not the one in" in error
    (tmp_path / "S1.bam.sha256").unlink()
    assert "missing EOF block" in fails("call", "--bam", tmp_path / "S1.bam", "--reference", bench.cohort["reference"])


def test_a_bam_that_is_damaged_in_its_middle_is_named(bench, tmp_path, fails):
    for path in (bench.results / "align").glob("S1.bam*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = bytearray((tmp_path / "S1.bam").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "S1.bam").write_bytes(data)
    (tmp_path / "S1.bam.sha256").unlink()
    error = fails("stats", "--bam", tmp_path / "S1.bam", "--reference", bench.cohort["reference"])
    assert error.startswith(f"StepFailed: '{tmp_path / 'S1.bam'}' cannot be used: its data are damaged or cut short (")


def test_the_statistics_are_those_of_the_commands_that_read_the_bam_itself(bench, tmp_path):
    reference = tmp_path / "reference.fa"
    reference.write_bytes(bench.cohort["reference"].read_bytes())
    for name, options in (("stats", ["-r", reference]), ("flagstat", []), ("coverage", [])):
        itself = getattr(pysam.samtools, name)(*map(str, options), str(bench.results / "align/S1.bam"))
        both = [itself, (bench.results / f"stats/S1.{name}.txt").read_text()]
        one, other = ([line for line in text.splitlines() if "The command line was" not in line] for text in both)
        assert one == other


def test_an_input_that_is_missing_is_named(bench, tmp_path, fails):
    error = fails("call", "--bam", tmp_path / "no.bam", "--reference", bench.cohort["reference"])
    assert error == f"NotFound: There is no file '{tmp_path / 'no.bam'}'.\n"


def test_genes_of_other_sequences_and_variants_that_are_none_are_failures(bench, tmp_path, fails):
    reference, vcf = ("--reference", bench.cohort["reference"]), bench.results / "call/S1.vcf.gz"
    with (
        pysam.VariantFile(str(vcf)) as file,
        pysam.VariantFile(str(tmp_path / "none.vcf.gz"), "wz", header=file.header),
    ):
        pass
    pysam.tabix_index(str(tmp_path / "none.vcf.gz"), preset="vcf")
    none = ("--vcf", tmp_path / "none.vcf.gz", "--genes", bench.cohort["genes"])
    assert "none.vcf.gz' cannot be used: it has no variants" in fails("annotate", *none, *reference)
    (tmp_path / "mouse.gff3").write_text(bench.cohort["genes"].read_text().replace("chr", "mouse"))
    mouse = ("--vcf", vcf, "--genes", tmp_path / "mouse.gff3")
    assert "mouse.gff3' cannot be used: no gene in it is on a sequence of" in fails("annotate", *mouse, *reference)


@pytest.mark.parametrize(
    ("fasta", "reason"),
    [
        (b"not a FASTA\n", "Format error"),
        (b">c1\nACGT\n>c1\nACGA\n", "two of its sequences have the same name"),
        (gzip.compress(b">c1\nACGT\n", mtime=0)[:-9], "damaged or cut short"),
    ],
)
def test_a_damaged_reference_is_named_with_the_reason(bench, tmp_path, fails, fasta, reason):
    (tmp_path / "bad.fa").write_bytes(fasta)
    error = fails("stats", "--bam", bench.results / "align/S1.bam", "--reference", tmp_path / "bad.fa")
    assert error.startswith(f"StepFailed: '{tmp_path / 'bad.fa'}'")
    assert reason in error


@pytest.mark.parametrize(
    "fasta",
    [
        b">c1 A>C\nACGT\nacgn\nA\n>c2\nAC",
        b">c1\r\nACGT\r\nAC\r\n\r\n>c2\r\nAC\r\n",
        b">c1\n" + b"ACGTTGCATC\n" * 20_000 + b"A\n\n>c2\n" + b"AC" * 99_999 + b"\n",
    ],
)
def test_the_length_and_m5_of_each_sequence_are_those_of_samtools_dict(tmp_path, fasta):
    path = tmp_path / "reference.fa"
    path.write_bytes(fasta)
    pysam.faidx(str(path))
    expected = [line.split("\t")[1:4] for line in pysam.samtools.dict(str(path)).splitlines()[1:]]
    found = Reference("reference.fa", path).sequences
    assert [[f"SN:{name}", f"LN:{length}", f"M5:{md5}"] for name, (length, md5) in found.items()] == expected


@pytest.mark.parametrize(
    "before",
    [
        b">c1\nACGTA\nC\n>c2\nAC\n",  # the same sequences and size, other lines
        b">c1\nACGT\nAC\n>c3\nAC\n",
        b">c1\nACGT\nAC\n",
        b">c1\nACGT\nACG\n>c2\nA\n",
        b">c1\nACGT\nAC\n>c2\nAC\n>c3\nA\n",
        None,
    ],
)
def test_an_index_beside_the_reference_that_is_of_another_file_is_refused(bench, tmp_path, fails, before):
    reference, index = tmp_path / "new.fa", tmp_path / "new.fa.fai"
    if before:
        reference.write_bytes(before)
        pysam.faidx(str(reference))
    else:
        index.write_text("c1\t6\n")
    reference.write_bytes(b">c1\nACGT\nAC\n>c2\nAC\n")
    error = fails("stats", "--bam", bench.results / "align/S1.bam", "--reference", reference)
    assert error.startswith(f"StepFailed: '{reference}' cannot be used: its index (.fai) is of another file")


def test_a_packed_reference_with_an_index_beside_it_gives_the_same_results(bench, tmp_path):
    packed = tmp_path / "reference.fa.gz"
    packed.write_bytes(gzip.compress(bench.cohort["reference"].read_bytes(), 1))
    pysam.faidx(str(bench.cohort["reference"]), "--fai-idx", f"{packed}.fai")
    options = ["--vcf", bench.results / "call/S1.vcf.gz", "--genes", bench.cohort["genes"], "--reference", packed]
    done = run(tmp_path / "scratch", "annotate", *options, out=tmp_path / "out")
    assert done.code == 0, done.error
    both = [path / "S1.annotated.vcf.gz" for path in (done.out, bench.results / "annotate")]
    lines = [gzip.decompress(path.read_bytes()).decode().splitlines() for path in both]
    one, other = ([line for line in text if line[0] != "#"] for text in lines)
    assert one == other


def test_a_name_that_could_lead_elsewhere_is_refused(bench, tmp_path):
    options = ["--bam", bench.results / "align/S1.bam", "--reference", bench.cohort["reference"]]
    line = command(tmp_path / "scratch", "stats", *options, out=tmp_path / "out")
    line[line.index("S1")] = "../S1"
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("InvalidParameters: '../S1' cannot be the name of a sample")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("kib", [35, 100])  # the index has no room, or the sorted reads
def test_a_scratch_without_room_is_named_and_left_empty(bench, tmp_path, kib):
    """As on a full disk, a write fails: no process may make a larger file."""
    options = ["--reads", *bench.reads(), "--reference", bench.cohort["reference"]]
    line = command(tmp_path / "scratch", "align", *options, out=tmp_path / "out")
    limited = ["bash", "-c", f'ulimit -f {kib}; exec "$@"', "-", *line]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"'{tmp_path / 'scratch'}'" in done.stderr
    assert ("has no room for the index of" if kib == 35 else "may be full") in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "scratch").iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "steps"), [("pysam", MODULES), ("minibwa", ["align"]), ("mappy", ["align"])])
def test_a_step_without_its_package_says_how_to_install_it(bench, tmp_path, fails, monkeypatch, name, steps):
    (tmp_path / f"{name}.py").write_text("raise ImportError('libz.so.1 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    aligner = ["--aligner", "mappy"] if name == "mappy" else []
    align, bam = ["--reads", *bench.reads(), *aligner], ["--bam", bench.results / "align/S1.bam"]
    vcf = ["--vcf", bench.results / "call/S1.vcf.gz", "--genes", bench.cohort["genes"]]
    given = {"align": align, "call": bam, "stats": bam, "annotate": vcf}
    for step in steps:
        error = fails(step, *given[step], "--reference", bench.cohort["reference"])
        how = "mappy, which needs a C compiler and zlib's headers" if name == "mappy" else "'genokit[genomics]'\n"
        assert error.startswith(
            f"MissingDependency: {name} cannot be imported (libz.so.1 is missing). Install it with: pip install {how}"
        )


def stopped(scratch: Path, number: int, made: int, *options: object, out: Path) -> tuple[int, str]:
    """Send a signal to a step as soon as it has made some processes, or SIGKILL to the last of them."""
    code = 0
    while code in (0, -number):  # again, if it had ended before the signal came
        shutil.rmtree(out, ignore_errors=True)
        done = subprocess.Popen(command(scratch, *options, out=out), stderr=subprocess.PIPE, text=True)
        while len(tools := psutil.Process(done.pid).children(recursive=True)) < made and done.poll() is None:
            time.sleep(0.001)
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            (max(tools, key=lambda one: one.pid) if number == signal.SIGKILL else done).send_signal(number)
        error = done.communicate(timeout=120)[1]
        code = done.returncode
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in tools)
    assert not list(scratch.iterdir())
    assert not out.exists()
    return code, error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", ["align", "stats"])
def test_a_step_that_is_stopped_ends_its_tools_and_leaves_nothing(bench, tmp_path, step, number):
    given = {"align": ["--reads", *bench.reads()], "stats": ["--bam", bench.results / "align/S1.bam"]}[step]
    reference = bench.cohort["reference"]
    code, _ = stopped(tmp_path / "scratch", number, 1, step, *given, "--reference", reference, out=tmp_path / "out")
    assert code == 128 + number


def test_a_process_that_is_killed_while_it_aligns_fails_the_step(bench, tmp_path):
    given = ["--reads", *bench.reads(), "--reference", bench.cohort["reference"]]
    code, error = stopped(tmp_path / "scratch", signal.SIGKILL, 4, "align", *given, out=tmp_path / "out")
    assert code == 1
    assert error == (
        "StepFailed: 'S1': a process that aligned its reads was killed, as happens when the memory is too small.\n"
    )


def test_the_scratch_folder_may_be_given_from_the_working_folder(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--bam", bench.results / "align/S1.bam", "--reference", bench.cohort["reference"]]
    assert run(Path("scratch"), "stats", *given, out=Path("out")).code == 0
    assert {path.name for path in Path("out").glob("*.txt")} == {
        f"S1.{one}.txt" for one in ("stats", "flagstat", "coverage")
    }

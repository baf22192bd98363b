"""What the steps of the genomics workflow cost, beside Debian's minimap2, samtools and bcftools on the same input.

    python tests/benchmarks/bench_genomics.py [rounds] [bases]

Each step of the kit does what the commands beside it do, and also verifies its inputs and hashes its outputs. The
references have their index (.fai) beside them. The rounds go through all of them in turn, one thread each; the tables
have the medians. Debian's commands call, annotate and count from the kit's own BAM and VCF; of annotate it is a VCF of
a genome 100 times as long, since a short one shows little but what a step needs to start. Without these programs their
columns are left out (apt-get install minimap2 samtools bcftools). Expected of each step, on a quiet machine of two
cores or more: at least 0.8 of Debian's speed; and of 8 samples two at a time at least 1.7 times the speed of one after
the other.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pysam

from genokit import genomics

# What Debian's programs do for each step; {r} is the reference, {1} and {2} the reads, {o} the folder for results.
DEBIAN = {
    "align": "minimap2 -t 1 -R '@RG\\tID:S1\\tSM:S1' -ax sr {r} {1} {2} | samtools fixmate -m -u - - | "
    "samtools sort -u - | samtools markdup - {o}/d.bam && samtools index {o}/d.bam",
    "call": "bcftools mpileup -X illumina -q 20 -Q 13 -a AD,DP -f {r} -Ou {o}/bam/S1.bam | "
    "bcftools call -mv -a GQ -Ou | bcftools norm -f {r} -m -any -Ou | "
    "bcftools view -i 'QUAL>=20' -Oz -o {o}/d.vcf.gz && bcftools index -f -t {o}/d.vcf.gz",
    "annotate": "bcftools csq -f {m}/reference.fa -g {m}/genes.gff3 -p a -Oz -o {o}/d2.vcf.gz {m}/S1.vcf.gz && "
    "bcftools index -f -t {o}/d2.vcf.gz",
    "stats": "samtools stats -r {r} {o}/bam/S1.bam > {o}/d1.txt && samtools flagstat {o}/bam/S1.bam > {o}/d2.txt && "
    "samtools coverage {o}/bam/S1.bam > {o}/d3.txt",
}
# A small process, since a child's memory is at least what its parent had when it was forked.
MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(code)
"""
FOLDERS = {"align": "bam", "call": "vcf", "annotate": "annotated_vcf", "stats": "stats"}


def timed(command: Sequence[str]) -> tuple[float, float, float]:
    """Wall time and CPU time in seconds, and the memory of the largest process in MiB."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", MEASURE, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed: {done.stderr}")
    wall, cpu, mib = map(float, done.stdout.split()[-3:])
    return wall, cpu, mib


def many_variants(folder: Path, bases: int) -> int:
    """Simulate a genome with its variants in S1.vcf.gz, as call writes them; returns their number."""
    cohort = genomics.simulate(folder, 1, bases=bases, coverage=0.001)
    text = gzip.decompress(cohort["truth-vcf"].read_bytes()).decode()
    for part in cohort["reference"].read_text().split(">")[1:]:
        contig, _, sequence = part.partition("\n")
        md5 = hashlib.md5(sequence.replace("\n", "").encode()).hexdigest()
        text = text.replace(f"ID={contig},", f"ID={contig},md5={md5},")
    with pysam.BGZFile(str(folder / "S1.vcf.gz"), "wb", None) as out:
        out.write(text.encode())
    pysam.tabix_index(str(folder / "S1.vcf.gz"), preset="vcf")
    return sum(line[0] != "#" for line in text.splitlines())


def step(name: str, sample: str, cohort: Path, out: Path, vcf: Path | None = None) -> list[str]:
    """The command of a step; ``vcf`` is for annotate, with ``cohort`` as its reference (default: that of call)."""
    options = {
        "align": ["--reads", *(f"{cohort}/reads/{sample}_L001_{mate}.fastq.gz" for mate in (1, 2))],
        "call": ["--bam", f"{out}/bam/{sample}.bam"],
        "annotate": ["--vcf", str(vcf or f"{out}/vcf/{sample}.vcf.gz"), "--genes", f"{cohort}/genes.gff3"],
        "stats": ["--bam", f"{out}/bam/{sample}.bam"],
    }
    given = ["--reference", f"{cohort}/reference.fa", "--sample", sample, "--out", f"{out}/{FOLDERS[name]}"]
    return [sys.executable, "-m", f"genokit.genomics.{name}", *options[name], *given]


def steps(rounds: int, bases: int, folder: Path) -> None:
    """One sample, step by step."""
    cohort, out = folder / "cohort", folder / "results"
    genomics.simulate(cohort, 1, bases=bases)
    many = folder / "many"
    variants = many_variants(many, 100 * bases)
    for one in (cohort, many):
        pysam.faidx(str(one / "reference.fa"))
    reads = round(bases * 30 / 150)
    words = {"r": cohort / "reference.fa", "1": cohort / "reads/S1_L001_1.fastq.gz", "o": out,
             "2": cohort / "reads/S1_L001_2.fastq.gz", "m": many}  # fmt: skip
    missing = [name for name in ("minimap2", "samtools", "bcftools") if not shutil.which(name)]
    print(f"{reads:,} reads of 150 bases, {variants:,} variants to annotate, one thread, median of {rounds}", end="")
    print(f", load {os.getloadavg()[0]:.1f}")
    if missing:
        print(f"Not installed, so nothing is compared: {', '.join(missing)}")
    heads = ["a second", "CPU s", "MiB", *([] if missing else ["Debian: a second", "CPU s", "MiB", "speed", "by CPU"])]
    print("Reads a second, of annotate variants:")
    print(f"\n{'':10}" + "".join(f"{head:>16}" for head in heads), flush=True)
    for name in FOLDERS:
        ours, theirs, of = [], [], variants if name == "annotate" else reads
        command = step(name, "S1", many, out, many / "S1.vcf.gz") if of == variants else step(name, "S1", cohort, out)
        for _ in range(rounds):
            ours.append(timed(command))
            if not missing:
                line = DEBIAN[name]
                for word, value in words.items():
                    line = line.replace(f"{{{word}}}", f"'{value}'")
                theirs.append(timed(["bash", "-o", "pipefail", "-c", line]))
        wall, cpu, mib = (statistics.median(one) for one in zip(*ours, strict=True))
        cells = [f"{of / wall:,.0f}", f"{cpu:.2f}", f"{mib:.0f}"]
        if theirs:
            wall2, cpu2, mib2 = (statistics.median(one) for one in zip(*theirs, strict=True))
            cells += [f"{of / wall2:,.0f}", f"{cpu2:.2f}", f"{mib2:.0f}", f"{wall2 / wall:.2f}", f"{cpu2 / cpu:.2f}"]
        print(f"{name:10}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def samples(most: int, bases: int, folder: Path) -> None:
    """Up to ``most`` samples, one after the other and two at a time."""
    cohort = folder / "cohort"
    genomics.simulate(cohort, most, bases=bases)

    def made(sample: str) -> None:
        for name in FOLDERS:
            timed(step(name, sample, cohort, folder / f"results/{sample}"))

    print(f"\n{'samples':10}{'one by one, s':>18}{'two at a time, s':>18}{'speed-up':>10}   load")
    count = 1
    while count <= most:
        walls = []
        for workers in (1, 2):
            started = time.perf_counter()
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(made, [f"S{n + 1}" for n in range(count)]))
            walls.append(time.perf_counter() - started)
        print(
            f"{count:<10}{walls[0]:18.1f}{walls[1]:18.1f}{walls[0] / walls[1]:10.2f}   {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        count *= 2
    started = time.perf_counter()
    genomics.qc(folder / "results")
    print(f"\ngenomics.qc of {most} samples: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as place:
        steps(count, size, Path(place) / "steps")
        samples(8, max(20_000, size // 10), Path(place) / "samples")

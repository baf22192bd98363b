"""What the tools wrote about one sample: the figures of its reads and variants, and the programs that made them."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from genokit import storage
from genokit.errors import InvalidParameters
from genokit.genomics.variant_files import vcf_of
from genokit.genomics.variant_table import chunks
from genokit.plots.genomics import LABELS

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients

FIGURES = (
    "reads", "mapped_percent", "properly_paired_percent", "duplicate_percent", "mean_coverage", "covered_percent",
    "insert_size", "insert_size_sd", "base_quality", "gc_percent", "snvs", "insertions", "deletions", "ti_tv",
    "het_hom",
)  # fmt: skip
TRANSITIONS = ("AG", "GA", "CT", "TC")
# What in a command is not a setting: paths, threads, and how an output is written.
PATHS = re.compile(
    r"( --?\w+)? (/[^\s;]+|-)(?=[ ;]|$)| -(?:O\w+|u)(?= |$)| -W=\w+| --write-index| --output-fmt-option \S+| -@ \d+|;.*"
)


class SampleStatistics(NamedTuple):
    """What is known of a sample: its figures, the y by x of each picture, and the programs with version and options."""

    figures: dict[str, float]
    points: dict[str, Mapping[Any, float]]
    programs: list[tuple[str, str, str]]


def read(sample: str, files: Mapping[str, str], clients: Clients | None) -> SampleStatistics:
    """The statistics of a sample, whose ``files`` have the addresses by what follows its name.

    Raises InvalidParameters if one cannot be read.
    """
    found = SampleStatistics(dict.fromkeys(FIGURES, nan), {name: {} for name in LABELS}, [])
    vcf = vcf_of(files)
    stats, coverage, bam = (files.get(kind) for kind in ("stats.txt", "coverage.txt", "bam"))
    for address, parse in ((stats, _of_stats), (coverage, _of_coverage), (bam, _of_header), (vcf, _of_header)):
        if address:
            data = storage.read(address, at_most=2**20 if parse is _of_header else None, clients=clients)
            try:
                parse(data, found)
            except (KeyError, ValueError, IndexError, OSError, EOFError, zlib.error) as error:
                raise InvalidParameters(f"'{address}' was not written by its tool: {error!r}.") from error
    if vcf:
        _of_variants(chunks(sample, vcf, clients), found)
    return found


def _of_variants(parts: Iterable[DataFrame], found: SampleStatistics) -> None:
    """How many variants there are of each type, and with each consequence."""
    types, changes, consequences = Counter[str](), Counter[str](), Counter[str]()
    homozygous = 0
    for part in parts:
        snvs = part[part["type"] == "SNV"]
        types.update(part["type"])
        changes.update(snvs["ref"] + snvs["alt"])
        consequences.update(one for one in part["consequence"].dropna() if one[0] != "@")
        homozygous += int(part["genotype"].str.fullmatch(r"(\d+)([/|]\1)*").sum())
    transitions = sum(changes[one] for one in TRANSITIONS)
    found.figures.update(
        snvs=types["SNV"], insertions=types["insertion"], deletions=types["deletion"],
        ti_tv=_ratio(transitions, changes.total() - transitions),
        het_hom=_ratio(types.total() - homozygous, homozygous),
    )  # fmt: skip
    found.points.update(variants=types, consequences=consequences)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan


def _of_stats(data: bytes, found: SampleStatistics) -> None:
    """The figures and the distributions of samtools stats."""
    import numpy as np
    import pandas as pd

    sections = defaultdict[str, list[list[str]]](list)
    for line in data.decode().splitlines():
        name, *fields = line.split("\t")
        sections[name].append(fields)
    sums = {name.rstrip(":"): float(value) for name, value, *_ in sections["SN"]}
    reads, paired, pairs = sums["raw total sequences"], sums["reads paired"], sums["inward oriented pairs"]
    letters = pd.DataFrame([*sections["FTC"], *sections["LTC"]]).astype(float).sum()  # A, C, G, T, N
    found.figures.update(
        reads=reads,
        mapped_percent=100 * _ratio(sums["reads mapped"], reads),
        properly_paired_percent=100 * _ratio(sums["reads properly paired"], paired),
        duplicate_percent=100 * _ratio(sums["reads duplicated"], reads),
        insert_size=sums["insert size average"] if pairs else nan,
        insert_size_sd=sums["insert size standard deviation"] if pairs else nan,
        base_quality=sums["average quality"],
        gc_percent=100 * _ratio(letters[1] + letters[2], letters[:4].sum()),
    )
    # Of each cycle, how many bases had the quality 0, 1, 2 and so on.
    counts = pd.DataFrame([*sections["FFQ"], *sections["LFQ"]]).astype(float).groupby(0).sum()
    means = counts @ np.arange(counts.shape[1]) / counts.sum(axis=1)
    found.points.update(
        coverage=_shares((depth, positions) for _, depth, positions in sections["COV"]),
        insert_size=_shares((10 * ((int(size) + 5) // 10), pairs) for size, pairs, *_ in sections["IS"]),
        gc=_shares([*_gc(sections["GCF"]), *_gc(sections["GCL"])]),
        base_quality=means.to_dict(),
    )


def _gc(lines: Iterable[Sequence[str]]) -> Iterator[tuple[float, str]]:
    """The reads in each of samtools' 200 bins of GC: a line is the middle of neighbouring bins with the same count."""
    low = 0
    for middle, count in lines:
        high = round(2 * 1.99 * float(middle)) - low
        yield from ((n / 1.99, count) for n in range(low, high))
        low = high


def _shares(counts: Iterable[tuple[float | str, float | str]]) -> dict[float, float]:
    """The percentage of each value, of values with their counts."""
    sums: dict[float, float] = defaultdict(float)
    for value, count in counts:
        sums[float(value)] += float(count)
    total = sum(sums.values())
    return {value: 100 * n / total for value, n in sums.items() if n}


def _of_coverage(data: bytes, found: SampleStatistics) -> None:
    """Mean and breadth over all sequences, of samtools coverage."""
    import pandas as pd

    table = pd.read_csv(io.BytesIO(data), sep="\t")
    length = table["endpos"].sum()
    found.figures.update(
        mean_coverage=_ratio((table["meandepth"] * table["endpos"]).sum(), length),
        covered_percent=100 * _ratio(table["covbases"].sum(), length),
    )


def _of_header(data: bytes, found: SampleStatistics) -> None:
    """The programs in the header of a BAM or VCF, of which this is the begin."""
    version = ""
    for line in takewhile(lambda line: line[:1] in b"B@#", gzip.GzipFile(fileobj=io.BytesIO(data))):  # "BAM" is first
        text, command = line.decode(errors="replace").strip(), ""
        if text.startswith("@PG\t"):
            fields = dict(one.split(":", 1) for one in text.split("\t")[1:])
            command, version = fields.get("CL", fields["PN"]), fields.get("VN", "")
        elif match := re.match(r"##bcftools\S*?(Version|Command)=(.*)", text):
            command, version = ("", match[2]) if match[1] == "Version" else (f"bcftools {match[2]}", version)
        if words := re.match(r"(\S+(?: \w+)?) ?(.*)", PATHS.sub("", command)):
            found.programs.append((words[1], re.split(r"[ +]", version)[0], words[2]))

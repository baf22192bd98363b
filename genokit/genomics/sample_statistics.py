"""What the tools wrote about one sample: the figures of its reads and variants, and the programs that made them."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import takewhile
from math import nan
from typing import TYPE_CHECKING, Any

from genokit import storage
from genokit.errors import InvalidParameters
from genokit.genomics.variant_table import chunks

if TYPE_CHECKING:
    from genokit.backends import Clients

FIGURES = (
    "reads", "mapped_percent", "properly_paired_percent", "duplicate_percent", "mean_coverage", "covered_percent",
    "insert_size", "insert_size_sd", "base_quality", "gc_percent", "snvs", "insertions", "deletions", "ti_tv",
    "het_hom",
)  # fmt: skip
PICTURES = ("coverage", "insert_size", "base_quality", "gc", "variants", "consequences")
TRANSITIONS = ("AG", "GA", "CT", "TC")
# What in a command is not a setting.
PATHS = re.compile(r"( --?\w+)? (/[^\s;]+|-)(?=[ ;]|$)| -O\w| -W=\w+| --write-index| -@ \d+|;.*")


def read(
    sample: str, files: Mapping[str, str], clients: Clients | None
) -> tuple[dict[str, Any], dict[str, Any], list[tuple[str, ...]]]:
    """The figures of a sample, y by x of each picture, and its programs; for all see ``CohortQuality``.

    ``files`` has the addresses by what follows the sample's name. Raises InvalidParameters if one cannot be read.
    """
    figures = {"sample": sample, **dict.fromkeys(FIGURES, nan)}
    points: dict[str, Any] = {picture: {} for picture in PICTURES}
    made: list[tuple[str, ...]] = []
    vcf = "annotated.vcf.gz" if "annotated.vcf.gz" in files else "vcf.gz"
    for kind, collect in (("stats.txt", _of_stats), ("coverage.txt", _of_coverage), ("bam", _made), (vcf, _made)):
        if kind in files:
            data = storage.read(files[kind], at_most=2**20 if collect is _made else None, clients=clients)
            try:
                made += collect(data, figures, points) or []
            except (KeyError, ValueError, IndexError, OSError, EOFError, zlib.error) as error:
                raise InvalidParameters(f"'{files[kind]}' was not written by its tool: {error!r}.") from error
    if vcf in files:
        counts, changes, effects, homozygous = Counter[str](), Counter[str](), Counter[str](), 0
        for part in chunks(sample, files, clients):
            snvs = part[part["type"] == "SNV"]
            counts.update(part["type"])
            changes.update(snvs["ref"] + snvs["alt"])
            effects.update(effect for effect in part["consequence"].dropna() if effect[0] != "@")
            homozygous += int(part["genotype"].str.fullmatch(r"(\d+)([/|]\1)*").sum())
        transitions = sum(changes[one] for one in TRANSITIONS)
        figures |= {f"{kind.lower()}s": counts[kind] for kind in ("SNV", "insertion", "deletion")}
        figures["ti_tv"] = _ratio(transitions, changes.total() - transitions)
        figures["het_hom"] = _ratio(counts.total() - homozygous, homozygous)
        points |= {"variants": counts, "consequences": effects}
    return figures, points, [(sample, *one) for one in made]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan


def _of_stats(data: bytes, figures: dict[str, Any], points: dict[str, Any]) -> None:
    """The figures and the distributions of samtools stats."""
    import numpy as np

    sections = defaultdict[str, list[list[str]]](list)
    for line in data.decode().splitlines():
        name, *fields = line.split("\t")
        sections[name].append(fields)
    sums = {name.rstrip(":"): float(value) for name, value, *_ in sections["SN"]}
    reads, paired, pairs = sums["raw total sequences"], sums["reads paired"], sums["inward oriented pairs"]
    letters = np.array([*sections["FTC"], *sections["LTC"]], float).sum(0)  # A, C, G, T, N
    figures |= {
        "reads": reads,
        "mapped_percent": 100 * _ratio(sums["reads mapped"], reads),
        "properly_paired_percent": 100 * _ratio(sums["reads properly paired"], paired),
        "duplicate_percent": 100 * _ratio(sums["reads duplicated"], reads),
        "insert_size": sums["insert size average"] if pairs else nan,
        "insert_size_sd": sums["insert size standard deviation"] if pairs else nan,
        "base_quality": sums["average quality"],
        "gc_percent": 100 * _ratio(letters[1] + letters[2], letters[:4].sum()),
    }
    for name, rows, x, y in (("coverage", sections["COV"], 1, 2), ("insert_size", sections["IS"], 0, 1),
                             ("gc", sections["GCF"] + sections["GCL"], 0, 1)):  # fmt: skip
        shares: dict[float, float] = defaultdict(float)
        for row in rows:
            shares[float(row[x])] += float(row[y])
        points[name] = {place: 100 * n / sum(shares.values()) for place, n in shares.items() if n}
    cycles = np.array([*sections["FFQ"], *sections["LFQ"]], float)  # the cycle, then how many bases had each quality
    number, qualities = cycles[:, 0].astype(int), cycles[:, 1:]
    sums_by_cycle = np.bincount(number, qualities @ np.arange(qualities.shape[1]))[1:]
    means = sums_by_cycle / np.bincount(number, qualities.sum(1))[1:]
    points["base_quality"] = dict(enumerate(means.tolist(), 1))


def _of_coverage(data: bytes, figures: dict[str, Any], _: object) -> None:
    """Mean and breadth over all sequences, of samtools coverage."""
    rows = [line.split("\t") for line in data.decode().splitlines() if line[0] != "#"]
    length = sum(int(row[2]) for row in rows)
    figures["mean_coverage"] = _ratio(sum(float(row[6]) * int(row[2]) for row in rows), length)
    figures["covered_percent"] = 100 * _ratio(sum(int(row[4]) for row in rows), length)


def _made(data: bytes, *_: object) -> Iterator[tuple[str, ...]]:
    """The programs in the header of a BAM or VCF, of which this is the begin: program, version and options."""
    version = ""
    for line in takewhile(lambda line: line[:1] in b"B@#", gzip.GzipFile(fileobj=io.BytesIO(data))):  # "BAM" is first
        text, command = line.decode(errors="replace").strip(), ""
        if text.startswith("@PG\t"):
            fields = dict(one.split(":", 1) for one in text.split("\t")[1:])
            command, version = fields.get("CL", fields["PN"]), fields.get("VN", "")
        elif match := re.match(r"##bcftools\S*?(Version|Command)=(.*)", text):
            command, version = ("", match[2]) if match[1] == "Version" else (f"bcftools {match[2]}", version)
        if words := re.match(r"(\S+(?: \w+)?) ?(.*)", PATHS.sub("", command)):
            yield words[1], re.split(r"[ +]", version)[0], words[2]

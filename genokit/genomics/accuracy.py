"""How good calls are: a sample's variants compared with those that are known to be true, by haplotype."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import product
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from genokit import storage
from genokit.errors import InvalidParameters, NotFound
from genokit.genomics.variant_files import opened
from genokit.storage import Address

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients

GAP = 30  # bases without a variant between two clusters
MOST = 10  # variants of a side, in a cluster whose haplotypes are compared: there are up to 2 ** MOST phasings


class Variant(NamedTuple):
    """An allele that differs from the reference; ``copies`` is 2 where homozygous, and ``start`` counts from 0."""

    start: int
    ref: str
    alt: str
    copies: int


def compare(
    calls: Address, truth: Address, reference: Address, regions: Address | None = None, *,
    sample: str | None = None, clients: Clients | None = None,
) -> DataFrame:  # fmt: skip
    """Compare the calls of a sample with its true variants: recall, precision and F1 of SNVs and of indels.

    Variants are compared by haplotype, so that different spellings of the same difference agree: shifted indels, an
    MNP and its SNVs, an insertion and an SNV beside it. Both sides are cut into clusters with at least 30 bases
    between them, where an indel in a repeat extends to the repeat's end. A cluster is right if both sides have the
    same variants and genotypes, or if some phasing of each gives the same pair of haplotypes (up to 10 variants a
    side); otherwise its variants are matched one by one. Phase is not compared. Records whose FILTER is not PASS are
    left out, and so are alleles such as ``<DEL>`` and ``*``.

    Parameters
    ----------
    calls, truth : path or str
        VCFs, here or on S3.
    reference : path or str
        FASTA of the reference of both, gzip or not.
    regions : path or str, optional
        BED, not gzipped, of the regions in which the truth is known: variants that start elsewhere are not counted
        (default: everywhere).
    sample : str, optional
        The sample in ``calls`` (default: its only one). In ``truth`` it is the one of this name, or the only one.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Returns
    -------
    DataFrame
        Four rows with hap.py's columns: ``Type`` (SNP or INDEL); ``Genotypes``, whether a wrong genotype is an error;
        the counts ``TRUTH.TOTAL``, ``TRUTH.TP``, ``TRUTH.FN``, ``QUERY.TOTAL``, ``QUERY.TP``, ``QUERY.FP``,
        ``QUERY.UNK`` (outside the regions) and ``FP.gt`` (of ``QUERY.FP``, those with the right allele and a wrong
        genotype); and from 0 to 1, or NaN where nothing was counted, ``METRIC.Recall``, ``METRIC.Precision``
        and ``METRIC.F1_Score``.

    Raises
    ------
    NotFound, InvalidParameters, StepFailed
        A file or sample is missing, cannot be read, or was made with another reference.

    Examples
    --------
    >>> import tempfile
    >>> from genokit import genomics
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cohort = genomics.simulate(f"{folder}/cohort", samples=1, bases=20_000, coverage=1)
    ...     scores = genomics.compare(cohort["truth-vcf"], cohort["truth-vcf"], cohort["reference"])
    >>> scores["METRIC.F1_Score"].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    import numpy as np
    import pandas as pd

    confident = {} if regions is None else _regions(regions, clients)
    with opened(calls, "VariantFile", clients) as file:
        name = _sample(file, sample, calls)
        query = _alleles(file, name)
    with opened(truth, "VariantFile", clients) as file:
        true = _alleles(file, _sample(file, name if len(file.header.samples) > 1 else None, truth))
    counts: Counter[tuple[str, str, str]] = Counter()
    elsewhere = {*confident}
    with opened(reference, "FastxFile", clients) as file:
        for contig in file:
            bases = contig.sequence.upper()
            counted = np.full(len(bases), regions is None)
            elsewhere.discard(contig.name)
            for region in confident.get(contig.name, ()):
                counted[region] = True
            in_truth = _variants(contig.name, bases, true.pop(contig.name, []), truth)
            in_calls = _variants(contig.name, bases, query.pop(contig.name, []), calls)
            for side, variant, verdict in _judged(bases, in_truth, in_calls):
                kind = "SNP" if len(variant.ref) == len(variant.alt) else "INDEL"
                place = max(variant.start - (not variant.ref), 0)  # of an insertion, the base before it
                counts[kind, side, verdict if counted[place] else "UNK"] += 1
    for alleles, address in ((true, truth), (query, calls)):
        if alleles:
            raise InvalidParameters(f"'{address}' has variants on '{min(alleles)}', which is not in '{reference}'.")
    if elsewhere and elsewhere == {*confident}:
        raise InvalidParameters(f"'{regions}' has regions on '{min(elsewhere)}', which is not in '{reference}'.")
    return pd.DataFrame([_scores(kind, counts, gt) for kind in ("SNP", "INDEL") for gt in (True, False)])


def _scores(kind: str, counts: Counter[tuple[str, str, str]], genotypes: bool) -> dict[str, object]:
    """A row of the result."""

    def count(side: str, *verdicts: str) -> int:
        return sum(counts[kind, side, verdict] for verdict in verdicts)

    correct = ("right",) if genotypes else ("right", "gt")
    total, found = count("TRUTH", "right", "gt", "wrong"), count("TRUTH", *correct)
    judged, right, unknown = count("QUERY", "right", "gt", "wrong"), count("QUERY", *correct), count("QUERY", "UNK")
    recall = found / total if total else nan
    precision = right / judged if judged else nan
    return {
        "Type": kind, "Genotypes": genotypes,
        "TRUTH.TOTAL": total, "TRUTH.TP": found, "TRUTH.FN": total - found,
        "QUERY.TOTAL": judged + unknown, "QUERY.TP": right, "QUERY.FP": judged - right, "QUERY.UNK": unknown,
        "FP.gt": count("QUERY", "gt") if genotypes else 0,
        "METRIC.Recall": recall, "METRIC.Precision": precision,
        "METRIC.F1_Score": (recall + precision) and 2 * recall * precision / (recall + precision),
    }  # fmt: skip


def _regions(address: Address, clients: Clients | None) -> dict[str, list[slice]]:
    """The regions of a BED by sequence."""
    found: dict[str, list[slice]] = defaultdict(list)
    try:
        for line in storage.read(address, clients=clients).decode().splitlines():
            if line.count("\t") > 1 and not line.startswith("#"):
                contig, low, high, *_ = line.split("\t")
                found[contig].append(slice(int(low), int(high)))
    except ValueError as error:
        raise InvalidParameters(f"'{address}' is not a BED, or is compressed: {error}.") from error
    return found


def _sample(file: Any, sample: str | None, address: Address) -> str:
    """A sample of a VCF: the given one, or else the only one."""
    names = list(file.header.samples)
    if sample in names or (sample is None and len(names) == 1):
        return sample or str(names[0])
    has = f"no sample '{sample}'" if sample else f"{len(names)} samples"
    raise NotFound(f"'{address}' has {has}. Name one with sample=: {', '.join(names) or 'none'}.")


def _alleles(file: Any, sample: str) -> dict[str, list[Variant]]:
    """By sequence, the alleles of a sample as the records have them."""
    found = defaultdict(list)
    for record in file:
        if {*record.filter} - {"PASS"}:
            continue
        carried = record.samples[sample].allele_indices or ()
        for n, alt in enumerate(record.alts or (), 1):
            if n in carried and alt.isalpha():
                copies = 2 if {*carried} == {n} else 1
                found[record.chrom].append(Variant(record.start, record.ref.upper(), alt.upper(), copies))
    return found


def _variants(contig: str, bases: str, alleles: list[Variant], address: Address) -> list[Variant]:
    """Alleles as far left and with as few bases as they can be written, sorted; those of equal length as their SNVs."""
    found = []
    for start, ref, alt, copies in alleles:
        if (has := bases[start : start + len(ref)]) != ref:
            raise InvalidParameters(
                f"'{address}' was made with another reference: it has {ref} at {contig}:{start + 1:,}, where the "
                f"reference has {has or 'no more bases'}."
            )
        if len(ref) == len(alt):
            pairs = enumerate(zip(ref, alt, strict=True), start)
            found += [Variant(place, old, new, copies) for place, (old, new) in pairs if old != new]
            continue
        while ref and alt and ref[-1] == alt[-1]:
            ref, alt = ref[:-1], alt[:-1]
        while ref and alt and ref[0] == alt[0]:
            start, ref, alt = start + 1, ref[1:], alt[1:]
        while start and not (ref and alt) and bases[start - 1] == (ref or alt)[-1]:
            start, ref, alt = start - 1, ref[-1:] + ref[:-1], alt[-1:] + alt[:-1]
        found.append(Variant(start, ref, alt, copies))
    return sorted(found)


def _judged(bases: str, true: list[Variant], query: list[Variant]) -> Iterator[tuple[str, Variant, str]]:
    """Each variant of both sides on a sequence, with its verdict: right, wrong, or gt for a wrong genotype."""
    for first, second in _clusters(bases, true, query):
        low = min(first + second).start
        high = max(one.start + len(one.ref) for one in first + second)
        same = first == second or _haplotypes(bases, low, high, first) & _haplotypes(bases, low, high, second)
        for side, own, other in (("TRUTH", first, second), ("QUERY", second, first)):
            left = {variant[:3]: variant.copies for variant in other}
            for variant in own:
                copies = left.pop(variant[:3], 0)  # so what is written twice is right once
                yield side, variant, "right" if same or copies == variant.copies else "gt" if copies else "wrong"


def _clusters(bases: str, true: list[Variant], query: list[Variant]) -> list[tuple[list[Variant], list[Variant]]]:
    """The variants of both sides on a sequence, in groups with at least GAP bases between them."""
    end = -GAP
    clusters: list[tuple[list[Variant], list[Variant]]] = []
    for variant, side in sorted([(one, 0) for one in true] + [(one, 1) for one in query]):
        if variant.start >= end + GAP:
            clusters.append(([], []))
        clusters[-1][side].append(variant)
        end = max(end, _reach(bases, variant))
    return clusters


def _reach(bases: str, variant: Variant) -> int:
    """How far right a variant can be written: an indel to the end of the repeat that it is in."""
    start, ref, alt, _ = variant
    end, moved = start + len(ref), ref or alt
    shift = 0
    while not (ref and alt) and end + shift < len(bases) and bases[end + shift] == moved[shift % len(moved)]:
        shift += 1
    return end + shift


def _haplotypes(bases: str, low: int, high: int, variants: list[Variant]) -> set[tuple[str, ...]]:
    """The pairs of haplotypes that a sample can have, over all phasings; none for too many variants."""
    pairs = set()
    for phases in product((0, 1), repeat=len(variants)) if len(variants) <= MOST else ():
        pair = ["", ""]
        done = [low, low]
        for (start, ref, alt, copies), phase in zip(variants, phases, strict=True):
            for n in (0, 1) if copies == 2 else (phase,):
                pair[n] += bases[done[n] : start] + alt if start >= done[n] else "?"  # two that overlap
                done[n] = start + len(ref)
        whole = sorted(text + bases[n:high] for text, n in zip(pair, done, strict=True))
        pairs.add(tuple(whole))
    return {pair for pair in pairs if "?" not in "".join(pair)}

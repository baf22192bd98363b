"""The variants of samples as a table: genotype, depths and what they do to the genes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from genokit.errors import NotFound
from genokit.genomics.variant_files import opened, result_files, vcf_of
from genokit.storage import Address

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients

COLUMNS = {
    "sample": "str", "chrom": "str", "pos": "int64", "ref": "str", "alt": "str", "type": "str", "qual": "float64",
    "genotype": "str", "depth": "Int64", "ref_depth": "Int64", "alt_depth": "Int64", "allele_fraction": "float64",
    "gene": "str", "consequence": "str", "amino_acid_change": "str",
}  # fmt: skip
EFFECT = ["gene", "consequence", "amino_acid_change"]
# Of bcftools csq, the gravest first.
CONSEQUENCES = (  # noqa: SIM905
    "stop_gained frameshift start_lost stop_lost splice_acceptor splice_donor inframe_insertion inframe_deletion "
    "inframe_altering missense splice_region stop_retained start_retained synonymous coding_sequence 5_prime_utr "
    "3_prime_utr non_coding intron intergenic"
).split()
CHUNK = 50_000  # rows read at once


def variants(results: Address, sample: str | None = None, *, clients: Clients | None = None) -> DataFrame:
    r"""The variants that a workflow called: one row for each sample and allele that differs from the reference.

    Parameters
    ----------
    results : path or str
        The folder of the workflow's results, here or on S3.
    sample : str, optional
        Only this sample (default: all that have a VCF).
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Returns
    -------
    DataFrame
        ``sample``; ``chrom``, ``pos`` (from 1), ``ref``, ``alt`` as in the VCF; ``type``: SNV, MNV, insertion or
        deletion; ``qual`` (Phred-scaled); ``genotype``, such as "0/1"; ``depth``, the reads that were counted, and
        ``ref_depth`` and ``alt_depth`` of them (reads); ``allele_fraction``, alt_depth of ref_depth + alt_depth, from
        0 to 1; and of annotated variants ``gene``, ``consequence`` (the gravest, as bcftools csq spells it) and
        ``amino_acid_change``, such as "149Q>149E". What is not known is NA. A sample of a whole genome
        has some 5 million rows, about 1 GB: read such samples one by one.

    Raises
    ------
    NotFound, InvalidParameters
        There are no such results, no such sample, it has no VCF, or a VCF cannot be read.

    Examples
    --------
    >>> from genokit import backends, genomics, storage
    >>> results = f"s3://{backends.clients().bucket}/one-variant"
    >>> vcf = '''##fileformat=VCFv4.2
    ... ##contig=<ID=chr1>
    ... ##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
    ... ##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Allelic depths">
    ... #CHROM POS ID REF ALT QUAL FILTER INFO FORMAT S1
    ... chr1 11012 . G C 225.4 PASS . GT:AD 0/1:12,18'''
    >>> storage.write(f"{results}/S1/vcf/S1.vcf.gz", vcf.replace(" ", "\t") + "\n")
    's3://genokit/one-variant/S1/vcf/S1.vcf.gz'
    >>> genomics.variants(results)[["sample", "pos", "type", "genotype", "allele_fraction"]].values.tolist()
    [['S1', 11012, 'SNV', '0/1', 0.6]]
    """
    import pandas as pd

    parts = [pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)]
    samples = result_files(results, clients, sample=sample).items()
    vcfs = {name: address for name, files in samples if (address := vcf_of(files))}
    if not vcfs:
        whose = "No sample has a" if sample is None else f"Sample '{sample}' has no"
        raise NotFound(f"{whose} VCF in '{results}'. Call genomics.workflow again: its table says what is missing.")
    for name, address in vcfs.items():
        parts += chunks(name, address, clients)
    found = pd.concat(parts, ignore_index=True)
    # Of a consequence of several variants together, all but one say only where it is written: "@11244".
    points = found["consequence"].str.startswith("@").fillna(False).astype(bool)
    there = found[~points & found["consequence"].notna()].drop_duplicates(["sample", "chrom", "pos"])
    where = found[points].assign(pos=found["consequence"][points].str[1:].astype("int64"))[["sample", "chrom", "pos"]]
    found.loc[points, EFFECT] = where.merge(there, "left", ["sample", "chrom", "pos"])[EFFECT].to_numpy()
    return found


def chunks(name: str, address: Address, clients: Clients | None) -> Iterator[DataFrame]:
    """The variants of a sample's VCF in tables of a limited size."""
    import pandas as pd

    with opened(address, "VariantFile", clients) as file:
        rows = _rows(file, name)
        while part := list(islice(rows, CHUNK)):
            yield pd.DataFrame(part, columns=list(COLUMNS)).astype(COLUMNS)


def _rows(file: Any, name: str) -> Iterator[tuple[object, ...]]:
    for record in file:
        call = record.samples[0]
        found = record.info["BCSQ"] if "BCSQ" in record.info else ()  # noqa: SIM401 - get raises if it is not declared
        gravest = min(([*text.split("|"), *[None] * 6] for text in found), key=_gravity, default=[None] * 6)
        depths: tuple[int, ...] = call.get("AD") or ()
        for n, alt in enumerate(record.alts or (), 1):
            if n not in (call.allele_indices or ()):
                continue
            longer = len(alt) - len(record.ref)
            kind = "insertion" if longer > 0 else "deletion" if longer else "SNV" if len(alt) == 1 else "MNV"
            ref_depth, alt_depth = (depths[0], depths[n]) if len(depths) > n else (None, None)
            fraction = alt_depth / (ref_depth + alt_depth) if ref_depth is not None and alt_depth else None
            alleles = ("." if one is None else str(one) for one in call.allele_indices)
            genotype = ("|" if call.phased else "/").join(alleles)
            yield (
                name, record.chrom, record.pos, record.ref, alt, kind, record.qual, genotype, call.get("DP"), ref_depth,
                alt_depth, fraction, gravest[1], gravest[0], gravest[5],
            )  # fmt: skip


def _gravity(fields: Sequence[str | None]) -> int:
    """The rank of a consequence; it may be "*missense", after a new stop, or "splice_region&synonymous"."""
    words = str(fields[0]).lstrip("*").split("&")
    return min((CONSEQUENCES.index(word) for word in words if word in CONSEQUENCES), default=len(CONSEQUENCES))

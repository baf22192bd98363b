"""The reads of a sample at one place, drawn as a genome browser draws them."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, Any

from genokit.errors import InvalidParameters, NotFound, did_you_mean
from genokit.genomics.variant_files import opened, result_files
from genokit.storage import Address

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genokit.backends import Clients

MOST = 60  # reads that are drawn
INSERTION, DELETION, ALIGNED = 1, 2, (0, 7, 8)  # of a CIGAR


def pileup(
    results: Address, sample: str, chrom: str, pos: int, *, reference: Address, width: int = 80,
    ax: Axes | None = None, clients: Clients | None = None,
) -> Axes:  # fmt: skip
    """Draw the reads of a sample that cover a variant, without duplicates, sorted by what they have there.

    Of more than 60 reads, 60 spread evenly over the sorted ones are drawn; the title says so.

    Parameters
    ----------
    results : path or str
        The folder of the workflow's results, here or on S3.
    sample, chrom, pos : str, str, int
        The sample, and the variant's sequence and position (from 1), as in ``genomics.variants``.
    reference : path or str
        FASTA of the reference, gzip or not.
    width : int, default 80
        How many bases are shown, from 10 to 300.
    ax : Axes, optional
        The axes to draw on (default: those of a new figure).
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Raises
    ------
    NotFound, InvalidParameters
        There is no such sample, BAM, sequence or position, a file cannot be read, or the reference is another one.

    Examples
    --------
    >>> import tempfile
    >>> from genokit import genomics
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cohort = genomics.simulate(folder, samples=1, bases=20_000, coverage=1)
    ...     genomics.pileup("nowhere", "S1", "chr1", 5_000, reference=cohort["reference"])
    Traceback (most recent call last):
    genokit.errors.NotFound: There are no results in 'nowhere'. Expected files such as <sample>/bam/<sample>.bam.
    """
    import pandas as pd

    from genokit.plots import genomics

    files = result_files(results, clients, sample=sample)[sample]
    if not {"bam", "bam.bai"} <= files.keys():
        raise NotFound(f"Sample '{sample}' has no BAM with an index in '{results}'.")
    with opened(reference, "FastxFile", clients) as file:
        bases = next((one.sequence.upper() for one in file if one.name == chrom), "")
    with opened(files["bam"], "AlignmentFile", clients, index=files["bam.bai"]) as file:
        sequences = {one["SN"]: one.get("M5") for one in file.header.to_dict()["SQ"]}
        if chrom not in sequences:
            raise NotFound(f"There is no sequence '{chrom}' in '{files['bam']}'. {did_you_mean(chrom, sequences)}")
        if sequences[chrom] not in (None, md5(bases.encode()).hexdigest()):
            raise InvalidParameters(f"'{files['bam']}' was made with another reference than '{reference}'.")
        if not (1 <= pos <= len(bases) and 10 <= width <= 300):
            raise InvalidParameters(
                f"There is nothing to draw at {chrom}:{pos} with {width=}: the sequence has {len(bases):,} bases in "
                f"'{reference}'. Expected a position in it, and a width from 10 to 300."
            )
        start = max(0, min(pos - 1 - width // 2, len(bases) - width))  # from 0
        reads = [(read.is_reverse, _cells(read, start, start + width)) for read in file.fetch(chrom, pos - 1, pos)
                 if not read.is_duplicate]  # fmt: skip
    nothing = ["", 0]
    reads.sort(key=lambda read: (read[1].get(pos - 1, nothing), read[1].get(pos, nothing), min(read[1], default=0)))
    shown = reads if len(reads) <= MOST else [reads[n * len(reads) // MOST] for n in range(MOST)]
    rows = [(row, at + 1, *cell, reverse) for row, (reverse, cells) in enumerate(shown) for at, cell in cells.items()]
    some = f", {MOST} of them drawn" if len(reads) > MOST else ""
    return genomics.pileup(
        pd.DataFrame(rows, columns=["row", "pos", "base", "inserted", "reverse"]), bases[start : start + width],
        start + 1, pos, title=f"{sample}, {chrom}:{pos:,}: {len(reads):,} reads{some}", ax=ax,
    )  # fmt: skip


def _cells(read: Any, low: int, high: int) -> dict[int, list[Any]]:
    """By position from 0, a read's base and the number of bases inserted after it."""
    cells: dict[int, list[Any]] = {}
    last = -1
    for query, at, kind in read.get_aligned_pairs(with_cigar=True):
        if kind == INSERTION and last in cells:
            cells[last][1] += 1
        last = last if at is None else at
        if low <= last < high and kind in (*ALIGNED, DELETION):
            cells[last] = ["-" if query is None else read.query_sequence[query], 0]
    return cells

"""The quality of a cohort: each sample's statistics as the tools wrote them, what stands out, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from genokit import __version__, display, storage
from genokit.errors import NotFound, did_you_mean
from genokit.genomics.sample_statistics import FIGURES, read
from genokit.genomics.step import ALIGNERS
from genokit.genomics.variant_files import result_files
from genokit.plots.genomics import LABELS, cohort

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.backends import Clients

LIMITS = {  # lowest and highest value that is not marked, whatever the other samples have
    "mapped_percent": (90, 100), "properly_paired_percent": (80, 100), "duplicate_percent": (0, 30),
    "mean_coverage": (15, inf), "base_quality": (20, inf),
}  # fmt: skip
SAMPLES, MADS = 5, 3  # outliers are marked in a cohort of so many samples, and so far from its median
METHODS = {  # what each program did
    **dict.fromkeys(ALIGNERS, "aligned the reads"),
    "samtools fixmate": "completed the mates", "samtools sort": "sorted the reads",
    "samtools markdup": "marked duplicates", "bcftools mpileup": "counted the bases at each position",
    "bcftools call": "called SNVs and indels", "bcftools norm": "normalised them", "bcftools view": "selected variants",
    "bcftools csq": "predicted what they do to genes",
}  # fmt: skip


@dataclass(frozen=True)
class CohortQuality:
    """The quality of a cohort's reads and variants, from ``genomics.qc``.

    ``table()`` has the samples, ``summary`` the cohort, ``marked`` what stands out, ``methods`` how the results were
    made; ``plot(name)`` draws one of ``names``, and ``save(path)`` writes all of it as one HTML page.

    Parameters
    ----------
    results : str
        The folder of the results.
    samples : DataFrame
        The figures of ``table()``.
    data : dict of str to DataFrame
        What ``plot`` draws: by name, the columns sample, x and y.
    programs : DataFrame
        The programs that wrote into the headers of each sample's BAM and VCF: sample, program, version, options.
    """

    results: str
    samples: DataFrame = field(repr=False)
    data: Mapping[str, DataFrame] = field(repr=False)
    programs: DataFrame = field(repr=False)

    def table(self) -> DataFrame:
        """One row for each sample, as the tools have counted; what is not known is NaN.

        From samtools stats: ``reads``; ``mapped_percent`` and ``duplicate_percent`` of them;
        ``properly_paired_percent`` of the paired ones; ``insert_size`` and ``insert_size_sd`` (mean and standard
        deviation, bases); ``base_quality`` (mean, Phred-scaled); ``gc_percent`` of the bases read. From samtools
        coverage: ``mean_coverage`` (reads over a base, without duplicates) and ``covered_percent`` (of the reference,
        by one read or more). From the VCF: ``snvs``, ``insertions``, ``deletions``; ``ti_tv``, transitions by
        transversions; ``het_hom``, heterozygous by homozygous variants. ``marked`` counts the sample's rows in
        ``marked``.
        """
        counts = self.samples["sample"].map(self.marked["sample"].value_counts())
        return self.samples.assign(marked=counts.fillna(0).astype(int))

    @property
    def summary(self) -> DataFrame:
        """The cohort: for each figure median, mad (median absolute deviation times 1.4826), lowest and highest."""
        import pandas as pd

        numbers = self.samples.set_index("sample")
        median = numbers.median()
        mad = 1.4826 * (numbers - median).abs().median()
        columns = {"median": median, "mad": mad, "lowest": numbers.min(), "highest": numbers.max()}
        return pd.DataFrame(columns).rename_axis("figure")

    @property
    def marked(self) -> DataFrame:
        """What stands out: sample, figure, value and why.

        A value is marked if it is outside its fixed limits: at least 90 % mapped, at least 80 % properly paired, at
        most 30 % duplicates, a mean coverage of at least 15, a mean base quality of at least 20. With five samples or
        more it is also marked if it is more than 3 MAD from the median, unless the MAD is 0. A sample without reads,
        coverage or variants has a missing result.
        """
        import pandas as pd

        summary, found = self.summary, []
        for sample, figure, value in self.samples.melt("sample").itertuples(index=False):
            median, mad = summary.loc[figure, ["median", "mad"]]
            low, high = LIMITS.get(figure, (-inf, inf))
            if pd.isna(value):
                why = "its result is missing" if figure in ("reads", "mean_coverage", "snvs") else ""
            elif value < low:
                why = f"expected {low} or more"
            elif value > high:
                why = f"expected {high} or less"
            else:
                far = len(self.samples) >= SAMPLES and mad and abs(value - median) > MADS * mad
                why = f"the median is {median:.4g}, and the MAD {mad:.3g}" if far else ""
            if why:
                found.append((sample, figure, value, why))
        return pd.DataFrame(found, columns=["sample", "figure", "value", "why"])

    @property
    def names(self) -> list[str]:
        """The names of all pictures."""
        return list(self.data)

    def plot(self, name: str = "coverage", *, ax: Axes | None = None) -> Axes:
        """Draw one picture; marked samples have a colour.

        Parameters
        ----------
        name : str, default "coverage"
            One of ``names``: coverage, insert_size, base_quality, gc, variants, consequences.
        ax : Axes, optional
            The axes to draw on (default: those of a new figure).

        Raises
        ------
        NotFound
            There is no such picture.
        """
        if name not in self.data:
            raise NotFound(f"There is no picture '{name}'. {did_you_mean(name, self.data)}")
        return cohort(self.data[name], name, marked=self.marked["sample"].unique(), ax=ax)

    @property
    def methods(self) -> str:
        """How the results were made: a paragraph from the headers of the results, with versions and options."""
        done = []
        for program, did in METHODS.items():
            own = self.programs[self.programs["program"] == program]
            uses = dict.fromkeys(f"{one.version} ({one.options})".replace(" ()", "") for one in own.itertuples())
            done += [f"{program} {' or '.join(uses)} {did}"] if uses else []
        return (
            f"For each of {len(self.samples):,} samples, {'; '.join(done) or 'unknown programs made the results'}. "
            f"genokit {__version__} collected the statistics of samtools stats and samtools coverage."
        )

    def save(self, path: storage.Address, *, clients: Clients | None = None) -> str:
        """Write everything as one HTML page that loads nothing; returns its address.

        Parameters
        ----------
        path : path or str
            The file, here or on S3; an older one is replaced.
        clients : Clients, optional
            Whose S3. Default: the settings' own. Raises as ``storage.write``.
        """
        samples = self.table().round(2)
        groups = [["sample", *FIGURES[n : n + 5]] for n in range(0, len(FIGURES), 5)]  # as many as fit on the page
        sections = [
            ("Samples", display.stack(*[display.table(samples[group], most=1000) for group in groups])),
            ("What stands out", display.table(self.marked, most=1000)),
            ("Cohort", display.table(self.summary.round(2))),
        ]
        for name in self.names:
            words = name.replace("_", " ").replace("gc", "GC")
            sections.append((words[0].upper() + words[1:], display.drawn(self.plot(name), words)))
        used = self.programs.groupby(["program", "version", "options"], sort=False)["sample"].nunique()
        used_by = display.table(used.rename("samples").reset_index(), most=1000)
        sections.append(("Methods", display.stack(self.methods, used_by)))
        page = display.page(f"Quality of {len(self.samples):,} samples", sections, lead=f"Results: {self.results}")
        return storage.write(path, page, clients=clients)

    def __repr__(self) -> str:
        return f"<CohortQuality of {len(self.samples):,} samples, {len(self.marked):,} values marked>"

    def _repr_html_(self) -> str:
        marked = self.marked
        rows = {"samples": f"{len(self.samples):,}", "marked": f"{len(marked):,} values"}
        for figure in ("mean_coverage", "mapped_percent", "duplicate_percent", "ti_tv"):
            median, _, low, high = self.summary.loc[figure]
            rows[figure] = f"median {median:.4g}, {low:.4g} to {high:.4g}"
        fold = {"Samples": self.table(), "What stands out": marked, "Methods": self.methods}
        return display.card("Cohort quality", rows, status="warning" if len(marked) else "passed", fold=fold)


def qc(results: storage.Address, *, clients: Clients | None = None) -> CohortQuality:
    r"""Collect the quality of a workflow's results: the reads, coverage and variants of its samples.

    Parameters
    ----------
    results : path or str
        The folder of the results, here or on S3.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Returns
    -------
    CohortQuality
        A card in a notebook; ``table()``, ``marked``, ``plot(name)``, ``methods`` and ``save(path)``.

    Raises
    ------
    NotFound, InvalidParameters
        There are no results, or a file of them cannot be read.

    Examples
    --------
    >>> from genokit import backends, genomics, storage
    >>> results = f"s3://{backends.clients().bucket}/one-sample"
    >>> coverage = "#rname startpos endpos numreads covbases coverage meandepth\nchr1 1 9 6 9 100 30.5"
    >>> storage.write(f"{results}/S1/stats/S1.coverage.txt", coverage.replace(" ", "\t"))
    's3://genokit/one-sample/S1/stats/S1.coverage.txt'
    >>> genomics.qc(results).table()[["sample", "mean_coverage", "covered_percent"]].values.tolist()
    [['S1', 30.5, 100.0]]
    """
    import pandas as pd

    found = {sample: read(sample, files, clients) for sample, files in result_files(results, clients).items()}
    figures = [{"sample": sample, **one.figures} for sample, one in found.items()]
    data = {}
    for name in LABELS:
        points = [(sample, x, y) for sample, one in found.items() for x, y in one.points[name].items()]
        data[name] = pd.DataFrame(points, columns=["sample", "x", "y"])
    programs = [(sample, *program) for sample, one in found.items() for program in one.programs]
    columns = ["sample", "program", "version", "options"]
    return CohortQuality(str(results), pd.DataFrame(figures), data, pd.DataFrame(programs, columns=columns))

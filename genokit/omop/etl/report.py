"""The report of an ETL run: the share of rows mapped, what became of each table's rows, and the CDM's quality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit.omop.etl import transform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.omop.etl.result_store import MadeTable
    from genokit.omop.quality.quality import Quality

CARRIED, MISSING, UNREAD = "carried over", "missing", "could not be read"

# Dictionaries of codes: none of their rows becomes a row of the CDM.
DICTIONARIES = ("mimic3.d_items", "mimic3.d_labitems", "mimic3.d_icd_diagnoses", "mimic3.d_icd_procedures",
                "mimic3.d_cpt")  # fmt: skip


@dataclass(frozen=True)
class Report:
    """The outcome of ``omop.etl``, as a card and as data.

    Parameters
    ----------
    title, target, engine : str
        The source's title, the target, and the engine with its version.
    tables : DataFrame
        A row for each CDM table: rows_in (of the source tables it is made from), rows, rejected (source rows set
        aside), mapped (share with a standard concept, from 0 to 1; NA where it has none to have), seconds, state
        ("made" or "unchanged").
    accounts : DataFrame
        What became of each source table's rows: source_table, became, rows. ``became`` is "carried over", "could not be
        read", the reason for which rows were left out, or "missing" for a table that is not there. The rows add up to
        all rows of the files.
    mapped : DataFrame
        A row for each domain: domain, cdm_table, rows, mapped, share, original (the share of the pipeline that this
        one replaces).
    quality : Quality
        The results of the checks of the new CDM.
    rejected : DataFrame
        The rows that could not be read: table, file, line, reason.
    seconds : float
        The duration of the run.

    The example of ``omop.etl`` shows one.
    """

    title: str
    target: str
    engine: str
    tables: DataFrame = field(repr=False)
    accounts: DataFrame = field(repr=False)
    mapped: DataFrame = field(repr=False)
    quality: Quality = field(repr=False)
    rejected: DataFrame = field(repr=False)
    seconds: float

    @property
    def missing(self) -> tuple[str, ...]:
        """The tables of MIMIC-III that the source does not have."""
        return tuple(self.accounts.loc[self.accounts["became"] == MISSING, "source_table"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Bars of the share of rows with a standard concept, by domain, beside that of the original pipeline."""
        from genokit.plots import etl

        return etl.mapped(self.mapped, ax=ax)

    def __repr__(self) -> str:
        made = int((self.tables["state"] == "made").sum())
        return f"<Report {self.title} to {self.target}: {made} tables made, {len(self.tables) - made} unchanged>"

    def _repr_html_(self) -> str:
        from genokit import display

        made, lost = int((self.tables["state"] == "made").sum()), len(self.rejected)
        total, is_carried = int(self.accounts["rows"].sum()), self.accounts["became"].str.startswith(CARRIED)
        carried = int(self.accounts.loc[is_carried, "rows"].sum())
        about: dict[str, object] = {
            "mapped": display.table(_percent(self.mapped)),
            "rows": f"{int(self.tables['rows'].sum()):,} in {int((self.tables['rows'] > 0).sum())} tables",
            "source": f"{total:,} rows: {carried:,} carried over, {lost:,} not readable, the others left out",
            "rejected": f"{lost:,} rows of the source, listed in rejected.csv" if lost else "none",
            "missing tables": ", ".join(self.missing) or "none",
            "tables": f"{made} made, {len(self.tables) - made} unchanged since the last run",
            "target": self.target,
            "engine": self.engine,
            "time": display.seconds(self.seconds),
        }
        said = self.accounts[self.accounts["became"] != MISSING]
        fold: dict[str, object] = {
            "Tables": display.table(_shown(self.tables)),
            "What became of the source's rows": display.table(said, most=200),
        }
        if lost:
            fold["Rejected rows"] = display.table(self.rejected)
        status = "warning" if lost or self.missing or len(self.quality.failed) else "ok"
        card = display.card(f"{self.title} as OMOP CDM 5.4", about, status=status, fold=fold)
        return display.stack(card, self.quality._repr_html_())


def tables(made: Mapping[str, MadeTable], new: set[str], mapped: DataFrame) -> DataFrame:
    """A row for each table of the CDM; ``made`` are all tables, those of the source too, and ``new`` those made by
    this run."""
    import pandas as pd

    shares = mapped.dropna(subset="cdm_table").set_index("cdm_table")["share"]
    rows = []
    for one in made.values():
        if one.table.startswith("cdm."):
            sources = [made[table] for table in origins(one.table)]
            rows.append(
                {
                    "table": one.name,
                    "rows_in": sum(source.rows for source in sources),
                    "rows": one.rows,
                    "rejected": sum(source.rejected for source in sources),
                    "mapped": shares.get(one.name),
                    "seconds": one.seconds,
                    "state": "made" if one.table in new else "unchanged",
                }
            )
    return pd.DataFrame(rows).astype({"mapped": "Float64"})


def accounts(inputs: Iterable[MadeTable], counts: DataFrame) -> DataFrame:
    """What became of every row of each source table; ``counts`` is report.accounts, of the rows that were read."""
    import pandas as pd

    columns = ["source_table", "became", "rows"]
    rows = list(counts.reindex(columns=columns).itertuples(index=False, name=None))
    for made in inputs:
        rows += [(made.name, MISSING, 0)] if made.held == "missing" else []
        rows += [(made.name, UNREAD, made.rejected)] if made.rejected else []
    frame = pd.DataFrame(rows, columns=columns).astype({"rows": "int64"})
    return frame.sort_values(["source_table", "rows"], ascending=[True, False], ignore_index=True)


def origins(table: str) -> set[str]:
    """The source tables whose rows become rows of a table; where there are none, the CDM tables whose rows do.

    >>> sorted(origins("cdm.death")), sorted(origins("cdm.condition_era"))
    (['mimic3.admissions', 'mimic3.patients'], ['cdm.condition_occurrence'])
    """
    reads = transform.reads(table)
    inner = {
        one for stage in reads if stage.startswith("stage.") for one in origins(stage) if one.startswith("mimic3.")
    }
    found = {one for one in reads if one.startswith("mimic3.") and one not in DICTIONARIES} | inner
    return found or {one for one in reads if one.startswith("cdm.")}


def _percent(mapped: DataFrame) -> DataFrame:
    """The share of rows with a standard concept as it is shown, here and in the pipeline that this one replaces."""
    here, original = (mapped[column].map(_share) for column in ("share", "original"))
    counts = mapped["rows"].map("{:,}".format)
    return mapped[["domain"]].assign(rows=counts, here=here, **{"by the original pipeline": original})


def _shown(frame: DataFrame) -> DataFrame:
    counts = {name: frame[name].map("{:,}".format) for name in ("rows_in", "rows", "rejected")}
    shown = frame.assign(**counts, mapped=frame["mapped"].map(_share))
    return shown[(frame["rows_in"] > 0) | (frame["rows"] > 0)]


def _share(value: Any) -> str:
    import pandas as pd

    return "" if pd.isna(value) else f"{value:.1%}"

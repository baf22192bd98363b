"""What an ETL run did: which share of rows is mapped, what became of each table's rows, and how good the CDM is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit.omop.etl import transform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from genokit.omop.quality.quality import Quality

CARRIED, MISSING = "carried over", "missing"

# They say what codes mean, and none of their rows becomes a row of the CDM.
DICTIONARIES = (
    "mimic3.d_items",
    "mimic3.d_labitems",
    "mimic3.d_icd_diagnoses",
    "mimic3.d_icd_procedures",
    "mimic3.d_cpt",
)


@dataclass(frozen=True)
class Report:
    """The outcome of ``etl``.

    ``tables``: a row a CDM table: rows_in (of the source tables it is made of), rows, rejected (source rows set aside),
    mapped (share with a standard concept; NA where that is no question), seconds, state (made, unchanged).
    ``accounts``: what became of each source table's rows: source_table, became, rows. What became is "carried over",
    "could not be read", the reason for which they were left out, or "missing" for a table that is not there; together
    they are all rows of its files. ``missing``: names of the tables that are not there.
    ``mapped``: a row a domain, as ``transform.shares`` says. ``seconds``: of the whole run.
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
        """The share of rows mapped to a standard concept, a bar a domain, beside the original pipeline's."""
        from genokit.plots import etl

        return etl.mapped(self.mapped, ax=ax)

    def __repr__(self) -> str:
        made = int((self.tables["state"] == "made").sum())
        return f"<Report {self.title} to {self.target}: {made} tables made, {len(self.tables) - made} unchanged>"

    def _repr_html_(self) -> str:
        from genokit import display

        made, lost = int((self.tables["state"] == "made").sum()), len(self.rejected)
        about: dict[str, object] = {
            "mapped": display.table(_percent(self.mapped)),
            "rows": f"{int(self.tables['rows'].sum()):,} in {int((self.tables['rows'] > 0).sum())} tables",
            "source": _sum(self.accounts),
            "rejected": f"{lost:,} rows of the source, listed in rejected.csv" if lost else "no row of the source",
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


def tables(known: Mapping[str, Mapping[str, Any]], made: set[str], mapped: DataFrame) -> DataFrame:
    """A row a table of the CDM; ``known`` is what the work says of each table, inputs too."""
    import pandas as pd

    shares = mapped.dropna(subset="cdm_table").set_index("cdm_table")["share"]
    rows = []
    for table, own in known.items():
        if not table.startswith("cdm."):
            continue
        name = table.removeprefix("cdm.")
        origin = origins(table)
        rows.append(
            {
                "table": name,
                "rows_in": sum(known[one]["rows"] for one in origin),
                "rows": own["rows"],
                "rejected": sum(known[one].get("rejected", 0) for one in origin),
                "mapped": shares.get(name),
                "seconds": own["seconds"],
                "state": "made" if table in made else "unchanged",
            }
        )
    return pd.DataFrame(rows).astype({"mapped": "Float64"})


def accounts(known: Mapping[str, Mapping[str, Any]], counted: DataFrame | None) -> DataFrame:
    """What became of every row of each source table; ``counted`` is report.accounts, of those that were read."""
    import pandas as pd

    rows = [] if counted is None else [tuple(row) for row in counted[["source_table", "became", "rows"]].values]
    for table, own in known.items():
        name = table.removeprefix("mimic3.")
        if own.get("held") == "missing":
            rows.append((name, MISSING, 0))
        if own.get("rejected"):
            rows.append((name, "could not be read", own["rejected"]))
    frame = pd.DataFrame(rows, columns=["source_table", "became", "rows"]).astype({"rows": "int64"})
    return frame.sort_values(["source_table", "rows"], ascending=[True, False], ignore_index=True)


def _sum(accounts: DataFrame) -> str:
    """All rows of the source: those carried over, those that could not be read, and those left out."""
    carried = int(accounts["rows"][accounts["became"].str.startswith(CARRIED)].sum())
    rejected = int(accounts["rows"][accounts["became"] == "could not be read"].sum())
    total = int(accounts["rows"].sum())
    return (
        f"{total:,} rows: {carried:,} carried over, {rejected:,} not readable, "
        f"{total - carried - rejected:,} left out for a reason"
    )


def origins(table: str) -> set[str]:
    """The source tables whose rows become rows of a table; where there are none, the tables of the CDM that do.

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
    """The share of rows with a standard concept, as it is shown: here, and in the pipeline that this one replaces."""
    shown = mapped[["domain"]].assign(rows=[f"{count:,}" for count in mapped["rows"]])
    for column, title in {"share": "here", "original": "by the original pipeline"}.items():
        shown[title] = [_share(value) for value in mapped[column]]
    return shown


def _shown(frame: DataFrame) -> DataFrame:
    counts = {name: [f"{count:,}" for count in frame[name]] for name in ("rows_in", "rows", "rejected")}
    shown = frame.assign(**counts, mapped=[_share(value) for value in frame["mapped"]])
    return shown[(frame["rows_in"] > 0) | (frame["rows"] > 0)]


def _share(value: Any) -> str:
    import pandas as pd

    return "" if pd.isna(value) else f"{value:.1%}"

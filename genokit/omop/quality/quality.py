"""The checks of the OHDSI Data Quality Dashboard on a CDM, with its thresholds and in the format of its results.

The statements of ``check_counts`` count, on any engine; the counts are judged here. A check that cannot be made is not
applicable and says why: its table is missing or empty, its field has no values, or there is no vocabulary.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit.omop.etl.vocabulary import TABLES as VOCABULARY
from genokit.omop.quality.check_counts import SHIFTED, statements
from genokit.omop.quality.checks import Columns, QualityCheck, all_columns, checks, fits
from genokit.omop.views import Kept, as_kept

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from pandas import DataFrame

_SEVERITIES = {"fatal": 0, "convention": 1, "characterization": 2}

# These need the vocabulary, as do foreign keys to its tables.
_OF_CONCEPTS = ("fkDomain", "fkClass", "isStandardValidConcept")

# These are counted among the rows in which their field has a value.
_OF_FILLED = ("plausibleValueLow", "plausibleValueHigh", "plausibleAfterBirth", "isStandardValidConcept")

# These apply to a field without any value, too.
_OF_EMPTY = ("measureValueCompleteness", "isRequired", "isPrimaryKey")


@dataclass(frozen=True)
class Quality:
    """The results of the checks of a CDM, from ``omop.quality`` or as ``Report.quality``.

    Parameters
    ----------
    table : DataFrame
        A row for each check, with the columns of the dashboard's own results: ``check_name``, ``cdm_table_name``,
        ``cdm_field_name``, ``num_violated_rows``, ``pct_violated_rows`` (from 0 to 1), ``threshold_value`` (in
        percent), ``failed``, ``passed``, ``not_applicable`` (0 or 1) and others.

    Examples
    --------
    >>> from genokit import Cdm, omop
    >>> found = omop.quality(Cdm(), progress=False)
    >>> found.counts("category")["category"].tolist()
    ['conformance', 'completeness', 'plausibility']
    """

    table: DataFrame = field(repr=False)

    @property
    def failed(self) -> DataFrame:
        """The failed checks, the most severe first."""
        found = self.table[self.table["failed"] == 1]
        grave = found["severity"].map(_SEVERITIES)
        return (
            found.assign(grave=grave)
            .sort_values(["grave", "pct_violated_rows"], ascending=[True, False], kind="stable", ignore_index=True)
            .drop(columns="grave")
        )

    @property
    def fatal(self) -> DataFrame:
        """The failed checks that a CDM must pass before anything else in it can be trusted: tables, fields, types,
        keys."""
        found = self.failed
        return found[found["severity"] == "fatal"].reset_index(drop=True)

    def counts(self, by: str | list[str] = "category") -> DataFrame:
        """The numbers of checks that passed, failed or were not applicable, by one or several columns of ``table``."""
        found = self.table.groupby(by, sort=False, dropna=False)[["passed", "failed", "not_applicable"]].sum()
        return found.reset_index()

    def plot(self, ax: Axes | None = None) -> Axes:
        """A heat map of the share of checks passed, by category and table; tables without rows and failures are left
        out."""
        from genokit.plots import omop

        counts, table = self.counts(["cdm_table_name", "category"]), self.table
        said = table[
            ((table["check_name"] == "measureValueCompleteness") & (table["passed"] == 1)) | (table["failed"] == 1)
        ]
        return omop.quality(counts[counts["cdm_table_name"].isin(said["cdm_table_name"])], ax=ax)

    def __repr__(self) -> str:
        passed, failed = int(self.table["passed"].sum()), int(self.table["failed"].sum())
        return f"<Quality: {passed:,} of {passed + failed:,} checks passed, {len(self.fatal):,} fatal>"

    def _repr_html_(self) -> str:
        from genokit import display

        failed, fatal = self.failed, self.fatal
        passed = int(self.table["passed"].sum())
        share = f" ({100 * passed / (passed + len(failed)):.1f} %)" if passed + len(failed) else ""
        words = [f"{check['check_name']} of {_subject(check)}" for check in fatal.head(5).to_dict("records")]
        about: dict[str, object] = {
            "checks": f"{passed:,} of {passed + len(failed):,} passed{share}",
            "not applicable": f"{int(self.table['not_applicable'].sum()):,}",
            "fatal": ", ".join(words + ["..."] * (len(fatal) > 5)) or "none",
        }
        found = [
            {
                "check": check["check_name"],
                "of": _subject(check).replace(".", ".\n"),  # or the table is wider than its card
                "wrong": f"{check['num_violated_rows']:,} of {check['num_denominator_rows']:,}",
                "%": round(100 * check["pct_violated_rows"], 2),
                "at most %": check["threshold_value"],
                "severity": check["severity"],
            }
            for check in failed.to_dict("records")
        ]
        fold = {f"Failed checks ({len(failed):,})": display.table(found, most=200)} if found else {}
        status = "failed" if len(fatal) else "warning" if len(failed) else "passed"
        return display.card("Data quality", about, status=status, fold=fold)


def quality(cdm: str | os.PathLike[str] | Any, *, until: datetime.date | None = None, progress: bool = True) -> Quality:
    """Check a CDM 5.4 with the checks of the OHDSI Data Quality Dashboard. Nothing is written to it.

    Parameters
    ----------
    cdm : str, path, DuckDB connection or Cdm
        A target of ``omop.etl``, a folder of Parquet, a .duckdb file, an open connection, or a ``Cdm``. Of several
        schemas with a table ``person``, the one that ``Cdm`` takes.
    until : date, optional
        The last plausible date (default: tomorrow; for MIMIC, whose dates are shifted, 2220-01-01).
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Quality
        The results: a card in a notebook, a DataFrame as ``table``; ``failed``, ``fatal``, ``counts()``, ``plot()``.

    Raises
    ------
    NotFound, InvalidSource
        Where there is no CDM, or it cannot be read.

    Examples
    --------
    >>> from genokit import Cdm, omop
    >>> omop.quality(Cdm(), progress=False).table["check_name"].nunique()
    27
    """
    from genokit.bars import Bar

    with as_kept(cdm) as kept:
        asked = statements(kept.columns, until=until or _last_day(kept), dialect=kept.dialect)
        bar = Bar(asked.items(), desc="Data quality", unit="table", disable=not progress)
        return results({name: kept.query(sql) for name, sql in bar}, kept.columns)


def results(frames: Mapping[str, DataFrame], columns: Columns | None = None) -> Quality:
    """Judge the counts of ``check_counts.statements``: each "report.quality_..." as a DataFrame.

    ``columns`` are those of the CDM (default: all), as they were given to ``statements``. The checks of a table without
    counts are not applicable.
    """
    from genokit.frames import Frame

    counts = _Counts(frames, all_columns() if columns is None else columns)
    table = Frame([_row(check, *counts.of(check)) for check in checks()])
    kinds = {"num_violated_rows": "Int64", "num_denominator_rows": "Int64", "pct_violated_rows": "Float64"}
    return Quality(table.astype({**kinds, "threshold_value": "Int64", "unit_concept_id": "Int64"}))


class _Counts:
    """The counts of a CDM: for each check the violating rows, the rows looked at, and why it is not applicable."""

    def __init__(self, frames: Mapping[str, DataFrame], columns: Columns) -> None:
        import pandas as pd

        self.columns = columns
        found = {
            name.removeprefix("report.quality_"): frame.rename(columns=str.lower) for name, frame in frames.items()
        }
        self.concepts = {name: _by_concept(found.pop(name, None)) for name in ("genders", "units")}
        self.rows = {
            name: {str(column): 0 if pd.isna(count) else int(count) for column, count in frame.iloc[0].items()}
            for name, frame in found.items()
            if len(frame)
        }

    def of(self, check: QualityCheck) -> tuple[int | None, int | None, str]:
        name, table, columns = check.kind.name, check.table, self.columns.get(check.table, {})
        if name == "cdmTable":
            return int(not columns), 1, ""
        if not columns:
            return None, None, f"{table} is missing"
        if name == "cdmField":
            return int(check.field not in columns), 1, ""
        if check.field and check.field not in columns:
            return None, None, f"{check.field} is missing"
        if name == "cdmDatatype":
            return int(not fits(table, check.field, self.columns)), 1, ""
        if check.kind.level == "concept":
            return self._of_concept(check)
        return self._of_rows(check)

    def _of_rows(self, check: QualityCheck) -> tuple[int | None, int | None, str]:
        name, rows = check.kind.name, self.rows.get(check.table, {})
        counts = self.rows.get("persons", {}) if name == "measurePersonCompleteness" else rows
        if not counts:
            return None, None, f"{check.table} was not counted"
        if check.kind.level == "field" and (reason := self._not_applicable(check, rows)):
            return None, None, reason
        if name in ("isRequired", "measureValueCompleteness"):
            return rows["rows"] - rows[f"filled__{check.field}"], rows["rows"], ""
        if check.column not in counts:
            return None, None, "a field that it needs is missing, or of another type"
        among = counts.get(f"{check.column}_of")
        if among is None:
            return counts[check.column], counts[f"filled__{check.field}" if name in _OF_FILLED else "rows"], ""
        return counts[check.column], among, "" if among else "no row has the values that it compares"

    def _not_applicable(self, check: QualityCheck, rows: Mapping[str, int]) -> str:
        if not rows["rows"]:
            return f"{check.table} is empty"
        if not rows[f"filled__{check.field}"] and check.kind.name not in _OF_EMPTY:
            return f"{check.field} has no values"
        target = "concept" if check.kind.name in _OF_CONCEPTS else check.bound
        needs_target = check.kind.name in (*_OF_CONCEPTS, "isForeignKey") and target in VOCABULARY
        if needs_target and not self.rows.get(target, {}).get("rows"):
            return f"there is no vocabulary: {target} is empty"
        return ""

    def _of_concept(self, check: QualityCheck) -> tuple[int | None, int | None, str]:
        by_gender = check.kind.name.startswith("plausibleGender")
        counts = self.concepts["genders" if by_gender else "units"]
        if counts is None:
            return None, None, f"the concepts of {check.table} were not counted"
        found = [one for one in counts.get(check.concept_id, []) if one["cdm_table_name"] == check.table]
        if by_gender:
            wrong = [one["n"] for one in found if one["gender_concept_id"] not in (int(check.bound), None)]
            whole = [one["n"] for one in found]
        elif check.unit_concept_id is None:
            units = {None, 0, *map(int, check.bound.split())}
            wrong = [one["n"] for one in found if one["unit_concept_id"] not in units]
            whole = [one["n"] for one in found if one["unit_concept_id"] != 0]
        else:
            found = [one for one in found if one["unit_concept_id"] == check.unit_concept_id]
            wrong = [one["low" if check.kind.name.endswith("Low") else "high"] for one in found]
            whole = [one["valued"] for one in found]
        return (sum(wrong), sum(whole), "") if sum(whole) else (None, None, "the concept is not recorded")


def _last_day(kept: Kept) -> datetime.date | None:
    """None, as in the dashboard, but for MIMIC, whose dates are shifted."""
    if not fits("cdm_source", "cdm_source_abbreviation", kept.columns):
        return None
    names = kept.query("SELECT cdm_source_abbreviation AS name FROM cdm.cdm_source")["name"]
    return SHIFTED if names.astype(str).str.upper().str.startswith("MIMIC").any() else None


def _row(check: QualityCheck, wrong: int | None, whole: int | None, reason: str) -> dict[str, object]:
    kind = check.kind
    share = None if wrong is None else wrong / whole if whole else 0.0
    applies = not reason
    failed = applies and share is not None and (share * 100 > check.threshold if check.threshold else bool(wrong))
    ids = [kind.level, kind.name, check.table, check.field, check.concept_id, check.unit_concept_id or ""]
    return {
        "check_name": kind.name,
        "check_level": kind.level,
        "cdm_table_name": check.table,
        "cdm_field_name": check.field or None,
        "concept_id": check.concept_id or None,
        "unit_concept_id": check.unit_concept_id,
        "num_violated_rows": wrong,
        "pct_violated_rows": share,
        "num_denominator_rows": whole,
        "threshold_value": int(check.threshold),
        "failed": int(failed),
        "passed": int(applies and not failed),
        "not_applicable": int(not applies),
        "not_applicable_reason": reason or None,
        "severity": kind.severity,
        "context": kind.context,
        "category": kind.category,
        "subcategory": kind.subcategory or None,
        "checkid": "_".join(str(one) for one in ids if one).lower(),
    }


def _by_concept(frame: DataFrame | None) -> dict[str, list[dict[str, Any]]] | None:
    """The counts of each concept."""
    if frame is None:
        return None
    found: dict[str, list[dict[str, Any]]] = {}
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        found.setdefault(str(row["concept_id"]), []).append({str(name): value for name, value in row.items()})
    return found


def _subject(check: Mapping[Any, Any]) -> str:
    """The subject of a check: a table, a field, or a concept in a field."""
    field, concept = (one if isinstance(one, str) else "" for one in (check["cdm_field_name"], check["concept_id"]))
    return str(check["cdm_table_name"]) + (f".{field}" if field else "") + (f" = {concept}" if concept else "")

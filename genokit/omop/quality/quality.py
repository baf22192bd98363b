"""Is this CDM sound? The checks of the OHDSI Data Quality Dashboard, by its thresholds and in the shape of its results.

Everything is counted by the statements of ``counts.py``, on whatever engine; what the counts mean is decided here. A
check that cannot be asked is not applicable and says why: the table is missing or empty, the field holds nothing, or
there is no vocabulary to ask.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit.omop.etl.vocabulary import TABLES as VOCABULARY
from genokit.omop.quality.check_counts import SHIFTED, statements
from genokit.omop.quality.checks import Check, There, checks, complete, fits
from genokit.omop.views import Kept, as_kept

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from pandas import DataFrame

CATEGORIES = ("conformance", "completeness", "plausibility")

_GRAVE = {"fatal": 0, "convention": 1, "characterization": 2}

# What is asked of the vocabulary, beside keys that lead there.
_OF_CONCEPTS = ("fkDomain", "fkClass", "isStandardValidConcept")

# These are counted among the rows in which their field holds something.
_OF_FILLED = ("plausibleValueLow", "plausibleValueHigh", "plausibleAfterBirth", "isStandardValidConcept")

# These say something about a field that holds nothing; the others have nothing to look at then.
_OF_EMPTY = ("measureValueCompleteness", "isRequired", "isPrimaryKey")


@dataclass(frozen=True)
class Quality:
    """What the checks found; ``table`` has a row a check, with the columns of the dashboard's own results."""

    table: DataFrame = field(repr=False)

    @property
    def failed(self) -> DataFrame:
        """The checks that failed, those first that an ETL must not pass over."""
        found = self.table[self.table["failed"] == 1]
        graveness, shares = list(found["severity"]), list(found["pct_violated_rows"])
        order = sorted(range(len(found)), key=lambda i: (_GRAVE.get(graveness[i], 0), -shares[i]))
        return found.iloc[order].reset_index(drop=True)

    @property
    def fatal(self) -> DataFrame:
        """The failed checks without which nothing else can be believed: tables, fields, types, keys."""
        found = self.failed
        return found[found["severity"] == "fatal"].reset_index(drop=True)

    def counts(self, by: str | list[str] = "category") -> DataFrame:
        """How many checks passed, failed or were not applicable, by a column of ``table`` or several."""
        found = self.table.groupby(by, sort=False, dropna=False)[["passed", "failed", "not_applicable"]].sum()
        return found.reset_index()

    def plot(self, ax: Axes | None = None) -> Axes:
        """A heat map: the share of checks passed, by category and table; of the latter those with rows or failures."""
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
        about: dict[str, object] = {"checks": _share(self.table)}
        about |= {name: _share(self.table[self.table["category"] == name]) for name in CATEGORIES}
        about["not applicable"] = f"{int(self.table['not_applicable'].sum()):,}"
        words = [f"{check.check_name} of {_place(check)}" for check in _rows_of(fatal.head(5))]
        about["fatal"] = ", ".join(words + ["..."] * (len(fatal) > 5)) or "none"
        found = [
            {
                "check": check.check_name,
                "of": _place(check).replace(".", ".\n"),  # or the table is wider than its card
                "wrong": f"{check.num_violated_rows:,} of {check.num_denominator_rows:,}",
                "%": round(100 * check.pct_violated_rows, 2),
                "at most %": check.threshold_value,
                "severity": check.severity,
            }
            for check in _rows_of(failed)
        ]
        fold: dict[str, object] = {"By table": display.table(self.counts("cdm_table_name"))}
        if len(failed):
            fold = {f"Failed checks ({len(failed):,})": display.table(found, most=200)} | fold
        status = "failed" if len(fatal) else "warning" if len(failed) else "passed"
        return display.card("Data quality", about, status=status, fold=fold)


def quality(cdm: str | os.PathLike[str] | Any, *, until: datetime.date | None = None, progress: bool = True) -> Quality:
    """Check a CDM 5.4: a folder that the ETL made, a .duckdb file, an open DuckDB connection, or a Cdm.

    Nothing is written to it. ``until`` is the last day that anything may have (default: tomorrow; for MIMIC, whose
    dates are shifted, the year 2220). Raises NotFound, InvalidSource.
    """
    from genokit.bars import Bar

    with as_kept(cdm) as kept:
        asked = statements(kept.columns, until=until or _last_day(kept), dialect=kept.dialect)
        bar = Bar(asked.items(), desc="Data quality", unit="table", disable=not progress)
        return results({name: kept.query(sql) for name, sql in bar}, kept.columns)


def results(frames: Mapping[str, DataFrame], there: There | None = None) -> Quality:
    """What the counts of ``statements`` mean: each "report.quality_..." as a DataFrame.

    ``there`` is what the CDM has (default: all of it), as it was given to ``statements``. A table without counts is
    not applicable throughout.
    """
    from genokit.frames import Frame

    known = _Counted(frames, complete() if there is None else there)
    table = Frame([_row(check, *known.of(check)) for check in checks()])
    kinds = {"num_violated_rows": "Int64", "num_denominator_rows": "Int64", "pct_violated_rows": "Float64"}
    return Quality(table.astype({**kinds, "threshold_value": "Int64", "unit_concept_id": "Int64"}))


class _Counted:
    """The counts of a CDM, and for each check what they say: how many are wrong, of how many; or why nobody can say."""

    def __init__(self, frames: Mapping[str, DataFrame], there: There) -> None:
        self.there = there
        lowered = {
            name.removeprefix("report.quality_"): frame.rename(columns=str.lower) for name, frame in frames.items()
        }
        self.concepts = {name: _by_concept(lowered.pop(name, None)) for name in ("genders", "units")}
        self.counts = {
            name: {str(column): _whole(value) for column, value in frame.iloc[0].items()}
            for name, frame in lowered.items()
            if len(frame)
        }

    def of(self, check: Check) -> tuple[int | None, int | None, str]:
        name, table, there = check.kind.name, check.table, self.there.get(check.table, {})
        if name == "cdmTable":
            return int(not there), 1, ""
        if not there:
            return None, None, f"{table} is missing"
        if name == "cdmField":
            return int(check.field not in there), 1, ""
        if check.field and check.field not in there:
            return None, None, f"{check.field} is missing"
        if name == "cdmDatatype":
            return int(not fits(table, check.field, self.there)), 1, ""
        if check.kind.level == "concept":
            return self._of_concept(check)
        return self._of_rows(check)

    def _of_rows(self, check: Check) -> tuple[int | None, int | None, str]:
        name, rows = check.kind.name, self.counts.get(check.table, {})
        counts = self.counts.get("persons", {}) if name == "measurePersonCompleteness" else rows
        if not counts:
            return None, None, f"{check.table} was not counted"
        if check.kind.level == "field" and (reason := self._nothing_to_ask(check, rows)):
            return None, None, reason
        if name in ("isRequired", "measureValueCompleteness"):
            return rows["rows"] - rows[f"filled__{check.field}"], rows["rows"], ""
        if check.column not in counts:
            return None, None, "what it needs is missing, or of another type"
        among = f"{check.column}_of"
        if among not in counts and name in _OF_FILLED:
            among = f"filled__{check.field}"
        whole = counts.get(among, counts["rows"])
        return (
            counts[check.column],
            whole,
            "" if whole or not among.endswith("_of") else "there is nothing to hold it against",
        )

    def _nothing_to_ask(self, check: Check, rows: Mapping[str, int]) -> str:
        if not rows["rows"]:
            return f"{check.table} is empty"
        if not rows[f"filled__{check.field}"] and check.kind.name not in _OF_EMPTY:
            return f"{check.field} holds nothing"
        target = "concept" if check.kind.name in _OF_CONCEPTS else check.bound
        asks = check.kind.name in (*_OF_CONCEPTS, "isForeignKey") and target in VOCABULARY
        if asks and not self.counts.get(target, {}).get("rows"):
            return f"there is no vocabulary: {target} is empty"
        return ""

    def _of_concept(self, check: Check) -> tuple[int | None, int | None, str]:
        by_gender = check.kind.name.startswith("plausibleGender")
        counted = self.concepts["genders" if by_gender else "units"]
        if counted is None:
            return None, None, f"the concepts of {check.table} were not counted"
        found = [one for one in counted.get(check.concept_id, []) if one["cdm_table_name"] == check.table]
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
    """None: as the dashboard has it; but no day of ours tells which of MIMIC's shifted dates are too late."""
    if not fits("cdm_source", "cdm_source_abbreviation", kept.columns):
        return None
    names = kept.query("SELECT cdm_source_abbreviation AS name FROM cdm.cdm_source")["name"]
    return SHIFTED if names.astype(str).str.upper().str.startswith("MIMIC").any() else None


def _row(check: Check, wrong: int | None, whole: int | None, reason: str) -> dict[str, object]:
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


def _whole(value: Any) -> int:
    """A count as a number of Python's; what sums over no rows is none."""
    import pandas as pd

    return 0 if pd.isna(value) else int(value)


def _by_concept(frame: DataFrame | None) -> dict[str, list[dict[str, Any]]] | None:
    """The counts of each concept."""
    if frame is None:
        return None
    found: dict[str, list[dict[str, Any]]] = {}
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        found.setdefault(str(row["concept_id"]), []).append({str(name): value for name, value in row.items()})
    return found


def _share(table: DataFrame) -> str:
    passed, failed = int(table["passed"].sum()), int(table["failed"].sum())
    if not passed + failed:
        return "none was applicable"
    return f"{passed:,} of {passed + failed:,} passed ({100 * passed / (passed + failed):.1f} %)"


def _rows_of(table: DataFrame) -> list[Any]:
    return list(table.itertuples(index=False))


def _place(check: Any) -> str:
    """What a check was about: a table, a field, a concept in a field."""
    field, concept = (one if isinstance(one, str) else "" for one in (check.cdm_field_name, check.concept_id))
    return str(check.cdm_table_name) + (f".{field}" if field else "") + (f" = {concept}" if concept else "")

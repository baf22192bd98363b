"""The checks of the OHDSI Data Quality Dashboard of a CDM 5.4, and their thresholds.

The types of check, their place in Kahn's scheme and the thresholds are those of the dashboard's version 2.8
(Apache-2.0); ``dqd54.json`` has what the CDM's own specification does not say, as names and numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genokit.omop.fields import fields, tables

# Catalogs spell types in many ways; types that begin so are equivalent to the CDM's.
_ALIKE = {
    "INTEGER": r"U?(TINY|SMALL|BIG|HUGE)?INT|LONG|SHORT",
    "DOUBLE": r"DOUBLE|FLOAT|REAL|DECIMAL|NUMERIC|U?(TINY|SMALL|BIG|HUGE)?INT",
    "DATE": r"DATE$",
    "TIMESTAMP": r"TIMESTAMP|DATETIME",
    "VARCHAR": r"VARCHAR|CHAR|STRING|TEXT|BPCHAR",
}
_ALIKE["BIGINT"] = _ALIKE["INTEGER"]

Columns = Mapping[str, Mapping[str, str]]  # the type of each column of each table


@dataclass(frozen=True)
class Kind:
    """One of the dashboard's check types: its level, its place in Kahn's scheme, and its severity."""

    name: str
    level: str
    context: str
    category: str
    subcategory: str
    severity: str


@dataclass(frozen=True)
class QualityCheck:
    """One check of a CDM: values are compared with ``bound``, and ``threshold`` percent of them may be wrong."""

    kind: Kind
    table: str
    field: str = ""
    threshold: float = 0
    bound: str = ""
    concept_id: str = ""
    unit_concept_id: int | None = None

    @property
    def column(self) -> str:
        """The column that counts the violations; that with ``_of``, or else ``rows``, counts the rows looked at."""
        return f"{self.kind.name}__{self.field or self.table}".lower()


@cache
def kinds() -> Mapping[str, Kind]:
    """The 27 check types by name."""
    return {name: Kind(name, *words.replace("-", "").split(" ")) for name, words in _published()["checks"].items()}


@cache
def checks() -> tuple[QualityCheck, ...]:
    """All checks of a CDM 5.4.

    >>> len(checks())
    2774
    """
    return (*_of_tables(), *_of_fields(), *_of_concepts())


@cache
def all_columns() -> Columns:
    """The columns of a complete CDM 5.4."""
    return {table: {field.name: field.type for field in fields(table)} for table in tables()}


def fits(table: str, field: str, columns: Columns) -> bool:
    """Whether ``columns`` has a field, in the CDM's type or in an equivalent one."""
    kind = all_columns()[table].get(field)
    return kind is not None and bool(re.match(_ALIKE[kind], columns.get(table, {}).get(field, "").upper()))


@cache
def _published() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("dqd54.json").read_text(encoding="utf-8"))
    return content


def _of_tables() -> Iterator[QualityCheck]:
    for table in tables():
        yield QualityCheck(kinds()["cdmTable"], table)
    for name, thresholds in _published()["tables"].items():
        for table, threshold in thresholds.items():
            yield QualityCheck(kinds()[name], table, threshold=float(threshold))


def _of_fields() -> Iterator[QualityCheck]:
    for table in tables():
        for field in fields(table):
            yield QualityCheck(kinds()["cdmField"], table, field.name)
            yield QualityCheck(kinds()["cdmDatatype"], table, field.name)
            most = 0 if field.required else 100
            yield QualityCheck(kinds()["measureValueCompleteness"], table, field.name, most)
            if field.required:
                yield QualityCheck(kinds()["isRequired"], table, field.name)
            if field.key:
                yield QualityCheck(kinds()["isPrimaryKey"], table, field.name)
            if field.table:
                yield QualityCheck(kinds()["isForeignKey"], table, field.name, bound=field.table)
    for name, asked in _published()["fields"].items():
        for table, words in asked.items():
            for part in words.split("; "):
                field_name, threshold, *bound = part.split(" ", 2)
                yield QualityCheck(kinds()[name], table, field_name, float(threshold), *bound)


def _of_concepts() -> Iterator[QualityCheck]:
    published = _published()["concepts"]
    for name in ("plausibleGender", "plausibleGenderUseDescendants"):
        for words, tables_of in published[name].items():
            threshold, sex = words.split()
            for table, concepts in tables_of.items():
                field = table.removesuffix("_occurrence") + "_concept_id"
                for concept in concepts.split():
                    yield QualityCheck(kinds()[name], table, field, float(threshold), sex, concept)
    of = ("measurement", "measurement_concept_id")
    for units, concepts in published["plausibleUnitConceptIds"].items():
        for concept in concepts.split():
            yield QualityCheck(kinds()["plausibleUnitConceptIds"], *of, 5, units, concept)
    for words, bounds in published["plausibleValue"].items():
        concept, unit = words.split()
        for name, bound in zip(("plausibleValueLow", "plausibleValueHigh"), bounds.split(), strict=True):
            kind = Kind(name, "concept", *list(vars(kinds()[name]).values())[2:])
            yield QualityCheck(kind, "observation", "observation_concept_id", 5, bound, concept, int(unit))

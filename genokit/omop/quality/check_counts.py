"""The SQL that counts what is wrong with a CDM: one statement for each table.

The dashboard runs a statement for each check. Here a table is read in one pass for its rows, one for its codes (which
are counted before they are joined to the vocabulary) and one for its primary key. The pieces are in ``sql``; the
statements are portable, and return one row of counts and no value of any person. Each piece is translated for an engine
before the statement is assembled: parsing the whole would take seconds.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path

from sqlglot import exp

from genokit.omop.etl.macros import expand, parse
from genokit.omop.fields import fields, tables
from genokit.omop.quality.checks import Columns, QualityCheck, all_columns, checks, fits

FOLDER = Path(__file__).parent / "sql"

# MIMIC-III's dates lie in the 22nd century, so no date of today tells which are too late.
SHIFTED = datetime.date(2220, 1, 1)

# In these tables every row is about two concepts of its own: counting first would save nothing.
_PAIRS = ("concept_relationship", "concept_ancestor", "concept_synonym")

_OF_CODES = ("fkDomain", "fkClass", "isStandardValidConcept", "sourceValueCompleteness")


def statements(
    columns: Columns | None = None, *, until: datetime.date | None = None, dialect: str | None = None
) -> dict[str, str]:
    """The SQL of the report: "report.quality_person" and so on, each with a SELECT of counts from ``cdm``.

    ``columns`` are those that the CDM has (default: all); missing ones, or ones of a wrong type, are not read.
    ``until`` is the last plausible date (default: tomorrow, as in the dashboard; MIMIC's shifted dates need SHIFTED).
    ``dialect`` is the engine whose SQL is returned (default: portable SQL).
    """
    last = until or datetime.date.today() + datetime.timedelta(days=1)
    counting = _Counting(all_columns() if columns is None else columns, last, dialect)
    made = {table: counting.of_table(table) for table in tables() if counting.columns.get(table)}
    made |= {"persons": counting.persons(), "genders": counting.genders(), "units": counting.units()}
    return {f"report.quality_{name}": sql for name, sql in made.items() if sql}


def reads(sql: str) -> frozenset[str]:
    """The tables that a statement reads, each with its schema."""
    return frozenset(re.findall(r"\bcdm\.\w+", sql))


@dataclass(frozen=True, eq=False)
class _Template:
    """A file of ``sql`` as one engine's SQL: the whole, and its columns and joins by name."""

    tree: exp.Select
    dialect: str | None

    @cached_property
    def whole(self) -> str:
        return self._translated(self.tree.sql(dialect="duckdb", comments=False))

    @property
    def source(self) -> str:
        """What it reads before anything is joined."""
        return str(self.tree.args["from_"].this.sql(dialect="duckdb"))

    @cached_property
    def columns(self) -> dict[str, str]:
        return {one.alias: self.piece(one.unalias().sql(dialect="duckdb")) for one in self.tree.selects}

    @cached_property
    def fields(self) -> dict[str, list[exp.Column]]:
        """What each column is computed from."""
        return {one.alias: list(one.find_all(exp.Column)) for one in self.tree.selects}

    @cached_property
    def joins(self) -> dict[str, str]:
        start = "SELECT 1 AS one FROM cdm.one AS one "
        joins = {join.alias_or_name: join.sql(dialect="duckdb").strip() for join in self.tree.args["joins"]}
        return {alias: self._translated(start + sql).removeprefix(start) for alias, sql in joins.items()}

    def joined(self, alias: str) -> tuple[str, set[str]]:
        """The table that is joined by an alias, and what is read of it."""
        [join] = (join for join in self.tree.args["joins"] if join.alias_or_name == alias)
        select = join.find(exp.Select)
        return select.args["from_"].name, {column.name for column in select.find_all(exp.Column)}

    def piece(self, sql: str) -> str:
        """An expression in the engine's SQL."""
        return self._translated(f"SELECT {sql} AS piece").removeprefix("SELECT ").removesuffix(" AS piece")

    def _translated(self, sql: str) -> str:
        return expand(sql, self.dialect) if self.dialect else sql


@cache
def _template(name: str, dialect: str | None) -> _Template:
    tree = parse((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
    assert isinstance(tree, exp.Select)
    return _Template(tree, dialect)


def _filled(piece: str, **names: str) -> str:
    """A piece with names in place of its own; ``checked.bound`` and the like stand for whole columns."""
    piece = re.sub(r"\b\w+\.(bound|label|held)\b", r"\1", piece)
    return re.sub(r"\b\w+\b", lambda word: names.get(word[0], word[0]), piece)


@dataclass
class _Pass:
    """One pass over a table: the columns that it counts, and what it reads."""

    source: str
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def sql(self) -> str:
        counted = ",\n  ".join(f"{count} AS {name}" for name, count in self.columns.items())
        return f"SELECT\n  {counted}\nFROM {self.source}"

    def add(self, check: QualityCheck, template: _Template, name: str, **names: str) -> None:
        """Count a check by a column of a template and, where it has one, by the column of what it is counted among."""
        for ending in ("", "_of"):
            if name + ending in template.columns:
                self.columns[check.column + ending] = _filled(template.columns[name + ending], **names)


@dataclass(frozen=True)
class _Counting:
    """The columns that a CDM has, the last plausible date, and the engine whose SQL is made."""

    columns: Columns
    last: datetime.date
    dialect: str | None

    def of_table(self, table: str) -> str:
        """One statement of one row: the counts of a table's rows, of its codes and of its primary key."""
        of_fields = [check for check in checks() if check.table == table and check.kind.level == "field"]
        asked = [check for check in of_fields if self._has(table, check.field)]
        passes = [self._rows(table, asked), *self._codes(table, asked), *self._keys(asked)]
        if table == "observation_period" and self._has(table, *all_columns()[table]):
            passes.append(self._whole("periods", "other"))
        ill = ("person_id", "condition_concept_id")
        if table == "condition_era" and self._has(table, *ill) and self._has("condition_occurrence", *ill):
            passes.append(self._whole("eras", "era"))
        names = {name: f"part{number}.{name}" for number, part in enumerate(passes) for name in part.columns}
        sources = "\nCROSS JOIN ".join(f"(\n{part.sql}\n) AS part{number}" for number, part in enumerate(passes))
        return _Pass(sources, names).sql

    def persons(self) -> str:
        """One statement for all tables: the number of persons without a row in each."""
        if not self._has("person", "person_id"):
            return ""
        template = _template("persons", self.dialect)
        part = _Pass(template.source, {"rows": template.columns["rows"]})
        for check in checks():
            if check.kind.name == "measurePersonCompleteness" and self._has(check.table, "person_id"):
                part.add(check, template, check.kind.name, checked=check.table)
                part.source += "\n" + _filled(template.joins["checked"], checked=check.table)
        return part.sql

    def genders(self) -> str:
        """How often each concept that belongs to one sex is recorded for each sex."""
        found = []
        asked = [check for check in checks() if check.kind.name.startswith("plausibleGender")]
        for table, name in dict.fromkeys((check.table, check.field) for check in asked):
            if not (self._has(table, name, "person_id") and self._has("person", "person_id", "gender_concept_id")):
                continue
            filled = partial(_filled, checked=table, field=name, label=f"'{table}'")
            groups = [check.concept_id for check in asked if check.table == table and "Descendants" in check.kind.name]
            alone = [check.concept_id for check in asked if check.table == table and check.concept_id not in groups]
            found.append(filled(_template("genders", self.dialect).whole, held=_ids(alone)))
            if self._has("concept_ancestor", "ancestor_concept_id", "descendant_concept_id"):
                text = _template("families", self.dialect).whole
                found += [filled(text, bound=f"'{group}'", held=_ids(group.split(","))) for group in groups]
        return "\nUNION ALL\n".join(found)

    def units(self) -> str:
        """The units in which values are recorded, and how many values are out of bounds."""
        found = []
        asked = [check for check in checks() if check.kind.name.startswith(("plausibleUnit", "plausibleValue"))]
        asked = [check for check in asked if check.kind.level == "concept"]
        for table, name in dict.fromkeys((check.table, check.field) for check in asked):
            if not self._has(table, name, "unit_concept_id", "value_as_number"):
                continue
            here = [check for check in asked if check.table == table]
            names = {"checked": table, "field": name, "label": f"'{table}'"}
            for side, kind, sign in (("lower", "plausibleValueLow", "<"), ("higher", "plausibleValueHigh", ">")):
                wrong = [
                    f"({table}.{name} = {check.concept_id} AND {table}.unit_concept_id = {check.unit_concept_id}"
                    f" AND {table}.value_as_number {sign} {check.bound})"
                    for check in here
                    if check.kind.name == kind
                ]
                names[side] = " OR ".join(wrong) or "1 = 0"
            held = _ids(one.concept_id for one in here)
            found.append(_filled(_template("units", self.dialect).whole, **names, held=held))
        return "\nUNION ALL\n".join(found)

    def _rows(self, table: str, asked: list[QualityCheck]) -> _Pass:
        template = _template("rows", self.dialect)
        on = {"person": "person_id", "death": "person_id", "visit": "visit_occurrence_id"}
        joinable = {alias for alias, key in on.items() if self._has(table, key) and self._can_join(template, alias)}
        part, joins = _Pass("", {"rows": template.columns["rows"]}), dict[str, str]()
        for name in filter(self.columns[table].__contains__, all_columns()[table]):
            part.columns[f"filled__{name}"] = _filled(template.columns["filled"], field=self._name(name))
        for check in asked:
            name = check.kind.name + ("_birth" if check.bound == "birth" else "_day" if _is_of_dates(check) else "")
            if name not in template.columns or _is_of_codes(check):
                continue
            names = {"field": self._name(check.field), "other": check.bound or check.field}
            if name == "isForeignKey":
                names |= {"other": _key(check.bound), "target": check.bound, "held": f"{check.field}_held"}
                if not self._has(check.bound, names["other"]):
                    continue
                joins[names["held"]] = _filled(template.joins["held"], **names)
            elif name.startswith("plausibleValue"):
                names["bound"] = self._bound(check)
            else:
                used = {one.table for one in template.fields[name]} - {"checked"}
                if not used <= joinable or not self._has_other(template, name, check):
                    continue
                joins |= {alias: template.joins[alias] for alias in sorted(used)}
            part.add(check, template, name, **names)
        part.source = "\n".join([f"cdm.{table} AS checked", *joins.values()])
        return part

    def _codes(self, table: str, asked: list[QualityCheck]) -> list[_Pass]:
        template, part = _template("codes", self.dialect), _Pass("")
        joins, grouped = dict[str, str](), dict[str, None]()
        vocabulary = ("concept_id", "domain_id", "concept_class_id", "standard_concept", "invalid_reason")
        readable = self._has("concept", *vocabulary)
        for check in filter(_is_of_codes, asked):
            name, held = check.kind.name, f"{check.field}_held"
            joined = "held" in {one.table for one in template.fields[name]}
            if not self._has_other(template, name, check) or (joined and not readable):
                continue
            names = {"field": check.field, "other": check.bound, "held": held, "bound": f"'{check.bound}'"}
            if joined:
                joins[held] = _filled(template.joins["held"], **names)
            grouped |= dict.fromkeys([check.field] + [check.bound] * (name == "sourceValueCompleteness"))
            part.add(check, template, name, **names)
        by = ", ".join(grouped)
        coded = f"(SELECT {by}, COUNT(*) AS n FROM cdm.{table} GROUP BY {by}) AS coded"
        part.source = "\n".join([coded, *joins.values()])
        return [part] if part.columns else []

    def _keys(self, asked: list[QualityCheck]) -> list[_Pass]:
        template = _template("keys", self.dialect)
        count = template.columns["isPrimaryKey"]
        return [
            _Pass(_filled(template.source, field=check.field, checked=check.table), {check.column: count})
            for check in asked
            if check.kind.name == "isPrimaryKey"
        ]

    def _whole(self, name: str, alias: str) -> _Pass:
        template = _template(name, self.dialect)
        return _Pass(f"{template.source} {template.joins[alias]}", template.columns)

    def _has(self, table: str, *names: str) -> bool:
        return all(fits(table, name, self.columns) for name in names)

    def _can_join(self, template: _Template, alias: str) -> bool:
        """Whether the CDM has all that a joined part of a template reads of it, in types that fit."""
        table, names = template.joined(alias)
        return self._has(table, *names & all_columns()[table].keys())

    def _has_other(self, template: _Template, column: str, check: QualityCheck) -> bool:
        """Whether the CDM has the other field, where a column compares with one."""
        compares = any(one.name == "other" for one in template.fields[column])
        return not compares or self._has(check.table, check.bound or check.field)

    def _name(self, word: str) -> str:
        # The CDM calls a field of NOTE_NLP offset, which is a word of SQL's own.
        return exp.to_identifier(word, quoted=word == "offset").sql(dialect=self.dialect or "duckdb")

    def _bound(self, check: QualityCheck) -> str:
        """The bound of a field's values, a number or a date: engines differ in what they compare."""
        bound = {"tomorrow": self.last.isoformat(), "next_year": str(self.last.year + 1)}.get(check.bound, check.bound)
        return _template("rows", self.dialect).piece(f"CAST('{bound}' AS DATE)") if _is_of_dates(check) else bound


def _is_of_dates(check: QualityCheck) -> bool:
    """Whether values are compared with a date, as are times."""
    kind = all_columns()[check.table][check.field]
    return check.kind.name.startswith("plausibleValue") and kind in ("DATE", "TIMESTAMP")


def _is_of_codes(check: QualityCheck) -> bool:
    """Whether a check is about codes, which are counted first."""
    if check.kind.name == "isForeignKey":
        return check.bound == "concept" and check.table not in _PAIRS
    return check.kind.name in _OF_CODES


def _key(table: str) -> str:
    return next(one.name for one in fields(table) if one.key)


def _ids(concepts: Iterable[str]) -> str:
    return ", ".join(str(one) for one in sorted({int(concept) for concept in concepts}))

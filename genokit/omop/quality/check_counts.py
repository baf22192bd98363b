"""The SQL that counts what is wrong with a CDM: everything that is asked of a table in one statement.

The dashboard runs a statement a check. Here a table is read in one pass for its rows, one for its codes (which are
counted before they meet the vocabulary) and one for its key. The pieces are in ``sql/quality``; what is made of them
is portable, and gives one row of counts and no value of any person. An engine's own text is made of pieces that were
translated before: a parser needs seconds for what is here put together.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sqlglot import exp

from genokit.omop.etl.macros import expand, parse
from genokit.omop.fields import fields, tables
from genokit.omop.quality.checks import Check, There, checks, complete, fits

FOLDER = Path(__file__).parent / "sql"

# MIMIC-III's dates lie in the 22nd century, so that no day of ours tells which are too late.
SHIFTED = datetime.date(2220, 1, 1)

# In these every row is about two concepts of its own: counting first would save nothing.
_PAIRS = ("concept_relationship", "concept_ancestor", "concept_synonym")

_CODES = ("fkDomain", "fkClass", "isStandardValidConcept", "sourceValueCompleteness")


def statements(
    there: There | None = None, *, until: datetime.date | None = None, dialect: str | None = None
) -> dict[str, str]:
    """The SQL of the report: "report.quality_person" and so on to a SELECT over cdm.* that counts.

    ``there`` is what the CDM has (default: all of it); what is missing or of a wrong type isn't read. ``until`` is the
    last day that anything may have (default: tomorrow, as the dashboard has it; MIMIC's shifted dates need SHIFTED).
    ``dialect`` is the engine whose own SQL it is to be (default: portable SQL).
    """
    has = complete() if there is None else there
    spelling = _Spelling(dialect, until or datetime.date.today() + datetime.timedelta(days=1))
    made: dict[str, str | None] = {table: _of_table(table, has, spelling) for table in tables() if has.get(table)}
    made |= {
        name: make(has, spelling) for name, make in (("persons", _persons), ("genders", _genders), ("units", _units))
    }
    return {f"report.quality_{name}": sql for name, sql in made.items() if sql}


def reads(sql: str) -> frozenset[str]:
    """The tables that a statement reads, each with its schema."""
    return frozenset(re.findall(r"\bcdm\.\w+", sql))


@dataclass(frozen=True)
class _Spelling:
    """How an engine writes the pieces, and the last day that anything may have."""

    dialect: str | None
    last: datetime.date

    def column(self, template: str, name: str) -> str:
        return _column(template, name, self.dialect)

    def join(self, template: str, alias: str) -> str:
        return _join(template, alias, self.dialect)

    def name(self, word: str) -> str:
        # The CDM calls a field of NOTE_NLP offset, which is a word of SQL's own.
        return exp.to_identifier(word, quoted=word == "offset").sql(dialect=self.dialect or "duckdb")

    def bound(self, check: Check) -> str:
        """What a field is held against, a number or a day: engines differ in what they compare."""
        bound = {"tomorrow": self.last.isoformat(), "next_year": str(self.last.year + 1)}.get(check.bound, check.bound)
        return _spelled(f"CAST('{bound}' AS DATE)", self.dialect) if _is_of_days(check) else bound


@cache
def _template(name: str) -> exp.Select:
    tree = parse((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
    assert isinstance(tree, exp.Select)
    return tree


@cache
def _columns(template: str) -> Mapping[str, exp.Expr]:
    """What each column of a template counts."""
    return {column.alias: column.unalias() for column in _template(template).selects}


def _joins(template: str) -> Mapping[str, exp.Expr]:
    return {join.alias_or_name: join for join in _template(template).args["joins"]}


@cache
def _spelled(piece: str, dialect: str | None) -> str:
    """An expression of portable SQL as an engine's own."""
    sql = f"SELECT {piece} AS piece"
    return (expand(sql, dialect) if dialect else sql).removeprefix("SELECT ").removesuffix(" AS piece")


@cache
def _column(template: str, name: str, dialect: str | None) -> str:
    return _spelled(_columns(template)[name].sql(dialect="duckdb"), dialect)


@cache
def _join(template: str, alias: str, dialect: str | None) -> str:
    start = "SELECT 1 AS one FROM cdm.one AS one "
    sql = start + _joins(template)[alias].sql(dialect="duckdb").strip()
    return (expand(sql, dialect) if dialect else sql).removeprefix(start)


def _filled(piece: str, **names: str) -> str:
    """A piece with names in the place of its own; ``checked.bound`` and the like stand for whole columns."""
    piece = re.sub(r"\b\w+\.(bound|label|held)\b", r"\1", piece)
    return re.sub(r"\b\w+\b", lambda word: names.get(word[0], word[0]), piece)


@cache
def _aliases(template: str, column: str) -> frozenset[str]:
    return frozenset(one.table for one in _columns(template)[column].find_all(exp.Column))


def _has(there: There, table: str, names: Iterable[str]) -> bool:
    return all(fits(table, name, there) for name in names)


def _can_join(alias: str, there: There) -> bool:
    """Whether all that a joined part of a template reads of the CDM is there, and of a type that fits."""
    select = _joins("rows")[alias].find(exp.Select)
    assert select is not None
    table = select.args["from_"].name
    return _has(there, table, {column.name for column in select.find_all(exp.Column)} & complete()[table].keys())


def _fits_other(template: str, column: str, check: Check, there: There) -> bool:
    """Whether the other field is there, if a piece compares with one."""
    compares = any(one.name == "other" for one in _columns(template)[column].find_all(exp.Column))
    return not compares or fits(check.table, check.bound or check.field, there)


def _key(table: str) -> str:
    return next(one.name for one in fields(table) if one.key)


@dataclass
class _Part:
    """One pass over a table: the columns that it counts, and from what."""

    source: str
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def sql(self) -> str:
        counted = ",\n  ".join(f"{count} AS {name}" for name, count in self.columns.items())
        return f"SELECT\n  {counted}\nFROM {self.source}"


def _of_table(table: str, there: There, spelling: _Spelling) -> str:
    """One statement of one row: what is counted in a table's rows, in its codes and of its key."""
    of_fields = [check for check in checks() if check.table == table and check.kind.level == "field"]
    asked = [check for check in of_fields if fits(table, check.field, there)]
    parts = [_rows(table, asked, there, spelling), *_codes(table, asked, there, spelling), *_keys(asked, spelling)]
    if table == "observation_period" and _has(there, table, complete()[table]):
        source = "cdm.observation_period AS period " + spelling.join("periods", "other")
        parts.append(_Part(source, {name: spelling.column("periods", name) for name in _columns("periods")}))
    ill = ("person_id", "condition_concept_id")
    if table == "condition_era" and _has(there, table, ill) and _has(there, "condition_occurrence", ill):
        source = _template("eras").args["from_"].this.sql(dialect="duckdb") + " " + spelling.join("eras", "era")
        parts.append(_Part(source, {name: spelling.column("eras", name) for name in _columns("eras")}))
    names = {name: f"part{number}.{name}" for number, part in enumerate(parts) for name in part.columns}
    sources = "\nCROSS JOIN ".join(f"(\n{part.sql}\n) AS part{number}" for number, part in enumerate(parts))
    return _Part(sources, names).sql


def _rows(table: str, asked: list[Check], there: There, spelling: _Spelling) -> _Part:
    on = {"person": "person_id", "death": "person_id", "visit": "visit_occurrence_id"}
    joinable = {alias for alias, key in on.items() if fits(table, key, there) and _can_join(alias, there)}
    filled = spelling.column("rows", "filled")
    columns = {"rows": spelling.column("rows", "rows")}
    columns |= {
        f"filled__{name}": _filled(filled, field=spelling.name(name))
        for name in complete()[table]
        if name in there[table]
    }
    joins: dict[str, str] = {}
    for check in asked:
        name = check.kind.name + ("_birth" if check.bound == "birth" else "_day" if _is_of_days(check) else "")
        if name not in _columns("rows") or _is_of_codes(check):
            continue
        names = {"field": spelling.name(check.field), "other": check.bound or check.field}
        if name == "isForeignKey":
            names |= {"other": _key(check.bound), "target": check.bound, "held": f"{check.field}_held"}
            if not fits(check.bound, names["other"], there):
                continue
            joins[names["held"]] = _filled(spelling.join("rows", "held"), **names)
        elif name.startswith("plausibleValue"):
            names["bound"] = spelling.bound(check)
        elif not (used := _aliases("rows", name) - {"checked"}) <= joinable or not _fits_other(
            "rows", name, check, there
        ):
            continue
        else:
            joins |= {alias: spelling.join("rows", alias) for alias in sorted(used)}
        columns[check.column] = _filled(spelling.column("rows", name), **names)
        if f"{name}_of" in _columns("rows"):
            columns[f"{check.column}_of"] = _filled(spelling.column("rows", f"{name}_of"), **names)
    return _Part("\n".join([f"cdm.{table} AS checked", *joins.values()]), columns)


def _codes(table: str, asked: list[Check], there: There, spelling: _Spelling) -> list[_Part]:
    columns, joins, grouped = dict[str, str](), dict[str, str](), dict[str, None]()
    readable = _has(
        there, "concept", ("concept_id", "domain_id", "concept_class_id", "standard_concept", "invalid_reason")
    )
    for check in filter(_is_of_codes, asked):
        name, held = check.kind.name, f"{check.field}_held"
        joined = "held" in _aliases("codes", name)
        if not _fits_other("codes", name, check, there) or (joined and not readable):
            continue
        names = {"field": check.field, "other": check.bound, "held": held, "bound": f"'{check.bound}'"}
        if joined:
            joins[held] = _filled(spelling.join("codes", "held"), **names)
        grouped |= dict.fromkeys([check.field] + [check.bound] * (name == "sourceValueCompleteness"))
        columns[check.column] = _filled(spelling.column("codes", name), **names)
        if f"{name}_of" in _columns("codes"):
            columns[f"{check.column}_of"] = _filled(spelling.column("codes", f"{name}_of"), **names)
    by = ", ".join(grouped)
    coded = f"(SELECT {by}, COUNT(*) AS n FROM cdm.{table} GROUP BY {by}) AS coded"
    return [_Part("\n".join([coded, *joins.values()]), columns)] if columns else []


def _keys(asked: list[Check], spelling: _Spelling) -> list[_Part]:
    source = _template("keys").args["from_"].this.sql(dialect="duckdb")
    return [
        _Part(
            _filled(source, field=check.field, checked=check.table),
            {check.column: spelling.column("keys", "isPrimaryKey")},
        )
        for check in asked
        if check.kind.name == "isPrimaryKey"
    ]


def _is_of_days(check: Check) -> bool:
    """Whether values are held against a day, as which times of day are compared, too."""
    return check.kind.name.startswith("plausibleValue") and complete()[check.table][check.field] in (
        "DATE",
        "TIMESTAMP",
    )


def _is_of_codes(check: Check) -> bool:
    """Whether a check is about codes, which are counted first."""
    if check.kind.name == "isForeignKey":
        return check.bound == "concept" and check.table not in _PAIRS
    return check.kind.name in _CODES


def _persons(there: There, spelling: _Spelling) -> str | None:
    """One statement for all tables: of how many persons each says nothing."""
    if not fits("person", "person_id", there):
        return None
    source = _template("persons").args["from_"].this.sql(dialect="duckdb")
    part = _Part(source, {"rows": spelling.column("persons", "rows")})
    for check in checks():
        if check.kind.name == "measurePersonCompleteness" and fits(check.table, "person_id", there):
            count = spelling.column("persons", check.kind.name)
            part.columns[check.column] = _filled(count, checked=check.table)
            part.source += "\n" + _filled(spelling.join("persons", "checked"), checked=check.table)
    return part.sql


def _genders(there: There, spelling: _Spelling) -> str | None:
    """How often each concept that belongs to one sex is recorded of whom."""
    found = []
    asked = [check for check in checks() if check.kind.name.startswith("plausibleGender")]
    for table, name in dict.fromkeys((check.table, check.field) for check in asked):
        if not (_has(there, table, (name, "person_id")) and _has(there, "person", ("person_id", "gender_concept_id"))):
            continue
        names = {"checked": table, "field": name, "label": f"'{table}'"}
        groups = [check.concept_id for check in asked if check.table == table and "Descendants" in check.kind.name]
        alone = [check.concept_id for check in asked if check.table == table and check.concept_id not in groups]
        found.append(_filled(_whole("genders", spelling.dialect), **names, held=_ids(alone)))
        if _has(there, "concept_ancestor", ("ancestor_concept_id", "descendant_concept_id")):
            text = _whole("families", spelling.dialect)
            found += [_filled(text, **names, bound=f"'{group}'", held=_ids(group.split(","))) for group in groups]
    return "\nUNION ALL\n".join(found) or None


def _units(there: There, spelling: _Spelling) -> str | None:
    """In which units values come, and how many are out of bounds."""
    found = []
    asked = [check for check in checks() if check.kind.name.startswith(("plausibleUnit", "plausibleValue"))]
    asked = [check for check in asked if check.kind.level == "concept"]
    for table, name in dict.fromkeys((check.table, check.field) for check in asked):
        if not _has(there, table, (name, "unit_concept_id", "value_as_number")):
            continue
        here = [check for check in asked if check.table == table]
        wrong = {
            side: " OR ".join(
                f"({table}.{name} = {check.concept_id} AND {table}.unit_concept_id = {check.unit_concept_id}"
                f" AND {table}.value_as_number {sign} {check.bound})"
                for check in here
                if check.kind.name == kind
            )
            for side, kind, sign in (("lower", "plausibleValueLow", "<"), ("higher", "plausibleValueHigh", ">"))
        }
        names = {"checked": table, "field": name, "label": f"'{table}'", "held": _ids(one.concept_id for one in here)}
        found.append(
            _filled(_whole("units", spelling.dialect), **names, **{side: sql or "1 = 0" for side, sql in wrong.items()})
        )
    return "\nUNION ALL\n".join(found) or None


@cache
def _whole(template: str, dialect: str | None) -> str:
    sql = _template(template).sql(dialect="duckdb", comments=False)
    return expand(sql, dialect) if dialect else sql


def _ids(concepts: Iterable[str]) -> str:
    return ", ".join(str(one) for one in sorted({int(concept) for concept in concepts}))

"""The SQL that counts what is wrong with a CDM: everything that is asked of a table in one statement.

The dashboard runs a statement a check. Here a table is read in one pass for its rows, one for its codes (which are
counted before they meet the vocabulary) and one for its key. The pieces are in ``sql/quality``; what is made of them
is portable, and gives one row of counts and no value of any person.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from sqlglot import exp

from genokit.omop.checks import Check, There, checks, complete, fits
from genokit.omop.fields import fields, tables
from genokit.omop.macros import parse

FOLDER = Path(__file__).parent / "sql" / "quality"

# MIMIC-III's dates lie in the 22nd century, so that no day of ours tells which are too late.
SHIFTED = datetime.date(2220, 1, 1)

# In these every row is about two concepts of its own: counting first would save nothing.
_PAIRS = ("concept_relationship", "concept_ancestor", "concept_synonym")

_CODES = ("fkDomain", "fkClass", "isStandardValidConcept", "standardConceptRecordCompleteness",
          "sourceConceptRecordCompleteness", "sourceValueCompleteness")  # fmt: skip
_CONCEPT = ("concept_id", "domain_id", "concept_class_id", "standard_concept", "invalid_reason")


def statements(there: There | None = None, *, until: datetime.date | None = None) -> dict[str, str]:
    """The portable SQL of the report: "report.quality_person" and so on to a SELECT over cdm.* that counts.

    ``there`` is what the CDM has (default: all of it); what is missing or of a wrong type isn't read. ``until`` is the
    last day that anything may have (default: tomorrow, as the dashboard has it; MIMIC's shifted dates need SHIFTED).
    """
    has = complete() if there is None else there
    last = until or datetime.date.today() + datetime.timedelta(days=1)
    return dict(_statements(tuple((table, tuple(has[table].items())) for table in has), last))


@lru_cache(maxsize=8)
def _statements(held: tuple[tuple[str, tuple[tuple[str, str], ...]], ...], last: datetime.date) -> Mapping[str, str]:
    there = {table: dict(columns) for table, columns in held}
    made: dict[str, exp.Query | None] = {table: _of_table(table, there, last) for table in tables() if there.get(table)}
    made |= {"persons": _of_persons(there), "genders": _genders(there), "units": _units(there)}
    return {f"report.quality_{name}": query.sql(dialect="duckdb", pretty=True) for name, query in made.items() if query}


@cache
def _template(name: str) -> exp.Select:
    tree = parse((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
    assert isinstance(tree, exp.Select)
    return tree


@cache
def _counts(name: str) -> Mapping[str, exp.Expr]:
    """What each column of a template counts."""
    return {column.alias: column.unalias() for column in _template(name).selects}


def _join(name: str, alias: str) -> exp.Join:
    [found] = [join for join in _template(name).args["joins"] if join.alias_or_name == alias]
    assert isinstance(found, exp.Join)
    return found


def _filled(node: exp.Expr, names: Mapping[str, str], **values: exp.Expr) -> exp.Expr:
    """A piece of a template with names in the place of its own, and values in the place of columns."""

    def fill(part: exp.Expr) -> exp.Expr:
        if isinstance(part, exp.Column) and part.name in values:
            return values[part.name].copy()
        if isinstance(part, exp.Identifier) and part.name in names:
            # The CDM calls a field of NOTE_NLP offset, which is a word of SQL's own.
            return exp.to_identifier(names[part.name], quoted=names[part.name] == "offset")
        return part

    return node.transform(fill)


def _aliases(tree: exp.Expr) -> set[str]:
    return {column.table for column in tree.find_all(exp.Column)}


def _can_read(tree: exp.Expr, there: There) -> bool:
    """Whether all that a piece of SQL reads of the CDM is there, and of a type that fits."""
    for select in tree.find_all(exp.Select):
        source = select.args["from_"].this
        if isinstance(source, exp.Table):
            names = {field.name for field in fields(source.name)}
            read = names & {column.name for column in select.find_all(exp.Column)}
            if not all(fits(source.name, name, there) for name in read):
                return False
    return True


def _fits_other(count: exp.Expr, check: Check, there: There) -> bool:
    """Whether the other field is there, if a piece compares with one."""
    compares = any(column.name == "other" for column in count.find_all(exp.Column))
    return not compares or fits(check.table, check.bound, there)


def _key(table: str) -> str:
    return next(field.name for field in fields(table) if field.key)


def _of_table(table: str, there: There, last: datetime.date) -> exp.Select:
    """One statement of one row: what is counted in a table's rows, in its codes and of its key."""
    of_fields = [check for check in checks() if check.table == table and check.kind.level == "field"]
    asked = [check for check in of_fields if fits(table, check.field, there)]
    parts = [_rows(table, asked, there, last), *_codes(table, asked, there), *_keys(asked)]
    if table == "observation_period" and _can_read(_template("periods"), there):
        parts.append(_template("periods").copy())
    columns = [
        exp.column(column.alias, f"part{number}") for number, part in enumerate(parts) for column in part.selects
    ]
    whole = exp.select(*columns, copy=False).from_(parts[0].subquery("part0", copy=False), copy=False)
    for number, part in enumerate(parts[1:], 1):
        whole.join(part.subquery(f"part{number}", copy=False), join_type="cross", copy=False)
    return whole


def _rows(table: str, asked: list[Check], there: There, last: datetime.date) -> exp.Select:
    on = {"person": "person_id", "death": "person_id", "visit": "visit_occurrence_id"}
    known = {alias: _join("rows", alias) for alias, key in on.items() if fits(table, key, there)}
    joins: dict[str, exp.Expr] = {alias: join for alias, join in known.items() if _can_read(join, there)}
    counts = _counts("rows")
    columns = [exp.alias_(counts["rows"], "rows")] + [
        exp.alias_(_filled(counts["filled"], {"field": name}), f"filled__{name}")
        for name in complete()[table]
        if name in there[table]
    ]
    for check in asked:
        part = check.kind.name + ("_birth" if check.bound == "birth" else "")
        names = {"field": check.field, "other": check.bound}
        values = {"bound": _value(check, last)} if part.startswith("plausibleValue") else {}
        if part not in counts or _is_of_codes(check):
            continue
        if part == "isForeignKey":
            names |= {"other": _key(check.bound), "target": check.bound, "held": f"{check.field}_held"}
            if not fits(check.bound, names["other"], there):
                continue
            joins[names["held"]] = _filled(_join("rows", "held"), names)
        elif not _aliases(counts[part]) <= {"checked", *joins} or not _fits_other(counts[part], check, there):
            continue
        columns.append(exp.alias_(_filled(counts[part], names, **values), check.column))
        if f"{part}_of" in counts:
            columns.append(exp.alias_(_filled(counts[f"{part}_of"], names), f"{check.column}_of"))
    select = exp.select(*columns, copy=False).from_(f"cdm.{table} AS checked", copy=False)
    used = set().union(*map(_aliases, columns))
    select.set("joins", [join for alias, join in joins.items() if alias in used])
    return select


def _codes(table: str, asked: list[Check], there: There) -> list[exp.Select]:
    asked = [check for check in asked if _is_of_codes(check)]
    counts, columns, joined, named = _counts("codes"), [], dict[str, None](), dict[str, None]()
    for check in asked:
        count = counts[check.kind.name]
        names = {"field": check.field, "other": check.bound, "held": f"{check.field}_held"}
        if not _fits_other(count, check, there):
            continue
        if check.kind.name == "sourceValueCompleteness":
            named[check.bound] = None
        if "held" in _aliases(count):
            if not all(fits("concept", name, there) for name in _CONCEPT):
                continue
            joined[check.field] = None
        named[check.field] = None
        columns.append(exp.alias_(_filled(count, names, bound=exp.Literal.string(check.bound)), check.column))
        if f"{check.kind.name}_of" in counts:
            columns.append(exp.alias_(_filled(counts[f"{check.kind.name}_of"], names), f"{check.column}_of"))
    if not columns:
        return []
    coded = exp.select(*named, exp.alias_(exp.Count(this=exp.Star()), "n")).from_(f"cdm.{table}").group_by(*named)
    select = exp.select(*columns, copy=False).from_(coded.subquery("coded"), copy=False)
    select.set(
        "joins", [_filled(_join("codes", "held"), {"field": field, "held": f"{field}_held"}) for field in joined]
    )
    return [select]


def _keys(asked: list[Check]) -> list[exp.Select]:
    return [
        exp.select(exp.alias_(_filled(_counts("keys")["isPrimaryKey"], {}), check.column)).from_(
            _filled(_template("keys").args["from_"].this, {"field": check.field, "checked": check.table})
        )
        for check in asked
        if check.kind.name == "isPrimaryKey"
    ]


def _is_of_codes(check: Check) -> bool:
    """Whether a check is about codes, which are counted first."""
    if check.kind.name == "isForeignKey":
        return check.bound == "concept" and check.table not in _PAIRS
    return check.kind.name in _CODES


def _value(check: Check, last: datetime.date) -> exp.Expr:
    """What a field is held against, as a value of its type: engines differ in what they compare."""
    bound = {"tomorrow": last.isoformat(), "next_year": str(last.year + 1)}.get(check.bound, check.bound)
    kind = complete()[check.table][check.field]
    return exp.cast(exp.Literal.string(bound), kind) if kind in ("DATE", "TIMESTAMP") else exp.Literal.number(bound)


def _of_persons(there: There) -> exp.Select | None:
    """One statement for all tables: of how many persons each says nothing."""
    counts = _counts("persons")
    asked = {check.table: check for check in checks() if check.kind.name == "measurePersonCompleteness"}
    asked = {table: check for table, check in asked.items() if fits(table, "person_id", there)}
    if not fits("person", "person_id", there):
        return None
    select = exp.select(exp.alias_(counts["rows"], "rows")).from_(_template("persons").args["from_"].this)
    for table, check in asked.items():
        names = {"checked": table}
        select = select.select(exp.alias_(_filled(counts["measurePersonCompleteness"], names), check.column))
        select.append("joins", _filled(_join("persons", "checked"), names))
    if {"condition_occurrence", "condition_era"} <= asked.keys():
        for name in ("measureConditionEraCompleteness", "measureConditionEraCompleteness_of"):
            base, _, of = name.partition("_")
            select = select.select(exp.alias_(counts[name], f"{base}__condition_era{of and '_of'}".lower()))
    return select


def _genders(there: There) -> exp.Query | None:
    """How often each concept that belongs to one sex is recorded of whom."""
    found: list[exp.Query] = []
    asked = [check for check in checks() if check.kind.name.startswith("plausibleGender")]
    for table, field in dict.fromkeys((check.table, check.field) for check in asked):
        names, label = {"checked": table, "field": field}, exp.Literal.string(table)
        groups = [check.concept_id for check in asked if check.table == table and "Descendants" in check.kind.name]
        alone = [check.concept_id for check in asked if check.table == table and check.concept_id not in groups]
        found.append(_held(_filled(_template("genders"), names, label=label), alone))
        found += [
            _held(_filled(_template("families"), names, label=label, bound=exp.Literal.string(group)), group.split(","))
            for group in groups
        ]
    readable = [query for query in found if _can_read(query, there)]
    return exp.union(*readable, distinct=False) if len(readable) > 1 else next(iter(readable), None)


def _units(there: There) -> exp.Query | None:
    """In which units measurements come, and how many values are out of bounds."""
    asked = [check for check in checks() if check.kind.level == "concept" and check.table == "measurement"]
    wrong = {
        side: exp.or_(
            *(
                f"measurement_concept_id = {check.concept_id} AND unit_concept_id = {check.unit_concept_id}"
                f" AND value_as_number {sign} {check.bound}"
                for check in asked
                if check.kind.name == name
            )
        )
        for side, name, sign in (("lower", "plausibleValueLow", "<"), ("higher", "plausibleValueHigh", ">"))
    }
    query = _held(_filled(_template("units"), {}, **wrong), [check.concept_id for check in asked])
    return query if _can_read(query, there) else None


def _held(query: exp.Expr, concepts: list[str]) -> exp.Query:
    """A query with concepts in the place of its list."""
    ids = sorted({int(concept) for concept in concepts})
    for among in query.find_all(exp.In):
        among.set("expressions", [exp.Literal.number(one) for one in ids])
    assert isinstance(query, exp.Query)
    return query

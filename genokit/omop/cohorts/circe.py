"""Cohort definitions of ATLAS: Circe's JSON, translated to SQL by Circe's own rules, and run over a CDM in DuckDB.

duckcdm brings Circe and SqlRender. Only numbers of a definition get into the SQL: ids, days, and dates as numbers. The
texts to search for in records are taken out before, and reach the database as parameters.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import duckdb

from genokit.databases import DuckDatabase
from genokit.errors import InvalidParameters, InvalidSource, MissingDependency
from genokit.frames import from_arrow
from genokit.omop.cohorts.cohort import Cohort
from genokit.omop.cohorts.cohort_data import AttritionStep, read
from genokit.omop.cohorts.cohort_periods import END, START, SUBJECT
from genokit.omop.concepts import content
from genokit.omop.connection import CdmConnection
from genokit.omop.etl.mimic3 import identifier

_TABLE = f"create temp table genokit_cohort (cohort_definition_id bigint, {SUBJECT} bigint, {START} date, {END} date)"
Source = str | PathLike[str] | Mapping[str, Any]

# The keys by which a criterion names a concept set.
_SETS = re.compile(r"(Drug)?CodesetId|\w+SourceConcept|(Payer|Plan|Sponsor|StopReason)Concept|PlaceOfServiceLocation")
_LIMITS, _GROUPS = ("All", "First", "Last"), ("ALL", "ANY", "AT_LEAST", "AT_MOST")
_DEEPEST = 60  # levels of nesting; the SQL grows exponentially with them


def cohort(cdm: CdmConnection, source: Source, *, name: str | None, min_cell: int | None) -> Cohort:
    """The cohort that a definition describes. Raises InvalidParameters, InvalidSource, MissingDependency, ..."""
    definition, called, title = expression(source)
    duck = cdm.database
    if not isinstance(duck, DuckDatabase):
        raise InvalidSource(
            f"{cdm!r} is not on this machine, but ATLAS's definitions run in DuckDB. Use the files that it was made "
            "from: Cdm('folder of parquet').atlas_cohort(...); or describe the cohort with cdm.cohort(...)."
        )
    sql, values = script(definition, called, ".".join(map(identifier, duck.searched)))
    rules = [str(rule.get("name") or f"rule {i}") for i, rule in enumerate(definition.get("InclusionRules") or (), 1)]
    rows, counts = duck.script(
        sql, {**values, "rules": len(rules)}, f"select {SUBJECT}, {START}, {END} from genokit_cohort order by all",
        read("rules"),
    )  # fmt: skip
    periods = from_arrow(rows).astype(dict.fromkeys((START, END), "datetime64[us]"))
    steps = [
        AttritionStep(reason, one["persons"], one["entries"])
        for reason, one in zip(["entry events", *rules], counts.to_pylist(), strict=True)
    ]
    last = AttritionStep.of("entries of the cohort", periods)
    if (last.persons, last.entries) != (steps[-1].persons, steps[-1].entries):
        steps.append(last)
    return Cohort(
        name or title or "ATLAS cohort", periods, tuple(steps), {"atlas": copy.deepcopy(definition)}, cdm, min_cell
    )


def expression(source: Source) -> tuple[Mapping[str, Any], str, str]:
    """A definition, what to call its source, and its title or its file's name. Raises InvalidParameters, NotFound."""
    found, called = content(source)
    title, inner = "", found
    while isinstance(inner, Mapping) and "expression" in inner:
        title = title or str(inner.get("name") or "")
        inner = inner["expression"]
        if isinstance(inner, str) and inner.lstrip().startswith("{"):  # any other text would be taken for a file name
            inner, _ = content(inner)
    if not isinstance(inner, Mapping) or "PrimaryCriteria" not in inner:
        raise InvalidParameters(
            f"{called} is not a cohort definition of ATLAS: it has no 'PrimaryCriteria'. Export it from ATLAS's "
            "JSON tab; to read a concept set, use cdm.concept_set(...)."
        )
    stem = Path(called.strip("'")).stem if called.startswith("'") else ""
    return inner, called, title or str(inner.get("Title") or "") or stem


def script(definition: Mapping[str, Any], called: str, schema: str) -> tuple[str, dict[str, str]]:
    """DuckDB's SQL that fills the temporary table genokit_cohort from the CDM in a schema, and its text parameters.

    Raises InvalidParameters, MissingDependency.
    """
    for part, problem in _problems(definition):
        raise InvalidParameters(f"{called} cannot be run as a cohort definition. {part} {problem}.")
    texts: dict[str, str] = {}
    built = _built(_without_texts(definition, texts), called)
    values: dict[str, str] = {}

    def parameter(found: re.Match[str]) -> str:
        before, name, after = found.groups()
        values[name] = f"{before}{texts[name]}{after}"
        return f"${name}"

    sql = re.sub(r"'(%?)(genokit_text_\d+)_(%?)'", parameter, _translated(built)).replace("genokit_cdm.", f"{schema}.")
    try:
        duckdb.extract_statements(sql)
    except duckdb.ParserException as error:
        said = str(error).splitlines()[0]
        raise InvalidParameters(
            f"{called} cannot be run as a cohort definition. Circe makes invalid SQL of it ({said}): is a list empty?"
        ) from None
    return f"{_TABLE};\n{sql}", values


@lru_cache
def _translated(sql: str) -> str:
    """Circe's SQL in DuckDB's dialect; each statement by itself, which takes half the time."""
    from duckcdm.sqlrender import render, split_sql, translate  # type: ignore[import-untyped]

    statements = split_sql(render(sql))
    last = next(
        i for i, one in enumerate(statements) if "INSERT INTO genokit_cohort" in one
    )  # the rest drops temporary tables
    return "".join(translate(f"{one};\n", "duckdb") for one in statements[: last + 1])


def _built(definition: Mapping[str, Any], called: str) -> str:
    """Circe's SQL of a definition. Raises InvalidParameters with Circe's words, MissingDependency."""
    try:
        from duckcdm.circe import CirceError, build_cohort_query  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependency("ATLAS's definitions need duckcdm: pip install 'genokit[atlas]'.") from error

    try:
        sql: str = build_cohort_query(
            definition, cdm_schema="genokit_cdm", target_table="genokit_cohort", cohort_id=0, generate_stats=False
        )
    except (CirceError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise InvalidParameters(
            f"{called} cannot be run as a cohort definition ({fault}). Export it from ATLAS again."
        ) from None
    return sql


def _problems(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Parts that Circe would silently misunderstand, and what is wrong with each."""
    sets = definition.get("ConceptSets")
    known = {str(one.get("id", 0)) for one in sets if isinstance(one, Mapping)} if isinstance(sets, list) else set()
    for path, value in _parts(definition):
        key, of = str(path[-1]), path[-2] if len(path) > 1 else ""
        if len(path) > _DEEPEST:
            yield _named(path), "is nested too deep"
            return
        if _SETS.fullmatch(key) and isinstance(value, (int, str)) and str(value) not in known:
            yield _named(path), f"is the concept set {value}, which the definition does not have"
        if key == "EraPad" and isinstance(value, int) and value < 0:
            yield _named(path), f"is {value}, but must be 0 or more days"
        if isinstance(value, float) and not math.isfinite(value):
            yield _named(path), f"is {value}, which is not a number in JSON"
        a_concept = isinstance(value, Mapping) and (key == "concept" or "CONCEPT_NAME" in value)
        if a_concept and value.get("CONCEPT_ID") is None:
            yield _named(path), "has no CONCEPT_ID"
        if key == "Type" and isinstance(value, str):
            words = _LIMITS if str(of).endswith("Limit") else () if of == "Occurrence" else _GROUPS
            if words and value.upper() not in map(str.upper, words):
                yield _named(path), f"is '{value}', but must be one of {', '.join(words)}"


def _parts(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every part of a definition below its top, with its path."""
    inner = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key), value
        yield from _parts(value, (*path, key))


def _without_texts(node: Any, texts: dict[str, str]) -> Any:
    """A copy with a placeholder for each text to search for in records; ``texts`` has them by placeholder."""
    if isinstance(node, list):
        return [_without_texts(one, texts) for one in node]
    if not isinstance(node, Mapping):
        return node
    copied = {key: _without_texts(value, texts) for key, value in node.items()}
    if isinstance(node.get("Text"), str):
        name = f"genokit_text_{len(texts)}"
        texts[name] = re.sub(r"\\*'", "'", node["Text"])  # as Circe reads it
        copied["Text"] = f"{name}_"
    return copied


def _named(path: Sequence[str | int]) -> str:
    """A path as one writes it.

    >>> _named(["PrimaryCriteria", "CriteriaList", 0, "Death"])
    'PrimaryCriteria.CriteriaList[0].Death'
    """
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")

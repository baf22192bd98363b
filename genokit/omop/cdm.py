"""Cdm: a database of patients in the OMOP CDM, to be asked in SQL: here in DuckDB, or on AWS in Athena."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

from genokit import disclosure
from genokit.backends import Clients, clients, database
from genokit.databases import Answer, AthenaDatabase, DuckDatabase
from genokit.errors import GenokitError, InvalidParameters, NotFound, QueryError, did_you_mean
from genokit.omop import concepts, views
from genokit.omop.concepts import Concept, ConceptSet
from genokit.omop.etl.mimic3 import identifier
from genokit.omop.fields import fields, tables
from genokit.omop.frames import frame
from genokit.omop.parameters import bind

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame, Series

    from genokit.omop.characterize.characterize import Characterization
    from genokit.omop.cohorts.cohort import Cohort
    from genokit.omop.cohorts.cohort_entry import Concepts

MOST = 1_000_000  # rows of a DataFrame, unless told otherwise


@dataclass(frozen=True)
class Query:
    """One query that was run: its SQL, the names of its parameters, and what it took."""

    sql: str
    parameters: tuple[str, ...]
    rows: int
    cut: bool
    seconds: float
    bytes: int | None
    usd: float | None

    def __repr__(self) -> str:
        cost = "" if self.usd is None else f", ${self.usd:.4f}"
        return f"<Query {self.rows:,} rows, {self.seconds:.2f} s{cost}>"

    def _repr_html_(self) -> str:
        from genokit import display

        about: dict[str, object] = {
            "rows": f"the first {self.rows:,} of more" if self.cut else f"{self.rows:,}",
            "time": display.seconds(self.seconds),
            "read": display.size(self.bytes) if self.bytes else None,
        }
        if self.usd is not None:
            about["cost"] = f"about ${self.usd:.4f}, at Athena's list price"
        if self.parameters:
            about["parameters"] = ", ".join(self.parameters)
        return display.card("Query", about, status="warning" if self.cut else "ok", fold={"SQL": display.log(self.sql)})


class Cdm:
    """A CDM: ``Cdm()`` is a sample of synthetic patients; else a DuckDB file, a folder of Parquet, what an ETL made,
    or ``athena://workgroup/database``.

    Nothing is opened before the first question. Files are only read. On this machine every table of the CDM 5.4 is
    there with all its fields, in the CDM's types; missing tables are empty, missing columns null. ``database`` takes an
    open DuckDB connection instead of a place, ``schema`` names the schema of the tables where a file has several CDMs.
    Queries reach no file but the CDM's own; with ``external_access=True`` they may read any file and address that you
    can, as ``read_csv`` does: for SQL and files that you trust.

    >>> from genokit import Cdm
    >>> cdm = Cdm()
    >>> cdm.query("select count(*) as n from person where year_of_birth > $year", year=1980)
        n
    0  86
    """

    def __init__(
        self,
        place: str | os.PathLike[str] | None = None,
        *,
        database: DuckDBPyConnection | DuckDatabase | AthenaDatabase | None = None,
        schema: str | None = None,
        clients: Clients | None = None,
        external_access: bool = False,
    ) -> None:
        if place is not None and database is not None:
            raise InvalidParameters("Cdm takes a place or a database, not both.")
        self.place = None if place is None else os.fspath(place)
        self.last: Query | None = None
        self._given = database
        self._schema = schema
        self._clients = clients
        self._external_access = external_access

    @cached_property
    def database(self) -> DuckDatabase | AthenaDatabase:
        """What the queries run on: ``query``, ``columns``, ``dialect``; of DuckDB also ``con``."""
        if isinstance(self._given, (DuckDatabase, AthenaDatabase)):
            return self._given
        if self._given is not None:
            return views.over(self._given, self._schema, external_access=self._external_access)
        if self.place is not None and self.place.startswith("athena:"):
            return database(self.place, self._clients or clients())
        place = self._sample["database"] if self.place is None else self.place
        return views.opened(place, self._schema, external_access=self._external_access)

    @overload
    def query(
        self, sql: str, /, *, as_arrow: Literal[True], most: int | None = None, **parameters: object
    ) -> pa.Table: ...
    @overload
    def query(
        self, sql: str, /, *, as_arrow: Literal[False] = False, most: int | None = MOST, **parameters: object
    ) -> DataFrame: ...
    def query(
        self, sql: str, /, *, as_arrow: bool = False, most: int | None = MOST, **parameters: object
    ) -> DataFrame | pa.Table:
        """The rows of a SELECT, in the SQL of the database; ``$name`` in it stands for the parameter of that name.

        What writes, anywhere in the statement, or calls a function with effects is refused.

        A parameter is a number, text, date, timestamp, None, or a list, as ``concept_id in $ids``. A frame has
        at most ``most`` rows, and a warning says when there are more; None takes all. ``as_arrow`` gives an Arrow
        table, for many rows, of any length unless ``most`` is given. ``last`` tells what the query took. Raises
        QueryError, InvalidParameters.
        """
        most = None if as_arrow and most == MOST else most
        answer = self._answer(sql, parameters, most)
        self.last = _query(sql, parameters, answer)
        if answer.cut:
            warnings.warn(
                f"These are the first {most:,} rows; the query has more. Ask for them with most=..., or as_arrow=True "
                "for an Arrow table of all.",
                stacklevel=2,
            )
        return answer.table if as_arrow else frame(answer.table)

    def lookup(self, sql: str, parameters: Mapping[str, object]) -> DataFrame:
        """The rows of a query of the kit's own, which is not the user's ``last``."""
        return frame(self._answer(sql, parameters, None).table)

    def _answer(self, sql: str, parameters: Mapping[str, object], most: int | None) -> Answer:
        ready, values = bind(sql, parameters, self.database.dialect)
        try:
            return self.database.query(ready, values, most=most)
        except QueryError as error:
            raise QueryError(self._explained(error), sql=sql) from None

    def concept(self, concept_id: int) -> Concept:
        """A concept of the vocabulary by its id. Raises NotFound."""
        return concepts.of(self, [concept_id])[concept_id]

    def concepts(
        self,
        words: str,
        *,
        domain: str | None = None,
        vocabulary: str | None = None,
        standard: bool | None = None,
        most: int = 50,
    ) -> DataFrame:
        """Concepts whose name, synonym or code has the words, the likeliest first; else those with words near them.

        ``domain`` ("Drug", "Condition", ...), ``vocabulary`` ("SNOMED", ...) and ``standard`` narrow it down.
        """
        return concepts.search(self, words, domain=domain, vocabulary=vocabulary, standard=standard, most=most)

    def concept_set(
        self, name: str | None = None, source: str | os.PathLike[str] | Mapping[str, Any] | None = None
    ) -> ConceptSet:
        """A new set of concepts; or that of ``source``: a JSON file of ATLAS, its text, or its content."""
        if source is None:
            return ConceptSet(name or "concept set", (), self)
        return concepts.read(source, self, name)

    def cohort(
        self,
        *,
        name: str | None = None,
        condition: Concepts | None = None,
        drug: Concepts | None = None,
        measurement: Concepts | None = None,
        procedure: Concepts | None = None,
        observation: Concepts | None = None,
        device: Concepts | None = None,
        visit: Concepts | None = None,
        death: Concepts | bool = False,
        value: tuple[float | None, float | None] | None = None,
        first_only: bool = False,
        washout_days: int | None = None,
        prior_observation_days: int = 0,
        age_at_entry: tuple[int | None, int | None] | None = None,
        sex: str | int | None = None,
        entered: tuple[object, object] | None = None,
        end: str | int = "observation",
        censor: Cohort | None = None,
        min_cell: int | None = None,
    ) -> Cohort:
        """Who has a record of any of these concepts, from its day until the observation ends; without concepts, all.

        ``death=True`` is a death; concepts are its causes. ``value`` bounds a measurement's number. ``first_only``
        takes the first record ever, ``washout_days`` those without one in the days before. ``visit`` finds visits, and
        parts of other visits in visit_detail, such as stays in intensive care (32037). Then the person is to be
        observed, for ``prior_observation_days`` before; of an age and a sex; and to enter between two dates. ``end``
        is "observation", "record" (with the record) or a number of days after the entry, and ``censor`` a cohort at
        whose beginning this one ends. Bounds may be None.
        """
        from genokit.omop.cohorts import cohort
        from genokit.omop.cohorts.cohort_entry import Entry

        given = {"condition": condition, "drug": drug, "measurement": measurement, "procedure": procedure,
                 "observation": observation, "device": device, "visit": visit,
                 "death": None if death is False else death}  # fmt: skip
        entry = Entry(
            {domain: one for domain, one in given.items() if one is not None}, value, first_only, washout_days,
            prior_observation_days, age_at_entry, sex, entered, end,
        )  # fmt: skip
        return cohort.cohort(self, entry, name=name, censor=censor, min_cell=min_cell)

    def stored_cohort(
        self, cohort_definition_id: int, *, name: str | None = None, min_cell: int | None = None
    ) -> Cohort:
        """A cohort that stands in the CDM's own table ``cohort``. Raises NotFound."""
        from genokit.omop.cohorts import cohort

        return cohort.stored(self, cohort_definition_id, name=name, min_cell=min_cell)

    def atlas_cohort(
        self,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        name: str | None = None,
        min_cell: int | None = None,
    ) -> Cohort:
        """The cohort of a definition made in ATLAS: a JSON file, its text, or its content.

        It is run as ATLAS runs it, by duckcdm: ``pip install 'genokit[atlas]'``. The attrition has a step for each
        inclusion rule. Raises InvalidParameters, InvalidSource, MissingDependency, NotFound.
        """
        from genokit.omop.cohorts import circe

        return circe.cohort(self, source, name=name, min_cell=min_cell)

    def characterize(
        self,
        results: str | os.PathLike[str] | None = None,
        *,
        min_cell: int | None = None,
        progress: bool = True,
    ) -> Characterization:
        """Count what it holds, as Achilles does: a Characterization, to look at and to share.

        ``results`` is a DuckDB file with Achilles' tables, which ATLAS reads; a next run counts only what changed.
        Small counts are in neither: those below ``min_cell``, or the settings' if that is higher. Raises InvalidSource.
        """
        from genokit.omop.characterize.characterize import characterize

        return characterize(self, results, min_cell=self.least(min_cell), progress=progress)

    def least(self, min_cell: int | None = None) -> int:
        """The smallest count of persons that is shown: at least the one in its own settings."""
        return disclosure.smallest(min_cell, self._clients.settings if self._clients else None)

    def table(self, name: str) -> Table:
        """A table to look at: its columns, its length, its first rows. Raises NotFound."""
        if name not in self._columns:
            raise NotFound(f"{self._title} has no table '{name}'. {did_you_mean(name, self._columns)}")
        return Table(self, name)

    def __getitem__(self, name: str) -> Table:
        return self.table(name)

    def _ipython_key_completions_(self) -> list[str]:
        return self.tables()

    def tables(self) -> list[str]:
        """The names of all tables: the CDM's in its order, then others."""
        known = [name for name in tables() if name in self._columns]
        return known + [name for name in self._columns if name not in known]

    def schema(self) -> DataFrame:
        """Every column: table, column, type, whether the CDM requires it, and the table that it points at."""
        import pandas as pd

        rows = [(table, *column) for table in self.tables() for column in _columns(table, self._columns[table])]
        return pd.DataFrame(rows, columns=["table", "column", "type", "required", "points_at"])

    def columns(self) -> dict[str, dict[str, str]]:
        """The columns of each table, and their types."""
        return self._columns

    @cached_property
    def _columns(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for table, column, kind in self.database.columns():
            found.setdefault(table.lower(), {})[column.lower()] = kind
        return found

    @cached_property
    def _sample(self) -> Any:
        from genokit.data import Manifest

        return Manifest("eunomia-gibleed").fetch()

    @property
    def _title(self) -> str:
        if self.place is not None:
            return f"'{self.place}'"
        return "The CDM" if self._given is not None else "The sample"

    def _explained(self, error: QueryError) -> str:
        """A database's refusal, with the near miss of a name where it is about one."""
        said = str(error)
        for pattern, columns in _UNKNOWN:
            match = re.search(pattern, said)
            if match and columns:
                used = [table for table in self._columns if re.search(rf"\b{table}\b", error.sql.lower())]
                known = {column for table in used or self._columns for column in self._columns[table]}
                where = f"in {', '.join(used)}" if used else "in any table"
                first = f"There is no column '{match[1]}' {where}. {did_you_mean(match[1], known)}"
            elif match:
                first = f"There is no table '{match[1]}'. {did_you_mean(match[1], self._columns)}"
            else:
                continue
            _, found, rest = said.partition("\nLINE ")
            return f"{first}\n\nLINE {rest}" if found else first
        return said

    def __repr__(self) -> str:
        if self.place is None and self._given is not None:
            return "<Cdm of an open database>"
        return f"<Cdm {' '.join((self.place or 'sample: GiBleed, synthetic patients').split())}>"

    def _repr_html_(self) -> str:
        from genokit import display

        place = self.place or ("an open database" if self._given is not None else "sample")
        about: dict[str, object] = {"place": place}
        try:
            if self.place is None and self._given is None:
                about |= {"data": self._sample.title, "licence": "; ".join(self._sample.licences)}
            if self.database.free:
                about |= self._numbers()
            shown = [{"table": table, "columns": len(self._columns[table])} for table in self.tables()]
        except GenokitError as error:
            return display.card("CDM", about | {"problem": str(error)}, status="problem")
        return display.card("CDM", about, fold={f"Tables ({len(shown)})": display.table(shown)})

    def _numbers(self) -> dict[str, object]:
        source = self.database.query("select cdm_source_name, cdm_version, vocabulary_version from cdm_source")
        known = source.table.to_pylist()[:1] or [{}]
        [counts] = self.database.query(
            "select (select count(*) from person) as persons, min(observation_period_start_date) as first,"
            " max(observation_period_end_date) as last from observation_period"
        ).table.to_pylist()
        return {
            "source": known[0].get("cdm_source_name"),
            "CDM": known[0].get("cdm_version"),
            "vocabulary": known[0].get("vocabulary_version"),
            "persons": disclosure.told(counts["persons"], self.least()),
            "observed": f"{counts['first']} to {counts['last']}" if counts["first"] else None,
        }


@dataclass(frozen=True)
class Table:
    """One table of a CDM: ``columns``, ``count()``, ``head()``, and a column by ``table["person_id"]``."""

    cdm: Cdm
    name: str

    @property
    def columns(self) -> list[str]:
        return list(self.cdm._columns[self.name])

    def count(self) -> int:
        """How many rows it has."""
        frame = self.cdm.query(f"select count(*) as n from {identifier(self.name)}")
        return int(frame["n"].iloc[0])

    def head(self, n: int = 5) -> DataFrame:
        """Some rows of it, as the database comes upon them."""
        return self.cdm.query(f"select * from {identifier(self.name)} limit {int(n)}")

    def __getitem__(self, column: str) -> Series[Any]:
        if column not in self.columns:
            raise NotFound(f"The table '{self.name}' has no column '{column}'. {did_you_mean(column, self.columns)}")
        return self.cdm.query(f"select {identifier(column)} from {identifier(self.name)}")[column]

    def _ipython_key_completions_(self) -> list[str]:
        return self.columns

    def __repr__(self) -> str:
        return f"<Table {self.name}, {len(self.columns)} columns>"

    def _repr_html_(self) -> str:
        from genokit import display

        rows = _columns(self.name, self.cdm._columns[self.name])
        shown = display.table(
            [(name, kind, "required" if must else None, to) for name, kind, must, to in rows],
            columns=["column", "type", "in the CDM", "points at"],
        )
        about = {"rows": disclosure.told(self.count(), self.cdm.least())} if self.cdm.database.free else {}
        return display.card(self.name, {**about, "columns": shown})


def _query(sql: str, parameters: Mapping[str, object], answer: Answer) -> Query:
    return Query(sql, tuple(parameters), answer.table.num_rows, answer.cut, answer.seconds, answer.bytes, answer.usd)


def _columns(table: str, found: Mapping[str, str]) -> list[tuple[str, str, bool, str | None]]:
    """Name, type, whether the CDM requires it and the table it points at, of each column of a table."""
    known = {field.name: field for field in fields(table)} if table in tables() else {}
    return [
        (name, kind, bool(name in known and known[name].required), known[name].table if name in known else None)
        for name, kind in found.items()
    ]


# What DuckDB and Trino say of a name they don't know: the name is the group; and whether it is a column's.
_UNKNOWN: tuple[tuple[str, bool], ...] = (
    (r"Table with name (\S+) does not exist", False),
    (r"Table '(?:[^'.]+\.)*([^'.]+)' does not exist", False),
    (r'Referenced column "([^"]+)" (?:was )?not found', True),
    (r'does not have a column named "([^"]+)"', True),
    (r"Column '(?:[^'.]+\.)*([^'.]+)' cannot be resolved", True),
)

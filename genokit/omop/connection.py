"""An open CDM, to query in SQL: in DuckDB here, or in Athena on AWS."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

from pandas import DataFrame

from genokit import disclosure
from genokit.backends import Clients, clients, database
from genokit.databases import Answer, AthenaDatabase, DuckDatabase
from genokit.errors import InvalidParameters, QueryError
from genokit.frames import from_arrow
from genokit.omop import views
from genokit.omop.parameters import bind
from genokit.omop.queries import Query, explained

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

MOST = 1_000_000  # rows of a DataFrame by default


class CdmConnection:
    """An open CDM: its database, its columns, and queries. ``Cdm`` also has what is made of them."""

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
        """Run a SELECT in the SQL of the database; ``last`` then has its time and cost.

        Statements that write, or call a function with effects, are refused.

        Parameters
        ----------
        sql
            One statement. ``$name`` stands for the parameter of that name.
        as_arrow
            Return an Arrow table, for many rows, of any length unless ``most`` is given.
        most
            Rows of a DataFrame; a warning says if there are more. None takes all.
        parameters
            The values of ``$name``: a number, text, date, timestamp, None, or a list of these (``in $ids``).

        Returns
        -------
        DataFrame or pyarrow.Table

        Raises
        ------
        QueryError
            If the statement is refused or fails.
        InvalidParameters
            If a parameter is missing, superfluous, or of an unknown type.
        """
        most = None if as_arrow and most == MOST else most
        answer = self._answer(sql, parameters, most)
        self.last = Query.of(sql, parameters, answer)
        if answer.cut:
            warnings.warn(
                f"These are the first {most:,} rows; the query has more. Use most=..., or as_arrow=True for an Arrow "
                "table of all rows.",
                stacklevel=2,
            )
        return answer.table if as_arrow else from_arrow(answer.table)

    def lookup(self, sql: str, parameters: Mapping[str, object]) -> DataFrame:
        """The rows of one of the kit's own queries; ``last`` stays as it is.

        Parameters
        ----------
        sql
            The query, with ``$name`` for each parameter.
        parameters
            The values by name.

        Returns
        -------
        DataFrame
        """
        return from_arrow(self._answer(sql, parameters, None).table)

    def _answer(self, sql: str, parameters: Mapping[str, object], most: int | None) -> Answer:
        ready, values = bind(sql, parameters, self.database.dialect)
        try:
            return self.database.query(ready, values, most=most)
        except QueryError as error:
            raise QueryError(explained(error, self._columns), sql=sql) from None

    def least(self, min_cell: int | None = None) -> int:
        """The smallest count of persons that is shown.

        Parameters
        ----------
        min_cell
            The smallest count to show; the settings' ``min_cell`` holds if it is larger.

        Returns
        -------
        int
        """
        return disclosure.threshold(min_cell, self._clients.settings if self._clients else None)

    def columns(self) -> dict[str, dict[str, str]]:
        """The columns of each table, and their types."""
        return self._columns

    @cached_property
    def _columns(self) -> dict[str, dict[str, str]]:
        columns: dict[str, dict[str, str]] = {}
        for table, column, kind in self.database.columns():
            columns.setdefault(table.lower(), {})[column.lower()] = kind
        return columns

    @cached_property
    def _sample(self) -> Any:
        from genokit.data import Manifest

        return Manifest("eunomia-gibleed").fetch()

"""What concepts, cohorts and characterizations need of an open CDM; ``Cdm`` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pandas import DataFrame

from genokit.databases import AthenaDatabase, DuckDatabase


class CdmConnection(Protocol):
    """An open CDM: its database, its columns, and queries of the kit's own."""

    @property
    def place(self) -> str | None: ...

    @property
    def database(self) -> DuckDatabase | AthenaDatabase: ...

    def columns(self) -> dict[str, dict[str, str]]: ...

    def query(self, sql: str, /) -> DataFrame: ...

    def lookup(self, sql: str, parameters: Mapping[str, object]) -> DataFrame: ...

    def least(self, min_cell: int | None = None) -> int: ...

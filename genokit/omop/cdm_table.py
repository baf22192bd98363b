"""One table of a CDM, to look at in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pandas import DataFrame, Series

from genokit import disclosure, display
from genokit.errors import NotFound, did_you_mean
from genokit.omop.connection import CdmConnection
from genokit.omop.etl.mimic3 import identifier
from genokit.omop.fields import fields, tables


@dataclass(frozen=True)
class CdmTable:
    """One table of a CDM: ``columns``, ``count()``, ``head()``, and a column by ``table["person_id"]``."""

    cdm: CdmConnection
    name: str

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return list(self.cdm.columns()[self.name])

    def count(self) -> int:
        """The number of rows."""
        return int(self.cdm.query(f"select count(*) as n from {identifier(self.name)}")["n"].iloc[0])

    def head(self, n: int = 5) -> DataFrame:
        """Any ``n`` rows, in no particular order."""
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
        rows = described(self.name, self.cdm.columns()[self.name])
        shown = display.table(
            [(name, kind, "required" if required else None, to) for name, kind, required, to in rows],
            columns=["column", "type", "in the CDM", "points at"],
        )
        about = {"rows": disclosure.formatted_count(self.count(), self.cdm.least())} if self.cdm.database.free else {}
        return display.card(self.name, {**about, "columns": shown})


def described(table: str, columns: Mapping[str, str]) -> list[tuple[str, str, bool, str | None]]:
    """Name, type, whether the CDM requires it, and the table it points at, of each column of a table."""
    known = {field.name: field for field in fields(table)} if table in tables() else {}
    return [
        (name, kind, name in known and known[name].required, known[name].table if name in known else None)
        for name, kind in columns.items()
    ]

"""DataFrames that a notebook can go on with: texts shown whole, and Arrow tables with their types kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from genokit.display import plain

if TYPE_CHECKING:
    import pyarrow as pa


class Frame(pd.DataFrame):
    """A DataFrame that shows texts whole; pandas would cut them after 50 letters, often where a reason begins."""

    @property
    def _constructor(self) -> Any:
        return Frame

    def __repr__(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return plain(super().__repr__())  # its texts may be another member's, and it goes to terminals

    def _repr_html_(self) -> str | None:
        with pd.option_context("display.max_colwidth", None):
            html: str | None = super()._repr_html_()  # type: ignore[misc]
            return html


def from_arrow(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a DataFrame: integers stay integers where some are missing, dates become datetimes.

    >>> import pyarrow as pa
    >>> list(map(str, from_arrow(pa.table({"id": [2**53 + 1, None], "v": [0.5, None]})).dtypes))
    ['Int64', 'float64']
    """
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:  # such as a sum of integers in DuckDB
            column = table.column(i)
            try:
                column = column.cast(pa.int64())
            except pa.ArrowInvalid:
                column = column.cast(pa.float64())
            table = table.set_column(i, field.name, column)
    result: pd.DataFrame = table.to_pandas(types_mapper=_nullable, date_as_object=False)
    return result


def _nullable(kind: pa.DataType) -> Any:
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return pd.UInt64Dtype() if kind == pa.uint64() else pd.Int64Dtype()
    return pd.BooleanDtype() if pa.types.is_boolean(kind) else None

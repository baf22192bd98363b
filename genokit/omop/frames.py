"""What a database answers with, as a DataFrame that a notebook can go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pandas import DataFrame


def frame(table: pa.Table) -> DataFrame:
    """An Arrow table as a DataFrame: whole numbers stay whole where some are missing, days are datetimes.

    >>> import pyarrow as pa
    >>> list(map(str, frame(pa.table({"id": [2**53 + 1, None], "v": [0.5, None]})).dtypes))
    ['Int64', 'float64']
    """
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        # A sum of whole numbers is 128 bits wide in DuckDB.
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            table = table.set_column(i, field.name, _narrow(table.column(i)))
    result: DataFrame = table.to_pandas(types_mapper=_nullable, date_as_object=False)
    return result


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.float64())


def _nullable(kind: pa.DataType) -> Any:
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return pd.UInt64Dtype() if kind == pa.uint64() else pd.Int64Dtype()
    return pd.BooleanDtype() if pa.types.is_boolean(kind) else None

"""A cohort as rows of the CDM's tables ``cohort`` and ``cohort_definition``."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from genokit.files import private_folder, write_atomic
from genokit.omop.cohorts.cohort_periods import COLUMNS
from genokit.omop.fields import fields


def rows(spans: DataFrame, cohort_definition_id: int) -> DataFrame:
    """The rows of the table ``cohort``."""
    table = spans[COLUMNS].copy()
    table.insert(0, "cohort_definition_id", cohort_definition_id)
    return table.astype({"cohort_definition_id": "Int64"})


def write(
    folder: str | os.PathLike[str], cohort: DataFrame, cohort_definition_id: int, name: str, words: str, syntax: str
) -> None:
    """Write both tables as Parquet, a file for each cohort."""
    definition = {
        "cohort_definition_id": cohort_definition_id,
        "cohort_definition_name": name[:255],
        "cohort_definition_description": words,
        "definition_type_concept_id": 0,
        "cohort_definition_syntax": syntax,
        "subject_concept_id": 0,
        "cohort_initiation_date": None,
    }
    private_folder(folder, data=True)
    for table, frame in (("cohort", cohort), ("cohort_definition", pd.DataFrame([definition]))):
        _write(private_folder(Path(folder) / table, data=True) / f"{cohort_definition_id}.parquet", table, frame)


def _write(file: Path, table: str, frame: DataFrame) -> None:
    """Write a table of the CDM as Parquet, in the CDM's types, atomically."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "VARCHAR": pa.string(), "DATE": pa.date32()}
    schema = pa.schema([(one.name, kinds[one.type]) for one in fields(table)])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), buffer)
    write_atomic(file, buffer.getvalue(), private=True)

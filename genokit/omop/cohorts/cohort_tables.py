"""A cohort as rows of the CDM's tables ``cohort`` and ``cohort_definition``."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from genokit.files import private_folder, write_atomic
from genokit.omop.cohorts.cohort_periods import COLUMNS
from genokit.omop.fields import fields


def write(
    folder: str | os.PathLike[str], spans: DataFrame, cohort_definition_id: int, name: str, words: str, syntax: str
) -> None:
    """Write both tables as Parquet in the CDM's types, atomically, a file for each cohort."""
    import pyarrow as pa

    definition = {
        "cohort_definition_id": cohort_definition_id,
        "cohort_definition_name": name[:255],
        "cohort_definition_description": words,
        "definition_type_concept_id": 0,
        "cohort_definition_syntax": syntax,
        "subject_concept_id": 0,
        "cohort_initiation_date": None,
    }
    rows = spans[COLUMNS].assign(cohort_definition_id=cohort_definition_id)
    kinds = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "VARCHAR": pa.string(), "DATE": pa.date32()}
    private_folder(folder, data=True)
    for table, frame in (("cohort", rows), ("cohort_definition", pd.DataFrame([definition]))):
        schema = pa.schema([(one.name, kinds[one.type]) for one in fields(table)])
        file = private_folder(Path(folder) / table, data=True) / f"{cohort_definition_id}.parquet"
        write_atomic(file, frame.to_parquet(index=False, schema=schema), private=True)

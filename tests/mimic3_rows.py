"""A few rows of MIMIC-III by hand: what a test is about is written out, everything else is filled in."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import duckdb

import genokit.omop

SCHEMA = json.loads((Path(genokit.omop.__file__).parent / "etl" / "mimic3.json").read_text(encoding="utf-8"))

FILLED = {"SMALLINT": 0, "INTEGER": 0, "DOUBLE": 0.0, "VARCHAR": "?", "TIMESTAMP": datetime.datetime(2150, 1, 1)}


def mimic3(con: duckdb.DuckDBPyConnection | None = None, **tables: list[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """A connection with all 26 tables in the schema mimic3; row_id counts from 1 where it is not given."""
    con = duckdb.connect() if con is None else con
    con.execute("CREATE SCHEMA mimic3; CREATE TABLE mimic3.source AS SELECT 0 AS synthetic")
    for table, about in SCHEMA.items():
        columns = about["columns"]
        con.execute(f"CREATE TABLE mimic3.{table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        for number, row in enumerate(tables.pop(table, []), 1):
            unknown = row.keys() - columns.keys()
            assert not unknown, f"{table} has no {unknown}"
            kinds = {name: kind.split() for name, kind in columns.items()}
            filled = {name: FILLED[kind[0]] for name, kind in kinds.items() if len(kind) > 1}
            whole = filled | {"row_id": number} | row
            con.execute(
                f"INSERT INTO mimic3.{table} ({', '.join(whole)}) VALUES ({', '.join('?' * len(whole))})",
                list(whole.values()),
            )
    assert not tables, f"MIMIC-III has no {tables.keys()}"
    return con


def one_patient(**tables: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """A man of 60 with one admission of ten days (hadm_id 100), two stays in intensive care, and a nurse."""
    rows = {
        "patients": [{"subject_id": 1, "gender": "M", "dob": "2090-03-04", "expire_flag": 0}],
        "admissions": [
            {
                "subject_id": 1,
                "hadm_id": 100,
                "admittime": "2150-01-01 08:00:00",
                "dischtime": "2150-01-11 12:00:00",
                "admission_type": "EMERGENCY",
                "admission_location": "EMERGENCY ROOM ADMIT",
                "discharge_location": "HOME",
                "insurance": "Medicare",
                "ethnicity": "WHITE",
            }
        ],
        "icustays": [
            {
                "subject_id": 1,
                "hadm_id": 100,
                "icustay_id": 1000 + stay,
                "intime": f"2150-01-0{day} 10:00:00",
                "outtime": f"2150-01-0{day + 2} 10:00:00",
                "first_careunit": "MICU",
                "last_careunit": "MICU",
            }
            for stay, day in ((1, 1), (2, 5))
        ],
        "caregivers": [{"cgid": 7, "label": "RN", "description": "RN"}],
    }
    return rows | tables

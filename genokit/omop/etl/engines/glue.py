"""The Glue catalog: tables over Parquet on S3, by which Athena, Spark and users find the CDM.

A published table points at the folder of one result. One call points it at another, so readers see the old rows or the
new ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.errors import InvalidRequest, NotFound
from genokit.omop.etl.mimic3 import mimic3
from genokit.omop.fields import fields

# Hive's names of the CDM's and MIMIC-III's types.
TYPES = {"INTEGER": "int", "SMALLINT": "smallint", "BIGINT": "bigint", "DOUBLE": "double", "VARCHAR": "string",
         "DATE": "date", "TIMESTAMP": "timestamp"}  # fmt: skip

# Tables that the kit adds to the schemas of its inputs.
OWN = {
    "mimic3.source": {"synthetic": "int"},
    "vocab.own": {
        "source_vocabulary_id": "string", "code": "string", "concept_id": "int", "domain_id": "string",
        "meaning": "string",
    },
    "vocab.source_to_concept": {
        "source_vocabulary_id": "string", "source_code": "string", "source_concept_id": "int", "concept_id": "int",
        "domain_id": "string", "nth": "bigint",
    },
}  # fmt: skip

_FORMAT = "org.apache.hadoop.hive.ql.io.parquet"


def columns(table: str) -> dict[str, str]:
    """The columns of a table of MIMIC-III, the vocabulary or the CDM, in Hive's types. Raises NotFound.

    >>> columns("cdm.death")["death_date"], columns("mimic3.patients")["dob"]
    ('date', 'timestamp')
    """
    schema, _, name = table.partition(".")
    if table in OWN:
        return OWN[table]
    if schema == "mimic3" and name in mimic3():
        return {column.name: TYPES[column.type] for column in mimic3()[name].columns.values()}
    if schema in ("cdm", "vocab"):
        return {column.name: TYPES[column.type] for column in fields(name)}
    raise NotFound(
        f"The table '{table}' is no longer in the Glue catalog, and only Athena, which made it, knows its columns. "
        f"Delete its folder '{table}-...' in the target's 'work', and it will be made again."
    )


def create(clients: Clients, database: str) -> None:
    """Make a database unless it exists; the stack ``omop`` has both."""
    glue = clients.client("glue")
    with translated_errors(f"Glue database '{checked(database)}'"):
        try:
            glue.get_database(Name=database)
        except glue.exceptions.EntityNotFoundException:
            glue.create_database(DatabaseInput={"Name": database})


def point(clients: Clients, database: str, name: str, folder: str, typed: Mapping[str, str]) -> None:
    """Make a table over the Parquet files of a folder, or point an existing one at it."""
    glue, about = clients.client("glue"), _input(checked(name), folder, typed)
    with translated_errors(f"Glue table '{database}.{name}'"):
        try:
            glue.update_table(DatabaseName=database, TableInput=about, SkipArchive=True)
        except glue.exceptions.EntityNotFoundException:
            glue.create_table(DatabaseName=database, TableInput=about)


def publish(clients: Clients, database: str, folders: Mapping[str, str]) -> None:
    """Point the tables of the CDM, as "cdm.person", in a database at the folders of their newest results."""
    create(clients, database)
    for table, folder in folders.items():
        point(clients, database, table.removeprefix("cdm."), folder, columns(table))


def drop(clients: Clients, database: str, names: Iterable[str]) -> None:
    """Remove tables from the catalog; their files stay. Unknown names are ignored."""
    with translated_errors(f"Glue database '{database}'"):
        unwanted = sorted(names)
        for start in range(0, len(unwanted), 100):  # a call takes at most a hundred
            some = unwanted[start : start + 100]
            clients.client("glue").batch_delete_table(DatabaseName=database, TablesToDelete=some)


def names(clients: Clients, database: str) -> list[str]:
    """The tables of a database."""
    with translated_errors(f"Glue database '{database}'"):
        pages = clients.client("glue").get_paginator("get_tables").paginate(DatabaseName=database)
        return [table["Name"] for page in pages for table in page["TableList"]]


def checked(name: str) -> str:
    """A name that needs no quotes in Athena's and Hive's SQL. Raises InvalidRequest."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,254}", name):
        raise InvalidRequest(
            f"'{name}' cannot be the name of a table or database in Glue: use lowercase letters, digits and _, with a "
            "letter first.",
            code="InvalidName",
        )
    return name


def _input(name: str, folder: str, typed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE", "classification": "parquet"},
        "StorageDescriptor": {
            "Columns": [{"Name": column, "Type": kind} for column, kind in typed.items()],
            "Location": folder.rstrip("/") + "/",
            "InputFormat": f"{_FORMAT}.MapredParquetInputFormat",
            "OutputFormat": f"{_FORMAT}.MapredParquetOutputFormat",
            "SerdeInfo": {"SerializationLibrary": f"{_FORMAT}.serde.ParquetHiveSerDe"},
        },
    }

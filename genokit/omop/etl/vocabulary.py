"""The standard vocabularies: the kit's own short lists, public maps, and an OHDSI Athena download where there is one.

Without a download, ``concepts/*.csv`` map what MIMIC-III writes most: items of the laboratory, of charts and outputs,
common infusions, units, routes, and the few words for sex, race, visits and answers. The maps of ``maps.py`` add what
those lack. With a download, diagnoses (ICD-9), drugs (NDC), procedures (CPT) and the rest of the laboratory (LOINC)
follow its 'Maps to', and so do the concepts of lists and maps: one that was replaced leads to its successor.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.errors import InvalidSource, NotFound, did_you_mean
from genokit.omop.etl import public_maps as public
from genokit.omop.etl.macros import expand
from genokit.omop.fields import fields

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from genokit.omop.etl.public_maps import Place

CONCEPTS = Path(__file__).parent / "concepts"
QUERIES = Path(__file__).parent / "sql" / "vocabulary"

TABLES = (
    "concept",
    "concept_relationship",
    "vocabulary",
    "domain",
    "concept_class",
    "relationship",
    "concept_synonym",
    "concept_ancestor",
    "drug_strength",
)
_NEEDED = ("concept", "concept_relationship", "vocabulary")

# These lists are keyed by MIMIC's item ids, which no two of its dictionaries share.
_ITEMS = ("labs", "vitals", "outputs", "inputs", "procedures", "specimens", "organisms", "antibiotics", "line_dates")


@dataclass(frozen=True)
class Vocabulary:
    """What codes mean: ``Vocabulary()`` is the kit's own lists; ``vocabulary()`` adds a download, public maps, or both.

    ``files`` are the download's, by table, and ``maps`` the public maps', by name.
    """

    files: dict[str, Path] = field(default_factory=dict)
    maps: dict[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that decides what ``load`` makes."""
        maps = (Path(public.__file__), *self.maps.values()) if self.maps else ()
        return (*sorted(CONCEPTS.glob("*.csv")), *sorted(QUERIES.glob("*.sql")), *self.files.values(), *maps)

    def load(self, con: DuckDBPyConnection) -> None:
        """Make the schema ``vocab`` anew: the vocabulary tables, and ``source_to_concept``, which the ETL reads."""
        con.execute("DROP SCHEMA IF EXISTS vocab CASCADE; CREATE SCHEMA vocab")
        for table in TABLES:
            typed = ", ".join(f"{column.name} {column.type}" for column in fields(table))
            con.execute(f"CREATE TABLE vocab.{table} ({typed})")
            if table in self.files:
                _insert(con, table, self.files[table])
        for table, rows in {"own": own(), "given": public.read(self.maps, own())}.items():
            con.execute(f"CREATE TABLE vocab.{table} (source_vocabulary_id VARCHAR, code VARCHAR, concept_id INTEGER,"
                        " domain_id VARCHAR, meaning VARCHAR)")  # fmt: skip
            con.execute(
                f"INSERT INTO vocab.{table} SELECT " + ", ".join(["UNNEST(?)"] * 5),
                [[row[column] for row in rows] for column in range(5)],
            )
        con.execute(f"INSERT INTO vocab.own {_query('from_maps')}; DROP TABLE vocab.given")
        for name in ("own_concept", "own_vocabulary"):
            table = name.removeprefix("own_")
            con.execute(f"INSERT INTO vocab.{table} BY NAME {_query(name)}")
        con.execute(f"CREATE TABLE vocab.source_to_concept AS {_query('source_to_concept')}")

    def _repr_html_(self) -> str:
        from genokit.display import card

        lists = dict.fromkeys(name.removeprefix("mimic3 ").replace("_", " ") for name, *_ in own())
        rows: dict[str, object] = {"own codes": len(own()), "for": ", ".join(lists)}
        if self.files:
            rows |= {"download": self.files["concept"].parent, "tables": ", ".join(self.files)}
        else:
            rows["download"] = "none: diagnoses, billed procedures and prescriptions by NDC stay without concepts"
        rows["public maps"] = ", ".join(self.maps) or "none"
        return card("Vocabulary", rows)

    def __repr__(self) -> str:
        maps = f" with {len(self.maps)} of the public maps" if self.maps else ""
        if not self.files:
            return f"<Vocabulary of genokit's own {len(own())} codes{maps}>"
        return f"<Vocabulary in {' '.join(str(self.files['concept'].parent).split())}{maps}>"


def vocabulary(
    folder: str | os.PathLike[str] | None = None,
    *,
    maps: Place | list[Place] | tuple[Place, ...] = (),
) -> Vocabulary:
    """What codes mean by a download from https://athena.ohdsi.org, by public maps, or by both, beside the own lists.

    ``folder`` is the download, unpacked: CONCEPT.csv and its siblings. CONCEPT, CONCEPT_RELATIONSHIP and VOCABULARY are
    needed; of the others, CONCEPT_ANCESTOR gives drug eras their ingredients. Ask Athena for SNOMED, ICD9CM, ICD9Proc,
    RxNorm, RxNorm Extension, NDC, LOINC, HCPCS and CPT4; CPT4 comes without names until its own program has fetched
    them. ``maps`` is ``Manifest("ohdsi-mimic-maps").fetch()``, a folder with such files, or several of either. Codes
    that the lists know keep that meaning, and an NDC the download's. Raises NotFound, or InvalidSource for a file that
    lacks a column.
    """
    files = {} if folder is None else _download(Path(folder).expanduser())
    return Vocabulary(files, public.find(maps if isinstance(maps, (list, tuple)) else [maps]))


def _download(place: Path) -> dict[str, Path]:
    if not place.is_dir():
        raise NotFound(f"There is no folder {place}. Unpack the download from athena.ohdsi.org and name its folder.")
    there = {file.stem.lower(): file for file in sorted(place.iterdir()) if file.suffix.lower() == ".csv"}
    for table in _NEEDED:
        if table not in there:
            raise NotFound(
                f"The vocabulary in {place} has no {table.upper()}.csv. {did_you_mean(table, there)} "
                "Unpack the whole download from athena.ohdsi.org into that folder."
            )
    files = {table: there[table] for table in TABLES if table in there}
    for table, file in files.items():
        _check_header(table, file)
    return files


@cache
def own() -> tuple[tuple[str, str, int, str, str], ...]:
    """The kit's own lists: vocabulary, code in capitals, concept, its domain, and what it means in our words."""
    return tuple(_own())


def _own() -> Iterator[tuple[str, str, int, str, str]]:
    for file in sorted(CONCEPTS.glob("*.csv")):
        name = "mimic3 items" if file.stem in _ITEMS else f"mimic3 {file.stem}"
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                yield name, row["code"], int(row["concept_id"]), row["domain_id"], row["meaning"]


def _query(name: str) -> str:
    return expand((QUERIES / f"{name}.sql").read_text(encoding="utf-8"), "duckdb")


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig") as lines:
        return lines.readline().rstrip("\r\n").lower().split("\t")


def _check_header(table: str, file: Path) -> None:
    header = _header(file)
    missing = [column.name for column in fields(table) if column.required and column.name not in header]
    if missing:
        raise InvalidSource(
            f"{file} lacks the column {missing[0]}; its first line has {len(header)}: {', '.join(header)[:200]}. "
            "Athena's files are separated by tabs, with the names of the columns in the first line."
        )


def _insert(con: DuckDBPyConnection, table: str, file: Path) -> None:
    header = _header(file)
    chosen = [column for column in fields(table) if column.name in header]
    values = ", ".join(
        f"CAST(STRPTIME({column.name}, '%Y%m%d') AS DATE)" if column.type == "DATE" else column.name
        for column in chosen
    )
    import duckdb

    # Names of concepts hold single quotation marks, so nothing may be read as quoting.
    statement = (
        f"INSERT INTO vocab.{table} ({', '.join(column.name for column in chosen)}) SELECT {values} "
        "FROM read_csv(?, delim = '\t', quote = '', escape = '', header = false, skip = 1, all_varchar = true,"
        " auto_detect = false, null_padding = false, columns = ?)"
    )
    try:
        con.execute(statement, [str(file), dict.fromkeys(header, "VARCHAR")])
    except duckdb.Error as error:
        first = str(error).partition("\n")[0]
        raise InvalidSource(
            f"{file} is not as Athena delivers it: {first} Unpack the download anew; a program that opens CSV files "
            "may have changed it."
        ) from error

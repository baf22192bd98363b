"""The standard vocabularies: the kit's own short lists, public maps, and an OHDSI Athena download where there is one.

Without a download, ``concepts/*.csv`` map the most frequent codes of MIMIC-III: items of the laboratory, charts and
outputs, common infusions, units, routes, and the few words for sex, race, visits and answers. The maps of
``public_maps`` add more. With a download, diagnoses (ICD-9), drugs (NDC), procedures (CPT) and the rest of the
laboratory (LOINC) follow its 'Maps to', and so do the concepts of lists and maps: a replaced one maps to its successor.
"""

from __future__ import annotations

import csv
import os
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

TABLES = ("concept", "concept_relationship", "vocabulary", "domain", "concept_class", "relationship", "concept_synonym",
          "concept_ancestor", "drug_strength")  # fmt: skip
_NEEDED = ("concept", "concept_relationship", "vocabulary")

# These lists are keyed by MIMIC's item ids, which are unique across its dictionaries.
_ITEMS = ("labs", "vitals", "outputs", "inputs", "procedures", "specimens", "organisms", "antibiotics", "line_dates")


@dataclass(frozen=True)
class Vocabulary:
    """What codes mean: ``Vocabulary()`` is the kit's own lists; ``omop.vocabulary()`` adds a download, public maps, or
    both.

    Parameters
    ----------
    files : dict of str to path, optional
        The files of a download, by table of the CDM.
    maps : dict of str to path, optional
        The files of public maps, by name.
    """

    files: dict[str, Path] = field(default_factory=dict)
    maps: dict[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file on which ``load`` depends."""
        maps = (Path(public.__file__), *self.maps.values()) if self.maps else ()
        return (*sorted(CONCEPTS.glob("*.csv")), *sorted(QUERIES.glob("*.sql")), *self.files.values(), *maps)

    def load(self, con: DuckDBPyConnection) -> None:
        """Make the schema ``vocab``: the vocabulary tables, and ``source_to_concept``, which the ETL reads."""
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

        none = "none: diagnoses, billed procedures and prescriptions by NDC have no concepts"
        download = self.files["concept"].parent if self.files else none
        maps = ", ".join(self.maps) or "none"
        return card("Vocabulary", {"own codes": len(own()), "download": download, "public maps": maps})

    def __repr__(self) -> str:
        maps = f" with {len(self.maps)} of the public maps" if self.maps else ""
        place = f"of genokit's own {len(own())} codes"
        if self.files:
            place = f"in {' '.join(str(self.files['concept'].parent).split())}"
        return f"<Vocabulary {place}{maps}>"


def vocabulary(
    folder: str | os.PathLike[str] | None = None,
    *,
    maps: Place | list[Place] | tuple[Place, ...] = (),
) -> Vocabulary:
    """What codes mean by an Athena download, by public maps, or by both, beside the kit's own lists.

    Codes in the own lists keep that meaning; NDCs have the download's.

    Parameters
    ----------
    folder : str or path, optional
        A download from https://athena.ohdsi.org, unpacked: CONCEPT.csv and its siblings. CONCEPT, CONCEPT_RELATIONSHIP
        and VOCABULARY are needed; CONCEPT_ANCESTOR gives drug eras their ingredients. Select SNOMED, ICD9CM, ICD9Proc,
        RxNorm, RxNorm Extension, NDC, LOINC, HCPCS and CPT4 (whose names the download's own program fetches).
    maps : Dataset, str, path or a list of them, default ()
        Public concept maps: ``Manifest("ohdsi-mimic-maps").fetch()``, or a folder with such files.

    Returns
    -------
    Vocabulary
        For ``omop.etl(..., known=...)``.

    Raises
    ------
    NotFound
        Where a folder or a needed file is missing.
    InvalidSource
        Where a file lacks a column.

    Examples
    --------
    >>> from genokit import omop
    >>> omop.vocabulary().files
    {}
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
        _header(table, file)
    return files


@cache
def own() -> tuple[public.Row, ...]:
    """The kit's own lists: vocabulary, code in capitals, concept, its domain, and its meaning."""
    found = list[public.Row]()
    for file in sorted(CONCEPTS.glob("*.csv")):
        name = "mimic3 items" if file.stem in _ITEMS else f"mimic3 {file.stem}"
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found.append((name, row["code"], int(row["concept_id"]), row["domain_id"], row["meaning"]))
    return tuple(found)


def _query(name: str) -> str:
    return expand((QUERIES / f"{name}.sql").read_text(encoding="utf-8"), "duckdb")


def _header(table: str, file: Path) -> list[str]:
    """The names of a file's columns. Raises InvalidSource where one is missing."""
    with file.open(encoding="utf-8-sig") as lines:
        header = lines.readline().rstrip("\r\n").lower().split("\t")
    missing = [column.name for column in fields(table) if column.required and column.name not in header]
    if missing:
        raise InvalidSource(
            f"{file} lacks the column {missing[0]}; its first line has {len(header)}: {', '.join(header)[:200]}. "
            "Athena's files are tab-separated, with the names of the columns in the first line."
        )
    return header


def _insert(con: DuckDBPyConnection, table: str, file: Path) -> None:
    header = _header(table, file)
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
            f"{file} differs from what Athena delivers: {first} Unpack the download again; a program that opens CSV "
            "files may have changed it."
        ) from error

"""What the SQL of OHDSI's PhenotypeLibrary finds: writes results.json, to which test_omop_phenotypes.py holds the kit.

    python tests/phenotypes.py .../PhenotypeLibrary/inst/sql/sql_server > tests/phenotype_library/results.json

Of each definition the library has the SQL too. It is run over the sample, and over persons made here, who have what the
definitions ask for: their concepts, values, units, ages and visits, near to one another.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from genokit import Cdm

LIBRARY = Path(__file__).parent / "phenotype_library"
NUMBERS = sorted(int(path.stem) for path in LIBRARY.glob("[0-9]*.json"))
PERSONS = 24  # for each definition
BEGIN = datetime.date(2016, 1, 1)

# Table, prefix of its columns, whether its records have an end, and those columns of it that criteria ask for.
TABLES = {
    "ConditionOccurrence": ("condition_occurrence", "condition", True),
    "ConditionEra": ("condition_era", "condition_era", True),
    "DrugExposure": ("drug_exposure", "drug_exposure", True),
    "DrugEra": ("drug_era", "drug_era", True),
    "ProcedureOccurrence": ("procedure_occurrence", "procedure", False),
    "Measurement": ("measurement", "measurement", False),
    "Observation": ("observation", "observation", False),
    "DeviceExposure": ("device_exposure", "device_exposure", True),
    "VisitOccurrence": ("visit_occurrence", "visit", True),
}


def definition(number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((LIBRARY / f"{number}.json").read_text(encoding="utf-8"))
    return found


def digest(rows: list[tuple[Any, ...]]) -> list[Any]:
    """How many rows and persons, and a hash of all: person, first and last day."""
    lines = sorted("|".join(map(str, row)) for row in rows)
    return [len(rows), len({row[0] for row in rows}), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]]


def parts(node: Any) -> Iterator[tuple[str, Any]]:
    for key, value in node.items() if isinstance(node, dict) else ((("", one)) for one in node):
        yield key, value
        if isinstance(value, (dict, list)):
            yield from parts(value)


class Persons:
    """Persons, each with some records of what one definition asks for; the same in every run."""

    def __init__(self) -> None:
        self.dice = random.Random(7)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.kinds: dict[int, int] = {}  # of each concept that is asked for with its kinds, one of them
        self.concepts = {0}
        definitions = [definition(number) for number in NUMBERS]
        for one in definitions:
            for key, value in parts(one):
                if key == "CONCEPT_ID":
                    self.concepts.add(value)
        for one in definitions:
            for _, item in parts(one["ConceptSets"]):
                if isinstance(item, dict) and item.get("includeDescendants"):
                    self.kinds.setdefault(item["concept"]["CONCEPT_ID"], 2_100_000_000 + len(self.kinds))
        for i in range(len(definitions) * PERSONS):
            self.person(i + 1, definitions[i % len(definitions)])
        for concept in sorted(self.concepts | set(self.kinds.values())):
            self.add("concept", concept_id=concept, concept_name=f"concept {concept}")
            self.add("concept_ancestor", ancestor_concept_id=concept, descendant_concept_id=concept)
        for concept, kind in self.kinds.items():
            self.add("concept_ancestor", ancestor_concept_id=concept, descendant_concept_id=kind)

    def add(self, table: str, **row: Any) -> int:
        self.rows.setdefault(table, []).append(row)
        return len(self.rows[table])

    def one(self, choices: Any) -> Any:
        return choices[int(self.dice.random() * len(choices))]

    def day(self, anchors: list[datetime.date]) -> datetime.date:
        """A day near to one of a person's, more likely very near."""
        away = int(self.one((0, 0, 1, 3, 14, 40, 200, 400)) * self.dice.random() + 0.5)
        return self.one(anchors) + datetime.timedelta(days=self.one((-1, 1)) * away)

    def person(self, who: int, of: dict[str, Any]) -> None:
        age = next((value for key, value in parts(of) if key == "Age"), None)
        born = self.one(range(1940, 2000)) if age is None else 2019 - age["Value"] - self.one((-2, -1, 0, 0, 1, 2))
        self.add("person", person_id=who, gender_concept_id=self.one((8507, 8532)), year_of_birth=born)
        start = BEGIN + datetime.timedelta(days=self.one((0, 300, 900)))
        end = datetime.date(2022, 12, 31) - datetime.timedelta(days=self.one((0, 100, 500)))
        self.add("observation_period", person_id=who, observation_period_id=who, observation_period_start_date=start,
                 observation_period_end_date=end)  # fmt: skip
        anchors = [BEGIN + datetime.timedelta(days=int(1200 + 900 * self.dice.random())) for _ in range(2)]
        if self.dice.random() < 0.3:
            self.add("death", person_id=who, death_date=self.day(anchors))
        self.visits = [self.record(who, anchors, "VisitOccurrence", {}, (9201, 9202, 9203)) for _ in range(3)]
        entry, others = self.criteria(of["PrimaryCriteria"], of), self.criteria(of, of)
        for kind, asked, sets in [self.one(entry) for _ in range(self.one((1, 2, 4)))] if entry else []:
            self.record(who, anchors, kind, asked, sets)
        for kind, asked, sets in [self.one(others) for _ in range(self.one((0, 1, 3, 6, 12, 20)))] if others else []:
            self.record(who, anchors, kind, asked, sets)

    def criteria(self, node: Any, of: dict[str, Any]) -> list[tuple[str, dict[str, Any], list[int]]]:
        """All criteria below a part of a definition: the kind, what is asked, and the concepts of its set."""
        known: dict[int | None, list[int]] = {None: [9202]}
        known |= {
            one["id"]: [item["concept"]["CONCEPT_ID"] for item in one["expression"]["items"]]
            for one in of["ConceptSets"]
        }
        found = [(key, value) for key, value in parts(node) if key in TABLES]
        return [
            (key, asked, known[number])
            for key, asked in found
            for number in [asked.get("CodesetId", asked.get("ConditionSourceConcept"))]
            if known.get(number)
        ]

    def record(self, who: int, anchors: list[datetime.date], kind: str, asked: dict[str, Any], among: Any) -> int:
        table, prefix, ends = TABLES[kind]
        concept = self.one(among)
        if self.dice.random() < 0.4:
            concept = self.kinds.get(concept, concept)
        start = self.day(anchors)
        row: dict[str, Any] = {"person_id": who, f"{prefix}_start_date" if ends else f"{prefix}_date": start}
        row[f"{table.split('_')[0]}_concept_id"] = concept
        number = row[f"{table}_id"] = len(self.rows.get(table, ())) + 1
        if ends:
            length = self.one((0, 2, 9, 30) if kind.endswith("Era") or kind.startswith("Visit") else (None, 0, 5, 30))
            row[f"{prefix}_end_date"] = None if length is None else start + datetime.timedelta(days=length)
        if kind == "VisitOccurrence":
            row["provider_id"] = self.provider(asked)
        elif not kind.endswith("Era"):
            row["visit_occurrence_id"] = self.one(self.visits) if self.dice.random() < 0.6 else None
        if "ConditionSourceConcept" in asked:
            row["condition_source_concept_id"] = concept
        if kind == "DrugExposure":
            row["days_supply"] = self.one((None, 10, 30, 90))
        if kind.endswith("Era"):
            row[f"{'drug_exposure' if kind == 'DrugEra' else 'condition_occurrence'}_count"] = self.one((0, 1, 2))
        if kind == "Measurement":
            row |= self.values(asked)
        self.add(table, **row)
        return int(number)

    def values(self, asked: dict[str, Any]) -> dict[str, Any]:
        bounds = [asked.get("ValueAsNumber", {}).get(name) for name in ("Value", "Extent")]
        near = [float(bound) * factor for bound in bounds if bound is not None for factor in (0.6, 1, 1.4)]
        return {
            "value_as_number": self.one([None, *near, *near]),
            "unit_concept_id": self.one([0, *(one["CONCEPT_ID"] for one in asked.get("Unit", ()))]),
            "value_as_concept_id": self.one([0, *(one["CONCEPT_ID"] for one in asked.get("ValueAsConcept", ()))]),
            "range_high": self.one([None, *near]),
        }

    def provider(self, asked: dict[str, Any]) -> int | None:
        wanted = [one["CONCEPT_ID"] for one in asked.get("ProviderSpecialty", ())]
        if not wanted:
            return None
        number = len(self.rows.get("provider", ())) + 1
        return self.add("provider", provider_id=number, specialty_concept_id=self.one([0, *wanted]))

    def write(self, file: Path) -> Path:
        with duckdb.connect(file) as con:
            for table, rows in self.rows.items():
                names = dict.fromkeys(name for row in rows for name in row)
                con.register("given", pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]))
                con.execute(f"create table {table} as from given")
        return file


def found_by_the_library(cdm: Cdm, sql: str) -> list[tuple[Any, ...]]:
    from duckcdm.sqlrender import render, translate

    ready = render(
        sql, cdm_database_schema="cdm", vocabulary_database_schema="cdm", target_database_schema="temp",
        target_cohort_table="cohort", target_cohort_id=1, cohort_id_field_name="cohort_definition_id",
        results_database_schema="temp",
    )  # fmt: skip
    with cdm.database.con.cursor() as con:
        con.execute(
            "create temp table cohort (cohort_definition_id bigint, subject_id bigint, cohort_start_date date,"
            " cohort_end_date date)"
        )
        con.execute(translate(ready, "duckdb"))
        found: list[tuple[Any, ...]] = con.execute(
            "select subject_id, cohort_start_date, cohort_end_date from temp.cohort"
        ).fetchall()
    return found


def main(folder: Path, scratch: Path) -> None:
    places = {"sample": Cdm(), "made": Cdm(Persons().write(scratch / "made.duckdb"))}
    lines = []
    for number in NUMBERS:
        sql = (folder / f"{number}.sql").read_text(encoding="utf-8")
        results = {name: digest(found_by_the_library(cdm, sql)) for name, cdm in places.items()}
        lines.append(f'"{number}": {json.dumps(results)}')
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]), Path(scratch))

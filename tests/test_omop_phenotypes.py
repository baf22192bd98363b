"""OHDSI's PhenotypeLibrary: its definitions give the persons and days that the library's own SQL gives."""

from __future__ import annotations

import json

import pytest
from phenotypes import LIBRARY, NUMBERS, Persons, digest

from genokit import Cdm

EXPECTED = json.loads((LIBRARY / "results.json").read_text())


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Cdm]:
    return {"sample": Cdm(), "made": Cdm(Persons().write(tmp_path_factory.mktemp("made") / "made.duckdb"))}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_definition_finds_what_the_library_s_own_sql_finds(places, number):
    for place, cdm in places.items():
        spans = cdm.atlas_cohort(LIBRARY / f"{number}.json").spans
        rows = [(who, start.date(), end.date()) for who, start, end in spans.itertuples(index=False)]
        assert digest(rows) == EXPECTED[str(number)][place]


def test_hardly_any_of_them_is_tested_on_nobody():
    assert len(NUMBERS) >= 40
    assert all(found["made"][1] > 0 for found in EXPECTED.values())
    assert sum(found["sample"][1] > 0 for found in EXPECTED.values()) >= 5

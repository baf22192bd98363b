"""The kit's own lists of concepts, and a downloaded vocabulary, tiny and made by hand in Athena's format."""

from __future__ import annotations

import csv
import re
from collections import defaultdict

import duckdb
import pytest
from athena import download, write

from genokit.errors import InvalidSource, NotFound
from genokit.omop.etl import public_maps, transform
from genokit.omop.etl.vocabulary import CONCEPTS, Vocabulary, own, vocabulary

LISTS = {
    file.stem: list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) for file in CONCEPTS.glob("*.csv")
}

DOMAINS = {"Condition", "Condition Status", "Drug", "Ethnicity", "Gender", "Language", "Meas Value",
           "Meas Value Operator", "Measurement", "Metadata", "Observation", "Place", "Procedure", "Race", "Route",
           "Specimen", "Type Concept", "Unit", "Visit"}  # fmt: skip

SQL = "\n".join(
    [*transform.statements().values(), (transform.FOLDER.parent / "macros.sql").read_text(encoding="utf-8")]
)


@pytest.mark.parametrize("name", sorted(LISTS))
def test_every_row_of_a_list_is_whole(name):
    for row in LISTS[name]:
        assert list(row) == ["code", "concept_id", "domain_id", "meaning"]
        assert row["domain_id"] in DOMAINS, row
        assert int(row["concept_id"]) >= 0
        assert row["meaning"], row
        if name != "constants":
            assert int(row["concept_id"]) > 0, row
            assert row["code"] == row["code"].upper().strip(), f"codes are looked up in capitals: {row}"


def test_a_code_has_one_meaning_in_its_vocabulary():
    seen = defaultdict(list)
    for name, code, concept, *_ in own():
        seen[name, code].append(concept)
    assert {key: ids for key, ids in seen.items() if len(ids) > 1} == {}


def test_a_concept_has_one_domain_wherever_it_stands():
    domains = defaultdict(set)
    for _, _, concept, domain, _ in own():
        domains[concept].add(domain)
    assert {concept: found for concept, found in domains.items() if len(found) > 1} == {}


def test_items_are_of_the_dictionaries_that_their_list_is_about():
    """MIMIC-III numbers its dictionaries apart: laboratory 50800 on, CareVue below 50000, MetaVision from 220000."""
    for name, inside in {
        "labs": lambda item: 50800 <= item < 52000,
        "vitals": lambda item: item < 10000 or 220000 <= item < 230000,
        "outputs": lambda item: 40000 <= item < 50000 or 220000 <= item < 230000,
        "inputs": lambda item: 30000 <= item < 40000 or 220000 <= item < 230000,
        "procedures": lambda item: 220000 <= item < 230000,
        "line_dates": lambda item: 220000 <= item < 230000,
        "specimens": lambda item: 70000 <= item < 71000 or 90000 <= item < 91000,
        "organisms": lambda item: 80000 <= item < 81000,
        "antibiotics": lambda item: 90000 <= item < 91000,
        "cultures": lambda item: 70000 <= item < 71000,
    }.items():
        assert [row["code"] for row in LISTS[name] if not inside(int(row["code"]))] == []


def test_every_list_is_looked_up_by_the_sql():
    named = set(re.findall(r"'(mimic3 \w+)'", SQL))
    mapped = {about.vocabulary for about in public_maps.FILES.values()}
    assert {name for name, *_ in own()} - {"mimic3 constants"} | mapped == named


def test_every_constant_is_used():
    used = set(re.findall(r"concept\('([^']+)'\)", SQL))
    assert {row["code"] for row in LISTS["constants"]} - {"No matching concept"} == used


@pytest.mark.parametrize("name", ["visits", "answers"])
def test_codes_of_several_questions_say_which_they_answer(name):
    kinds = {row["code"].split(" ")[0] for row in LISTS[name]}
    assert kinds == {kind for kind in kinds if f"'{kind} ' ||" in SQL}


def test_patients_of_either_era_have_the_same_concepts_for_vital_signs():
    """CareVue (below 220000) and MetaVision: a study must find both."""
    eras = defaultdict(set)
    for row in LISTS["vitals"]:
        eras[row["meaning"]].add("MetaVision" if int(row["code"]) >= 220000 else "CareVue")
    for sign in ("heart rate", "systolic blood pressure", "respiratory rate", "body temperature", "body weight"):
        assert eras[sign] == {"CareVue", "MetaVision"}
    assert len({row["concept_id"] for row in LISTS["vitals"] if row["meaning"] == "heart rate"}) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return download(tmp_path_factory.mktemp("athena"))


@pytest.fixture(scope="module")
def loaded(folder):
    con = duckdb.connect()
    vocabulary(folder).load(con)
    return con


def means(con, name: str, code: str) -> list[tuple]:
    return con.execute(
        "SELECT concept_id, domain_id, nth FROM vocab.source_to_concept WHERE source_vocabulary_id = ?"
        " AND source_code = ? ORDER BY nth",
        [name, code],
    ).fetchall()


@pytest.mark.parametrize(
    ("name", "code", "meaning"),
    [
        ("ICD9CM", "4019", [(320128, "Condition", 0)]),
        ("ICD9CM", "V1582", [(4144272, "Observation", 0)]),
        ("ICD9CM", "25011", [(201254, "Condition", 0), (443727, "Condition", 1)]),
        ("ICD9CM", "7999", [(0, "Condition", 0)]),
        ("ICD9Proc", "9604", [(4202832, "Procedure", 0)]),
        ("CPT4", "99291", [(5, "Observation", 0)]),
        ("NDC", "00338004904", [(40220357, "Drug", 0)]),
        ("NDC", "00193370701", [(45768001, "Device", 0)]),
        ("LOINC", "2951-2", [(8, "Measurement", 0)]),
    ],
)
def test_a_download_maps_codes_by_maps_to_and_knows_their_domains(loaded, name, code, meaning):
    assert means(loaded, name, code) == meaning


def test_an_own_concept_that_was_replaced_leads_to_its_successor(loaded):
    assert means(loaded, "mimic3 items", "50912") == [(9999999, "Measurement", 0)]
    assert means(loaded, "mimic3 items", "50983") == [(3019550, "Measurement", 0)]


def test_every_concept_that_something_means_is_in_the_concept_table_once(loaded):
    for con in (loaded, duckdb.connect()):
        if con is not loaded:
            Vocabulary().load(con)
        lost = "SELECT concept_id FROM vocab.source_to_concept EXCEPT SELECT concept_id FROM vocab.concept"
        assert con.execute(lost).fetchall() == []
        twice = "SELECT concept_id FROM vocab.concept GROUP BY ALL HAVING COUNT(*) > 1"
        assert con.execute(twice).fetchall() == []
        assert con.execute("SELECT COUNT(*) FROM vocab.vocabulary WHERE vocabulary_id = 'None'").fetchone() == (1,)


def test_concepts_have_names_without_a_download_too():
    con = duckdb.connect()
    Vocabulary().load(con)
    names = dict(con.execute("SELECT concept_id, concept_name FROM vocab.concept").fetchall())
    assert (names[0], names[32817], names[3027018]) == ("No matching concept", "EHR", "heart rate")


def test_a_name_with_quotation_marks_is_read_whole(loaded):
    name = loaded.execute("SELECT concept_name FROM vocab.concept WHERE concept_id = 2").fetchone()[0]
    assert name == 'History of tobacco use, "quit"; the patient\'s'
    assert loaded.execute("SELECT COUNT(*) FROM vocab.concept WHERE vocabulary_id <> 'genokit'").fetchone() == (20,)


def test_loading_again_replaces_what_was_there(folder):
    con = duckdb.connect()
    vocabulary(folder).load(con)
    Vocabulary().load(con)
    assert means(con, "ICD9CM", "4019") == []


def test_a_folder_that_is_no_download_is_refused_by_name(tmp_path, folder):
    with pytest.raises(NotFound, match="There is no folder"):
        vocabulary(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"has no CONCEPT\.csv"):
        vocabulary(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name.lower()).write_bytes(file.read_bytes())
    assert repr(vocabulary(tmp_path)) == f"<Vocabulary in {tmp_path}>"
    write(tmp_path, "concept.csv", "concept_id,concept_name", [])
    with pytest.raises(InvalidSource, match=r"lacks the column concept_id; its first line has 1: .* tab-separated"):
        vocabulary(tmp_path)


def test_a_file_that_another_program_has_changed_is_named(tmp_path):
    download(tmp_path)
    file = tmp_path / "CONCEPT.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("19700101", "01/01/1970"), encoding="utf-8")
    with pytest.raises(InvalidSource, match=r"CONCEPT\.csv differs from what Athena delivers: .*01/01/1970"):
        vocabulary(tmp_path).load(duckdb.connect())


def test_a_vocabulary_shows_what_it_knows(folder):
    assert repr(Vocabulary()) == f"<Vocabulary of genokit's own {len(own())} codes>"
    assert "have no concepts" in Vocabulary()._repr_html_()
    assert str(folder) in vocabulary(folder)._repr_html_()

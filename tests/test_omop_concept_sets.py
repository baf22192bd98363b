"""Concepts are found by near names, know what is above and below them, and make sets that ATLAS understands."""

from __future__ import annotations

import json

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trino_query_parser import parse_statement

from genokit import Cdm, Concept, ConceptSet
from genokit.errors import ConfigError, InvalidParameters, NotFound
from genokit.omop.concepts import QUERIES
from genokit.omop.parameters import bind, names

NAMES = {
    1: "Disorder of lung", 2: "Asthma", 3: "Childhood asthma", 4: "Allergic asthma", 5: "Allergic childhood asthma",
    6: "Asthma, an old name", 7: "Bronchitis", 10: "Asthma, unspecified (ICD)", 11: "Extrinsic asthma (ICD)",
}  # fmt: skip
KINDS = [(1, 2), (1, 7), (2, 3), (2, 4), (3, 5), (4, 5), (2, 6)]
MAPS = [(10, 2), (11, 4), (2, 2), (4, 4)]


def closure() -> set[tuple[int, int, int]]:
    """Ancestor, descendant and the fewest steps between them, each concept its own at none."""
    steps = {(one, one): 0 for one in NAMES if one < 10}
    for _ in NAMES:
        for above, below in KINDS:
            for (ancestor, descendant), n in list(steps.items()):
                if descendant == above:
                    steps[ancestor, below] = min(n + 1, steps.get((ancestor, below), 99))
    return {(above, below, n) for (above, below), n in steps.items()}


@pytest.fixture(scope="module")
def cdm() -> Cdm:
    con = duckdb.connect()
    rows = [(i, name, "Condition", "SNOMED" if i < 10 else "ICD10CM", "Disorder", "S" if i < 10 and i != 6 else None,
             f"c{i}", "D" if i == 6 else None) for i, name in NAMES.items()]  # fmt: skip
    columns = ("concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept",
             "concept_code", "invalid_reason")  # fmt: skip
    for table, header, content in (
        ("concept", columns, rows),
        ("concept_ancestor", ("ancestor_concept_id", "descendant_concept_id", "min_levels_of_separation"), closure()),
        ("concept_relationship", ("concept_id_1", "concept_id_2"), MAPS),
        ("concept_synonym", ("concept_id", "concept_synonym_name"), [(2, "Bronchial wheeze")]),
        ("person", ("person_id",), [(1,)]),
    ):
        made = pd.DataFrame(sorted(content, key=str), columns=list(header))
        con.register("made", made)
        con.execute(f"create table {table} as select * from made")
    con.execute("alter table concept_relationship add column relationship_id varchar default 'Maps to'")
    con.execute("alter table concept_relationship add column invalid_reason varchar")
    return Cdm(database=con)


def test_a_concept_knows_what_is_above_and_below_it(cdm):
    asthma = cdm.concept(2)
    assert (asthma.concept_name, asthma.domain_id, asthma.standard_concept) == ("Asthma", "Condition", "S")
    assert cdm.concept(5).ancestors()[["concept_id", "levels"]].values.tolist() == [[4, 1], [3, 1], [2, 2], [1, 3]]
    assert sorted(asthma.descendants()) == [2, 3, 4, 5]  # 6 is no longer valid
    assert cdm.concept(10).maps_to()["concept_id"].tolist() == [2]


def test_a_card_lists_what_is_above_and_below_by_levels(cdm):
    shown = cdm.concept(1)._repr_html_()
    places = [shown.index(one) for one in ("Descendants (5)", "Asthma<", "Bronchitis", "Childhood asthma")]
    assert places == sorted(places)
    assert "an old name" not in shown


def test_an_unknown_concept_is_refused(cdm):
    with pytest.raises(NotFound, match="no concept 99"):
        cdm.concept(99)
    with pytest.raises(NotFound, match="no concept 99"):
        cdm.concept_set("x").include(2, 99)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("asthma", 2),
        ("ASTHMA", 2),
        ("childhood asthma", 3),
        ("asthma childhood", 3),
        ("athsma", 2),
        ("alergic asthma", 4),
        ("bronchitus", 7),
        ("c7", 7),
        ("bronchial wheeze", 2),
        ("disorder lung", 1),
    ],
)
def test_a_search_finds_similar_names_the_best_match_first(cdm, words, first):
    found = cdm.concepts(words)
    assert found["concept_id"].iloc[0] == first
    assert found["concept_id"].is_unique


def test_a_search_is_narrowed_down(cdm):
    assert set(cdm.concepts("asthma", vocabulary="icd10cm")["concept_id"]) == {10, 11}
    assert 6 not in set(cdm.concepts("asthma", standard=True)["concept_id"])
    assert set(cdm.concepts("asthma", standard=False)["concept_id"]) == {6, 10, 11}
    assert len(cdm.concepts("asthma", most=2)) == 2
    assert cdm.concepts("qqqqq").empty
    with pytest.raises(NotFound, match=r"domain_id 'Conditoin'\. Did you mean 'Condition'"):
        cdm.concepts("asthma", domain="Conditoin")
    with pytest.raises(InvalidParameters):
        cdm.concepts("  ")


@pytest.mark.parametrize("words", ["'", "--", "%", "_", "$x", "a'; drop table concept; --", "🧬", "\\", '"'])
def test_a_search_for_anything_is_harmless(cdm, words):
    cdm.concepts(words)
    assert cdm.concept(2).concept_name == "Asthma"


def test_a_set_includes_and_excludes_as_atlas_does(cdm):
    asthma = cdm.concept_set("asthma").include(2)
    assert asthma.tolist() == [4, 5, 2, 3]
    assert sorted(asthma.exclude(3)) == [2, 4]
    assert sorted(asthma.exclude(3, descendants=False)) == [2, 4, 5]
    assert sorted(asthma.include(10, descendants=False)) == [2, 3, 4, 5, 10]
    assert sorted(cdm.concept_set("m").include(2, mapped=True)) == [2, 3, 4, 5, 10, 11]
    assert sorted(cdm.concept_set("m").include(2, descendants=False, mapped=True)) == [2, 10]
    assert sorted(cdm.concept_set("old").include(6, descendants=False)) == [6]
    assert asthma.tolist() == [4, 5, 2, 3]  # a set never changes
    assert cdm.concept_set("none").tolist() == []
    assert cdm.concept_set("only out").exclude(2).tolist() == []


def test_a_set_stands_for_its_ids_in_a_query(cdm):
    found = cdm.query("select concept_id from concept where concept_id in $ids", ids=cdm.concept(2).descendants())
    assert sorted(found["concept_id"]) == [2, 3, 4, 5]


flags = st.tuples(st.sampled_from(sorted(NAMES)), st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=40)
@given(st.lists(flags, max_size=5))
def test_a_set_survives_atlas_s_json_and_means_what_its_definition_says(cdm, items):
    content = {"items": [{"concept": {"CONCEPT_ID": one}, "isExcluded": out, "includeDescendants": down,
                          "includeMapped": mapped} for one, out, down, mapped in items]}  # fmt: skip
    read = cdm.concept_set("x", content)
    again = cdm.concept_set("x", read.to_json())
    assert again == read
    assert [(item.concept.concept_id, item.excluded, item.descendants, item.mapped) for item in again.items] == items

    def means(excluded: bool) -> set[int]:
        found: set[int] = set()
        for one, out, down, mapped in items:
            if out is excluded:
                kinds = {below for above, below, _ in closure() if above == one and below != 6} if down else set()
                found |= {one} | kinds
                found |= {code for code, standard in MAPS if mapped and standard in {one} | kinds}
        return found

    assert set(read) == means(False) - means(True)


@pytest.mark.usefixtures("no_garbage")
def test_a_file_that_atlas_did_not_export_is_refused_whatever_it_holds(cdm, tmp_path):
    file = tmp_path / "set.json"
    for content in (b"\xff\xfe\x00", b"[" * 100_000, b'{"items": [' + b" " * 2**24, b"", b"\0" * 99):
        file.write_bytes(content)
        with pytest.raises(InvalidParameters, match=r"set\.json' (is not JSON|has more than)"):
            cdm.concept_set("asthma", file)


def test_atlas_s_json_is_read_from_a_file_a_text_or_a_cohort(cdm, tmp_path):
    asthma = cdm.concept_set("asthma").include(2).exclude(3)
    file = tmp_path / "asthma.json"
    text = asthma.to_json(file)
    exported = json.loads(text)["items"][0]
    assert exported["concept"]["STANDARD_CONCEPT_CAPTION"] == "Standard"
    assert exported | {"concept": {}} == {"concept": {}, "isExcluded": False, "includeDescendants": True,
                                          "includeMapped": False}  # fmt: skip
    whole = {"id": 7, "name": "asthma", "expression": json.loads(text)}
    cohort = {"ConceptSets": [whole, {"id": 8, "name": "other", "expression": {"items": []}}], "PrimaryCriteria": {}}
    for source in (file, str(file), text, whole, json.dumps(whole), json.loads(text)["items"]):
        assert cdm.concept_set("asthma", source if not isinstance(source, list) else {"items": source}) == asthma
    assert cdm.concept_set(source=whole).name == "asthma"
    assert cdm.concept_set("asthma", cohort) == asthma
    with pytest.raises(NotFound, match="Did you mean 'asthma'"):
        cdm.concept_set("asthm", cohort)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("nowhere.json", NotFound),
        ("{", InvalidParameters),
        ('{"a": 1}', InvalidParameters),
        ("[1]", InvalidParameters),
        ('{"items": [{"concept": {"CONCEPT_NAME": "x"}}]}', InvalidParameters),
        ('{"items": [{"concept": 5}]}', InvalidParameters),
        ('{"items": 5}', InvalidParameters),
        ('{"expression": []}', InvalidParameters),
        ('{"ConceptSets": []}', NotFound),
    ],
)
def test_json_that_is_not_a_concept_set_is_refused_with_what_was_expected(cdm, source, error):
    with pytest.raises(error):
        cdm.concept_set("x", source)


def test_a_set_without_a_cdm_keeps_its_items_and_asks_for_one(cdm):
    asthma = cdm.concept_set("asthma").include(2)
    alone = ConceptSet("alone").include(*(item.concept for item in asthma.items))
    assert alone.to_json() == asthma.to_json()
    for ask in (alone.tolist, lambda: alone.include(2), Concept(1, "", "", "", "", None, "").ancestors):
        with pytest.raises(ConfigError, match="no CDM"):
            ask()


def test_cards_show_a_concept_and_a_set_with_their_trees(cdm):
    card = cdm.concept(2)._repr_html_()
    assert "Disorder of lung" in card
    assert "Allergic childhood asthma" in card
    card = cdm.concept_set("<b>").include(2).exclude(5)._repr_html_()
    assert "&lt;b&gt;" in card
    assert "excluded, with descendants" in card
    assert "no longer" in cdm.concept(6)._repr_html_()


@pytest.mark.parametrize("file", sorted(QUERIES.glob("*.sql")), ids=lambda file: file.stem)
def test_every_query_is_trino_s_too(file):
    sql = file.read_text()
    given = {"ids": [1], "down": [], "mapped": [2], "mapped_down": [], "id": 1, "pieces": ["a'b"], "least": 1,
             "domain": None, "vocabulary": "SNOMED", "standard": True}  # fmt: skip
    text, _ = bind(sql, {name: given[name] for name in names(sql, "athena")}, "athena")
    parse_statement(text)

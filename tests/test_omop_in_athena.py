"""The sample asked in Athena gives what it gives here: cohorts of every domain, concepts, studies, what is in it.

Run by DuckDB, behind a small Athena (small_athena.py); each statement is held to Trino's grammar.
"""

from __future__ import annotations

import pytest
from moto import mock_aws
from pandas.testing import assert_frame_equal
from small_athena import WORKGROUP, AsksAthena, cells, hold

from genokit import Cdm
from genokit.omop.characterize.achilles import DOMAINS

WORDS = {"condition_occurrence": "condition", "drug_exposure": "drug", "procedure_occurrence": "procedure",
         "measurement": "measurement", "observation": "observation", "device_exposure": "device",
         "visit_occurrence": "visit"}  # fmt: skip
ASTHMA, CELECOXIB, BLEEDING = 317009, 1118084, 192671


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with pytest.MonkeyPatch.context() as env, mock_aws():
        env.setenv("AWS_ACCESS_KEY_ID", "a")
        env.setenv("AWS_SECRET_ACCESS_KEY", "b")
        aws = AsksAthena(tmp_path_factory.mktemp("athena"))
        hold(aws, Cdm(external_access=True).database.con)
        yield aws


@pytest.fixture
def there(aws):
    return Cdm(f"athena://{WORKGROUP}/omop", clients=aws.clients)


@pytest.fixture(scope="module")
def here():
    return Cdm()


@pytest.mark.parametrize("domain", [one for one in DOMAINS if one.table in WORDS], ids=lambda one: one.table)
def test_a_cohort_of_each_domain_has_the_same_spans(here, there, domain):
    ids = here.query(
        f"select {domain.concept} as id from {domain.table} where {domain.concept} <> 0 group by 1"
        " order by count(*) desc, 1 limit 3"
    )["id"].tolist()
    asked = {WORDS[domain.table]: ids or [1], "prior_observation_days": 30, "age_at_entry": (10, 60), "end": 30}
    found, want = there.cohort(**asked), here.cohort(**asked)
    assert_frame_equal(found.spans, want.spans)
    assert found._repr_html_() == want._repr_html_()


@pytest.mark.parametrize("asked", [{"death": True}, {"sex": "F", "end": "record"}], ids=lambda asked: next(iter(asked)))
def test_so_has_a_cohort_of_deaths_and_one_of_everybody(here, there, asked):
    assert_frame_equal(there.cohort(**asked).spans, here.cohort(**asked).spans)


def test_concepts_are_found_and_hang_together(here, there):
    for words, more in (("sinusitis", {}), ("asprin", {"domain": "Drug", "standard": True})):
        assert_frame_equal(there.concepts(words, **more), here.concepts(words, **more))
    found, want = there.concept(ASTHMA), here.concept(ASTHMA)
    assert found.concept_name == want.concept_name
    assert_frame_equal(found.ancestors(), want.ancestors())
    assert_frame_equal(found.maps_to(), want.maps_to())
    sets = [cdm.concept_set("adults").include(ASTHMA).exclude(4051466) for cdm in (there, here)]
    assert_frame_equal(*(one.table() for one in sets))


@pytest.mark.slow
def test_studies_of_cohorts_give_the_same_numbers(here, there):
    users, bleeding = ([cdm.cohort(first_only=True, **asked) for cdm in (there, here)]
                       for asked in ({"drug": CELECOXIB}, {"condition": BLEEDING}))  # fmt: skip
    assert_frame_equal(*(one.incidence(every="decade").frame for one in bleeding))
    assert_frame_equal(*(one.prevalence(every="decade").frame for one in bleeding))
    assert_frame_equal(*(one.time_to(other).table() for one, other in zip(users, bleeding, strict=True)))
    assert_frame_equal(*(one.table_one(other).table() for one, other in zip(users, bleeding, strict=True)))


@pytest.mark.slow
def test_it_is_characterized_as_here_and_gives_the_same_pictures(aws, here, there):
    aws.queries.clear()
    found, want = there.characterize(progress=False), here.characterize(progress=False)
    assert cells(found.results) == cells(want.results)
    assert cells(found.distributions) == cells(want.distributions)
    assert found.concepts == want.concepts
    assert len(aws.queries) == 21  # the last one asks for names of concepts
    for name in found.names:
        assert_frame_equal(found.table(name), want.table(name))

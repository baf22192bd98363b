"""The explorer: every number is of the results, small ones are in none of it, and it answers while one types."""

from __future__ import annotations

import base64
import io
import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from test_display import HOSTILE, parsed

from genokit.errors import NotFound
from genokit.omop.characterize.achilles import DOMAINS
from genokit.omop.characterize.analyses import analyses
from genokit.omop.characterize.characterization import Characterization
from genokit.omop.characterize.concept_summary import summary
from genokit.omop.characterize.explorer import ROWS, Explorer, matching
from genokit.plots import omop as plots


@pytest.fixture(scope="module")
def sample(cdm) -> Characterization:
    return cdm.characterize(progress=False)


def shown(explorer: Explorer) -> str:
    return " ".join("".join(parsed(explorer._detail.value).itertext()).split())


def saved(explorer: Explorer) -> pd.DataFrame:
    data = re.search(r'base64,([^"]*)"', explorer._save.value)
    assert data
    return pd.read_csv(io.BytesIO(base64.b64decode(data[1])))


def test_the_summary_of_a_concept_has_the_counts_of_sql(cdm, sample):
    found = sample.concept(192671)
    assert found.domain.table == "condition_occurrence"
    assert found.name == "Gastrointestinal hemorrhage"
    [[persons, records]] = cdm.query(
        "select count(distinct person_id) as persons, count(*) as records from condition_occurrence "
        "where condition_concept_id = 192671"
    ).values.tolist()
    assert found.parts[400]["count_value"].tolist() == [persons]
    assert found.parts[401]["count_value"].tolist() == [records]
    months = cdm.query(
        "select year(condition_start_date) * 100 + month(condition_start_date) as month, "
        "count(distinct person_id) as n from condition_occurrence where condition_concept_id = 192671 "
        "group by 1 having n >= 5 order by 1"
    )
    assert found.parts[402].astype(int).to_numpy().tolist() == months.to_numpy().tolist()
    ages = found.parts[406]
    assert ages["count_value"].sum() == persons
    table = found.table()
    assert set(table["analysis_id"]) <= set(found.parts)
    assert set(table["concept_name"]) == {found.name}
    assert len(table) == sum(map(len, found.parts.values()))
    said = "".join(parsed(found._repr_html_()).itertext())
    assert f"{persons:,}, {100 * persons / 2694:.3g} % of all" in said
    assert "Age at the first record by gender".lower() in said.lower()


def test_a_concept_is_found_in_the_table_where_most_have_it_or_in_the_one_named(sample):
    assert sample.concept(1118084).domain.table == "drug_exposure"
    assert sample.concept(1118084, "drug_era").parts[907]["count_value"].sum() > 0
    with pytest.raises(NotFound, match="Fewer than 5 persons have concept 1 in any table of events"):
        sample.concept(1)
    with pytest.raises(NotFound, match="Fewer than 5 persons have concept 1118084 in measurement"):
        sample.concept(1118084, "measurement")
    with pytest.raises(NotFound, match="Did you mean 'drug_exposure'"):
        sample.concept(1118084, "drug_exposures")


def test_no_number_of_any_concept_is_small(cdm):
    found = cdm.characterize(min_cell=40, progress=False)
    explorer = found.explore()
    counts = [
        summary(found, concept_id, table).table()["count_value"].min()
        for table in explorer.tables
        for concept_id in explorer.concepts(table)["concept_id"].tolist()[-2:]
    ]
    assert min(counts) >= 40


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_of_concepts_are_only_text(sample, text):
    text = text.encode(errors="replace").decode()  # what a database and pandas can hold
    named = replace(sample, title=text, concepts=dict.fromkeys(sample.concepts, text))
    parsed(named.concept(192671)._repr_html_())
    explorer = named.explore()
    explorer.box  # noqa: B018
    explorer._what.value = "condition_occurrence"
    explorer._names.value = 192671
    for widget in (explorer._detail, explorer._cells, explorer._note, explorer._save):
        parsed(widget.value)


def test_a_search_takes_words_and_ids(sample):
    explorer = sample.explore()
    assert explorer.tables["condition_occurrence"] == 78
    whole = explorer.concepts("condition_occurrence")
    assert whole["persons"].is_monotonic_decreasing
    assert whole["concept_name"].iloc[0] == "Viral sinusitis"
    sinusitis = explorer.concepts("condition_occurrence", "SINUSITIS")
    assert len(sinusitis) > 2
    assert sinusitis["persons"].is_monotonic_decreasing
    assert explorer.concepts("condition_occurrence", "sinusitis viral")["concept_name"].tolist() == ["Viral sinusitis"]
    assert explorer.concepts("condition_occurrence", "192671")["concept_id"].tolist() == [192671]
    assert explorer.concepts("condition_occurrence", "sinusitis zzzzz").empty
    assert explorer.concepts("condition_occurrence", "(.*[").empty


def test_it_goes_from_table_to_concept_to_picture(sample):
    explorer = sample.explore()
    explorer.box  # noqa: B018
    assert explorer._what.value == max(explorer.tables, key=explorer.tables.get)  # not on a table of one row
    explorer._what.value = "drug_exposure"
    first = explorer._names.options[0]
    assert "Drug exposure" in shown(explorer)
    assert saved(explorer)["concept_name"].iloc[0] == first[0]
    explorer._names.value = first[1]
    assert first[0] in shown(explorer)
    assert saved(explorer)["concept_name"].unique().tolist() == [first[0]]
    explorer._sought.value = first[0]
    assert explorer._names.value == first[1], "a search that finds it keeps what is chosen"
    explorer._what.value = "condition_occurrence"
    assert (explorer._sought.value, explorer._names.value) == ("", None)
    assert "78" in shown(explorer)
    explorer._sought.value = "gastro hemo"
    assert explorer._names.options == (("Gastrointestinal hemorrhage", 192671),)
    explorer._names.value = 192671
    assert "Gastrointestinal hemorrhage" in shown(explorer)
    explorer._sought.value = "sinusitis"
    assert "Gastrointestinal hemorrhage" in shown(explorer), "until another one is chosen"
    explorer._what.value = "population"
    assert explorer._list.layout.display == "none"
    assert "data:image/png" in explorer._detail.value
    assert saved(explorer)["persons"].sum() == sample.table("population")["persons"].sum()


def test_every_table_is_shown_and_concepts_common_and_rare(sample):
    explorer = sample.explore()
    for table, n in explorer.tables.items():
        concepts = explorer.concepts(table)
        assert len(concepts) == n
        assert concepts["persons"].min() >= 5
        for concept_id in concepts["concept_id"].iloc[:: max(1, n // 4)].tolist():
            one = summary(sample, concept_id, table)
            parsed(str(one.html()))
            assert one.name in repr(one)


@pytest.mark.slow
def test_without_widgets_there_is_a_card_with_all_pictures(sample):
    explorer = sample.explore()
    with pytest.raises(NotImplementedError):
        explorer._ipython_display_()
    shown = explorer._repr_html_()
    assert "box" not in vars(explorer), "no widget is made that nobody sees"
    n = sum(explorer.tables.values())
    assert repr(explorer) == f"<Explorer of Synthea synthetic health database: {n} concepts in 8 tables>"
    assert shown.count("data:image/png") >= 8
    assert "Counts of 1 to 4 persons are not shown" in shown
    parsed(shown)


def many(n: int) -> Characterization:
    """Results with so many conditions: one with values and units, all with months and ages."""
    rows: list[tuple[Any, ...]] = [(1, None, None, None, None, None, 100_000)]
    for one in range(1, n + 1):
        rows += [(400, str(one), None, None, None, None, 5 + n - one), (401, str(one), None, None, None, None, 2 * n)]
        rows += [(402, str(one), str(200_001 + 100 * year), None, None, None, 7 + year) for year in range(20)]
        rows += [(404, str(one), "2000", gender, str(age), None, 9) for gender in ("8507", "8532") for age in range(9)]
        rows += [(405, str(one), kind, None, None, None, 50) for kind in ("1", "2")]
    names = ["analysis_id", *(f"stratum_{i}" for i in range(1, 6)), "count_value"]
    parts = ["min_value", "max_value", "avg_value", "stdev_value", "median_value",
             *(f"p{part}_value" for part in (10, 25, 75, 90))]  # fmt: skip
    spread = [(406, str(one), gender, None, None, None, 30, 1.0, 90.0, 40.0, 3.0, 41.0, 20.0, 30.0, 50.0, 60.0)
              for one in range(1, n + 1) for gender in ("8507", "8532")]  # fmt: skip
    words = ("pain", "fracture", "infection", "neoplasm", "injury", "anemia", "ulcer", "asthma")
    return Characterization(
        "many", 5, pa.Table.from_pandas(pd.DataFrame(rows, columns=names)),
        pa.Table.from_pandas(pd.DataFrame(spread, columns=[*names, *parts])),
        {one: f"{words[one % 8].capitalize()} of the {one}th {words[one // 8 % 8]}" for one in range(1, n + 1)},
        pd.DataFrame({"seconds": [1.0]}),
    )  # fmt: skip


def test_four_thousand_concepts_are_searched_and_shown_at_once():
    explorer = many(4000).explore()
    explorer.box  # noqa: B018
    assert len(explorer._names.options) == ROWS
    assert "4,000 concepts; 100 of them shown" in explorer._note.value
    took = []
    for do in (
        lambda: setattr(explorer._sought, "value", "asthma 3999"),
        lambda: setattr(explorer._sought, "value", "asthma"),
        lambda: setattr(explorer._names, "value", explorer._names.options[7][1]),
        lambda: setattr(explorer._what, "value", "population"),
    ):
        begun = time.perf_counter()
        do()
        took.append(round(1000 * (time.perf_counter() - begun)))
    print(f"answers after {took} ms")
    assert max(took) < 1000, "a fifth of it on a machine with nothing else to do"
    assert len(matching(explorer.concepts("condition_occurrence"), "asthma 3999")) == 1


def test_values_are_shown_in_their_units():
    spread = [(1815, "3000963", unit, None, None, None, 40, 1.0, 9.0, 5.0, 1.0, 5.5, 2.0, 4.0, 6.0, 8.25)
              for unit in ("8713", "0")]  # fmt: skip
    few = many(1)
    names = few.distributions.column_names
    results = [(1800, "3000963", None, None, None, None, 40)]
    found = replace(
        few,
        results=pa.Table.from_pandas(pd.DataFrame(results, columns=few.results.column_names)),
        distributions=pa.Table.from_pandas(pd.DataFrame(spread, columns=names)),
        concepts={3000963: "Hemoglobin", 8713: "gram per deciliter"},
    )
    said = " ".join("".join(parsed(found.concept(3000963)._repr_html_()).itertext()).split())
    assert "gram per deciliter245.568.2540" in said
    assert "none245.5" in said


def test_every_analysis_of_a_table_is_drawn_in_some_way():
    """No analysis of a concept is left out when one is added."""
    for domain in DOMAINS:
        for one in analyses().values():
            if one.scan == domain.table and one.analysis_id != 1201:  # visits by place of service, which is no concept
                assert one.is_distribution or not one.strata or one.strata[0] in (domain.concept, "month")


def test_a_hidden_number_is_a_gap_and_not_a_straight_line():
    months = [pd.Period("2101-12"), pd.Period("2151-11"), pd.Period("2151-12")]
    ax = plots.observed(pd.DataFrame({"month": months, "persons": [5, 6, 7]}))
    [line] = ax.get_lines()
    assert len(line.get_ydata()) == 601
    assert np.isfinite(line.get_ydata()).sum() == 3
    assert line.get_marker() == ".", "one alone is a dot"
    years = pd.DataFrame({"domain": "drug", "year": [2101, 2103], "records": 9, "per_month": [1.0, 2.0]})
    [line] = plots.density(years).get_lines()
    assert line.get_marker() == "."
    assert np.isfinite(line.get_ydata()).sum() == 2

"""The page and the pictures of the mapping say what the SQL says."""

from __future__ import annotations

from pathlib import Path

import omop_mapping as mapping
import pandas as pd

from genokit.omop.etl import transform
from genokit.plots import etl

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_in_the_docs_is_the_mapping_of_today():
    """Where it is not: python tests/omop_mapping.py docs"""
    assert (DOCS / "omop-mapping.md").read_text(encoding="utf-8") == mapping.markdown()


def test_the_page_has_every_table_its_sources_and_reasons():
    page = mapping.markdown()
    for table in transform.statements():
        name = table.partition(".")[2]
        assert f"### {name}\n" in page
        assert mapping.reasons(table).splitlines()[-1].strip()[-40:] in page
    assert "`mimic3.labevents`" in page


def test_the_picture_in_the_docs_names_every_table():
    picture = (DOCS / "omop-lineage.svg").read_text(encoding="utf-8")
    for table, sources in mapping.edges().items():
        for one in (table, *sources):
            assert f">{one.partition('.')[2]}</text>" in picture, one


def test_lookups_are_no_lineage():
    edges = mapping.edges()
    assert edges["cdm.measurement"] == [
        "mimic3.chartevents",
        "mimic3.labevents",
        "mimic3.outputevents",
        "stage.billed",
        "stage.charted_procedure",
        "stage.microbiology",
    ]
    assert edges["cdm.drug_era"] == ["cdm.drug_exposure"]


def test_a_bar_for_each_domain_with_rows_and_a_mark_where_the_original_had_some():
    shares = pd.DataFrame(
        [("visit", 10, 0.5, 0.0), ("device", 0, None, None), ("specimen", 4, 1.0, None)],
        columns=["domain", "rows", "share", "original"],
    ).astype({"share": "Float64", "original": "Float64"})
    ax = etl.mapped(shares)
    assert [bar.get_width() for bar in ax.patches] == [50.0, 100.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["visit", "specimen"]
    assert [text.get_text() for text in ax.texts] == ["50 % of 10", "100 % of 4"]
    assert [place for place in ax.lines[0].get_xdata() if place == place] == [0.0]

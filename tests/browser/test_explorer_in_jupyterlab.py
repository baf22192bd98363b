"""The explorer in a real JupyterLab, in headless Chromium: by mouse and keyboard, light and dark, wide and narrow."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from browser.lab import ROOT, Opened

pytestmark = pytest.mark.browser

SHOTS = ROOT / "runs" / "browser"
BEGIN = "from genokit import Cdm\nfound = Cdm().characterize(progress=False)\n"


def look_at(book: Opened, words: str) -> None:
    choice = book.page.get_by_role("combobox", name="Look at")
    label = choice.locator("option", has_text=words).first.inner_text()
    choice.select_option(label=label)


def head(book: Opened, words: str) -> Any:
    return book.page.locator(".gk-explorer .gk-about .gk-head", has_text=words)


def test_concepts_are_sought_chosen_and_saved_by_hand(opened):
    book = opened(BEGIN + "found.explore()")
    book.run(0)
    look_at(book, "drug exposure")
    head(book, "Drug exposure").wait_for()
    book.page.get_by_role("textbox", name="Search").press_sequentially("celecox")
    book.page.locator(".gk-list .gk-note", has_text=re.compile("^1 concept$")).wait_for()
    book.page.get_by_role("radio", name="celecoxib").click()
    head(book, "celecoxib").wait_for()
    assert "1,800, 66.8 % of all" in book.page.locator(".gk-about").inner_text()
    with book.page.expect_download() as download:
        book.page.get_by_role("link", name="Save as CSV").click()
    assert download.value.suggested_filename == "drug_exposure-1118084.csv"
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert {row["concept_name"] for row in rows} == {"celecoxib"}
    assert min(float(row["count_value"]) for row in rows) >= 5
    look_at(book, "Persons")
    book.page.locator(".gk-about img.gk-image").wait_for()
    assert not book.page.get_by_role("radio").first.is_visible()


def test_the_keyboard_reaches_all_of_it(opened):
    book = opened(BEGIN + "found.explore()")
    book.run(0)
    book.page.get_by_role("combobox", name="Look at").focus()
    keys = book.page.keyboard
    for key in ("Space", "ArrowUp", "ArrowUp", "Enter"):  # JupyterLab keeps a bare arrow to itself
        keys.press(key)
    head(book, "Condition occurrence").wait_for()
    keys.press("Tab")
    keys.type("sinusitis")
    first = book.page.get_by_role("radio", name="Viral sinusitis")
    first.wait_for()
    book.page.wait_for_function("() => document.querySelectorAll('.gk-explorer input[type=radio]').length < 10")
    keys.press("Tab")
    keys.press("Space")
    head(book, "Viral sinusitis").wait_for()


def test_it_answers_while_the_kernel_works(opened):
    book = opened(BEGIN + "found.explore()", "import time; time.sleep(600); print('slept')")
    book.run(0)
    look_at(book, "drug exposure")
    head(book, "Drug exposure").wait_for()
    book.start(1)
    for n in range(3):
        radio = book.page.get_by_role("radio").nth(n)
        name = radio.evaluate("one => one.closest('label').textContent")
        radio.click()
        head(book, name).wait_for()
    assert "slept" not in book.output(1)


def test_light_and_dark_wide_and_narrow(opened):
    """Leaves pictures of it in runs/browser, to be looked at."""
    book = opened(BEGIN + "found.explore()")
    book.command("application:toggle-left-area")
    book.run(0)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        book.theme(theme.title())
        for width in (1280, 700):
            book.page.set_viewport_size({"width": width, "height": 1300})
            for table, concept in (("condition_occurrence", None), ("condition_occurrence", "Gastrointestinal hem"),
                                   ("condition_prevalence", None)):  # fmt: skip
                title = {"condition_prevalence": "Conditions"}.get(table, "condition occurrence")
                look_at(book, title)
                if concept:
                    book.page.get_by_role("radio", name=concept).click()
                    head(book, concept).wait_for()
                elif table == "condition_occurrence":
                    head(book, "Condition occurrence").wait_for()
                else:
                    book.page.locator(".gk-about img.gk-image").wait_for()
                view = book.settled(".gk-explorer")
                name = f"explorer-{theme}-{width}-{table if not concept else 'concept'}.png"
                view.screenshot(path=SHOTS / name)
                assert view.evaluate("one => one.scrollWidth <= one.clientWidth + 1")


BAR = """
from genokit.bars import Bar
with Bar(total=4, desc="four", unit="step") as bar:
    bar.update(4)
"""


def test_a_notebook_opened_again_shows_stills_where_widgets_were(opened):
    book = opened(BEGIN + "found.explore()", BAR)
    book.run(0)
    book.run(1)
    still = book.page.locator("[class^=gk-still]")
    still.wait_for(state="attached")
    assert not still.is_visible(), "while the explorer lives, its still hides"
    assert "four: 100%" in book.output(1)
    book.command("docmanager:save")
    book.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
    book.page.reload()
    still.get_by_text("Run the cell again to explore.").wait_for()
    assert still.get_by_text("condition_occurrence").first.is_visible()
    book.page.get_by_text("Loading widget").wait_for(state="hidden")  # when a new kernel has said that it has none
    assert not book.page.get_by_text("Error displaying widget").is_visible()
    assert book.page.locator("progress").is_visible()
    assert "four: 100%" in book.page.locator("body").inner_text()
    book.page.screenshot(path=SHOTS / "reopened.png")


FIGURES = """
from matplotlib import pyplot as plt
for name in ("population", "completeness", "condition_prevalence"):
    found.plot(name)
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_have_no_ground_of_their_own_in_either_theme(opened, theme):
    book = opened(BEGIN + FIGURES)
    book.theme(theme.title())
    book.run(0)
    pictures = book.page.locator(".jp-RenderedImage img")
    pictures.nth(2).wait_for()
    grounds = pictures.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert grounds == ["rgba(0, 0, 0, 0)"] * 3
    book.page.screenshot(path=SHOTS / f"figures-{theme}.png")

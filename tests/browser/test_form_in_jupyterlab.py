"""The form of a notebook's parameters in a real JupyterLab, in headless Chromium."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from browser.lab import ROOT, Opened

pytestmark = pytest.mark.browser

SHOTS = ROOT / "runs" / "browser"
PARAMETERS = """
import datetime
from typing import Literal
epochs: int = 2  # passes over the data
rate: float = 0.05  # [1/step] of learning
shuffle: bool = True  # the images in each epoch
engine: Literal["mxnet", "torch"] = "mxnet"  # what trains
start: datetime.date = datetime.date(2026, 1, 2)  # the first day
sizes: list[int] = [64, 128]  # [px] of the layers
sample: str  # <b>which</b> sample
"""
WORK = """
import genokit
time.sleep(1)
genokit.record("seen", [epochs, rate, shuffle, engine, str(start), sizes, sample])
"""


def field(book: Opened, name: str):
    row = book.page.locator(".gk-form .widget-hbox", has=book.page.locator(".widget-label", has_text=name))
    return row.locator("input").first


def test_a_notebook_is_run_from_its_form_while_the_kernel_works(place: tuple[Path, str], opened) -> None:
    """Leaves pictures of it in runs/browser, to be looked at."""
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("import time"), nbformat.v4.new_code_cell(WORK)]  # fmt: skip
    nbformat.write(nbformat.v4.new_notebook(cells=cells), place[0] / "work" / "train.ipynb")
    begin = "from genokit.pipelines import parameters\nform = parameters('train.ipynb').form()\nform"
    waits = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.1)\nprint('waited')"
    book = opened(begin, waits, "print(form.run.outputs['seen'])",
                  "form.run.form()")  # fmt: skip
    book.command("application:toggle-left-area")
    book.run(0)
    button = book.page.locator(".gk-form").get_by_role("button", name="Run", exact=True)
    book.page.locator(".gk-form [role=alert]", has_text="'sample' (str) has no default").wait_for()
    assert button.is_disabled()
    assert book.page.locator(".gk-form b").count() == 0, "help is text"
    SHOTS.mkdir(parents=True, exist_ok=True)
    book.page.locator(".gk-form").screenshot(path=SHOTS / "form-light-1.png")
    field(book, "sample").fill("NA12878")
    field(book, "sizes").fill("[1, x]")
    book.page.locator(".gk-form [role=alert]", has_text="'sizes': expected list[int]").wait_for()
    field(book, "sizes").fill("32, 16")
    field(book, "epochs").fill("7")
    book.page.locator(".gk-form select").select_option(label="torch")
    book.page.wait_for_function("() => !document.querySelector('.gk-form [role=alert]')")
    book.start(1)
    button.click()
    book.page.locator(".gk-form progress").wait_for()
    book.page.locator(".gk-form .gk-card", has_text="SUCCEEDED").wait_for()
    assert "waited" not in book.output(1), "all this while a cell ran"
    (place[0] / "work" / "go").touch()
    book.page.locator(".gk-form").screenshot(path=SHOTS / "form-light-2.png")
    book.run(2)
    assert "[7, 0.05, True, 'torch', '2026-01-02', [32, 16], 'NA12878']" in book.output(2)
    book.run(3)
    again = book.page.locator(".gk-form").nth(1)
    again.wait_for()
    assert again.locator("input[type=number]").first.input_value() == "7"
    book.theme("Dark")
    book.settled(".gk-form").screenshot(path=SHOTS / "form-dark.png")
    book.page.set_viewport_size({"width": 700, "height": 1300})
    book.settled(".gk-form")
    assert again.evaluate("one => one.scrollWidth <= one.clientWidth + 1")
    again.screenshot(path=SHOTS / "form-dark-narrow.png")

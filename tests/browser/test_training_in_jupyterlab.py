"""A training and a sweep followed in a real JupyterLab, in headless Chromium: figures change while they run."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.lab import ROOT, Opened

pytestmark = pytest.mark.browser

SHOTS = ROOT / "runs" / "browser"
SETUP = """from genokit import Manifest, train
digits = Manifest("mnist").fetch(progress=False)
p = train.Parameters(images=2000, epochs=3)
"""


def picture(book: Opened) -> str:
    return str(book.page.locator(".jp-OutputArea img").last.get_attribute("src"))


def changed(book: Opened, before: str) -> str:
    """The last figure, once it is another than before."""
    book.page.wait_for_function(
        "before => { const all = document.querySelectorAll('.jp-OutputArea img');"
        "return all.length && all[all.length - 1].src !== before }",
        arg=before,
    )
    return picture(book)


def test_a_training_is_drawn_while_it_runs(place: tuple[Path, str], opened) -> None:
    """Leaves pictures of it in runs/browser, to be looked at."""
    book = opened(SETUP + "job = train.submit(digits, p)\nhistory = train.follow(job, every_s=0.5)\nhistory")
    book.start(0)
    first = changed(book, "")
    second = changed(book, first)
    assert len({first, second}) == 2
    book.page.get_by_text("Training history").wait_for(timeout=600_000)
    assert book.page.locator(".jp-OutputArea img").count() == 1  # one figure, drawn again and again
    SHOTS.mkdir(parents=True, exist_ok=True)
    book.page.locator(".jp-OutputArea").first.screenshot(path=SHOTS / "training-followed.png")


def test_a_sweep_is_drawn_while_it_runs(place: tuple[Path, str], opened) -> None:
    """Leaves pictures of it in runs/browser, to be looked at."""
    book = opened(SETUP + "found = train.sweep(digits, p, learning_rate=[0.01, 0.05], batch_size=[32, 64])\n"
                  "print(repr(found.follow(every_s=0.5)))")  # fmt: skip
    book.start(0)
    changed(book, changed(book, ""))
    book.page.get_by_text("<Sweep of 4 trials: 4 SUCCEEDED").wait_for(timeout=600_000)
    assert book.page.locator(".jp-OutputArea img").count() == 2
    SHOTS.mkdir(parents=True, exist_ok=True)
    book.page.locator(".jp-OutputArea").first.screenshot(path=SHOTS / "sweep-followed.png")

"""What every test in a browser needs: a JupyterLab, a Chromium, and notebooks opened in both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser.lab import Opened, chromium, jupyterlab, notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("lab")
    with jupyterlab(folder, folder / "account") as address:
        yield folder, address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(place, browser, request):
    """Opens a notebook of these cells."""
    pages = []

    def open_notebook(*cells: str, width: int = 1280) -> Opened:
        name = f"{len(pages)}-{request.node.name}.ipynb"
        notebook(place[0], name, *cells)
        page = browser.new_page(viewport={"width": width, "height": 1200})
        pages.append(Opened(page, place[1], name))
        return pages[-1]

    yield open_notebook
    for one in pages:
        one.shut()
        assert not one.dialogs
        assert not one.errors

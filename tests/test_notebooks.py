"""Each notebook of the gallery keeps the house rules and runs to its end on an embedded account."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from genokit import Settings, run

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Given to a notebook that has a parameter of this name.
SMALL = {"epochs": 1, "images": 1000}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def cells(path: Path, kind: str | None = None) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if kind in (None, cell.cell_type)]


def tagged(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])]


def parameters(path: Path) -> set[str]:
    """The names that the cell tagged ``parameters`` assigns."""
    statements = ast.parse(tagged(path)[0].source).body
    targets = [s.target if isinstance(s, ast.AnnAssign) else s.targets[0] for s in statements if hasattr(s, "value")]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_the_gallery_is_not_empty() -> None:
    assert {"00_tour.ipynb", "10_lenet.ipynb"} <= {path.name for path in NOTEBOOKS}


def test_the_tour_ends_with_every_other_notebook() -> None:
    [tour, *others] = NOTEBOOKS
    last = cells(tour)[-1].source
    assert [path.name for path in others if f"]({path.name})" not in last] == []


@each_notebook
def test_a_notebook_is_valid(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))
    assert re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name)


@each_notebook
def test_a_notebook_in_git_has_no_outputs(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "papermill" not in nbformat.read(path, as_version=4).metadata


@each_notebook
def test_a_notebook_has_one_cell_of_parameters(path: Path) -> None:
    assert len(tagged(path)) == 1
    assert tagged(path)[0].cell_type == "code"


@each_notebook
def test_a_notebook_opens_with_its_title_and_how_long_it_takes(path: Path) -> None:
    first = cells(path)[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"\b(second|minute)s?\b", first.source)


@each_notebook
def test_a_notebook_ends_with_where_to_go_next(path: Path) -> None:
    last = cells(path)[-1]
    assert last.cell_type == "markdown"
    assert re.search(r"\bnext\b", last.source, re.IGNORECASE)
    assert re.search(r"\]\([^)]+\)|`[^`]+`", last.source), "name a notebook, a page or a command"


@each_notebook
@pytest.mark.slow
def test_a_notebook_runs_to_its_end(path: Path, account: Settings) -> None:
    small = {name: value for name, value in SMALL.items() if name in parameters(path)}
    finished = run(path, small, settings=account, progress=False)
    assert finished.state == "SUCCEEDED"
    assert finished.outputs, "a notebook of the gallery records at least one result"

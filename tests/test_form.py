"""The form of a notebook's parameters, without a browser: its fields, and what its buttons do."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import nbformat
import pytest

from genokit import Settings, run
from genokit.errors import InvalidParameters
from genokit.pipelines import Schema, parameters

CELL = """
import datetime
from pathlib import Path
from typing import Literal
epochs: int = 2
rate = 0.5  # [1/step] of <b>learning</b>
shuffle = True
engine: Literal["mxnet", 3] = 3
start: datetime.date = datetime.date(2026, 1, 2)
seen: datetime.datetime | None = None
sizes: list[int] = [1]
name = "3"
out = Path("a b")
late = datetime.date.today()
sample: str
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def written(tmp_path: Path, *cells: str) -> Path:
    made = [nbformat.v4.new_code_cell(CELL, metadata={"tags": ["parameters"]})]
    made += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), tmp_path / "train.ipynb")
    return tmp_path / "train.ipynb"


def button(form: Any, words: str) -> Any:
    found = [one for row in form.box.children if isinstance(row, widgets.HBox) for one in row.children]
    return next(one for one in found if isinstance(one, widgets.Button) and one.description == words)


def pressed(form: Any) -> str:
    button(form, "Run").click()
    deadline = time.monotonic() + 240
    while not button(form, "Stop").disabled:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.05)
    return str(form.box.children[-1].value)


def test_each_type_has_its_field_and_what_is_not_touched_stays_the_default(tmp_path: Path) -> None:
    form = parameters(written(tmp_path)).form()
    kinds = {name: type(field).__name__ for name, field in form._fields.items()}
    assert kinds == {
        "epochs": "IntText", "rate": "FloatText", "shuffle": "Checkbox", "engine": "Dropdown", "start": "DatePicker",
        "seen": "Text", "sizes": "Text", "name": "Text", "out": "Text", "late": "Text", "sample": "Text",
    }  # fmt: skip
    defaults = form.schema.defaults()
    assert form.given == defaults
    assert "has no default" in form._notes["sample"].value
    assert button(form, "Run").disabled
    assert "[1/step] of &lt;b&gt;learning" in form._notes["rate"].value
    changed = {"sizes": "3, 4", "name": "7", "out": "c", "seen": "2026-01-02T03:04:05", "sample": "NA12878"}
    for name, text in changed.items():
        form._fields[name].value = text
    assert not button(form, "Run").disabled
    checked = form.schema.check(form.given)
    assert checked == defaults | {
        "sizes": [3, 4], "name": "7", "out": Path("c"), "seen": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "sample": "NA12878",
    }  # fmt: skip
    form._fields["sizes"].value = "x"
    assert "expected list[int]" in form._notes["sizes"].value


def test_its_button_runs_the_notebook_and_the_run_has_a_form_with_its_parameters(
    tmp_path: Path, settings: Settings
) -> None:
    notebook = written(tmp_path, "import genokit\ngenokit.record('seen', epochs)\nassert epochs < 5")
    form = parameters(notebook).form({"sample": "NA1", "epochs": 4}, settings=settings)
    assert "SUCCEEDED" in pressed(form)
    assert form.run.outputs == {"seen": 4}
    again = form.run.form(settings)
    assert again.given == form.run.parameters
    again._fields["epochs"].value = 5
    assert "AssertionError" in pressed(again)
    assert again.run.state == "FAILED"


def test_where_no_widget_can_live_it_is_a_table(tmp_path: Path, settings: Settings) -> None:
    notebook = written(tmp_path)
    cell = f"from genokit.pipelines import parameters\nparameters({str(notebook)!r}).form()"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), tmp_path / "shows.ipynb")
    done = run(tmp_path / "shows.ipynb", settings=settings, progress=False)
    (output,) = nbformat.read(done.notebook, as_version=4).cells[0].outputs
    assert "<table" in output.data["text/html"]


def test_a_schema_without_a_notebook_has_no_form() -> None:
    with pytest.raises(InvalidParameters, match=r"parameters\('x.ipynb'\).form\(\)"):
        Schema.parse("x = 1", "a cell").form()

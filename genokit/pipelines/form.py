"""A form for a notebook's parameters: a widget for each, and a button that runs the notebook with what they say."""

from __future__ import annotations

import datetime
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import ipywidgets as widgets

import genokit
from genokit import display, live
from genokit.config import Settings
from genokit.errors import GenokitError, NotebookFailed
from genokit.pipelines import values


class Form:
    """The widgets of a form in ``box``; ``run`` is the last run that was started with it and has ended.

    Where no widget can live, as under papermill, it is a table of the parameters.
    """

    def __init__(self, schema: Any, known: Mapping[str, Any], settings: Settings | None = None) -> None:
        self.schema = schema
        self.run: Any = None
        self._known, self._settings = known, settings
        self._stop = threading.Event()
        self._fields = {name: _field(one, known.get(name, "")) for name, one in schema.parameters.items()}
        self._texts = {name: field.value for name, field in self._fields.items()}
        self._notes = {name: widgets.HTML() for name in self._fields}
        self._start = widgets.Button(description="Run", button_style="primary", tooltip="Run with these parameters")
        self._end = widgets.Button(description="Stop", disabled=True, tooltip="Interrupt the run")
        self._below = widgets.HTML()
        self._start.on_click(lambda _: self._begin())
        self._end.on_click(lambda _: self._stop.set())
        rows = [_row(field, self._notes[name]) for name, field in self._fields.items()]
        for field in self._fields.values():
            field.observe(lambda _: self._check(), "value")
        title = widgets.HTML(live.view(live.title(f"Parameters of {schema.title}")))
        sheet = widgets.HTML(live.style(), layout={"height": "0", "margin": "0"})
        self.box = widgets.VBox([sheet, title, *rows, widgets.HBox([self._start, self._end]), self._below])
        self.box.add_class("gk-view").add_class("gk-form")
        self._check()

    def __repr__(self) -> str:
        return f"<Form of {self.schema.title}: {', '.join(self._fields)}>"

    def _repr_html_(self) -> str:
        return str(self.schema._repr_html_())

    def _ipython_display_(self) -> None:
        if not live.is_interactive():
            raise NotImplementedError  # IPython's word for: take the other forms
        again = live.quiet("Run the cell again for the form.")
        live.show(self.box, display.stack(display.Html(self._repr_html_()), again), repr(self))

    @property
    def given(self) -> dict[str, Any]:
        """The values of the fields; an empty field leaves its parameter to the notebook, unless that is a text."""
        found = {}
        for name, field in self._fields.items():
            if field.value == self._texts[name] and name in self._known:
                found[name] = self._known[name]
            elif isinstance(field, widgets.Text) and field.value:
                is_text = self.schema.parameters[name].type is str
                found[name] = field.value if is_text else values.Text(field.value)
            elif field.value not in ("", None):
                found[name] = field.value
        return found

    def _check(self) -> bool:
        """Show what is wrong beside each field, or else its unit and help."""
        problems = self.schema.problems(self.given)
        for name, note in self._notes.items():
            one = self.schema.parameters[name]
            help_text = f"[{one.unit}] {one.help}" if one.unit else one.help
            words = problems.get(name)
            note.value = live.view(live.notice(words) if words else live.quiet(help_text))
        self._start.disabled = bool(problems) or not self._end.disabled
        live.answer_at_once(*self._fields.values(), self._start, self._end)
        return not problems

    def _begin(self) -> None:
        if self._check() and not self._start.disabled:
            self._stop.clear()
            self._busy(True)
            self._below.value = live.view(live.quiet("The kernel starts."))
            threading.Thread(target=self._run, args=(self.given,), name="genokit form", daemon=True).start()

    def _run(self, given: Mapping[str, Any]) -> None:
        try:
            options: dict[str, Any] = {"settings": self._settings, "stop": self._stop, "watch": self._watch}
            self.run = genokit.run(self.schema.path, given, progress=False, **options)
            shown = self.run._repr_html_()
        except NotebookFailed as error:
            self.run = error.run
            shown = error.run._repr_html_()
        except GenokitError as error:
            shown = live.notice(str(error))
        finally:
            self._busy(False)
        self._below.value = live.view(display.Html(shown))

    def _watch(self, run: Any) -> None:
        done = sum(cell.done for cell in run.steps)
        now = next((cell.source for cell in run.steps if not cell.done), "")
        words = f"{done} of {len(run.steps)} cells. {now}"
        self._below.value = live.view(live.progress(words, done, len(run.steps) or None))

    def _busy(self, busy: bool) -> None:
        self._start.disabled, self._end.disabled = busy, not busy
        live.answer_at_once(self._start, self._end)


def _field(parameter: Any, value: Any) -> Any:
    """The widget for a parameter's type; a text, read as on the command line, for all that have no widget."""
    kind, shape = parameter.type, {"description": parameter.name, "style": {"description_width": "130px"}}
    shape["layout"] = {"width": "360px"}
    if kind is bool and isinstance(value, bool):
        return widgets.Checkbox(value, **shape)
    if kind is int and isinstance(value, int):
        return widgets.IntText(value, **shape)
    if kind is float and isinstance(value, int | float) and math.isfinite(value):
        return widgets.FloatText(value, **shape)
    if get_origin(kind) is Literal and value in get_args(kind):
        return widgets.Dropdown(options=[(str(word), word) for word in get_args(kind)], value=value, **shape)
    if kind is datetime.date and value != "":
        return widgets.DatePicker(value=value, **shape)
    if isinstance(value, datetime.datetime):
        value = value.isoformat()
    text = str(value) if isinstance(value, Path | str) else repr(value)
    return widgets.Text(text, placeholder=parameter.code or "required", **shape)


def _row(field: Any, note: Any) -> Any:
    return widgets.HBox([field, note], layout={"align_items": "center", "flex_flow": "row wrap"})

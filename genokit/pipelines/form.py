"""A form for a notebook's parameters: a field for each, and a button that runs the notebook with their values."""

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

# For each type of a parameter: its widget, and the values that the widget can show.
_WIDGETS: dict[Any, tuple[Any, Any]] = {
    bool: (widgets.Checkbox, bool),
    int: (widgets.IntText, int),
    float: (widgets.FloatText, int | float),
    datetime.date: (widgets.DatePicker, datetime.date),
}


class Form:
    """``box`` holds the form's widgets; ``run`` is the last run that it started, once that has ended.

    Where widgets do not work, as under papermill, a table of the parameters is shown.
    """

    def __init__(self, schema: Any, known: Mapping[str, Any], settings: Settings | None = None) -> None:
        self.schema = schema
        self.run: Any = None
        self._known, self._settings, self._stop = known, settings, threading.Event()
        self._fields = {name: _field(one, known.get(name, "")) for name, one in schema.parameters.items()}
        self._shown = {name: field.value for name, field in self._fields.items()}
        self._notes = {name: widgets.HTML() for name in self._fields}
        self._start = widgets.Button(description="Run", button_style="primary", tooltip="Run with these parameters")
        self._end = widgets.Button(description="Stop", disabled=True, tooltip="Interrupt the run")
        self._start.on_click(lambda _: self._begin())
        self._end.on_click(lambda _: self._stop.set())
        sheet = widgets.HTML(live.style(), layout={"height": "0", "margin": "0"})
        title = widgets.HTML(live.view(live.title(f"Parameters of {schema.title}")))
        beside = {"align_items": "center", "flex_flow": "row wrap"}
        rows = [widgets.HBox([field, self._notes[name]], layout=beside) for name, field in self._fields.items()]
        self._below = widgets.HTML()
        self.box = widgets.VBox([sheet, title, *rows, widgets.HBox([self._start, self._end]), self._below])
        self.box.add_class("gk-view").add_class("gk-form")
        for field in self._fields.values():
            field.observe(lambda _: self._check(), "value")
        self._check()

    def __repr__(self) -> str:
        return f"<Form of {self.schema.title}: {', '.join(self._fields)}>"

    def _repr_html_(self) -> str:
        return str(self.schema._repr_html_())

    def _ipython_display_(self) -> None:
        if not live.is_interactive():
            raise NotImplementedError  # tells IPython to use the other representations
        again = live.quiet("Run the cell again to show the form.")
        live.show(self.box, display.stack(display.Html(self._repr_html_()), again), repr(self))

    @property
    def given(self) -> dict[str, Any]:
        """The values of the fields; a parameter whose field was emptied keeps the notebook's default."""
        found = dict(self._known)
        for name, field in self._fields.items():
            if field.value != self._shown[name]:
                typed = isinstance(field, widgets.Text) and self.schema.parameters[name].type is not str
                found[name] = values.Text(field.value) if typed else field.value
            if field.value in ("", None):
                found.pop(name, None)
        return found

    def _check(self) -> None:
        """Show what is wrong beside each field, or else its unit and help."""
        problems = self.schema.problems(self.given)
        for name, note in self._notes.items():
            one = self.schema.parameters[name]
            usual = live.quiet(f"[{one.unit}] {one.help}" if one.unit else one.help)
            note.value = live.view(live.notice(problems[name]) if name in problems else usual)
        running = not self._end.disabled
        self._start.disabled = bool(problems) or running
        live.answer_at_once(*self._fields.values(), self._start, self._end)

    def _begin(self) -> None:
        if not self._start.disabled:
            self._stop.clear()
            self._end.disabled = False
            self._below.value = live.view(live.quiet("Starting the kernel."))
            threading.Thread(target=self._run, args=(self.given,), name="genokit form", daemon=True).start()
            self._check()

    def _run(self, given: Mapping[str, Any]) -> None:
        shown = ""
        try:
            options: dict[str, Any] = {"settings": self._settings, "stop": self._stop, "watch": self._watch}
            self.run = genokit.run(self.schema.path, given, progress=False, **options)
        except NotebookFailed as error:
            self.run = error.run
        except GenokitError as error:
            shown = live.notice(str(error))
        finally:
            self._end.disabled = True
            self._check()
        self._below.value = live.view(shown or display.Html(self.run._repr_html_()))

    def _watch(self, run: Any) -> None:
        done = sum(cell.done for cell in run.steps)
        now = next((cell.source for cell in run.steps if not cell.done), "")
        words = f"{done} of {len(run.steps)} cells. {now}"
        self._below.value = live.view(live.progress(words, done, len(run.steps) or None))


def _field(parameter: Any, value: Any) -> Any:
    """The widget for a parameter's type; else a text field, whose content is read as on the command line."""
    shape: dict[str, Any] = {"description": parameter.name, "style": {"description_width": "130px"}}
    shape["layout"] = {"width": "360px"}
    if get_origin(parameter.type) is Literal and value in (words := get_args(parameter.type)):
        return widgets.Dropdown(options=[(str(word), word) for word in words], value=value, **shape)
    widget, held = _WIDGETS.get(parameter.type, (None, ()))
    if isinstance(value, held) and (parameter.type is not float or math.isfinite(value)):
        return widget(value=value, **shape)
    text = str(value) if isinstance(value, Path | str | datetime.date) else repr(value)
    return widgets.Text(text, placeholder=parameter.code or "required", **shape)

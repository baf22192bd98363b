"""One page about a run of a pipeline: the figures first, then each notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genokit import display
from genokit.files import write_atomic
from genokit.pipelines import notebook as notebooks
from genokit.pipelines.folder import Run

if TYPE_CHECKING:
    from genokit.pipelines.pipeline import PipelineRun


def card(ended: PipelineRun) -> display.Html:
    """The run of a pipeline as a card."""
    rows = [*_summary(ended), ("Report", display.link(ended.report, ended.report))]
    return display.card(f"Pipeline {ended.plan.title}", rows, status=ended.state, fold={"Notebooks": _overview(ended)})


def write(ended: PipelineRun) -> None:
    """Write the report into the run's folder; its links stay right when the folder is moved."""
    sections: list[tuple[str, display.Html]] = []
    pictures = [_picture(name, figure) for name, run in ended.runs.items() for figure in _figures(run)]
    if pictures:
        sections.append(("Figures", display.stack(*pictures)))
    sections.append(("Notebooks", _overview(ended)))
    for step in ended.plan.steps:
        run = ended.runs.get(step.name)
        sections.append((step.name, _section(run) if run else _missed(ended, step.name)))
    lead = display.card("Run", [*_summary(ended), ("Folder", ended.path.name)], status=ended.state)
    write_atomic(ended.report, display.page(ended.plan.title, sections, lead=lead))


def _summary(ended: PipelineRun) -> list[tuple[str, object]]:
    states = list(ended.states.values())
    rows: list[tuple[str, object]] = [
        ("Notebooks", f"{states.count('SUCCEEDED')} of {len(states)} succeeded"),
        ("Time", display.seconds(ended.duration_s)),
    ]
    begun = [run.started for run in ended.runs.values()]
    if begun:
        rows.append(("Started", min(begun).astimezone()))
    rows += [(name, ended.why(name)) for name, state in ended.states.items() if state != "SUCCEEDED"]
    return rows + [(f"{name}.{key}", value) for name, run in ended.runs.items() for key, value in run.outputs.items()]


def _overview(ended: PipelineRun) -> display.Html:
    rows = []
    for step in ended.plan.steps:
        run = ended.runs.get(step.name)
        took = display.seconds(run.duration_s) if run and run.duration_s is not None else None
        link = display.link(Path(step.name, "notebook.html"), step.path.name) if run and run.html else step.path.name
        rows.append((step.name, ended.states[step.name], took, link, ", ".join(step.needs)))
    return display.table(rows, columns=["notebook", "state", "time", "file", "after"])


def _section(run: Run) -> display.Html:
    parts: list[object] = []
    if run.error:
        parts.append(display.text(run.error))
    if run.traceback:
        parts.append(display.log(run.traceback))
    if run.html:
        parts.append(display.link(Path(run.path.name, run.html.name), "The notebook as it ran"))
    fold: dict[str, object] = {"Cells": display.table(run.cells)}
    if run.parameters:
        fold["Parameters"] = display.table(list(run.parameters.items()), columns=["name", "value"])
    outputs = [(name, value) for name, value in run.outputs.items()]
    parts.append(display.card("Outputs", outputs or [("", "nothing was recorded")], status=run.state, fold=fold))
    return display.stack(*parts)


def _missed(ended: PipelineRun, name: str) -> display.Html:
    return display.card("No run", [("Why", ended.why(name))], status=ended.states[name])


def _figures(run: Run) -> list[notebooks.Figure]:
    return run.figures if run.notebook.is_file() else []


def _picture(name: str, figure: notebooks.Figure) -> display.Html:
    caption = f"{name}: {figure.heading}" if figure.heading else name
    return display.image(figure.png, caption, caption=caption, scale=figure.scale)

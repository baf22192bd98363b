"""One page about a run of a pipeline: the figures first, then each notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genokit import display
from genokit.files import write_atomic
from genokit.pipelines import folder as folders

if TYPE_CHECKING:
    from genokit.pipelines.pipeline import PipelineRun


def card(ended: PipelineRun) -> display.Html:
    """The run of a pipeline as a card."""
    rows = [*_summary(ended), ("Report", folders.link(ended.report))]
    return display.card(f"Pipeline {ended.plan.title}", rows, status=ended.state, fold={"Notebooks": _overview(ended)})


def write(ended: PipelineRun) -> None:
    """Write the report into the run's folder; its links stay right when the folder is moved."""
    pictures = []
    for name, run in ended.runs.items():
        for figure in run.figures:
            caption = f"{name}: {figure.heading}" if figure.heading else name
            pictures.append(display.image(figure.png, caption, caption=caption, scale=figure.scale))
    sections = [("Figures", display.stack(*pictures))] if pictures else []
    sections.append(("Notebooks", _overview(ended)))
    for name, (state, why) in ended.outcomes.items():
        if name in ended.runs:
            sections.append((name, folders.card(ended.runs[name], seen_from=ended.path)))
        else:
            sections.append((name, display.card("No run", {"Why": why}, status=state)))
    lead = display.card("Run", [*_summary(ended), ("Folder", ended.path.name)], status=ended.state)
    write_atomic(ended.report, display.page(ended.plan.title, sections, lead=lead), private=True)


def _summary(ended: PipelineRun) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("Notebooks", f"{ended.done} succeeded")]
    rows.append(("Time", display.seconds(ended.duration_s)))
    if ended.runs:
        rows.append(("Started", min(run.started for run in ended.runs.values())))
    rows += [(name, why) for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    return rows + [(f"{name}.{key}", value) for name, run in ended.runs.items() for key, value in run.outputs.items()]


def _overview(ended: PipelineRun) -> display.Html:
    rows = []
    for step in ended.plan.steps:
        run = ended.runs.get(step.name)
        took = display.seconds(run.duration_s or 0) if run else None
        file: object = step.path.name
        if run and run.html:
            file = display.link(run.html.relative_to(ended.path), step.path.name)
        rows.append((step.name, ended.outcomes[step.name][0], took, file, step.needs))
    return display.table(rows, columns=["notebook", "state", "time", "file", "after"])

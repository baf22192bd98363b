"""A run of a pipeline and its report: one page with the figures first, then each notebook."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genokit import display
from genokit.files import write_atomic
from genokit.pipelines import folder as folders
from genokit.pipelines.folder import Run
from genokit.pipelines.plan import Plan


@dataclass
class PipelineRun:
    """One run of a pipeline.

    Attributes
    ----------
    path : Path
        Its folder: the report and one run folder per notebook.
    plan : Plan
        The pipeline's file, with the parameters that were used.
    runs : dict of str to Run
        The runs by name of their notebook.
    problems : dict of str to tuple of str
        State and reason of the notebooks that have no run.
    duration_s : float
        Duration in seconds.
    earlier : dict of str to Run
        The last runs of notebooks that these ones need and that were not run again.
    """

    path: Path
    plan: Plan
    runs: dict[str, Run] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    duration_s: float = 0.0
    earlier: dict[str, Run] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """SUCCEEDED if every notebook succeeded, else FAILED."""
        return "SUCCEEDED" if {state for state, _ in self.outcomes.values()} == {"SUCCEEDED"} else "FAILED"

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        """State and reason of every notebook, in the pipeline's order; NOT_RUN if one that it needs failed."""
        ran = {name: (run.state, run.error or "") for name, run in self.runs.items()}
        never = ("NOT_RUN", "the pipeline was interrupted")
        return {step.name: (ran | self.problems).get(step.name, never) for step in self.plan.steps}

    @property
    def done(self) -> str:
        """How many notebooks succeeded, out of how many."""
        return f"{sum(state == 'SUCCEEDED' for state, _ in self.outcomes.values())} of {len(self.plan.steps)}"

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What the notebooks recorded, by notebook and name."""
        return {name: dict(run.outputs) for name, run in self.runs.items()}

    @property
    def report(self) -> Path:
        """The page about this run: figures first, then each notebook."""
        return self.path / "report.html"

    def __repr__(self) -> str:
        took = display.seconds(self.duration_s)
        return f"<PipelineRun {self.plan.name} {self.state}, {self.done} notebooks, {took}, {self.path}>"

    def _repr_html_(self) -> str:
        rows = [*_summary(self), ("Report", folders.link(self.report))]
        return display.card(f"Pipeline {self.plan.title}", rows, status=self.state, fold={"Notebooks": _overview(self)})


def write(ended: PipelineRun) -> None:
    """Write the report into the run's folder; its links are relative, so the folder can be moved."""
    pictures = []
    for name, run in ended.runs.items():
        for figure in run.figures:
            caption = f"{name}: {figure.heading}" if figure.heading else name
            pictures.append(display.image(figure.png, caption, caption=caption, scale=figure.scale))
    sections = [("Figures", display.stack(*pictures))] if pictures else []
    sections.append(("Notebooks", _overview(ended)))
    for name, (state, why) in ended.outcomes.items():
        one = ended.runs.get(name)
        shown = folders.card(one, seen_from=ended.path) if one else display.card("No run", {"Why": why}, status=state)
        sections.append((name, shown))
    lead = display.card("Run", [*_summary(ended), ("Folder", ended.path.name)], status=ended.state)
    write_atomic(ended.report, display.page(ended.plan.title, sections, lead=lead), private=True)


def _summary(ended: PipelineRun) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("Notebooks", f"{ended.done} succeeded")]
    rows.append(("Time", display.seconds(ended.duration_s)))
    rows += [(name, why) for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    return rows + [(f"{name}.{key}", value) for name, run in ended.runs.items() for key, value in run.outputs.items()]


def _overview(ended: PipelineRun) -> display.Html:
    rows = []
    for step in ended.plan.steps:
        run = ended.runs.get(step.name)
        took = ("restored" if run.cached_from else display.seconds(run.duration_s or 0)) if run else None
        file: object = step.path.name
        if run and run.html:
            file = display.link(run.html.relative_to(ended.path), step.path.name)
        rows.append((step.name, ended.outcomes[step.name][0], took, file, step.needs))
    return display.table(rows, columns=["notebook", "state", "time", "file", "after"])

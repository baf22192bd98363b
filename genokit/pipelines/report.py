"""A run of a pipeline, as a card, a table and a graph that fills in while it runs."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display, live
from genokit.pipelines import lab
from genokit.pipelines.folder import Run
from genokit.pipelines.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


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
    def notebooks(self) -> DataFrame:
        """One row per notebook: notebook, group, file, needs, state, restored, duration_s; ready, started, ended (UTC).

        It was ready when the last of those that it needs had ended.
        """
        from genokit.frames import Frame

        begun = min((run.started for run in self.runs.values()), default=None)
        rows: list[dict[str, Any]] = [
            {
                "notebook": name,
                "group": name,
                "file": run.source.name,
                "needs": [],
                "state": run.state,
                "restored": True,
            }
            for name, run in self.earlier.items()
        ]
        for step in self.plan.steps:
            run, state = self.runs.get(step.name), self.outcomes[step.name][0]
            before = [one.ended for need in step.needs if (one := self.runs.get(need)) and one.ended]
            row: dict[str, Any] = {
                "notebook": step.name,
                "group": step.group,
                "file": step.path.name,
                "needs": step.needs,
            }
            row |= {"state": state, "restored": bool(run and run.cached_from), "ready": max(before, default=begun)}
            rows.append(row | {name: getattr(run, name, None) for name in ("duration_s", "started", "ended")})
        return Frame(rows)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the notebooks with what they need, their states and durations."""
        from genokit.plots.pipelines import graph

        return graph(self.notebooks, title=self.plan.title, ax=ax)

    @property
    def report(self) -> Path:
        """The page about this run: figures first, then each notebook."""
        return self.path / "report.html"

    def __repr__(self) -> str:
        took = display.seconds(self.duration_s)
        return f"<PipelineRun {self.plan.name} {self.state}, {self.done} notebooks, {took}, {self.path}>"

    def _repr_html_(self) -> str:
        rows = [*summary(self), ("Report", lab.link(self.report))]
        return display.card(f"Pipeline {self.plan.title}", rows, status=self.state, fold={"Notebooks": overview(self)})


class LiveGraph:
    """The graph of a pipeline that fills in while it runs, where a person watches; elsewhere nothing is shown."""

    def __init__(self, ended: PipelineRun, *, shown: bool) -> None:
        self.ended, self.shown = ended, shown and live.is_interactive()
        self._handle: Any = None
        self._drawn: tuple[float, list[str]] = (0.0, [])

    def update(self, running: Collection[str] | None = None) -> None:
        """Draw again if a state has changed, at most once a second; without ``running``, for the last time."""
        over = [*self.ended.runs, *self.ended.problems]
        at, drawn = self._drawn
        now = [*over, "" if running is None else "running", *sorted(running or ())]
        if not self.shown or now == drawn or (running is not None and time.monotonic() - at < 1):
            return
        from IPython.display import display as show
        from matplotlib import pyplot as plt

        from genokit.plots.pipelines import graph

        table = self.ended.notebooks
        for row, name in enumerate(table["notebook"]):
            if running is not None and name not in [*over, *self.ended.earlier]:
                table.loc[row, "state"] = "RUNNING" if name in running else "PENDING"
        figure = graph(table, title=self.ended.plan.title).figure
        words = f"{len(over)} of {len(self.ended.plan.steps)} notebooks have ended"
        data = {"text/html": display.figure(figure, words), "text/plain": words}  # type: ignore[arg-type]
        plt.close(figure)  # type: ignore[arg-type]
        if self._handle:
            self._handle.update(data, raw=True)
        else:
            self._handle = show(data, raw=True, display_id=True)
        self._drawn = (time.monotonic(), now)


def summary(ended: PipelineRun) -> list[tuple[str, object]]:
    """How it went, and what was recorded."""
    rows: list[tuple[str, object]] = [("Notebooks", f"{ended.done} succeeded")]
    rows.append(("Time", display.seconds(ended.duration_s)))
    rows += [(name, why) for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    return rows + [(f"{name}.{key}", value) for name, run in ended.runs.items() for key, value in run.outputs.items()]


def overview(ended: PipelineRun) -> display.Html:
    """A table of the notebooks, whose links are relative to the folder of the run."""
    rows = []
    for step in ended.plan.steps:
        run = ended.runs.get(step.name)
        took = ("restored" if run.cached_from else display.seconds(run.duration_s or 0)) if run else None
        file: object = step.path.name
        if run and run.html:
            file = display.link(run.html.relative_to(ended.path), step.path.name)
        rows.append((step.name, ended.outcomes[step.name][0], took, file, step.needs))
    return display.table(rows, columns=["notebook", "state", "time", "file", "after"])

"""A run of a pipeline, as a card, a table and a graph that fills in while it runs."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display, live
from genokit.pipelines import lab
from genokit.pipelines.folder import Run, shown_outputs
from genokit.pipelines.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COLUMNS = ["notebook", "group", "file", "needs", "state", "restored", "ready", "started", "ended", "duration_s"]


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
        """One row per notebook: notebook, group, file, needs, state, restored; ready, started, ended (UTC), duration_s.

        It was ready when the last of those that it needs had ended.
        """
        from genokit.frames import Frame

        begun = min((run.started for run in self.runs.values()), default=None)
        rows: list[tuple[object, ...]] = []
        for name, run in self.earlier.items():
            rows.append((name, name, run.source.name, [], run.state, True, *[None] * 4))
        for step in self.plan.steps:
            its = self.runs.get(step.name)
            before = [one.ended for need in step.needs if (one := self.runs.get(need)) and one.ended]
            what = (step.name, step.group, step.path.name, step.needs, self.outcomes[step.name][0])
            times = (its.started, its.ended, its.duration_s) if its else [None] * 3
            rows.append((*what, bool(its and its.cached_from), max(before, default=begun), *times))
        return Frame(rows, columns=COLUMNS)

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
    """The graph of a pipeline in an interactive notebook: it fills in while the pipeline runs."""

    def __init__(self, ended: PipelineRun, *, shown: bool) -> None:
        self.ended, self.shown = ended, shown and live.is_interactive()
        self._drawn: tuple[float, list[str]] = (0.0, [])

    def update(self, running: Collection[str] | None = None) -> None:
        """Draw again if a state has changed, at most once a second; without ``running``, for the last time."""
        now = self.ended
        if running is not None:
            never = {step.name for step in now.plan.steps} - now.runs.keys()
            waiting = {name: ("RUNNING" if name in running else "PENDING", "") for name in never}
            now = replace(now, problems=waiting | now.problems)
        states = [state for state, _ in now.outcomes.values()]
        at, drawn = self._drawn
        if not self.shown or states == drawn or (running is not None and time.monotonic() - at < 1):
            return
        from IPython.display import display as show

        words = f"{now.done} notebooks succeeded"
        data = {"text/html": picture(now.plot(), words), "text/plain": words}
        show(data, raw=True, display_id=now.path.name, update=bool(drawn))
        self._drawn = (time.monotonic(), states)


def picture(ax: Axes, words: str, *, caption: str = "") -> display.Html:
    """A figure as HTML, described by ``words``; it is closed."""
    from matplotlib import pyplot as plt

    html = display.figure(ax.figure, words, caption=caption)  # type: ignore[arg-type]
    plt.close(ax.figure)  # type: ignore[arg-type]
    return html


def summary(ended: PipelineRun, *, seen_from: Path | None = None) -> list[tuple[str, object]]:
    """How it went, and what was recorded; its links are relative to the folder ``seen_from``."""
    rows: list[tuple[str, object]] = [("Notebooks", f"{ended.done} succeeded")]
    rows.append(("Time", display.seconds(ended.duration_s)))
    rows += [(name, why) for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    for name, run in ended.runs.items():
        rows += [(f"{name}.{key}", value) for key, value in shown_outputs(run, seen_from).items()]
    return rows


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

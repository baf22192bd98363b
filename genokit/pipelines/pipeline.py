"""``Pipeline("tour.toml").run()``: notebooks in their order, independent ones side by side, and one page about it all.

Everything that can be known is checked before the first kernel starts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, cast

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, NotebookFailed, PipelineFailed
from genokit.pipelines import folder as folders
from genokit.pipelines import plan, report
from genokit.pipelines.execute import ended_in_order, run
from genokit.pipelines.folder import Run
from genokit.pipelines.plan import Plan, Step


@dataclass
class PipelineRun:
    """One run of a pipeline: ``state`` ("SUCCEEDED" or "FAILED"), ``runs`` by name, ``report``, ``path``.

    ``problems`` has the states and reasons of notebooks that have no run.
    """

    path: Path
    plan: Plan
    runs: dict[str, Run] = field(default_factory=dict)
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def state(self) -> str:
        """ "SUCCEEDED" if every notebook did, else "FAILED"."""
        return "SUCCEEDED" if {state for state, _ in self.outcomes.values()} == {"SUCCEEDED"} else "FAILED"

    @property
    def outcomes(self) -> dict[str, tuple[str, str]]:
        """The state of every notebook in the pipeline's order, "NOT_RUN" if one before it failed, and why."""
        ran = {name: (run.state, run.error or "") for name, run in self.runs.items()}
        never = ("NOT_RUN", "the pipeline was interrupted")
        return {step.name: (ran | self.problems).get(step.name, never) for step in self.plan.steps}

    @property
    def done(self) -> str:
        """How many notebooks succeeded, of how many."""
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
        return report.card(self)


class Pipeline:
    """Notebooks that build on one another, as a TOML file states them; the file is read when it is needed."""

    def __init__(self, path: str | Path, *, settings: Settings | None = None) -> None:
        self.path = Path(path).expanduser()
        self.settings = settings

    @property
    def plan(self) -> Plan:
        """The file, read and checked; raises ConfigError or NotFound."""
        return plan.read(self.path.absolute())

    def run(
        self, parameters: Mapping[str, Mapping[str, object]] | None = None, *, progress: bool = True
    ) -> PipelineRun:
        """Run every notebook, each as soon as those before it have succeeded; ``parameters`` by notebook win.

        A failure stops what depends on it, the others run to their end; then PipelineFailed is raised, with ``.runs``.
        The report is written in either case. Raises ConfigError, NotFound, InvalidNotebook and InvalidParameters
        before anything runs.
        """
        settings = self.settings or Settings.load()
        todo = self.plan.with_parameters(parameters or {})
        todo.check()
        ended = PipelineRun(folders.fresh(settings.made("runs"), todo.name), todo)
        begun = time.monotonic()
        with ended_in_order():
            try:
                _run_all(ended, settings, progress)
            finally:  # an interrupted pipeline has a report, too
                ended.duration_s = time.monotonic() - begun
                report.write(ended)
        if ended.state != "SUCCEEDED":
            raise _failure(ended)
        return ended

    def __repr__(self) -> str:
        return f"<Pipeline {self.path}>"

    def _repr_html_(self) -> str:
        todo = self.plan
        rows = [(step.name, step.path.name, step.needs, step.parameters) for step in todo.steps]
        table = display.table(rows, columns=["notebook", "file", "after", "parameters"])
        return display.stack(display.text(f"Pipeline {todo.title}"), table)


def _run_all(ended: PipelineRun, settings: Settings, progress: bool) -> None:
    from genokit.bars import Bar

    steps, stop = ended.plan.steps, threading.Event()
    order = TopologicalSorter({step.name: step.needs for step in steps})
    order.prepare()
    workers = min(2, os.cpu_count() or 1)  # a kernel keeps a core busy, and MXNet more than one
    bar = Bar(total=len(steps), desc=ended.plan.name, unit="notebook", disable=not progress)
    with bar, ThreadPoolExecutor(workers, thread_name_prefix="pipeline") as pool:
        waiting: dict[Future[None], str] = {}
        try:
            while order.is_active():
                for name in order.get_ready():
                    waiting[pool.submit(_run_one, ended.plan[name], ended, settings, stop)] = name
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    order.done(waiting.pop(future))
                    future.result()
                    bar.update()
        except BaseException:  # the kernels must not outlive us
            stop.set()
            raise


def _run_one(step: Step, ended: PipelineRun, settings: Settings, stop: threading.Event) -> None:
    """Run one notebook in this thread, unless one before it did not succeed."""
    missing = [name for name in step.needs if name not in ended.runs or ended.runs[name].state != "SUCCEEDED"]
    if missing:
        ended.problems[step.name] = ("NOT_RUN", f"{' and '.join(missing)} did not succeed")
    elif not stop.is_set():
        try:
            ended.runs[step.name] = run(
                step.path,
                {**step.parameters, **_inputs(step, ended.runs)},
                name=step.name,
                settings=settings,
                cell_timeout_s=step.cell_timeout_s,
                timeout_s=step.timeout_s,
                progress=False,
                folder=ended.path / step.name,
                stop=stop,
            )
        except NotebookFailed as error:
            ended.runs[step.name] = cast(Run, error.run)
        except GenokitError as error:
            ended.problems[step.name] = ("FAILED", str(error))


def _inputs(step: Step, runs: Mapping[str, Run]) -> dict[str, Any]:
    found = {}
    for parameter, (notebook, output) in step.inputs.items():
        recorded = runs[notebook].outputs
        if output not in recorded:
            raise GenokitError(
                f"'{step.name}' needs '{notebook}.{output}', but {notebook} ran without recording it: "
                f"let it call record('{output}', ...)."
            )
        found[parameter] = recorded[output]
    return found


def _failure(ended: PipelineRun) -> PipelineFailed:
    lines = [f"\n  - {name} {state}: {why}" for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    words = (
        f"the pipeline '{ended.plan.name}' failed:{''.join(lines)}\n  Report: {ended.report}\n"
        "  Next: look at the report, mend the first notebook that failed, and run the pipeline again."
    )
    # Side by side, any may end first; told in the plan's order.
    return PipelineFailed(words, runs=[ended.runs[name] for name in ended.outcomes if name in ended.runs])

"""``Pipeline("tour.toml").run()``: notebooks in their order, independent ones side by side, and one page about it all.

    name = "tour"
    title = "The tour"
    [[notebook]]
    name = "lenet"
    path = "../10_lenet.ipynb"                          # relative to the file
    after = ["tour"]                                    # waits for these
    parameters = { epochs = 1 }
    inputs = { accuracy_here = "tour.accuracy" }        # parameter <- what a notebook before it recorded
    cell_timeout_s = 600                                # and timeout_s for the whole notebook

Everything that can be known is checked before the first kernel starts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, PipelineFailed
from genokit.pipelines import folder as folders
from genokit.pipelines import plan, report
from genokit.pipelines.execute import Limits, prepare, supervise
from genokit.pipelines.folder import Run
from genokit.pipelines.plan import Plan, Step


@dataclass(frozen=True)
class PipelineRun:
    """One run of a pipeline: ``state`` ("SUCCEEDED" or "FAILED"), ``runs`` by name, ``report``, ``path``.

    ``problems`` says by name why a notebook has no run: the inputs it got were wrong, or one before it failed.
    """

    path: Path
    plan: Plan
    runs: Mapping[str, Run]
    problems: Mapping[str, str]
    duration_s: float

    @property
    def state(self) -> str:
        """ "SUCCEEDED" if every notebook did, else "FAILED"."""
        return "SUCCEEDED" if all(state == "SUCCEEDED" for state in self.states.values()) else "FAILED"

    @property
    def states(self) -> dict[str, str]:
        """The state of every notebook in the pipeline's order; "NOT_RUN" if one before it failed."""
        names = [step.name for step in self.plan.steps]
        return {
            name: self.runs[name].state if name in self.runs else self.problems[name].partition(":")[0]
            for name in names
        }

    def why(self, name: str) -> str:
        """Why a notebook did not succeed, in a line; empty if it did."""
        if name in self.runs:
            return self.runs[name].error or ""
        return self.problems[name].partition(": ")[2]

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What the notebooks recorded, by notebook and name."""
        return {name: dict(run.outputs) for name, run in self.runs.items()}

    @property
    def report(self) -> Path:
        """The page about this run: figures first, then each notebook."""
        return self.path / "report.html"

    def __repr__(self) -> str:
        good = sum(state == "SUCCEEDED" for state in self.states.values())
        took = display.seconds(self.duration_s)
        return (
            f"<PipelineRun {self.plan.name} {self.state}, {good} of {len(self.states)} notebooks, {took}, {self.path}>"
        )

    def _repr_html_(self) -> str:
        return report.card(self)


class Pipeline:
    """Notebooks that build on one another, as a TOML file states them; the file is read when it is needed."""

    def __init__(self, path: str | Path, *, settings: Settings | None = None) -> None:
        self.path = Path(path).expanduser()
        self.settings = settings

    @cached_property
    def plan(self) -> Plan:
        """The file, read and checked; raises ConfigError, NotFound or InvalidParameters."""
        return plan.read(self.path.absolute())

    def run(
        self, parameters: Mapping[str, Mapping[str, object]] | None = None, *, progress: bool = True
    ) -> PipelineRun:
        """Run every notebook, each as soon as those before it have succeeded; ``parameters`` by notebook win.

        A failure stops what depends on it, the others run to their end; then PipelineFailed is raised, with ``.runs``.
        The report is written in either case. Raises ConfigError, NotFound and InvalidParameters before anything runs.
        """
        settings = self.settings or Settings.load()
        todo = plan.read(self.path.absolute()).with_parameters(parameters or {})
        todo.check()
        execution = _Execution(todo, folders.new_folder(settings.runs, todo.name), settings)
        try:
            execution.run(progress)
        finally:  # an interrupted pipeline has a report, too
            ended = execution.ended()
            report.write(ended)
        if ended.state != "SUCCEEDED":
            raise _failure(ended)
        return ended

    def __repr__(self) -> str:
        return f"<Pipeline {self.path}>"

    def _repr_html_(self) -> str:
        rows = [
            {"notebook": step.name, "file": step.path.name, "after": step.needs, "parameters": dict(step.parameters)}
            for step in self.plan.steps
        ]
        return display.stack(display.text(f"Pipeline {self.plan.title}"), display.table(rows))


class _Execution:
    """A pipeline while it runs."""

    def __init__(self, todo: Plan, path: Path, settings: Settings) -> None:
        self.todo, self.path, self.settings = todo, path, settings
        self.runs: dict[str, Run] = {}
        self.problems: dict[str, str] = {}
        self.stop = threading.Event()
        self.begun = time.monotonic()

    def run(self, progress: bool) -> None:
        from tqdm.auto import tqdm

        order = TopologicalSorter({step.name: step.needs for step in self.todo.steps})
        order.prepare()
        workers = min(2, os.cpu_count() or 1)  # a kernel keeps a core busy, and MXNet more than one
        bar = tqdm(total=len(self.todo.steps), desc=self.todo.name, unit="notebook", disable=not progress)
        with bar, ThreadPoolExecutor(workers, thread_name_prefix="pipeline") as pool:
            waiting: dict[Future[None], str] = {}
            try:
                while order.is_active():
                    for name in order.get_ready():
                        waiting[pool.submit(self._one, self.todo[name])] = name
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        order.done(waiting.pop(future))
                        future.result()
                        bar.update()
            except BaseException:  # the kernels must not outlive us
                self.stop.set()
                raise

    def ended(self) -> PipelineRun:
        never = {step.name: "NOT_RUN: the pipeline was interrupted" for step in self.todo.steps}
        return PipelineRun(self.path, self.todo, self.runs, never | self.problems, time.monotonic() - self.begun)

    def _one(self, step: Step) -> None:
        """Run one notebook in this thread, unless one before it did not succeed."""
        missing = [name for name in step.needs if name not in self.runs or self.runs[name].state != "SUCCEEDED"]
        if missing or self.stop.is_set():
            self.problems[step.name] = f"NOT_RUN: {' and '.join(missing) or 'the pipeline'} did not succeed"
            return
        try:
            ready = prepare(step.path, {**step.parameters, **self._inputs(step)})
            folder = self.path / step.name
            folder.mkdir()
            limits = Limits(step.cell_timeout_s, step.timeout_s, self.stop)
            self.runs[step.name] = supervise(ready, folder, step.name, self.settings, limits)
        except GenokitError as error:
            self.problems[step.name] = f"FAILED: {error}"

    def _inputs(self, step: Step) -> dict[str, Any]:
        found = {}
        for parameter, (notebook, output) in step.inputs.items():
            recorded = self.runs[notebook].outputs
            if output not in recorded:
                raise GenokitError(
                    f"'{step.name}' needs '{notebook}.{output}', but {notebook} ran without recording it: "
                    f"let it call record('{output}', ...)."
                )
            found[parameter] = recorded[output]
        return found


def _failure(ended: PipelineRun) -> PipelineFailed:
    lines = [f"  - {name} {state}: {ended.why(name)}" for name, state in ended.states.items() if state != "SUCCEEDED"]
    words = [f"the pipeline '{ended.plan.name}' failed:", *lines, f"  Report: {ended.report}"]
    words.append("  Next: look at the report, mend the first notebook that failed, and run the pipeline again.")
    return PipelineFailed("\n".join(words), runs=list(ended.runs.values()))

"""``Pipeline("tour.toml").run()``: notebooks in order, independent ones in parallel, and one report.

Everything that can be checked is checked before the first kernel starts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, NotebookFailed, PipelineFailed, did_you_mean
from genokit.files import write_atomic
from genokit.pipelines import cache, crate, plan, report
from genokit.pipelines import folder as folders
from genokit.pipelines.execute import ended_in_order, prepared, run
from genokit.pipelines.folder import Run
from genokit.pipelines.plan import Plan, PlannedNotebook
from genokit.pipelines.report import PipelineRun

if TYPE_CHECKING:
    from pandas import DataFrame


class Pipeline:
    """Notebooks that build on one another, declared in a TOML file. The file is read when it is needed.

    Parameters
    ----------
    path : str or Path
        The pipeline's TOML file.
    settings : Settings, optional
        Settings to run with. Default: ``Settings.load()``.

    Examples
    --------
    >>> Pipeline("tour.toml")
    <Pipeline tour.toml>
    """

    def __init__(self, path: str | Path, *, settings: Settings | None = None) -> None:
        self.path = Path(path).expanduser()
        self.settings = settings

    @property
    def plan(self) -> Plan:
        """The checked content of the file.

        Raises
        ------
        NotFound
            There is no such file.
        ConfigError
            The file is invalid; the message names the key.
        """
        return plan.read(self.path.absolute())

    def run(
        self,
        parameters: Mapping[str, Mapping[str, object]] | None = None,
        *,
        progress: bool = True,
        fresh: bool = False,
        only: str | None = None,
        up_to: str | None = None,
        start_from: str | None = None,
        dry_run: bool = False,
    ) -> Any:
        """Run every notebook as soon as those it needs have succeeded, at most two at a time, and write a report.

        The results of a notebook that would run as in an earlier run are restored from it, and nothing is executed: see
        the argument ``cache`` of :func:`genokit.run`. So a pipeline that was stopped or killed continues when it is run
        again.

        Parameters
        ----------
        parameters : mapping of str to mapping, optional
            Parameters by notebook name. They take precedence over the file's parameters and inputs.
        progress : bool, default True
            Show a progress bar.
        fresh : bool, default False
            Execute every notebook, changed or not.
        only : str, optional
            Execute only this notebook, changed or not, with the results of the last runs of those that it needs.
        up_to : str, optional
            Run only this notebook and those that it needs.
        start_from : str, optional
            Run only this notebook and those that need it, with the results of the last runs of the others.
        dry_run : bool, default False
            Execute nothing; return what would be done.

        Returns
        -------
        PipelineRun or DataFrame
            Runs, outputs and the report. Of a dry run, one row per notebook: notebook, action ("run" or "restore") and
            why.

        Raises
        ------
        ConfigError, NotFound, InvalidNotebook, InvalidParameters
            The pipeline cannot start; nothing was run.
        GenokitError
            A notebook that is not run again has no run that succeeded.
        PipelineFailed
            A notebook failed. Notebooks that do not depend on it ran to their end; ``.runs`` holds all runs, and the
            report was written.

        Examples
        --------
        >>> import nbformat, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> nbformat.write(nbformat.v4.new_notebook(), folder / "train.ipynb")
        >>> toml = 'name = "tour"\\n[[notebook]]\\nname = "train"\\npath = "train.ipynb"'
        >>> _ = (folder / "tour.toml").write_text(toml)
        >>> Pipeline(folder / "tour.toml", settings=Settings(home=folder / "kit")).run(dry_run=True)
          notebook action                    why
        0    train    run  it has not run before
        """
        settings = self.settings or Settings.load()
        todo = self.plan.with_parameters(parameters or {})
        todo.check()
        start_from, up_to, fresh = only or start_from, only or up_to, fresh or only is not None
        last = todo.needed[todo[up_to].name] if up_to else todo.needed.keys()
        chosen = [step for step in todo.steps if step.name in last]
        if start_from:
            chosen = [step for step in chosen if todo[start_from].name in todo.needed[step.name]]
        earlier = {}
        for name in {need for step in chosen for need in step.needs} - {step.name for step in chosen}:
            found = cache.last_run(settings.runs, todo[name].path, name)
            if found is None:
                raise GenokitError(f"'{name}' has no run that succeeded. Run the pipeline with up_to='{name}' first.")
            earlier[name] = found
        todo = replace(todo, steps=tuple(chosen))
        if dry_run:
            return _dry_run(todo, settings, earlier, fresh)
        ended = PipelineRun(folders.fresh(settings.made("runs"), todo.name), todo, earlier=earlier)
        begun = time.monotonic()
        with ended_in_order():
            try:
                _run_all(ended, settings, progress, fresh)
            finally:  # an interrupted pipeline has a report too
                ended.duration_s = time.monotonic() - begun
                report.write(ended)
                write_atomic(ended.path / todo.file.name, todo.file.read_bytes(), private=True)
                crate.write_pipeline(ended)
        if ended.state != "SUCCEEDED":
            raise _failure(ended)
        return ended

    def __repr__(self) -> str:
        return f"<Pipeline {self.path}>"

    def _repr_html_(self) -> str:
        todo = self.plan
        rows = [(step.name, step.path.name, step.needs, step.parameters) for step in todo.steps]
        table = display.table(rows, columns=["notebook", "file", "after", "parameters"])
        return display.stack(f"Pipeline {todo.title}", table)


def _dry_run(todo: Plan, settings: Settings, earlier: Mapping[str, Run], fresh: bool) -> DataFrame:
    from genokit.frames import Frame

    known, rows = dict(earlier), []
    for name in TopologicalSorter({step.name: set(step.needs) - earlier.keys() for step in todo.steps}).static_order():
        step, why = todo[name], "it was asked for"
        unknown = [need for need in step.needs if need not in known]
        if unknown:
            why = f"{unknown[0]} runs before it"
        elif not fresh:
            begun, _ = prepared(step.path, {**step.parameters, **_inputs(step, known)}, name)
            before = {one: cache.identity(known[one]) for one in step.after}
            depends = cache.ingredients(begun, settings, step.path.parent, before)
            stored, why = cache.find(settings.runs, replace(begun, ingredients=depends))
            known |= {name: stored} if stored else {}
        rows.append((name, "restore", "nothing changed") if name in known else (name, "run", why))
    return Frame(rows, columns=["notebook", "action", "why"])


def _run_all(ended: PipelineRun, settings: Settings, progress: bool, fresh: bool) -> None:
    from genokit.bars import Bar

    steps, stop = ended.plan.steps, threading.Event()
    order = TopologicalSorter({step.name: set(step.needs) - ended.earlier.keys() for step in steps})
    order.prepare()
    bar = Bar(total=len(steps), desc=ended.plan.name, unit="notebook", disable=not progress)
    # One kernel keeps at least one core busy.
    with bar, ThreadPoolExecutor(min(2, os.cpu_count() or 1), thread_name_prefix="pipeline") as pool:
        waiting: dict[Future[None], str] = {}
        try:
            while order.is_active():
                for name in order.get_ready():
                    waiting[pool.submit(_run_one, ended.plan[name], ended, settings, stop, fresh)] = name
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    order.done(waiting.pop(future))
                    future.result()
                    bar.update()
        except BaseException:  # the kernels must not outlive us
            stop.set()
            raise


def _run_one(step: PlannedNotebook, ended: PipelineRun, settings: Settings, stop: threading.Event, fresh: bool) -> None:
    """Run one notebook in this thread, unless one that it needs did not succeed."""
    known = {**ended.earlier, **ended.runs}
    missing = [name for name in step.needs if name not in known or known[name].state != "SUCCEEDED"]
    if missing:
        ended.problems[step.name] = ("NOT_RUN", f"{' and '.join(missing)} did not succeed")
    elif not stop.is_set():
        try:
            ended.runs[step.name] = run(
                step.path,
                {**step.parameters, **_inputs(step, known)},
                name=step.name,
                settings=settings,
                cell_timeout_s=step.cell_timeout_s,
                timeout_s=step.timeout_s,
                progress=False,
                folder=ended.path / step.name,
                stop=stop,
                cache=True,
                fresh=fresh,
                # They have no results that this one takes, but may have changed what it reads.
                before={name: cache.identity(known[name]) for name in step.after},
            )
        except NotebookFailed as error:
            ended.runs[step.name] = cast(Run, error.run)
        except GenokitError as error:
            ended.problems[step.name] = ("FAILED", str(error))


def _inputs(step: PlannedNotebook, runs: Mapping[str, Run]) -> dict[str, Any]:
    found = {}
    for parameter, (notebook, output) in step.inputs.items():
        recorded = runs[notebook].outputs
        if output not in recorded:
            what = f"'{step.name}' needs '{notebook}.{output}', but {notebook} did not record it."
            raise GenokitError(f"{what} Call record('{output}', ...) in it. {did_you_mean(output, recorded)}")
        found[parameter] = recorded[output]
    return found


def _failure(ended: PipelineRun) -> PipelineFailed:
    lines = [f"\n  - {name} {state}: {why}" for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    words = (
        f"the pipeline '{ended.plan.name}' failed:{''.join(lines)}\n  Report: {ended.report}\n"
        "  Next: look at the report, fix the first notebook that failed, and run the pipeline again."
    )
    # Notebooks that run in parallel end in any order; list them in the plan's.
    return PipelineFailed(words, runs=[ended.runs[name] for name in ended.outcomes if name in ended.runs])

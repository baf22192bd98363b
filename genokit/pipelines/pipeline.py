"""``Pipeline("tour.toml").run()``: notebooks in order, here and as Batch jobs, as many at once as possible; one report.

Everything that can be checked is checked before the first kernel starts.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from genokit import backends, display, live
from genokit.config import Settings, cpus
from genokit.errors import GenokitError, InvalidParameters, NotebookFailed, PipelineFailed
from genokit.pipelines import cache, folders, lab, plan, remote, report
from genokit.pipelines.execute import ended_in_order, perform
from genokit.pipelines.folders import Run
from genokit.pipelines.plan import NotebookTask, Plan, checked
from genokit.pipelines.report import PipelineRun
from genokit.pipelines.secret_values import redacted
from genokit.pipelines.template import KernelTemplate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SHOWN = 8  # notebooks whose cells are shown at a time


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
        edit: str | None = None,
        queue: str | None = None,
        warm: bool = True,
    ) -> Any:
        """Run every notebook as soon as those it needs have succeeded, and write a report.

        Here as many notebooks run at a time as there are CPUs, if 1 GiB of memory is free for each.

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
        edit : str, optional
            Execute nothing; put the results of the last runs that this notebook needs into its cell of injected
            parameters, and open it, as :meth:`Run.open` does. Every run replaces that cell, so edits need no way back.
        queue : str, optional
            Run the notebooks as Batch jobs in this job queue, but those for which the file says ``on``. Jobs wait for
            one another by themselves: if this process ends, they go on, and the same call finds them and their results
            again. Default: run them here.
        warm : bool, default True
            On Linux, start each kernel here as a copy of one clean process, which is quicker. Kernels share no state.
            False: start each as a new process.

        Returns
        -------
        PipelineRun or DataFrame or str
            Runs, outputs and the report. Of a dry run, one row per notebook: notebook, action ("run" or "restore") and
            why. Of a notebook to edit, a link, its address or the command that opens it.

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
        only = edit or only
        start_from, up_to, fresh = only or start_from, only or up_to, fresh or only is not None
        needed = todo.needed
        last = set[str]().union(*(needed[name] for name in (todo.named(up_to) if up_to else needed)))
        first = {*(todo.named(start_from) if start_from else needed)}
        chosen = [step for step in todo.steps if step.name in last and needed[step.name] & first]
        if not chosen:
            raise InvalidParameters(f"'{up_to}' does not need '{start_from}', so there is nothing to run.")
        earlier = {}
        for name in {need for step in chosen for need in step.needs} - {step.name for step in chosen}:
            found = cache.last_run(settings.runs, todo[name].path, name)
            if found is None:
                raise GenokitError(
                    f"'{name}' has no run that succeeded. Run the pipeline up to it first: up_to='{name}', in a shell "
                    f"--up-to {name}."
                )
            earlier[name] = found
        todo = replace(todo, steps=tuple(step.with_queue(queue) for step in chosen))
        if edit:
            step = todo[edit]
            return lab.edit(step.path, {**step.parameters, **step.taken(earlier)})
        if dry_run:
            order = [todo[name] for name in needed if name in {step.name for step in chosen}]
            return _dry_run(order, settings, earlier, fresh=fresh)
        ended = PipelineRun(folders.fresh(settings.made("runs"), todo.name), todo, earlier=earlier)
        begun = time.monotonic()
        with ended_in_order():
            try:
                _Schedule(ended, settings, fresh=fresh, warm=warm).run(progress)
            except BaseException as error:
                error.add_note(f"Report: {ended.report}")
                raise
            finally:  # an interrupted pipeline has a report too
                ended.duration_s = time.monotonic() - begun
                ended.runs = {name: ended.runs[name] for name in needed if name in ended.runs}
                report.write(ended)
        if ended.state != "SUCCEEDED":
            raise _failure(ended)
        return ended

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw which notebook needs which.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on. Default: those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.

        Raises
        ------
        NotFound, ConfigError
            As ``plan``.
        """
        from genokit.plots.pipelines import graph

        todo = self.plan
        return graph(PipelineRun(Path(), todo).notebooks.assign(state=None), title=todo.title, ax=ax)

    def __repr__(self) -> str:
        return f"<Pipeline {self.path}>"

    def _repr_html_(self) -> str:
        todo = self.plan
        rows = [(step.name, step.path.name, step.needs, step.parameters) for step in todo.steps]
        table = display.table(rows, columns=["notebook", "file", "after", "parameters"])
        return display.stack(f"Pipeline {todo.title}", table)


def _failure(ended: PipelineRun) -> PipelineFailed:
    bad = {name: outcome for name, outcome in ended.outcomes.items() if outcome[0] != "SUCCEEDED"}
    lines = [f"\n- {name} {state}: {why}".replace("\n", "\n  ") for name, (state, why) in bad.items()]
    words = (
        f"The pipeline '{ended.plan.name}' failed:{''.join(lines)}\n  Report: {ended.report}\n"
        "  Next: look at the report, fix the first notebook that failed, and run the pipeline again."
    )
    if failed := [ended.runs[name] for name in bad if name in ended.runs]:
        words += f" To repeat it cell by cell: genokit debug {failed[0].path}"
    # Notebooks that run in parallel end in any order; list them in the plan's.
    return PipelineFailed(redacted(words), runs=[ended.runs[name] for name in ended.outcomes if name in ended.runs])


def _dry_run(
    steps: Sequence[NotebookTask], settings: Settings, earlier: Mapping[str, Run], *, fresh: bool
) -> DataFrame:
    """What would be done: one row per notebook. The notebooks are given in an order in which they can run."""
    from genokit.frames import Frame

    clients, known, rows = backends.clients(settings), dict(earlier), []
    for step in steps:
        why, stored = "it was asked for", None
        unknown = [need for need in step.needs if need not in known]
        if unknown:
            why = f"{unknown[0]} runs before it"
        elif not fresh:
            stored, why = remote.find(remote.identified(checked(step, settings, known), clients).begun, clients)
        if stored:
            known[step.name] = stored
        rows.append((step.name, "restore", "nothing changed") if stored else (step.name, "run", why))
    return Frame(rows, columns=["notebook", "action", "why"])


class _Schedule:
    """What is left to run, what runs here, and what runs as jobs; results go into the pipeline's run."""

    def __init__(self, ended: PipelineRun, settings: Settings, *, fresh: bool, warm: bool) -> None:
        self.ended, self.settings, self.fresh, self.warm = ended, settings, fresh, warm
        self.clients = backends.clients(settings)
        self.left = list(ended.plan.steps)
        self.here: dict[Future[None], str] = {}
        self.sent: dict[str, Run] = {}
        self.seen: dict[str, Run] = {}  # those that run here, as they are
        self.stop = threading.Event()
        self.graph: Any = None  # in an interactive notebook: what shows it, the states drawn, and when
        self.drawn: tuple[list[str], float] = ([], 0.0)

    def run(self, progress: bool) -> None:
        """Run all notebooks. An interrupt stops those on this machine; jobs keep running."""
        from genokit.bars import Bar

        title, total = self.ended.plan.name, len(self.ended.plan.steps)
        pool = ThreadPoolExecutor(_at_once(), thread_name_prefix="pipeline")
        kernels = KernelTemplate() if self.warm and sys.platform == "linux" else contextlib.nullcontext()
        bar = Bar(total=total, desc=title, unit="notebook", disable=not progress)
        shown = progress and live.is_interactive()
        with bar, kernels as self.template, pool:
            try:
                while self.left or self.here or self.sent:
                    self._start(pool)
                    if shown and time.monotonic() - self.drawn[1] >= 1:
                        self._draw()
                    self._wait()
                    now = itertools.islice({**self.seen, **self.sent}.values(), SHOWN)
                    cells = (f"{one.name} {sum(cell.done for cell in one.steps)}/{len(one.steps)}" for one in now)
                    bar.set_postfix_str(", ".join(cells), refresh=False)
                    bar.update(sum(state != "NOT_RUN" for state, _ in self.ended.outcomes.values()) - bar.n)
            except BaseException as error:  # the kernels must not outlive us
                self.stop.set()
                if self.sent:
                    names = ", ".join(self.sent)
                    error.add_note(f"Batch jobs go on: {names}. To stop them: genokit stop {self.ended.path}")
                for name, sent in self.sent.items():
                    said = f"its Batch job {sent.job} goes on; run the pipeline again to get its results"
                    self.ended.problems[name] = ("RUNNING", said)
                raise
        if shown:
            self._draw()

    def _draw(self) -> None:
        """Draw the graph as it is now, if a state has changed."""
        running = {*self.sent, *(name for future, name in self.here.items() if future.running())}
        never = {step.name for step in self.ended.plan.steps} - self.ended.runs.keys()
        waiting = {name: ("RUNNING" if name in running else "PENDING", "") for name in never}
        now = replace(self.ended, problems=waiting | self.ended.problems)
        states = [state for state, _ in now.outcomes.values()]
        if states != self.drawn[0]:
            words = f"{now.done} notebooks succeeded"
            self.graph = live.replaced(self.graph, display.drawn(now.plot(), words), words)
            self.drawn = states, time.monotonic()

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Start every notebook that is ready. A job may be submitted while the jobs that it needs are still running."""
        ready: dict[str, list[NotebookTask]] = {}
        known = self._known()
        self.left = [step for step in self.left if not self._cannot_run(step)]
        for step in list(self.left):
            if all(name in known for name in step.needs) and not step.on:
                self.here[pool.submit(self._run_here, step)] = step.name
            elif all(name in known or name in self.sent for name in step.needs) and step.on:
                ready.setdefault(step.group, []).append(step)
            else:
                continue
            self.left.remove(step)
        for steps in ready.values():
            self._send(steps)

    def _known(self) -> dict[str, Run]:
        return {**self.ended.earlier, **self.ended.runs}

    def _cannot_run(self, step: NotebookTask) -> bool:
        """Whether a notebook that this one needs did not succeed; if so, this is recorded."""
        runs, problems = self.ended.runs, self.ended.problems
        failed = [name for name in step.needs if name in problems or (name in runs and runs[name].state != "SUCCEEDED")]
        if failed:
            problems[step.name] = ("NOT_RUN", f"{' and '.join(failed)} did not succeed")
        return bool(failed)

    def _wait(self) -> None:
        poll_s = self.clients.backend.poll_s if self.sent else 1.0
        if self.sent and not self.here:
            time.sleep(poll_s)
        for future in wait(self.here, poll_s, FIRST_COMPLETED).done:
            del self.here[future]
            future.result()
        for one in remote.look(list(self.sent.values()), self.clients) if self.sent else ():
            del self.sent[one.name]
            if not self._cannot_run(self.ended.plan[one.name]):
                (self.sent if one.state == "RUNNING" else self.ended.runs)[one.name] = one

    def _run_here(self, step: NotebookTask) -> None:
        """Run one notebook in this thread."""
        if self.stop.is_set():
            return
        try:
            self.ended.runs[step.name] = perform(
                checked(step, self.settings, self._known(), self.ended.path / step.name),
                self.stop,
                cache=True,
                fresh=self.fresh,
                template=self.template,
                watch=functools.partial(self.seen.__setitem__, step.name),
            )
        except NotebookFailed as error:
            self.ended.runs[step.name] = cast(Run, error.run)
        except GenokitError as error:
            self.ended.problems[step.name] = ("FAILED", str(error))
        finally:
            self.seen.pop(step.name, None)

    def _send(self, steps: Sequence[NotebookTask]) -> None:
        """Submit the combinations of one notebook as jobs, except those whose results exist."""
        tasks, known = [], {**self._known(), **self.sent}
        for step in steps:
            try:
                tasks.append(checked(step, self.settings, known, self.ended.path / step.name))
            except GenokitError as error:
                self.ended.problems[step.name] = ("FAILED", str(error))
        after = {str(self.sent[name].job) for step in steps for name in step.needs if name in self.sent}
        try:
            for one in remote.start(tasks, self.clients, after, fresh=self.fresh):
                (self.sent if one.state == "RUNNING" else self.ended.runs)[one.name] = one
        except GenokitError as error:
            failed = {one.task.name for one in tasks} - self.ended.runs.keys() - self.sent.keys()
            self.ended.problems |= dict.fromkeys(failed, ("FAILED", str(error)))


def _at_once() -> int:
    """How many kernels run here at a time: each keeps a CPU busy and needs memory."""
    import psutil  # type: ignore[import-untyped]

    return int(max(1, min(cpus(), psutil.virtual_memory().available // 2**30)))

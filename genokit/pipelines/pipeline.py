"""``Pipeline("tour.toml").run()``: notebooks in order, independent ones in parallel, and one report.

Everything that can be checked is checked before the first kernel starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import display
from genokit.config import Settings
from genokit.errors import GenokitError, PipelineFailed
from genokit.pipelines import cache, folders, plan, report, schedule
from genokit.pipelines.execute import ended_in_order
from genokit.pipelines.plan import Plan
from genokit.pipelines.report import PipelineRun
from genokit.pipelines.secret_values import redacted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
            why. Of a notebook to edit, a link or its address.

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
        earlier = {}
        for name in {need for step in chosen for need in step.needs} - {step.name for step in chosen}:
            found = cache.last_run(settings.runs, todo[name].path, name)
            if found is None:
                raise GenokitError(f"'{name}' has no run that succeeded. Run the pipeline with up_to='{name}' first.")
            earlier[name] = found
        todo = replace(todo, steps=tuple(step.with_queue(queue) for step in chosen))
        if edit:
            from genokit.pipelines import lab

            step = todo[edit]
            return lab.edit(step.path, {**step.parameters, **step.taken(earlier)})
        if dry_run:
            return schedule.dry_run(todo, settings, earlier, fresh=fresh)
        ended = PipelineRun(folders.fresh(settings.made("runs"), todo.name), todo, earlier=earlier)
        begun = time.monotonic()
        with ended_in_order():
            try:
                schedule.Schedule(ended, settings, fresh=fresh, warm=warm).run(progress)
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
    lines = [f"\n  - {name} {state}: {why}" for name, (state, why) in ended.outcomes.items() if state != "SUCCEEDED"]
    words = (
        f"the pipeline '{ended.plan.name}' failed:{''.join(lines)}\n  Report: {ended.report}\n"
        "  Next: look at the report, fix the first notebook that failed, and run the pipeline again."
    )
    # Notebooks that run in parallel end in any order; list them in the plan's.
    return PipelineFailed(redacted(words), runs=[ended.runs[name] for name in ended.outcomes if name in ended.runs])

"""Run the notebooks of a pipeline in order, on this machine and as Batch jobs, as many at once as possible."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, cast

from genokit import backends
from genokit.config import Settings, cpus
from genokit.errors import GenokitError, NotebookFailed
from genokit.pipelines import remote
from genokit.pipelines.execute import perform
from genokit.pipelines.folders import Run
from genokit.pipelines.plan import NotebookTask, Plan, checked
from genokit.pipelines.report import LiveGraph, PipelineRun
from genokit.pipelines.template import KernelTemplate

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 8  # notebooks whose cells are shown at a time


def dry_run(todo: Plan, settings: Settings, earlier: Mapping[str, Run], *, fresh: bool) -> DataFrame:
    """What would be done: one row per notebook, in an order in which they can run."""
    from genokit.frames import Frame

    clients, known, rows = backends.clients(settings), dict(earlier), []
    for name in TopologicalSorter({step.name: set(step.needs) - earlier.keys() for step in todo.steps}).static_order():
        step, why, stored = todo[name], "it was asked for", None
        unknown = [need for need in step.needs if need not in known]
        if unknown:
            why = f"{unknown[0]} runs before it"
        elif not fresh:
            stored, why = remote.find(remote.identified(checked(step, settings, known), clients).begun, clients)
        if stored:
            known[name] = stored
        rows.append((name, "restore", "nothing changed") if stored else (name, "run", why))
    return Frame(rows, columns=["notebook", "action", "why"])


class Schedule:
    """What is left to run, what runs here, and what runs as jobs; results go into the pipeline's run."""

    def __init__(self, ended: PipelineRun, settings: Settings, *, fresh: bool, warm: bool) -> None:
        self.ended, self.settings, self.fresh, self.warm = ended, settings, fresh, warm
        self.clients = backends.clients(settings)
        self.left = list(ended.plan.steps)
        self.here: dict[Future[None], str] = {}
        self.sent: dict[str, Run] = {}
        self.seen: dict[str, Run] = {}  # those that run here, as they are
        self.stop = threading.Event()

    def run(self, progress: bool) -> None:
        """Run all notebooks. An interrupt stops those on this machine; jobs keep running."""
        from genokit.bars import Bar

        graph = LiveGraph(self.ended, shown=progress)
        title, total = self.ended.plan.name, len(self.ended.plan.steps)
        pool = ThreadPoolExecutor(_at_once(), thread_name_prefix="pipeline")
        kernels = KernelTemplate() if self.warm and sys.platform == "linux" else contextlib.nullcontext()
        bar = Bar(total=total, desc=title, unit="notebook", disable=not progress)
        with bar, kernels as self.template, pool:
            try:
                while self.left or self.here or self.sent:
                    self._start(pool)
                    graph.update([*self.sent, *(name for future, name in self.here.items() if future.running())])
                    self._wait()
                    now = itertools.islice({**self.seen, **self.sent}.values(), SHOWN)
                    cells = (f"{one.name} {sum(cell.done for cell in one.steps)}/{len(one.steps)}" for one in now)
                    bar.set_postfix_str(", ".join(cells), refresh=False)
                    bar.update(sum(state != "NOT_RUN" for state, _ in self.ended.outcomes.values()) - bar.n)
            except BaseException:  # the kernels must not outlive us
                self.stop.set()
                for name, sent in self.sent.items():
                    said = f"its Batch job {sent.job} goes on; run the pipeline again to get its results"
                    self.ended.problems[name] = ("RUNNING", said)
                raise
        graph.update()

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
                ready = checked(step, self.settings, known, self.ended.path / step.name)
                ready, restored = remote.restored(ready, self.clients, fresh=self.fresh)
                if restored:
                    self.ended.runs[step.name] = restored
                else:
                    tasks.append(ready)
            except GenokitError as error:
                self.ended.problems[step.name] = ("FAILED", str(error))
        after = {str(self.sent[name].job) for step in steps for name in step.needs if name in self.sent}
        try:
            self.sent |= {sent.name: sent for sent in remote.send(tasks, self.clients, after)}
        except GenokitError as error:
            self.ended.problems |= {one.task.name: ("FAILED", str(error)) for one in tasks}


def _at_once() -> int:
    """How many kernels run here at a time: each keeps a CPU busy and needs memory."""
    import psutil  # type: ignore[import-untyped]

    return int(max(1, min(cpus(), psutil.virtual_memory().available // 2**30)))

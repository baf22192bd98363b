"""What is to run: a notebook, with which parameters and where; once it is checked, it could start now."""

from __future__ import annotations

import datetime
import functools
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from genokit import __version__
from genokit.config import Settings
from genokit.errors import GenokitError, InvalidNotebook, did_you_mean
from genokit.files import sha256
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import processes
from genokit.pipelines.folder import Run
from genokit.pipelines.schema import Schema
from genokit.pipelines.secret_values import redacted
from genokit.secret_kinds import secret_text

NONE: Mapping[str, Any] = MappingProxyType({})
HERE = "here"  # in place of a queue: on this machine


@dataclass(frozen=True)
class Queue:
    """Where a notebook runs as a Batch job, and what the job gets, in the words of :meth:`genokit.Batch.submit`.

    ``secrets``: the ARN in AWS Secrets Manager by the environment variable that the job gets.
    """

    queue: str
    vcpus: float = 1
    memory_gib: float = 2
    gpus: int = 0
    retry: int | str | None = None
    timeout_min: float | None = None
    image: str = "genokit"
    secrets: Mapping[str, str] = field(default_factory=dict)


class Input(NamedTuple):
    """Where a parameter's value comes from: an output of another notebook, or a list of several notebooks' outputs."""

    notebooks: tuple[str, ...]
    output: str
    several: bool = False


@dataclass(frozen=True)
class NotebookTask:
    """A notebook to run; in a pipeline, one of its notebooks, or one combination of a matrix.

    ``group`` is its name in the pipeline's file, and ``cwd`` the working folder of its kernel.
    """

    name: str
    path: Path
    cwd: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    cell_timeout_s: float | None = None
    on: Queue | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    group: str = ""

    @property
    def needs(self) -> list[str]:
        """The notebooks that must succeed before this one: those in ``after`` and those whose outputs it takes."""
        return list(dict.fromkeys([*self.after, *(name for source in self.inputs.values() for name in source[0])]))

    def with_queue(self, queue: str | None) -> NotebookTask:
        """The same notebook, to run on this queue unless the file says where it runs."""
        on = self.on or (Queue(queue) if queue else None)
        return replace(self, on=None if on and on.queue == HERE else on)

    def with_parameters(self, given: Mapping[str, object]) -> NotebookTask:
        """The same notebook with other parameters, which replace inputs; it still waits for the same notebooks."""
        left = {parameter: source for parameter, source in self.inputs.items() if parameter not in given}
        after = [name for parameter in self.inputs.keys() & given for name in self.inputs[parameter].notebooks]
        return replace(self, after=(*self.after, *after), inputs=left, parameters={**self.parameters, **given})

    def taken(self, known: Mapping[str, Run], besides: Mapping[str, Any] = NONE) -> dict[str, Any]:
        """The values of its inputs, except those ``besides``. Raises GenokitError if one was not recorded."""
        found = {}
        for parameter, (names, output, several) in self.inputs.items():
            if parameter not in besides:
                outputs = [self._output(known[name], output) for name in names]
                found[parameter] = outputs if several else outputs[0]
        return found

    def _output(self, run: Run, name: str) -> Any:
        if name not in run.outputs:
            what = f"'{self.name}' needs '{run.name}.{name}', but {run.name} did not record it."
            raise GenokitError(f"{what} Call record('{name}', ...) in it. {did_you_mean(name, run.outputs)}")
        return run.outputs[name]


@dataclass(frozen=True)
class CheckedNotebook:
    """A task that could start now.

    ``begun`` is its run; ``known`` are the runs before it; ``node`` makes the notebook to execute; ``later`` names the
    inputs that its job takes from other jobs, which may still run.
    """

    task: NotebookTask
    begun: Run
    known: Mapping[str, Run]
    node: Callable[[], Any]
    later: Mapping[str, Input]


def checked(
    task: NotebookTask, settings: Settings, known: Mapping[str, Run] = NONE, folder: Path = Path()
) -> CheckedNotebook:
    """Check everything that can be checked before a kernel starts; nothing is written into the run's ``folder`` yet.

    Results of other jobs are passed to a job by address, all else by value.
    """
    content = notebooks.read(task.path)
    if kind := secret_text(task.path.read_bytes()):
        raise InvalidNotebook(
            f"{task.path} contains {kind}, which a run would copy; nothing was run. Remove it from cells and outputs, "
            "and give a parameter the value 'secret://NAME' instead."
        )
    schema = Schema.of(content, task.path.name)
    later = {name: one for name, one in task.inputs.items() if task.on and all(known[run].address for run in one[0])}
    given = schema.check({**task.parameters, **task.taken(known, besides=later)}, later=later)
    parameters = {name: value for name, value in {**schema.defaults(), **given}.items() if name not in later}
    begun = Run(
        path=folder,
        name=task.name,
        state="RUNNING",
        source=task.path,
        source_sha256=sha256(task.path),
        started=datetime.datetime.now(datetime.UTC),
        parameters=redacted(parameters),
        versions=_versions(),
        process=processes.this_process(),
        units={name: parameter.unit for name, parameter in schema.parameters.items() if parameter.unit},
        cwd=str(task.cwd),
        settings=", ".join(setting for setting, origin in settings.origins.items() if origin != "default"),
    )
    node = functools.partial(notebooks.executable, task.path, content, given)
    return CheckedNotebook(task, begun, known, node, later)


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("papermill", "nbclient", "ipykernel", "numpy")
    return {"python": platform.python_version(), "genokit": __version__} | {name: version(name) for name in packages}

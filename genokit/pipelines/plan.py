"""What is to run: a notebook, or the notebooks of a pipeline's TOML file, checked before anything runs.

``pipeline.schema.json`` says what the file may contain:

name = "tour"
title = "The tour"
[[notebook]]
name = "lenet"
path = "../10_lenet.ipynb"                          # relative to the file
after = ["tour"]                                    # runs after these
parameters = { epochs = 1 }
inputs = { accuracy_here = "tour.accuracy" }        # parameter = "notebook.output": what that notebook recorded
matrix = { seed = [1, 2], batch_size = [64, 256] }  # once for each combination
on = { queue = "gpu", gpus = 1, retry = "spot" }    # as a Batch job; "here": on this machine
cell_timeout_s = 600                                # timeout_s limits the whole notebook
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import platform
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from genokit import __version__
from genokit.config import Settings
from genokit.errors import ConfigError, GenokitError, InvalidNotebook, InvalidParameters, NotFound, did_you_mean
from genokit.files import sha256
from genokit.pipelines import folders, notebooks, processes
from genokit.pipelines.folders import Run
from genokit.pipelines.schema import Schema
from genokit.pipelines.secret_values import redacted
from genokit.secret_kinds import secret_text

NONE: Mapping[str, Any] = MappingProxyType({})
HERE = "here"  # in place of a queue: on this machine
SCHEMA = Path(__file__).with_name("pipeline.schema.json")


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

    def value(self, known: Mapping[str, Run]) -> Any:
        """The value, from the runs of these notebooks. Raises GenokitError if one did not record it."""
        for run in (known[name] for name in self.notebooks):
            if self.output not in run.outputs:
                what = f"'{run.name}.{self.output}' is needed, but {run.name} did not record it."
                hint = did_you_mean(self.output, run.outputs)
                raise GenokitError(f"{what} Call record('{self.output}', ...) in it. {hint}")
        found = [known[name].outputs[self.output] for name in self.notebooks]
        return found if self.several else found[0]


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
        return {name: source.value(known) for name, source in self.inputs.items() if name not in besides}


@dataclass(frozen=True)
class CheckedNotebook:
    """A task that could start now.

    ``begun`` is its run; ``known`` are the runs before it; ``node`` makes the notebook to execute; ``later`` are the
    inputs that its job takes from other jobs, which may still run, by the addresses of these.
    """

    task: NotebookTask
    settings: Settings
    begun: Run
    known: Mapping[str, Run]
    node: Callable[[], Any]
    later: Mapping[str, Input]


def checked(
    task: NotebookTask, settings: Settings, known: Mapping[str, Run] = NONE, folder: Path | None = None
) -> CheckedNotebook:
    """Check everything that can be checked before a kernel starts, and write nothing.

    Results of other jobs are passed to a job by address, all else by value. ``folder`` is the run folder, by default a
    new one in ``settings.runs``.
    """
    content = notebooks.read(task.path)
    if kind := secret_text(task.path.read_bytes()):
        raise InvalidNotebook(
            f"{task.path} contains {kind}, which a run would copy; nothing was run. Remove it from cells and outputs, "
            "and give a parameter the value 'secret://NAME' instead."
        )
    for limit in ("timeout_s", "cell_timeout_s"):
        if not (getattr(task, limit) or 0) >= 0:
            raise InvalidParameters(f"{limit} is {getattr(task, limit)}: give a number of seconds, or 0 for no limit.")
    schema = Schema.of(content, task.path.name)
    later = {}
    for name, source in task.inputs.items() if task.on else ():
        addresses = [known[one].address for one in source.notebooks]
        if all(addresses):
            later[name] = source._replace(notebooks=tuple(map(str, addresses)))
    given = schema.check({**task.parameters, **task.taken(known, besides=later)}, later=later)
    parameters = {name: value for name, value in {**schema.defaults(), **given}.items() if name not in later}
    begun = Run(
        path=folder or folders.fresh(settings.runs, task.name),
        name=task.name,
        state="RUNNING",
        source=task.path,
        source_sha256=sha256(task.path),
        started=datetime.datetime.now(datetime.UTC),
        parameters=redacted(parameters),
        versions={"python": platform.python_version(), "genokit": __version__},
        process=processes.this_process(),
        units={name: parameter.unit for name, parameter in schema.parameters.items() if parameter.unit},
        cwd=str(task.cwd),
        settings=", ".join(setting for setting, origin in settings.origins.items() if origin != "default"),
    )
    node = functools.partial(notebooks.executable, task.path, content, given)
    return CheckedNotebook(task, settings, begun, known, node, later)


@dataclass(frozen=True)
class Plan:
    """The content of a pipeline's file."""

    file: Path
    name: str
    title: str
    steps: tuple[NotebookTask, ...]

    def __getitem__(self, name: str) -> NotebookTask:
        return next(step for step in self.steps if step.name == name)

    def named(self, name: str) -> list[str]:
        """Find notebooks by name; the name of a matrix finds all of its combinations. Raises InvalidParameters."""
        found = [step.name for step in self.steps if name in (step.name, step.group)]
        if not found:
            known = dict.fromkeys(known for step in self.steps for known in (step.group, step.name))
            raise InvalidParameters(f"{self.file.name} has no notebook '{name}'. {did_you_mean(name, known)}")
        return found

    @property
    def needed(self) -> dict[str, set[str]]:
        """Each notebook with all those that must succeed before it, itself included, in an order to run them in."""
        found: dict[str, set[str]] = {}
        for name in TopologicalSorter({step.name: step.needs for step in self.steps}).static_order():
            found[name] = {name}.union(*(found[one] for one in self[name].needs))
        return found

    def with_parameters(self, given: Mapping[str, Mapping[str, object]]) -> Plan:
        """The plan with other parameters for some of its notebooks; raises InvalidParameters for an unknown name."""
        changes = {one: values for name, values in given.items() for one in self.named(name)}
        return replace(self, steps=tuple(step.with_parameters(changes.get(step.name, {})) for step in self.steps))

    def check(self) -> None:
        """Raise InvalidParameters with all notebooks' problems."""
        problems: dict[str, None] = {}
        schema = functools.cache(lambda path: Schema.of(notebooks.read(path), path.name))
        for step in self.steps:
            try:
                schema(step.path).check(step.parameters, later=step.inputs)
            except InvalidParameters as error:
                problems[str(error)] = None
            for parameter in step.inputs.keys() & step.parameters.keys():
                problems[f"'{step.group}': '{parameter}' is both a parameter and an input; keep one."] = None
        if problems:
            raise InvalidParameters("\n".join(problems))


def read(path: Path) -> Plan:
    """Read and check a pipeline's file; raises NotFound, or ConfigError that names what is wrong."""
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        known = (other.name for other in path.parent.glob("*.toml"))
        raise NotFound(f"There is no pipeline {path}. {did_you_mean(path.name, known)}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    _validate(path, stated)
    tables: dict[str, dict[str, Any]] = {}
    for table in stated["notebook"]:
        if tables.setdefault(table["name"], table) is not table:
            raise ConfigError(f"{path}: two notebooks are named '{table['name']}'. Rename one.")
    combined = {name: _combinations(table) for name, table in tables.items()}
    steps = [_step(path, tables[group], name, combined) for group, names in combined.items() for name in names]
    found = Plan(path, stated["name"], stated.get("title", stated["name"]), tuple(steps))
    try:
        _ = found.needed  # in an order to run them in, so that there is one
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"{path}: the notebooks wait for one another: {circle}. Remove one of these dependencies."
        ) from None
    return found


@functools.cache
def _valid() -> Callable[[Any], Any]:
    import fastjsonschema

    check: Callable[[Any], Any] = fastjsonschema.compile(json.loads(SCHEMA.read_text()))
    return check


def _validate(path: Path, stated: dict[str, Any]) -> None:
    from fastjsonschema import JsonSchemaValueException

    try:
        _valid()(stated)
    except JsonSchemaValueException as error:
        wrong, rule, value = error.definition, error.rule, error.value
        where = str(error.name).removeprefix("data").removeprefix(".") or "the file"
        if found := re.match(r"notebook\[(\d+)\]\.?", where):
            table = stated["notebook"][int(found[1])]
            name = table.get("name", found[1]) if isinstance(table, dict) else found[1]
            where = f"[[notebook]] '{name}' {where[found.end() :]}".rstrip()
        if rule == "required":
            said = f"lacks '{next(key for key in wrong['required'] if key not in value)}'. It has: {', '.join(value)}."
        elif rule == "additionalProperties":
            key = next(key for key in value if key not in wrong["properties"])
            said = f"has no key '{key}'. {did_you_mean(key, wrong['properties'])}"
        else:
            said = f"cannot be {value!r}. Expected: {wrong.get('description', error.message)}"
        raise ConfigError(f"{path}: {where} {said}") from None


def _combinations(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name each combination of a notebook's matrix by its values or, if they do not make a name, by number."""
    matrix = table.get("matrix", {})
    found = [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]
    names = ["-".join([table["name"], *map(str, values.values())]) for values in found]
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]{1,60}", name) for name in names):
        names = [f"{table['name']}-{number}" for number in range(1, len(found) + 1)] if matrix else names
    return dict(zip(names, found, strict=True))


def _step(
    path: Path, table: dict[str, Any], name: str, combined: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> NotebookTask:
    values = combined[table["name"]][name]

    def matching(group: str) -> tuple[tuple[str, ...], bool]:
        """The combinations of another notebook with the same values, and whether there can be several."""
        if group not in combined:
            hint = did_you_mean(group, combined)
            raise ConfigError(f"{path}: '{name}' waits for '{group}', which does not exist. {hint}")
        others = combined[group]
        same = [one for one, its in others.items() if all(its[key] == values[key] for key in its.keys() & values)]
        if not same:
            raise ConfigError(
                f"{path}: '{name}' needs '{group}', but no combination of its matrix has the same values."
            )
        return tuple(same), any(its.keys() - values.keys() for its in others.values())

    inputs = {}
    for parameter, reference in table.get("inputs", {}).items():
        group, _, output = reference.partition(".")
        names, several = matching(group)
        inputs[parameter] = Input(names, output, several)
    where, file = table.get("on"), (path.parent / table["path"]).resolve()
    return NotebookTask(
        name,
        file,
        file.parent,
        parameters={**table.get("parameters", {}), **values},
        inputs=inputs,
        after=tuple(one for group in table.get("after", ()) for one in matching(group)[0]),
        group=table["name"],
        timeout_s=table.get("timeout_s"),
        cell_timeout_s=table.get("cell_timeout_s"),
        on=Queue(where) if isinstance(where, str) else where and Queue(**where),
    )

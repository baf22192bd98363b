"""A pipeline's TOML file, read and checked before anything runs. ``pipeline.schema.json`` says what it may contain.

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

import functools
import itertools
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from genokit.errors import ConfigError, InvalidParameters, NotFound, did_you_mean
from genokit.pipelines import notebook as notebooks
from genokit.pipelines.schema import Schema
from genokit.pipelines.task import Input, NotebookTask, Queue

SCHEMA = Path(__file__).with_name("pipeline.schema.json")


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
        raise NotFound(f"the pipeline {path} does not exist. {did_you_mean(path.name, known)}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    _validate(path, stated)
    tables: dict[str, dict[str, Any]] = {}
    for table in stated["notebook"]:
        if tables.setdefault(table["name"], table) is not table:
            raise ConfigError(f"{path}: two notebooks are named '{table['name']}'. Rename one.")
    _check_order(path, tables)
    combined = {name: _combinations(table) for name, table in tables.items()}
    steps = [_step(path, tables[group], name, combined) for group, names in combined.items() for name in names]
    return Plan(path, stated["name"], stated.get("title", stated["name"]), tuple(steps))


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
            said = f"lacks '{next(key for key in wrong['required'] if key not in value)}'."
        elif rule == "additionalProperties":
            key = next(key for key in value if key not in wrong["properties"])
            said = f"has no key '{key}'. {did_you_mean(key, wrong['properties'])}"
        else:
            said = f"cannot be {value!r}. Expected: {wrong.get('description', error.message)}"
        raise ConfigError(f"{path}: {where} {said}") from None


def _check_order(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    order = {}
    for name, table in tables.items():
        sources = [reference.partition(".")[0] for reference in table.get("inputs", {}).values()]
        order[name] = [*table.get("after", ()), *sources]
    for name, needs in order.items():
        for other in needs:
            if other not in order:
                hint = did_you_mean(other, order)
                raise ConfigError(f"{path}: '{name}' waits for '{other}', which does not exist. {hint}")
    try:
        TopologicalSorter(order).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"{path}: the notebooks wait for one another: {circle}. Remove one of these dependencies."
        ) from None


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

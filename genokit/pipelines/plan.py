"""A pipeline's TOML file, read and checked before anything runs.

name = "tour"
title = "The tour"
[[notebook]]
name = "lenet"
path = "../10_lenet.ipynb"                          # relative to the file
after = ["tour"]                                    # runs after these
parameters = { epochs = 1 }
inputs = { accuracy_here = "tour.accuracy" }        # parameter = "notebook.output": what that notebook recorded
cell_timeout_s = 600                                # timeout_s limits the whole notebook
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from genokit.errors import ConfigError, InvalidParameters, NotFound, did_you_mean
from genokit.pipelines import notebook as notebooks
from genokit.pipelines.schema import Schema, convert


@dataclass(frozen=True)
class PlannedNotebook:
    """One notebook of a pipeline. ``inputs`` maps a parameter to (notebook, output)."""

    name: str
    path: Path
    after: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    timeout_s: float | None = None
    cell_timeout_s: float | None = None

    @property
    def needs(self) -> list[str]:
        """The notebooks that must succeed before this one: those in ``after`` and those whose outputs it takes."""
        return list(dict.fromkeys([*self.after, *(notebook for notebook, _ in self.inputs.values())]))

    def with_parameters(self, given: Mapping[str, object]) -> PlannedNotebook:
        """The same notebook with other parameters, which replace inputs; it still waits for the same notebooks."""
        left = {parameter: source for parameter, source in self.inputs.items() if parameter not in given}
        after = (*self.after, *(notebook for parameter, (notebook, _) in self.inputs.items() if parameter in given))
        return replace(self, after=after, inputs=left, parameters={**self.parameters, **given})


@dataclass(frozen=True)
class Plan:
    """The content of a pipeline's file."""

    file: Path
    name: str
    title: str
    steps: tuple[PlannedNotebook, ...]

    def __getitem__(self, name: str) -> PlannedNotebook:
        names = [step.name for step in self.steps]
        if name not in names:
            raise InvalidParameters(f"{self.file.name} has no notebook '{name}'. {did_you_mean(name, names)}")
        return self.steps[names.index(name)]

    @property
    def needed(self) -> dict[str, set[str]]:
        """Each notebook with all those that must succeed before it, itself included, in an order to run them in."""
        found: dict[str, set[str]] = {}
        for name in TopologicalSorter({step.name: step.needs for step in self.steps}).static_order():
            found[name] = {name}.union(*(found[one] for one in self[name].needs))
        return found

    def with_parameters(self, given: Mapping[str, Mapping[str, object]]) -> Plan:
        """The plan with other parameters for some of its notebooks; raises InvalidParameters for an unknown name."""
        changed = {name: self[name].with_parameters(values) for name, values in given.items()}
        return replace(self, steps=tuple(changed.get(step.name, step) for step in self.steps))

    def check(self) -> None:
        """Raise InvalidParameters with all notebooks' problems."""
        problems = []
        for step in self.steps:
            try:
                Schema.of(notebooks.read(step.path), step.path.name).check(step.parameters, later=step.inputs)
            except InvalidParameters as error:
                problems.append(str(error))
            for parameter in step.inputs.keys() & step.parameters.keys():
                problems.append(f"'{step.name}': '{parameter}' is both a parameter and an input; keep one.")
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
    _check_keys(f"{path}: the file", stated, {"name": str, "title": str, "notebook": list}, ("name", "notebook"))
    if not all(isinstance(table, dict) for table in stated["notebook"]) or not stated["notebook"]:
        raise ConfigError(f"{path}: write each notebook as a [[notebook]] table with a name and a path.")
    steps = tuple(_notebook(path, table) for table in stated["notebook"])
    _check_order(path, steps)
    return Plan(path, stated["name"], stated.get("title", stated["name"]), steps)


_KEYS: dict[str, Any] = {
    "name": str,
    "path": str,
    "after": list[str],
    "parameters": dict,
    "inputs": dict[str, str],
    "timeout_s": float,
    "cell_timeout_s": float,
}


def _notebook(path: Path, table: dict[str, Any]) -> PlannedNotebook:
    where = f"{path}: [[notebook]] '{table.get('name', '?')}'"
    _check_keys(where, table, _KEYS, ("name", "path"))
    if not re.fullmatch(r"[\w-]+", table["name"]):
        raise ConfigError(f"{where}: a name may have only letters, digits, - and _, because it becomes a folder name.")
    inputs = {}
    for parameter, reference in table.get("inputs", {}).items():
        notebook, _, output = reference.partition(".")
        if not (notebook and output.isidentifier()):
            raise ConfigError(f"{where}: the input {parameter} = {reference!r} must be 'notebook.output'.")
        inputs[parameter] = (notebook, output)
    after = tuple(table.get("after", ()))
    return PlannedNotebook(
        **table | {"path": (path.parent / table["path"]).resolve(), "after": after, "inputs": inputs}
    )


def _check_keys(where: str, table: Mapping[str, Any], kinds: Mapping[str, Any], required: Collection[str]) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(f"{where} has no key '{key}'. {did_you_mean(key, kinds)}")
        try:
            convert(value, kinds[key])
        except TypeError as error:
            raise ConfigError(f"{where}: '{key}' cannot be {value!r}: {error}.") from None
    for key in required:
        if key not in table:
            raise ConfigError(f"{where} lacks '{key}'.")


def _check_order(path: Path, steps: tuple[PlannedNotebook, ...]) -> None:
    order = {step.name: step.needs for step in steps}
    names = [step.name for step in steps]
    for name, needs in order.items():
        if names.count(name) > 1:
            raise ConfigError(f"{path}: two notebooks are named '{name}'. Rename one.")
        for other in needs:
            if other not in order:
                raise ConfigError(
                    f"{path}: '{name}' waits for '{other}', which does not exist. {did_you_mean(other, order)}"
                )
    try:
        TopologicalSorter(order).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"{path}: the notebooks wait for one another: {circle}. Remove one of these dependencies."
        ) from None

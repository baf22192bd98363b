"""A pipeline's TOML file, read and checked before anything runs."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from genokit.errors import ConfigError, InvalidParameters, NotFound, did_you_mean
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import schema


@dataclass(frozen=True)
class Step:
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
        """The notebooks that come before this one: those it names and those whose outputs it takes."""
        return list(dict.fromkeys([*self.after, *(notebook for notebook, _ in self.inputs.values())]))


@dataclass(frozen=True)
class Plan:
    """What a pipeline's file says."""

    file: Path
    name: str
    title: str
    steps: tuple[Step, ...]

    def __getitem__(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def with_parameters(self, given: Mapping[str, Mapping[str, object]]) -> Plan:
        """The plan with other parameters for some of its notebooks, which then win over inputs, too.

        Raises InvalidParameters for a notebook that there is not.
        """
        names = [step.name for step in self.steps]
        for name in given:
            if name not in names:
                raise InvalidParameters(f"{self.file.name} has no notebook '{name}'. {did_you_mean(name, names)}")
        return replace(self, steps=tuple(_override(step, given.get(step.name, {})) for step in self.steps))

    def check(self) -> None:
        """Raise InvalidParameters with the problems of all notebooks, or ConfigError for an output nobody records."""
        contents = {step.name: notebooks.read(step.path) for step in self.steps}
        problems = []
        for step in self.steps:
            try:
                schema.of(contents[step.name], step.path.name).check(step.parameters, later=set(step.inputs))
            except InvalidParameters as error:
                problems.append(str(error))
            for parameter, (notebook, output) in step.inputs.items():
                if parameter in step.parameters:
                    problems.append(f"'{step.name}': '{parameter}' is both a parameter and an input; keep one.")
                recorded = recorded_names(contents[notebook])
                if recorded is not None and output not in recorded:
                    raise ConfigError(
                        f"{self.file}: '{step.name}' takes '{notebook}.{output}', but {self[notebook].path.name} never "
                        f"calls record('{output}', ...). {did_you_mean(output, recorded)}"
                    )
        if problems:
            raise InvalidParameters("\n".join(problems))


_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "path": str,
    "after": list,
    "parameters": dict,
    "inputs": dict,
    "timeout_s": (int, float),
    "cell_timeout_s": (int, float),
}
_REQUIRED = ("name", "path")


def read(path: Path) -> Plan:
    """The plan that a file states; raises NotFound, or ConfigError naming what is wrong with it."""
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        known = [other.name for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise NotFound(f"the pipeline {path} does not exist. {did_you_mean(path.name, known)}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    _check_keys(path, stated, {"name": str, "title": str, "notebook": list}, "the file", ("name", "notebook"))
    if not all(isinstance(table, dict) for table in stated["notebook"]) or not stated["notebook"]:
        raise ConfigError(f"{path}: write each notebook as a [[notebook]] table with a name and a path.")
    steps = tuple(_step(path, table) for table in stated["notebook"])
    _check_order(path, steps)
    for step in steps:
        notebooks.read(step.path)
    return Plan(path, stated["name"], stated.get("title", stated["name"]), steps)


def _step(path: Path, table: dict[str, Any]) -> Step:
    where = f"[[notebook]] '{table.get('name', '?')}'"
    _check_keys(path, table, _KEYS, where, _REQUIRED)
    if not re.fullmatch(r"[\w-]+", table["name"]):
        raise ConfigError(f"{path}: {where}: a name has letters, digits, - and _ only, for it names a folder.")
    inputs = {}
    for parameter, reference in table.get("inputs", {}).items():
        notebook, dot, output = reference.partition(".") if isinstance(reference, str) else ("", "", "")
        if not (notebook and dot and output.isidentifier()):
            raise ConfigError(f"{path}: {where}: the input {parameter} = {reference!r} must be 'notebook.output'.")
        inputs[parameter] = (notebook, output)
    for name in ("timeout_s", "cell_timeout_s"):
        if name in table and (isinstance(table[name], bool) or not table[name] > 0):
            raise ConfigError(f"{path}: {where}: {name} must be more than 0 seconds, got {table[name]!r}.")
    return Step(
        name=table["name"],
        path=(path.parent / table["path"]).resolve(),
        after=tuple(str(name) for name in table.get("after", [])),
        parameters=table.get("parameters", {}),
        inputs=inputs,
        timeout_s=table.get("timeout_s"),
        cell_timeout_s=table.get("cell_timeout_s"),
    )


def _override(step: Step, given: Mapping[str, object]) -> Step:
    left = {parameter: source for parameter, source in step.inputs.items() if parameter not in given}
    # It still comes after the notebooks that it now takes nothing from.
    return replace(step, after=tuple(step.needs), inputs=left, parameters={**step.parameters, **given})


def _check_keys(
    path: Path, table: Mapping[str, Any], known: Mapping[str, Any], where: str, required: tuple[str, ...]
) -> None:
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: {where} has no key '{key}'. {did_you_mean(key, known)}")
        if not isinstance(value, known[key]):
            raise ConfigError(f"{path}: {where}: '{key}' cannot be {value!r}.")
    for key in required:
        if key not in table:
            raise ConfigError(f"{path}: {where} lacks '{key}'.")


def _check_order(path: Path, steps: tuple[Step, ...]) -> None:
    names = [step.name for step in steps]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: there are two notebooks named '{twice[0]}'; give each a name of its own.")
    for step in steps:
        for name in step.needs:
            if name not in names:
                raise ConfigError(
                    f"{path}: '{step.name}' waits for '{name}', and there is none. {did_you_mean(name, names)}"
                )
    try:
        TopologicalSorter({step.name: step.needs for step in steps}).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(f"{path}: the notebooks wait for one another: {circle}. Take one of these out.") from None


def recorded_names(content: notebooks.Json) -> set[str] | None:
    """The names that a notebook's own code records; None if only running it can tell."""
    found = set()
    for cell in content["cells"]:
        if cell.get("cell_type") == "code":
            for call in _calls(notebooks.text(cell)):
                name = call.args[0] if call.args else None
                if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                    return None
                found.add(name.value)
    return found


def _calls(code: str) -> Iterator[ast.Call]:
    try:
        tree = ast.parse(re.sub(r"^[ \t]*[%!].*$", "", code, flags=re.MULTILINE))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "record":
            yield node

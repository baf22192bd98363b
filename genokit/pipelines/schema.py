"""A notebook's parameters: read from the code of its cell tagged ``parameters``, checked before a kernel starts.

The cell is parsed, never executed. An annotation, or else the default, gives the type; the comment at the end of the
line is the help.
"""

from __future__ import annotations

import ast
import datetime
import io
import re
import tokenize
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from genokit import display
from genokit.errors import InvalidParameters, did_you_mean
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values

# `max_tokens` and `tokenizer` are no secrets.
SECRET = re.compile(r"(?i)password|secret|token(?!s|i[sz])|api_?key|credential")

_TYPES: dict[str, Any] = {
    "date": datetime.date,
    "datetime": datetime.datetime,
    "timedelta": datetime.timedelta,
    "Path": Path,
    "Any": Any,
    "List": list,
    "Dict": dict,
    "Tuple": tuple,
    "Set": set,
    "Sequence": list,
    "Mapping": dict,
} | {kind.__name__: kind for kind in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)}


class _Computed:
    """The default of a parameter that only Python itself can work out."""

    def __repr__(self) -> str:
        return "computed"


COMPUTED = _Computed()


@dataclass(frozen=True)
class Parameter:
    """One parameter: its ``type`` (Any where the notebook does not say), ``default``, and ``help``.

    ``default`` is COMPUTED where it is an expression that needs Python; ``required`` where the cell only annotates.
    """

    name: str
    type: Any
    default: Any
    help: str
    code: str
    required: bool = False

    @property
    def kind(self) -> str:
        """The type in words, as one writes it in an annotation."""
        return _words(self.type)


@dataclass(frozen=True)
class Schema:
    """The parameters of a notebook, by name; shown as a table in a notebook.

    >>> schema = Schema.parse("epochs: int = 3  # passes over the data\\nrate = 0.05", "lenet.ipynb")
    >>> schema
    <Schema of lenet.ipynb: epochs: int = 3, rate: float = 0.05>
    >>> schema.check({"rate": 1})
    {'rate': 1.0}
    """

    title: str
    parameters: Mapping[str, Parameter]
    tagged: bool = True

    @classmethod
    def parse(cls, code: str, title: str) -> Schema:
        """The schema that the code of a parameters cell states; raises InvalidParameters where it does not parse."""
        # A magic or a shell line is IPython's, not Python's.
        code = re.sub(r"^[ \t]*[%!].*$", "", code, flags=re.MULTILINE)
        try:
            statements = ast.parse(code).body
        except SyntaxError as error:
            raise InvalidParameters(
                f"the parameters cell of {title} is not valid Python: line {error.lineno}: {error.msg}. "
                "Mend the cell; nothing was run."
            ) from None
        found = {item.name: item for item in _parameters(statements, _comments(code))}
        return cls(title, found)

    def check(self, given: Mapping[str, object], *, later: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
        """The given values in the notebook's types; raises InvalidParameters that lists every problem at once.

        ``later`` names parameters whose values come when those before it have run.
        """
        problems, checked = [], {}
        for name in [*given, *later]:
            if name not in self.parameters:
                problems.append(f"'{name}' is not a parameter of it. {self._hint(name)}")
        for name, value in given.items():
            if name in self.parameters and not SECRET.search(name):
                try:
                    checked[name] = convert(values.plain(value), self.parameters[name].type)
                except (TypeError, ValueError) as error:
                    problems.append(f"'{name}': {error}")
        problems += [
            f"'{name}' looks like a secret, and parameters are written into the notebook: read it inside the notebook, "
            "from the environment or a secret store"
            for name in {**self.parameters, **given}
            if SECRET.search(name)
        ]
        missing = (item for item in self.parameters.values() if item.required and item.name not in {*given, *later})
        problems += [f"'{item.name}' ({item.kind}) has no default and was not given" for item in missing]
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            lines = "".join(f"\n  - {problem}" for problem in problems)
            raise InvalidParameters(f"{count} with the parameters of {self.title}; nothing was run:{lines}")
        return checked

    def defaults(self) -> dict[str, Any]:
        """The defaults that are known without running the cell."""
        known = self.parameters.values()
        return {item.name: item.default for item in known if not item.required and item.default is not COMPUTED}

    def _hint(self, name: str) -> str:
        if not self.tagged:
            return "It has no cell tagged 'parameters': tag the cell that sets them."
        return did_you_mean(name, self.parameters)

    def _rows(self) -> list[dict[str, object]]:
        return [
            {"name": p.name, "type": p.kind, "default": "required" if p.required else p.code, "help": p.help}
            for p in self.parameters.values()
        ]

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{item.name}: {item.kind}" + ("" if item.required else f" = {item.code}")
            for item in self.parameters.values()
        )
        return f"<Schema of {self.title}: {inside or 'no parameters'}>"

    def _repr_html_(self) -> str:
        return display.stack(display.text(f"Parameters of {self.title}"), display.table(self._rows()))


def parameters(notebook: str | Path) -> Schema:
    """The typed parameters of a notebook, without running it.

    Raises NotFound, GenokitError (not a notebook) or InvalidParameters (its parameters cell is not valid Python).
    """
    path = Path(notebook).expanduser()
    return of(notebooks.read(path), path.name)


def of(content: notebooks.Json, title: str) -> Schema:
    """The schema of a notebook that has been read."""
    for cell in content["cells"]:
        if cell.get("cell_type") == "code" and "parameters" in notebooks.tags(cell):
            return Schema.parse(notebooks.text(cell), title)
    return Schema(title, {}, tagged=False)


def _comments(code: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}


def _parameters(statements: list[ast.stmt], comments: Mapping[int, str]) -> Iterator[Parameter]:
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets, note, value = statement.targets, None, statement.value
        elif isinstance(statement, ast.AnnAssign):
            targets, note, value = [statement.target], statement.annotation, statement.value  # type: ignore[assignment]
        else:
            continue
        words = comments.get(statement.end_lineno or 0) or comments.get(statement.lineno, "")
        default, code = _default(value)
        kind = _annotation(note) if note is not None else _inferred(default)
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        yield from (Parameter(name, kind, default, words, code, required=value is None) for name in names)


def _default(value: ast.expr | None) -> tuple[Any, str]:
    if value is None:
        return None, ""
    code = ast.unparse(value)
    try:
        return values.evaluate(value), code
    except (ValueError, TypeError, ArithmeticError):
        return COMPUTED, code


def _inferred(default: object) -> Any:
    if default is None or default is COMPUTED:
        return Any
    return Path if isinstance(default, Path) else type(default)


def _annotation(node: ast.expr) -> Any:
    """The type an annotation names; Any for one that parameters cannot have."""
    match node:
        case ast.Constant(value=None):
            return type(None)
        case ast.Constant(value=str(words)):
            try:
                return _annotation(ast.parse(words, mode="eval").body)
            except SyntaxError:
                return Any
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union.__getitem__((_annotation(left), _annotation(right)))
        case ast.Subscript(value=outer, slice=inner):
            name = ast.unparse(outer).rpartition(".")[2]
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if name == "Literal":
                return Literal[tuple(part.value for part in parts if isinstance(part, ast.Constant))]
            if name in ("Optional", "Union"):
                choices = [_annotation(part) for part in parts] + [type(None)] * (name == "Optional")
                return Union.__getitem__(tuple(choices))  # a plain `|` cannot join two Nones
            arguments = tuple(... if ast.unparse(part) == "..." else _annotation(part) for part in parts)
            outer_type = _TYPES.get(name, Any)
            return Any if outer_type is Any else types.GenericAlias(outer_type, arguments)
    return _TYPES.get(ast.unparse(node).rpartition(".")[2], Any)


_PYTHON_NAMES: dict[Any, str] = {type(None): "None", Any: "any", Path: "Path"}


def _words(kind: Any) -> str:
    if kind in _PYTHON_NAMES:
        return _PYTHON_NAMES[kind]
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(repr(word) for word in inside)
    if origin in (Union, types.UnionType):
        return " | ".join(_words(part) for part in inside)
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if part is ... else _words(part) for part in inside)}]"
    return str(kind.__name__)


def convert(value: Any, kind: Any) -> Any:
    """A plain value in the wanted type where nothing is lost; else TypeError: what was expected, what came.

    >>> convert(3, float), convert("2026-01-02", datetime.date), convert([1, 2], tuple)
    (3.0, datetime.date(2026, 1, 2), (1, 2))
    """
    if kind is Any:
        return value
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        if any(value == word and type(value) is type(word) for word in inside):
            return value
        raise _mismatch(value, kind)
    if origin in (Union, types.UnionType):
        return _convert_any(value, kind, inside)
    simple = origin or kind
    if type(value) is simple:
        changed = value
    elif (change := _CHANGES.get((Path if isinstance(value, Path) else type(value), simple))) is not None:
        try:
            changed = change(value)
        except ValueError:
            raise _mismatch(value, kind) from None
    elif simple is Path and isinstance(value, Path):
        changed = value
    else:
        raise _mismatch(value, kind)
    return _convert_items(changed, simple, inside) if inside else changed


def _convert_any(value: Any, kind: Any, choices: tuple[Any, ...]) -> Any:
    # An exact match first: in `float | int` a 3 stays an int.
    exact: list[Any] = [choice for choice in choices if type(value) is (get_origin(choice) or choice)]
    for choice in [*exact, *choices]:
        try:
            return convert(value, choice)
        except TypeError:
            continue
    raise _mismatch(value, kind)


def _convert_items(value: Any, simple: type, inside: tuple[Any, ...]) -> Any:
    if simple is dict and len(inside) == 2:
        return {convert(key, inside[0]): convert(item, inside[1]) for key, item in value.items()}
    if simple is tuple and inside[-1] is not ...:
        if len(value) != len(inside):
            raise TypeError(f"expected {len(inside)} items, got {len(value)}: {value!r}")
        return tuple(convert(item, part) for item, part in zip(value, inside, strict=True))
    return simple(convert(item, inside[0]) for item in value)


_CHANGES: dict[tuple[type, type], Any] = {
    (int, float): float,
    (list, tuple): tuple,
    (list, set): set,
    (list, frozenset): frozenset,
    (tuple, list): list,
    (tuple, set): set,
    (set, list): sorted,
    (str, Path): Path,
    (Path, str): str,
    (str, datetime.date): datetime.date.fromisoformat,
    (str, datetime.datetime): datetime.datetime.fromisoformat,
}


def _mismatch(value: Any, kind: Any) -> TypeError:
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:59] + "…"
    return TypeError(f"expected {_words(kind)}, got {shown} ({_words(type(value))})")

"""A notebook's parameters: read from its cell tagged ``parameters``, checked before a kernel starts.

The cell is parsed, never executed. The annotation, or else the default, gives the type; the comment at the end of the
line is the help text. Square brackets at its beginning state the unit: ``wait: float = 10  # [min] at most``.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import io
import json
import re
import tokenize
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from genokit import display
from genokit.config import Settings
from genokit.errors import InvalidParameters, did_you_mean
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values
from genokit.pipelines.secret_values import redacted
from genokit.secret_kinds import REFERENCE, secret_name, secret_text

if TYPE_CHECKING:
    from genokit.pipelines.form import Form

NOT_SECRET = "not a secret"  # in the comment of a parameter that only looks like one
COMPUTED = ...  # a default that is known only when the cell runs

_TYPES = values.TYPES | {"List": list, "Dict": dict, "Tuple": tuple, "Set": set, "Sequence": list, "Mapping": dict}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook.

    Attributes
    ----------
    name : str
        Its name.
    type : type
        Its type; Any where the notebook does not state one.
    default : object
        Its default; COMPUTED for an expression that must be run.
    help : str
        The comment at the end of its line, without the unit.
    code : str
        The default as written in the cell; "" for a required parameter.
    annotated : bool
        Whether the type comes from an annotation rather than the default.
    unit : str
        Its unit, from square brackets at the beginning of the comment; "" for none.
    """

    name: str
    type: Any
    default: Any
    help: str
    code: str
    annotated: bool = False
    unit: str = ""

    @property
    def kind(self) -> str:
        """The type, written as an annotation."""
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
    path: Path | None = None  # of the notebook

    @classmethod
    def parse(cls, code: str, title: str) -> Schema:
        """The schema of the code of a parameters cell; raises InvalidParameters for invalid Python."""
        try:
            code = notebooks.python(code)
            statements = ast.parse(code).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            raise InvalidParameters(
                f"the parameters cell of {title} is not valid Python: {where}. Fix the cell; nothing was run."
            ) from None
        return cls(title, _parameters(statements, _comments(code)))

    @classmethod
    def of(cls, content: notebooks.Json, title: str) -> Schema:
        """The schema of a notebook's content."""
        cells = [notebooks.text(cell) for cell in content["cells"] if notebooks.sets_parameters(cell)]
        found: dict[str, Parameter] = {}
        for code in cells:
            found |= cls.parse(code, title).parameters
        return cls(title, found)

    def check(self, given: Mapping[str, object], *, later: Collection[str] = ()) -> dict[str, Any]:
        """The given values, converted to the notebook's types; raises InvalidParameters that lists every problem.

        ``later`` names parameters whose values come from notebooks that have not run yet.
        """
        checked, problems = self._checked(given, later)
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            lines = "".join(f"\n  - {problem}" for problem in problems.values())
            words = f"{count} with the parameters of {self.title}; nothing was run:{lines}"
            raise InvalidParameters(redacted(words))
        return checked

    def problems(self, given: Mapping[str, object]) -> dict[str, str]:
        """What is wrong with the given values, by name; empty if the notebook can be run with them.

        >>> Schema.parse("epochs: int = 3", "n.ipynb").problems({"epochs": "many"})
        {'epochs': "'epochs': expected int, got 'many' (str)"}
        """
        return self._checked(given, ())[1]

    def _checked(self, given: Mapping[str, object], later: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
        none = "" if self.parameters else "No code cell tagged 'parameters' sets any: tag the cell that does."
        problems, checked = dict[str, str](), dict[str, Any]()
        given = {**{name: value for name, value in self.defaults().items() if _is_reference(value)}, **given}
        for name in dict.fromkeys([*self.parameters, *given, *later]):
            parameter = self.parameters.get(name)
            if parameter is None:
                hint = none or did_you_mean(name, self.parameters)
                problems[name] = f"'{name}' is not one of its parameters. {hint}"
            elif secret := _secret(parameter, given.get(name)):
                problems[name] = (
                    f"'{secret}' looks like a secret, and parameters are written into the notebook: give it the value "
                    "'secret://NAME', and the kernel reads the environment variable NAME or a private file; if it is "
                    f"not a secret, end its line in the parameters cell with `# {NOT_SECRET}`"
                )
            elif name in given:
                try:
                    checked[name] = convert(values.plain(given[name]), parameter.type)
                except TypeError as error:
                    inferred = not parameter.annotated and parameter.type is not Any
                    way_out = f"the type comes from the default: to change it, annotate `{name}: TYPE = "
                    problems[name] = f"'{name}': {error}{f'; {way_out}{parameter.code}`' if inferred else ''}"
            elif not parameter.code and name not in later:
                problems[name] = f"'{name}' ({parameter.kind}) has no default and was not given"
        return checked, problems

    def defaults(self) -> dict[str, Any]:
        """The defaults that are known without running the cell."""
        return {name: p.default for name, p in self.parameters.items() if p.code and p.default is not COMPUTED}

    def json_schema(self) -> dict[str, Any]:
        """The parameters as a JSON Schema (draft 2020-12), for forms and editors; units are under ``x-unit``.

        JSON has no type for lengths of time and bytes, so their parameters accept no JSON value.

        >>> Schema.parse("wait: float = 10  # [min] at most", "n.ipynb").json_schema()["properties"]
        {'wait': {'type': 'number', 'default': 10, 'description': 'at most', 'x-unit': 'min'}}
        """
        properties = {}
        for name, parameter in self.parameters.items():
            stated = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
            if not _secret(parameter, parameter.default):
                stated = _json_type(parameter.type)
            with contextlib.suppress(TypeError, ValueError):  # a default that JSON cannot hold
                if parameter.code and parameter.default is not COMPUTED:
                    default = json.dumps(parameter.default, default=_json_default, allow_nan=False)
                    stated["default"] = json.loads(default)
            words = {"description": parameter.help, "x-unit": parameter.unit}
            properties[name] = stated | {key: said for key, said in words.items() if said}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"Parameters of {self.title}",
            "type": "object",
            "properties": properties,
            "required": [name for name, parameter in self.parameters.items() if not parameter.code],
            "additionalProperties": False,
        }

    def form(self, known: Mapping[str, Any] | None = None, *, settings: Settings | None = None) -> Form:
        """A form in JupyterLab: a field for each parameter, and a button that runs the notebook and shows the run.

        Parameters
        ----------
        known : mapping of str to object, optional
            Values for a start in place of the defaults.
        settings : Settings, optional
            Settings to run with. Default: ``Settings.load()``.

        Returns
        -------
        Form
            The form; ``.run`` is the last run that it started and that has ended.

        Raises
        ------
        InvalidParameters
            The schema is of no notebook, or a value is not of its parameter's type.
        """
        from genokit.pipelines.form import Form

        if self.path is None:
            raise InvalidParameters(f"{self.title} is no file: use parameters('x.ipynb').form() for a notebook's form.")
        return Form(self, {**self.defaults(), **self.check(known or {}, later=self.parameters)}, settings)

    def __repr__(self) -> str:
        inside = ", ".join(f"{p.name}: {p.kind} = {p.code}".removesuffix(" = ") for p in self.parameters.values())
        return f"<Schema of {self.title}: {inside or 'no parameters'}>"

    def _repr_html_(self) -> str:
        rows = [(p.name, p.kind, p.code or "required", p.unit, p.help) for p in self.parameters.values()]
        table = display.table(rows, columns=["name", "type", "default", "unit", "help"])
        return display.stack(f"Parameters of {self.title}", table)


def parameters(notebook: str | Path) -> Schema:
    """The typed parameters of a notebook, without running it.

    Parameters
    ----------
    notebook : str or Path
        The notebook.

    Returns
    -------
    Schema
        Its parameters by name.

    Raises
    ------
    NotFound, InvalidNotebook
        There is no such file, or it is not a Python notebook.
    InvalidParameters
        The parameters cell is not valid Python.
    """
    path = Path(notebook).expanduser()
    return replace(Schema.of(notebooks.read(path), path.name), path=path.absolute())


def _secret(parameter: Parameter, value: object) -> str | None:
    if parameter.type is bool or NOT_SECRET in parameter.help.lower():
        return None
    return secret_name(parameter.name, value) or (parameter.name if secret_text(repr(value).encode()) else None)


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and REFERENCE.fullmatch(value) is not None


def _path(text: str) -> Path:
    if _is_reference(text):
        raise ValueError("a secret is no path")
    return Path(text)


def _comments(code: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}


def _parameters(statements: list[ast.stmt], comments: Mapping[int, str]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for statement in statements:
        assigned: dict[str, ast.expr | None] = {}
        annotation = None
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                assigned |= _targets(target, statement.value)
        elif isinstance(statement, ast.AnnAssign):
            assigned, annotation = _targets(statement.target, statement.value), statement.annotation
        for node in ast.walk(statement):
            # A later statement may change it, so its value is known only when the cell runs.
            if isinstance(node, ast.Name) and node.id in found.keys() - assigned.keys():
                known = found[node.id]
                if not isinstance(node.ctx, ast.Load) or isinstance(known.default, list | dict | set):
                    found[node.id] = replace(known, default=COMPUTED)
        for name, value in assigned.items():
            default = _default(value)
            inferred = Any if default in (None, COMPUTED) else _type(default)
            kind = _annotation(annotation) if annotation else inferred
            words = comments.get(statement.end_lineno or 0) or comments.get(statement.lineno, "")
            unit, words = re.fullmatch(r"(?:\[([^],]+)\]\s*)?(.*)", words).groups("")  # type: ignore[union-attr]
            code = ast.unparse(value) if value else ""
            found[name] = Parameter(name, kind, default, words, code, annotation is not None, unit)
    return found


def _targets(target: ast.expr, value: ast.expr | None) -> dict[str, ast.expr | None]:
    """The names that an assignment sets; of several at once, the values are known only when the cell runs."""
    if isinstance(target, ast.Name):
        return {target.id: value}
    return {node.id: target for node in ast.walk(target) if isinstance(node, ast.Name)}


def _default(value: ast.expr | None) -> Any:
    try:
        return values.evaluate(value) if value else None
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        return COMPUTED


def _type(value: object) -> type:
    return Path if isinstance(value, Path) else type(value)


def _annotation(node: ast.expr) -> Any:
    """The type that an annotation names; Any for a type that parameters cannot have."""
    match node:
        case ast.Constant(value=None):
            return type(None)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _TYPES.get(name, Any)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union(left, right)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if name == "Literal":
                return Literal[tuple(part.value for part in parts if isinstance(part, ast.Constant))]
            if name in ("Optional", "Union"):
                return _union(*parts, *[ast.Constant(None)] * (name == "Optional"))
            if name in _TYPES:
                inside = tuple(... if ast.unparse(part) == "..." else _annotation(part) for part in parts)
                return types.GenericAlias(_TYPES[name], inside)
    return Any


def _union(*parts: ast.expr) -> Any:
    return Union.__getitem__(tuple(_annotation(part) for part in parts))  # a plain `|` cannot join two Nones


def _words(kind: Any) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(repr(word) for word in inside)
    if origin is Union:
        return " | ".join(_words(part) for part in inside)
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if part is ... else _words(part) for part in inside)}]"
    return {Any: "any", type(None): "None"}.get(kind) or str(kind.__name__)


_JSON: dict[Any, dict[str, Any]] = {
    Any: {},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    dict: {"type": "object"},
    type(None): {"type": "null"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    **{kind: {"type": "array"} for kind in (list, tuple)},
    **{kind: {"type": "array", "items": {"not": {"type": ["array", "object"]}}} for kind in (set, frozenset)},
}


def _json_type(kind: Any) -> dict[str, Any]:
    """The JSON Schema of the JSON values that ``convert`` accepts for a type."""
    wanted, inside = get_origin(kind) or kind, get_args(kind)
    if wanted is Literal:
        return {"enum": list(inside)}
    if wanted is Union:
        return {"anyOf": [_json_type(part) for part in inside]}
    stated = dict(_JSON.get(wanted, {"not": {}}))
    if wanted is dict and inside:
        stated |= {"propertyNames": _json_type(inside[0]), "additionalProperties": _json_type(inside[-1])}
    elif wanted is tuple and inside and inside[-1] is not ...:
        stated |= {"prefixItems": [_json_type(part) for part in inside], "items": False, "minItems": len(inside)}
    elif inside:
        stated["items"] = _json_type(inside[0])
    return stated


def _json_default(value: object) -> object:
    return list(value) if isinstance(value, set | frozenset) else str(value)


_CHANGES: dict[tuple[type, Any], Any] = {
    (int, float): float,
    (str, Path): _path,
    (Path, str): str,
    (str, datetime.date): datetime.date.fromisoformat,
    (str, datetime.datetime): datetime.datetime.fromisoformat,
    **{(came, wanted): wanted for came in (list, tuple) for wanted in (list, tuple, set, frozenset)},
}


def convert(value: Any, kind: Any) -> Any:
    """Convert a plain value to a type without loss; TypeError says what was expected and what was given.

    >>> convert(3, float), convert("2026-01-02", datetime.date), convert([1, 2], tuple)
    (3.0, datetime.date(2026, 1, 2), (1, 2))
    """
    if isinstance(value, values.Text):
        return _read(value, kind)
    wanted, inside, came = get_origin(kind) or kind, get_args(kind), _type(value)
    if kind is Any or (wanted is Literal and any(value == word and came is type(word) for word in inside)):
        return value
    if wanted is Union:
        # An exact match first: in `float | int` a 3 stays an int.
        for choice in sorted(inside, key=lambda choice: came not in (choice, get_origin(choice))):
            with contextlib.suppress(TypeError):
                return convert(value, choice)
    try:
        changed = value if came is wanted else _CHANGES[came, wanted](value)
    except (KeyError, ValueError, OverflowError):
        said = values.shortened(repr(value), 60)
        raise TypeError(f"expected {_words(kind)}, got {said} ({_words(type(value))})") from None
    return _convert_items(changed, wanted, inside) if inside else changed


def _read(text: str, kind: Any) -> Any:
    """Read a command-line text as a value of this type; TypeError says what was expected and what was given."""
    meant: list[Any] = [values.literal(str(text)), str(text)]
    if isinstance(meant[0], float) and meant[0].is_integer():  # 1e5
        meant.insert(1, int(meant[0]))
    if not re.search(r"[\[({'\"].*[\[({'\"]", text):  # a,b
        meant.append([values.Text(part.strip()) for part in text.strip(" [](){}").split(",") if part.strip()])
    for value in meant:
        with contextlib.suppress(TypeError):
            return convert(value, kind)
    raise TypeError(f"expected {_words(kind)}, got {values.shortened(repr(str(text)), 60)}")


def _convert_items(items: Any, wanted: Any, inside: tuple[Any, ...]) -> Any:
    if wanted is dict:
        return {convert(key, inside[0]): convert(item, inside[-1]) for key, item in items.items()}
    if wanted is tuple and inside[-1] is not ...:
        if len(items) != len(inside):
            raise TypeError(f"expected {len(inside)} items, got {len(items)}: {items!r}")
        return tuple(convert(item, part) for item, part in zip(items, inside, strict=True))
    return wanted(convert(item, inside[0]) for item in items)

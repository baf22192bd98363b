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
from genokit.pipelines import notebooks, values
from genokit.pipelines.secret_values import redacted
from genokit.secret_kinds import REFERENCE, secret_name, secret_text

if TYPE_CHECKING:
    from genokit.pipelines.form import Form

NOT_SECRET = "not a secret"  # in the comment of a parameter that only looks like one
COMPUTED: Any = ...  # a default that is known only when the cell runs

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
    annotation : str
        The type as written in the cell; "" where it comes from the default.
    unit : str
        Its unit, from square brackets at the beginning of the comment; "" for none.
    """

    name: str
    type: Any
    default: Any
    help: str
    code: str
    annotation: str = ""
    unit: str = ""

    @property
    def kind(self) -> str:
        """The type in words."""
        return self.annotation or ("any" if self.type is Any else str(self.type.__name__))


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
            return cls(title, _parameters(notebooks.python(code)))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            raise InvalidParameters(
                f"the parameters cell of {title} is not valid Python: {where}. Fix the cell; nothing was run."
            ) from None

    @classmethod
    def of(cls, content: notebooks.Json, title: str) -> Schema:
        """The schema of a notebook's content."""
        found: dict[str, Parameter] = {}
        for cell in filter(notebooks.sets_parameters, content["cells"]):
            found |= cls.parse(notebooks.text(cell), title).parameters
        return cls(title, found)

    def check(self, given: Mapping[str, object], *, later: Collection[str] = ()) -> dict[str, Any]:
        """The given values, converted to the notebook's types; raises InvalidParameters that lists every problem.

        ``later`` names parameters whose values come from notebooks that have not run yet.
        """
        checked, problems = self._checked(given, later)
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            lines = [f"{count} with the parameters of {self.title}; nothing was run:", *problems.values()]
            raise InvalidParameters(redacted("\n  - ".join(lines)))
        return checked

    def problems(self, given: Mapping[str, object]) -> dict[str, str]:
        """What is wrong with the given values, by name; empty if the notebook can be run with them.

        >>> Schema.parse("epochs: int = 3", "n.ipynb").problems({"epochs": "many"})
        {'epochs': "'epochs': expected int, got 'many' (str)"}
        """
        return self._checked(given, ())[1]

    def _checked(self, given: Mapping[str, object], later: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
        checked, problems = dict[str, Any](), dict[str, str]()
        references = {name: value for name, value in self.defaults().items() if REFERENCE.fullmatch(str(value))}
        given = references | dict(given)
        for name in dict.fromkeys([*self.parameters, *given, *later]):
            parameter = self.parameters.get(name)
            if parameter is None:
                none = "No code cell tagged 'parameters' sets one. Tag the cell that sets the parameters."
                hint = did_you_mean(name, self.parameters) if self.parameters else none
                problems[name] = f"'{name}' is not one of its parameters. {hint}"
            elif secret := _secret(parameter, given.get(name)):
                problems[name] = (
                    f"'{secret}' looks like a secret, and parameters are written into the notebook: give it the value "
                    "'secret://NAME', and the kernel reads the environment variable NAME or a private file; if it is "
                    f"not a secret, end its line in the parameters cell with `# {NOT_SECRET}`"
                )
            elif name in given:
                try:
                    checked[name] = convert(values.plain(given[name]), parameter.type, parameter.kind)
                except TypeError as error:
                    inferred = not parameter.annotation and parameter.type is not Any
                    way_out = f"; the type comes from the default: to change it, annotate `{name}: TYPE = "
                    problems[name] = f"'{name}': {error}" + (f"{way_out}{parameter.code}`" if inferred else "")
            elif not parameter.code and name not in later:
                problems[name] = f"'{name}' ({parameter.kind}) has no default: give it a value"
        return checked, problems

    def defaults(self) -> dict[str, Any]:
        """The defaults that are known without running the cell."""
        return {name: p.default for name, p in self.parameters.items() if p.code and p.default is not COMPUTED}

    def json_schema(self) -> dict[str, Any]:
        """The parameters as a JSON Schema (draft 2020-12), for forms and editors; units are under ``x-unit``.

        JSON has no type for durations and bytes, so parameters of these types accept no JSON value.

        >>> Schema.parse("wait: float = 10  # [min] at most", "n.ipynb").json_schema()["properties"]
        {'wait': {'type': 'number', 'default': 10, 'description': 'at most', 'x-unit': 'min'}}
        """
        properties, known = {}, self.defaults()
        for name, parameter in self.parameters.items():
            refers = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
            stated = refers if _secret(parameter, parameter.default) else _json_type(parameter.type)
            if name in known:
                with contextlib.suppress(TypeError, ValueError):  # a default that JSON cannot hold
                    text = json.dumps(known[name], default=_json_value, allow_nan=False)
                    stated["default"] = json.loads(text)
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
            Initial values that replace the defaults.
        settings : Settings, optional
            Settings to run with. Default: ``Settings.load()``.

        Returns
        -------
        Form
            The form; ``.run`` is the last run that it started, once that has ended.

        Raises
        ------
        InvalidParameters
            The schema was not read from a notebook file, or a value has the wrong type.
        """
        from genokit.pipelines.form import Form

        if self.path is None:
            raise InvalidParameters(
                f"{self.title} is not a notebook file. For the form of one: parameters('x.ipynb').form()."
            )
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


def _path(text: str) -> Path:
    if REFERENCE.fullmatch(text):
        raise ValueError("a secret is not a path")
    return Path(text)


def _parameters(code: str) -> dict[str, Parameter]:
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {token.start[0]: token.string.lstrip("# ").strip() for token in tokens if token.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    for statement in ast.parse(code).body:
        annotation = getattr(statement, "annotation", None)
        targets: list[ast.expr] = [statement.target] if isinstance(statement, ast.AnnAssign) else []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        # Of several names that are set at once, the values are known only when the cell runs.
        assigned = {
            node.id: statement.value if node is target else target  # type: ignore[attr-defined]
            for target in targets
            for node in ast.walk(target)
            if isinstance(node, ast.Name)
        }
        for node in ast.walk(statement):
            # A later statement may change it, so its value is known only when the cell runs.
            if isinstance(node, ast.Name) and node.id in found.keys() - assigned.keys():
                known = found[node.id]
                if not isinstance(node.ctx, ast.Load) or isinstance(known.default, list | dict | set):
                    found[node.id] = replace(known, default=COMPUTED)
        for name, value in assigned.items():
            default = COMPUTED
            with contextlib.suppress(ValueError, TypeError, ArithmeticError, RecursionError):
                default = values.evaluate(value) if value else None
            inferred = Any if default in (None, COMPUTED) else _type(default)
            kind = _annotation(annotation) if annotation else inferred
            if default is None and value and kind is not Any:  # `when: date = None` takes None again
                kind = Union.__getitem__((kind, type(None)))
            words = comments.get(statement.end_lineno or 0) or comments.get(statement.lineno, "")
            unit, words = re.fullmatch(r"(?:\[([^],]+)\]\s*)?(.*)", words).groups("")  # type: ignore[union-attr]
            written, code = (ast.unparse(node) if node else "" for node in (annotation, value))
            found[name] = Parameter(name, kind, default, words, code, written, unit)
    return found


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
            return Union.__getitem__((_annotation(left), _annotation(right)))  # a plain `|` cannot join two Nones
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if name == "Literal":
                return Literal[tuple(part.value for part in parts if isinstance(part, ast.Constant))]
            inside = tuple(... if ast.unparse(part) == "..." else _annotation(part) for part in parts)
            if name in ("Optional", "Union"):
                return Union.__getitem__((*inside, type(None)) if name == "Optional" else inside)
            if name in _TYPES:
                return types.GenericAlias(_TYPES[name], inside)
    return Any


_JSON = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", dict: "object"}
_JSON |= {Path: "string", **dict.fromkeys((list, tuple, set, frozenset), "array")}
_FORMATS = {datetime.date: "date", datetime.datetime: "date-time"}


def _json_type(kind: Any) -> dict[str, Any]:
    """The JSON Schema of the JSON values that ``convert`` accepts for a type."""
    wanted, inside = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return {}
    if wanted is Literal:
        return {"enum": list(inside)}
    if wanted is Union:
        return {"anyOf": [_json_type(part) for part in inside]}
    if wanted in _FORMATS:
        return {"type": "string", "format": _FORMATS[wanted]}
    if wanted not in _JSON:
        return {"not": {}}
    stated: dict[str, Any] = {"type": _JSON[wanted]}
    if wanted is dict and inside:
        stated |= {"propertyNames": _json_type(inside[0]), "additionalProperties": _json_type(inside[-1])}
    elif wanted is tuple and inside and inside[-1] is not ...:
        stated |= {"prefixItems": [_json_type(part) for part in inside], "items": False, "minItems": len(inside)}
    elif inside:
        stated["items"] = _json_type(inside[0])
    elif wanted in (set, frozenset):
        stated["items"] = {"not": {"type": ["array", "object"]}}
    return stated


def _json_value(value: object) -> object:
    return list(value) if isinstance(value, set | frozenset) else str(value)


_CHANGES: dict[tuple[type, Any], Any] = {
    (int, float): float,
    (str, Path): _path,
    (Path, str): str,
    (str, datetime.date): datetime.date.fromisoformat,
    (str, datetime.datetime): datetime.datetime.fromisoformat,
    **{(came, wanted): wanted for came in (list, tuple) for wanted in (list, tuple, set, frozenset)},
}


def convert(value: Any, kind: Any, words: str) -> Any:
    """Convert a plain value to a type, called ``words``, without loss; TypeError says what was expected and given.

    >>> convert(3, float, "float"), convert("2026-01-02", datetime.date, "date"), convert([1, 2], tuple, "tuple")
    (3.0, datetime.date(2026, 1, 2), (1, 2))
    """
    if get_origin(kind) is Literal:
        words = " or ".join(map(repr, get_args(kind)))
    if isinstance(value, values.Text):
        for meant in values.meanings(value):
            with contextlib.suppress(TypeError):
                return convert(meant, kind, words)
        raise TypeError(f"expected {words}, got {values.shortened(repr(value), 60)}")
    wanted, inside, came = get_origin(kind) or kind, get_args(kind), _type(value)
    if kind is Any or (wanted is Literal and any(value == word and came is type(word) for word in inside)):
        return value
    if wanted is Union:
        # An exact match first: in `float | int` a 3 stays an int.
        for choice in sorted(inside, key=lambda choice: came not in (choice, get_origin(choice))):
            with contextlib.suppress(TypeError):
                return convert(value, choice, words)
    try:
        changed = value if came is wanted else _CHANGES[came, wanted](value)
    except (KeyError, ValueError, OverflowError):
        raise TypeError(f"expected {words}, got {values.shortened(repr(value), 60)} ({came.__name__})") from None
    item = f"an item of {words}"
    if wanted is dict and inside:
        pairs = changed.items()
        return {convert(key, inside[0], item): convert(content, inside[-1], item) for key, content in pairs}
    if wanted is tuple and inside and inside[-1] is not ...:
        if len(changed) != len(inside):
            raise TypeError(f"expected {words}, got {len(changed)} items: {values.shortened(repr(value), 60)}")
        return tuple(convert(part, one, item) for part, one in zip(changed, inside, strict=True))
    return wanted(convert(part, inside[0], item) for part in changed) if inside else changed

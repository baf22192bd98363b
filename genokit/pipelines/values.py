"""The values that pass between notebooks: plain Python that can be written as source code and read back.

A value may be a numpy scalar, a Path, a pandas Timestamp and the like. It becomes plain Python. It is written into the
notebook as source code and into ``run.json`` as strict JSON, and the value that is read back is equal to it.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import enum
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from genokit.secret_kinds import REFERENCE

TYPES: dict[str, Any] = {
    "date": datetime.date,
    "datetime": datetime.datetime,
    "timedelta": datetime.timedelta,
    "Path": Path,
    **{kind.__name__: kind for kind in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)},
}
_SCALARS: tuple[Any, ...] = (int, float, bytes, str)
_TAG = "$python"
_SECRET = "_genokit_secret"  # reads a secret inside the kernel
_DEEPEST = 50  # Python parses 200 nested parentheses
_LONGEST_INT = 13_000  # bits; Python prints at most 4,300 digits


class Text(str):
    """A value as typed on a command line; the parameter's type decides how it is read."""


def meanings(text: str) -> list[Any]:
    """What a text on a command line can mean: a literal in JSON or Python, the text itself, or items between commas.

    >>> meanings("true"), meanings("1e3"), meanings("a, b")
    ([True, 'true', ['true']], [1000.0, 1000, '1e3', ['1e3']], ['a, b', ['a', 'b']])
    """
    found: list[Any] = [str(text)]
    if not re.search(r"[\[({'\"].*[\[({'\"]", text):
        found.append([Text(part.strip()) for part in text.strip(" [](){}").split(",") if part.strip()])
    word = text.strip()
    readers: list[Callable[[str], Any]] = [json.loads, ast.literal_eval]
    for read in [float] if word.lower() in ("inf", "-inf", "nan") else readers:
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = read(word)
            if isinstance(value, float) and value.is_integer():
                return [value, int(value), *found]
            return found if isinstance(value, bytes | complex | types.EllipsisType) else [value, *found]
    return found


def plain(value: object, depth: int = 0) -> Any:
    """The same value in plain Python; TypeError, with what to do instead, for a value that cannot be source code.

    >>> plain((1, Path("reads.fq")))
    (1, PosixPath('reads.fq'))
    """
    if depth > _DEEPEST:
        raise TypeError(f"it is nested more than {_DEEPEST} levels deep: write it to a file and use the file's path")
    value = _unwrapped(value)
    if value is None or isinstance(value, bool | Text | datetime.date | datetime.timedelta):
        return value
    if isinstance(value, PurePath):
        return Path(value)
    if isinstance(value, int) and int(value).bit_length() > _LONGEST_INT:
        raise TypeError("an integer with that many digits is too large for a value: write it to a file")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise TypeError("it contains half a character (a lone surrogate): use the whole character, or bytes")
    if isinstance(value, dict):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    for scalar in _SCALARS:  # an instance of a subclass becomes one of the base class
        if isinstance(value, scalar):
            return scalar(value)
    for container in (list, tuple, set, frozenset):
        if isinstance(value, container):
            return container(plain(item, depth + 1) for item in value)
    raise TypeError(
        f"a {type(value).__name__} cannot be written as one line of Python: use numbers, text, dates, paths, lists or "
        "dicts"
    )


def _unwrapped(value: Any) -> Any:
    """The content of an enum's member or of a numpy or pandas scalar; TypeError for a table or an array."""
    if isinstance(value, enum.Enum):
        value = value.value
    name, shape = type(value).__name__, getattr(value, "shape", None)
    if name in ("NAType", "NaTType", "MaskedConstant"):
        return None
    if isinstance(shape, tuple) and shape:
        raise TypeError(f"a {name} is too large for a value: write it to a file and use the file's path")
    if hasattr(value, "to_pytimedelta"):  # pandas
        return value.to_pytimedelta()
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime(warn=False)
    if shape != () or not hasattr(value, "item"):
        return value
    kind = getattr(value.dtype, "kind", "")
    if kind in ("m", "M"):  # nanoseconds would become a bare integer
        value = value.astype(f"{kind}8[us]")
    return float(value) if kind == "f" else value.item()


def source(value: object) -> str:
    """The Python expression for a plain value.

    >>> source({"when": datetime.date(2026, 1, 2), "rate": float("nan")})
    "{'when': _datetime.date.fromisoformat('2026-01-02'), 'rate': float('nan')}"
    """
    match value:
        case float() if not math.isfinite(value):
            return f"float('{value}')"
        case datetime.date():
            name = "datetime" if isinstance(value, datetime.datetime) else "date"
            return f"_datetime.{name}.fromisoformat('{value.isoformat()}')"
        case datetime.timedelta():
            return f"_datetime.timedelta({value.days}, {value.seconds}, {value.microseconds})"
        case PurePath():
            return f"_pathlib.Path({str(value)!r})"
        case dict():
            return "{" + ", ".join(f"{source(key)}: {source(item)}" for key, item in value.items()) + "}"
        case set() | frozenset():
            return f"{type(value).__name__}([{', '.join(sorted(source(item) for item in value))}])"
        case list():
            return f"[{', '.join(source(item) for item in value)}]"
        case tuple():
            return f"({', '.join(source(item) for item in value)}{',' if len(value) == 1 else ''})"
        case str() if reference := REFERENCE.fullmatch(value):
            return f"{_SECRET}({reference[1]!r})"
    return repr(value)


def assignments(parameters: Mapping[str, Any]) -> str:
    """The source of an injected cell: the imports it needs, then one assignment per parameter."""
    body = "\n".join(f"{name} = {source(value)}" for name, value in parameters.items())
    # Aliased, so that a notebook's own `from datetime import datetime` survives.
    needed = [f"import {name} as _{name}\n" for name in ("datetime", "pathlib") if f"_{name}." in body]
    if f"{_SECRET}(" in body:
        needed.append(f"from genokit.pipelines.secret_values import secret as {_SECRET}\n")
    return "# Parameters\n" + "".join(needed) + body


def mapped(value: Any, change: Callable[[Any], Any], kind: type = Path) -> Any:
    """The value, with ``change`` applied to everything of one type in it, by default to every path.

    >>> mapped({"reads": [Path("a.fq")]}, lambda path: "data" / path)
    {'reads': [PosixPath('data/a.fq')]}
    """
    if isinstance(value, dict):
        return type(value)({mapped(key, change, kind): mapped(item, change, kind) for key, item in value.items()})
    if isinstance(value, set | frozenset):
        return type(value)(mapped(item, change, kind) for item in sorted(value, key=repr))
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, change, kind) for item in value)
    return change(value) if isinstance(value, kind) else value


def relocated(value: object, old: Path, new: Path) -> Any:
    """The value with every path in the folder ``old`` moved to the folder ``new``.

    >>> relocated(Path("/runs/a/files/t.csv"), Path("/runs/a"), Path("/runs/b"))
    PosixPath('/runs/b/files/t.csv')
    """
    return mapped(value, lambda path: new / path.relative_to(old) if path.is_relative_to(old) else path)


def secrets(value: object) -> list[str]:
    """The names of the secrets that a value refers to, once for each reference.

    >>> secrets({"login": ["me", "secret://PASSWORD"]})
    ['PASSWORD']
    """
    return re.findall(rf"{_SECRET}\('(\w+)'\)", source(value))


def to_json(value: object) -> Any:
    """A plain value as strict JSON; a type that JSON lacks becomes its source under "$python".

    >>> to_json([1, (2, 3)])
    [1, {'$python': '(2, 3)'}]
    """
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict) and _TAG not in value and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    return {_TAG: source(value)}


def from_json(value: Any) -> Any:
    """The value that :func:`to_json` wrote.

    >>> from_json(to_json([1, (2, 3)]))
    [1, (2, 3)]
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {_TAG}:
            return evaluate(ast.parse(value[_TAG], mode="eval").body)
        return {key: from_json(item) for key, item in value.items()}
    return value


_CALLS: dict[str, Callable[..., Any]] = TYPES | {
    "date.fromisoformat": datetime.date.fromisoformat,
    "datetime.fromisoformat": datetime.datetime.fromisoformat,
    _SECRET: "secret://{}".format,
}


def evaluate(node: ast.expr) -> Any:
    """The value of a literal, or of a date, Path or container built from literals.

    Nothing else is executed: any other expression raises ValueError.
    """
    match node:
        case ast.Constant(value=value) if value is not Ellipsis and not isinstance(value, complex):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)](map(evaluate, items))
        case ast.Dict(keys=keys, values=values):
            # A `**other` has no key, so zip raises ValueError.
            return dict(zip(map(evaluate, filter(None, keys)), map(evaluate, values), strict=True))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.BinOp(left=left, op=ast.Div(), right=right) if isinstance(parent := evaluate(left), Path):
            return parent / evaluate(right)
        case ast.Call(func=func, args=args, keywords=keywords) if all(word.arg for word in keywords):
            name = ast.unparse(func).split(".")
            call = _CALLS.get(".".join(name[-2:])) or _CALLS.get(name[-1])
            if call is not None:
                return call(*map(evaluate, args), **{str(word.arg): evaluate(word.value) for word in keywords})
    raise ValueError(f"{ast.unparse(node)} is not a literal")


def paths(value: object) -> list[Path]:
    """Every path in a value, in the same order each time.

    >>> paths({"table": Path("t.csv"), "n": [1, {Path("b"), Path("a")}]})
    [PosixPath('t.csv'), PosixPath('a'), PosixPath('b')]
    """
    found: list[Path] = []
    mapped(value, found.append)
    return found


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and "…"."""
    return text if len(text) <= most else text[: most - 1] + "…"

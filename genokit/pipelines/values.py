"""The values that pass between notebooks: plain Python that a line of code can write down and read back.

A value enters as anything a scientist has in hand (a numpy scalar, a Path, a pandas Timestamp), becomes plain Python,
is written into the notebook as source and into ``run.json`` as strict JSON, and comes back equal.
"""

from __future__ import annotations

import ast
import datetime
import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

TYPES: dict[str, Any] = {
    "date": datetime.date,
    "datetime": datetime.datetime,
    "timedelta": datetime.timedelta,
    "Path": Path,
    **{kind.__name__: kind for kind in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)},
}
_BASES: tuple[Any, ...] = (int, float, str, bytes)
_TAG = "$python"


def plain(value: object) -> Any:
    """The same value in plain Python; TypeError, with the way out, where no line of code could write it down.

    >>> plain((1, Path("reads.fq")))
    (1, PosixPath('reads.fq'))
    """
    kind = type(value)
    owner = kind.__module__.partition(".")[0]
    if owner == "pandas" and hasattr(value, "to_pydatetime") and value == value:  # NaT is not itself
        return value.to_pydatetime()
    if owner in {"pandas", "numpy", "mxnet", "torch"} and getattr(value, "shape", None) != ():
        raise TypeError(f"a {kind.__name__} is too much for one value: write it to a file and use the file's path")
    if owner == "numpy":
        scalar: Any = value
        if scalar.dtype.kind == "M":  # nanoseconds would come out as a bare integer
            scalar = scalar.astype("datetime64[us]")
        return plain(scalar.item())
    if value is None or isinstance(value, bool | datetime.date | datetime.timedelta):
        return value
    if isinstance(value, PurePath):
        return Path(value)
    for base in _BASES:  # subclasses, such as an IntEnum, become what they hold
        if isinstance(value, base):
            return base(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    for container in (list, tuple, set, frozenset):
        if isinstance(value, container):
            return container(plain(item) for item in value)
    raise TypeError(
        f"a {kind.__name__} cannot be written as one line of Python: use numbers, text, dates, paths, lists or dicts"
    )


def source(value: object) -> str:
    """The Python expression that gives a plain value back.

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
    return repr(value)


def assignments(parameters: Mapping[str, Any]) -> str:
    """The lines of an injected cell: the imports it needs, then one assignment a parameter."""
    body = "\n".join(f"{name} = {source(value)}" for name, value in parameters.items())
    # Under another name, so that a notebook's own `from datetime import datetime` survives.
    needed = [f"import {name} as _{name}\n" for name in ("datetime", "pathlib") if f"_{name}." in body]
    return "# Parameters\n" + "".join(needed) + body


def to_json(value: object) -> Any:
    """A plain value as strict JSON: itself where JSON has it, else its source under "$python".

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
    """What :func:`to_json` wrote, back.

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


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_CALLS: dict[str, Callable[..., Any]] = TYPES | {
    "date.fromisoformat": datetime.date.fromisoformat,
    "datetime.fromisoformat": datetime.datetime.fromisoformat,
}


def evaluate(node: ast.expr) -> Any:
    """The value of a literal, of arithmetic on numbers, or of a date, Path or container built from them.

    Nothing else is ever executed: ValueError says that the expression needs Python itself.
    """
    match node:
        case ast.Constant(value=value) if value is not Ellipsis and not isinstance(value, complex):
            return value
        case ast.List(elts=items):
            return [evaluate(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(evaluate(item) for item in items)
        case ast.Set(elts=items):
            return {evaluate(item) for item in items}
        case ast.Dict(keys=keys, values=values):
            # A `**other` has no key: one too few, and zip's ValueError.
            return dict(zip(map(evaluate, filter(None, keys)), map(evaluate, values), strict=True))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_number(left), _number(right))
        case ast.Call(func=func, args=args, keywords=keywords) if all(word.arg for word in keywords):
            name = ast.unparse(func).split(".")
            call = _CALLS.get(".".join(name[-2:])) or _CALLS.get(name[-1])
            if call is not None:
                return call(*map(evaluate, args), **{str(word.arg): evaluate(word.value) for word in keywords})
    raise ValueError(f"{ast.unparse(node)} is not a literal")


def _number(node: ast.expr) -> Any:
    value = evaluate(node)
    if not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node)} is not a number")
    return value


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and "…"."""
    return text if len(text) <= most else text[: most - 1] + "…"

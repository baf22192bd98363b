"""``record("accuracy", 0.98)``: what a notebook hands to whoever runs it, written and found again."""

from __future__ import annotations

import ast
import json
import keyword
import sys
from typing import Any

from genokit.errors import InvalidParameters
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values
from genokit.pipelines.schema import SECRET

RECORD = "application/vnd.genokit.record+json"
LARGEST = 1_000_000  # characters of JSON


def record(name: str, value: object) -> None:
    """Show a named result here and keep it for ``Run.outputs``; the last record of a name wins.

    The value is numbers, text, dates, paths, or lists and dicts of them, with numpy's scalars made plain. It is stored
    in the output of the notebook's cell; outside a notebook nothing happens.
    Raises InvalidParameters for a name that is no identifier or a value that is too much for a record.

    >>> record("accuracy", 0.98)
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidParameters(f"record({name!r}, ...): a name must be an identifier, such as 'test_accuracy'.")
    if SECRET.search(name):
        raise InvalidParameters(f"record('{name}', ...) looks like a secret, and records are stored: do not record it.")
    try:
        plain = values.plain(value)
    except TypeError as error:
        raise InvalidParameters(f"record('{name}', ...): {error}, and record that path.") from None
    stored = values.to_json(plain)
    if len(json.dumps(stored, allow_nan=False)) > LARGEST:
        raise InvalidParameters(f"record('{name}', ...) is more than 1 MB: write it to a file and record its path.")
    shell = sys.modules.get("IPython")
    if shell is None or shell.get_ipython() is None:
        return
    from IPython.display import display

    shown = f"{name} = {values.shortened(repr(plain), 200)}"
    display({RECORD: {"name": name, "value": stored}, "text/plain": shown}, raw=True)


def outputs(content: notebooks.Json) -> dict[str, Any]:
    """What the cells of an executed notebook recorded, by name."""
    shown = [output.get("data") or {} for cell in content["cells"] for output in cell.get("outputs") or []]
    records = [data[RECORD] for data in shown if RECORD in data]
    return {found["name"]: values.from_json(found["value"]) for found in records}


def names(content: notebooks.Json) -> set[Any] | None:
    """The names that a notebook's own code records; None if only running it can tell."""
    code = "\n".join(notebooks.text(cell) for cell in content["cells"] if notebooks.is_code(cell))
    try:
        calls = [node for node in ast.walk(ast.parse(notebooks.without_magics(code))) if isinstance(node, ast.Call)]
    except SyntaxError:
        return None
    first = [call.args[:1] for call in calls if ast.unparse(call.func).rpartition(".")[2] == "record"]
    known = [name.value for [name] in first if isinstance(name, ast.Constant)]
    return set(known) if len(known) == len(first) else None

"""``record("accuracy", 0.98)``: what a notebook hands to whoever runs it."""

from __future__ import annotations

import json
import keyword
import sys

from genokit.errors import InvalidParameters
from genokit.pipelines import notebook, values
from genokit.pipelines.schema import SECRET

LARGEST = 1_000_000  # characters of JSON


def record(name: str, value: object) -> None:
    """Show a named result here and keep it for ``Run.outputs``; the last record of a name wins.

    The value is numbers, text, dates, paths, or lists and dicts of them, with numpy's scalars made plain. The record
    is stored in the output of the notebook's cell; outside a notebook there is nothing to store it in, and nothing
    happens.
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

    shown = repr(plain) if len(repr(plain)) <= 200 else repr(plain)[:199] + "…"
    bundle = {notebook.RECORD: {"name": name, "value": stored}, "text/plain": f"{name} = {shown}"}
    display(bundle, raw=True)

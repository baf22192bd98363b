"""``record("accuracy", 0.98)``: what a notebook hands to whoever runs it, written and found again."""

from __future__ import annotations

import ast
import contextlib
import json
import keyword
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genokit.errors import GenokitError, InvalidParameters
from genokit.pipelines import notebook as notebooks
from genokit.pipelines import values

RECORD = "application/vnd.genokit.record+json"
FILE = "records.jsonl"  # in the folder of the run, while it runs
LARGEST = 1_000_000  # characters of JSON


def record(name: str, value: object, *, not_secret: bool = False) -> None:
    """Show a named result here and keep it for ``Run.outputs``; the last record of a name wins.

    The value is numbers, text, dates, paths, or lists and dicts of them, with numpy's scalars made plain. It is stored
    in the output of the notebook's cell and, in a run, in the run's folder, so that it is kept whatever becomes of the
    output; outside a notebook nothing happens. A name that sounds like a secret (``token``) is refused unless
    ``not_secret`` is True.
    Raises InvalidParameters for a name that is no identifier or a value that is too much for a record.

    >>> record("accuracy", 0.98)
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidParameters(f"record({name!r}, ...): a name must be an identifier, such as 'test_accuracy'.")
    try:
        plain = values.plain(value)
    except TypeError as error:
        raise InvalidParameters(f"record('{name}', ...): {error}.") from None
    if not not_secret and (secret := values.secret(name, plain)):
        raise InvalidParameters(
            f"record('{name}', ...): '{secret}' looks like a secret, and records are stored: do not record it. "
            "If it is not a secret, say so: record(..., not_secret=True)."
        )
    stored = values.to_json(plain)
    if len(json.dumps(stored, allow_nan=False)) > LARGEST:
        raise InvalidParameters(f"record('{name}', ...) is more than 1 MB: write it to a file and record its path.")
    loaded = sys.modules.get("IPython")
    shell = loaded and loaded.get_ipython()
    if shell is None:
        return
    from IPython.display import display

    # Told to this kernel alone: of an environment variable notebooks that this one runs would think that it is theirs.
    if folder := getattr(shell, "genokit_run", None):
        _keep(Path(folder), {"name": name, "value": stored})
    shown = f"{name} = {values.shortened(repr(plain), 200)}"
    display({RECORD: {"name": name, "value": stored}, "text/plain": shown}, raw=True)


def _keep(folder: Path, recorded: Mapping[str, Any]) -> None:
    """Append a record to the file in the folder of the run that this kernel works for."""
    try:
        # One write: records of several threads and processes stay lines of their own.
        with open(folder / FILE, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(json.dumps(recorded).encode() + b"\n")
    except OSError as error:
        raise GenokitError(f"record('{recorded['name']}', ...) cannot be kept in {folder}: {error.strerror}.") from None


def kept(folder: Path) -> dict[str, Any]:
    """What the notebook of a running run has recorded so far, by name."""
    try:
        lines = (folder / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # the kernel died while it wrote this one
            recorded = json.loads(line)
            found[recorded["name"]] = values.from_json(recorded["value"])
    return found


def outputs(content: notebooks.Json) -> dict[str, Any]:
    """What the cells of an executed notebook recorded, by name."""
    shown = [output.get("data") or {} for cell in content["cells"] for output in cell.get("outputs") or []]
    records = [data[RECORD] for data in shown if RECORD in data]
    return {found["name"]: values.from_json(found["value"]) for found in records}


def names(content: notebooks.Json) -> set[Any] | None:
    """The names that a notebook's own code records; None if only running it can tell."""
    code = [notebooks.text(cell) for cell in content["cells"] if notebooks.is_code(cell)]
    try:
        nodes = [node for cell in code for node in ast.walk(ast.parse(notebooks.python(cell)))]
    except (SyntaxError, ValueError):
        return None
    found = set()
    for call in nodes:
        if isinstance(call, ast.Call):
            given = [*call.args, *(word.value for word in call.keywords if word.arg == "name")]
            first = given[0].value if given and isinstance(given[0], ast.Constant) else None
            called = ast.unparse(call.func)
            if called.rpartition(".")[2] == "record":
                if first is None:
                    return None
                found.add(first)
            elif called.startswith("get_ipython()") and "record" in ast.unparse(call):
                return None  # a magic that runs code of its own
    return found

"""``record("accuracy", 0.98)``: the results that a notebook hands to whoever runs it, written and read."""

from __future__ import annotations

import contextlib
import json
import keyword
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genokit.errors import InvalidParameters
from genokit.pipelines import values
from genokit.pipelines.secret_values import redacted
from genokit.secret_kinds import secret_name

RECORD = "application/vnd.genokit.record+json"
FILE = "records.jsonl"  # in the folder of the run, while it runs


def record(name: str, value: object, *, not_secret: bool = False) -> None:
    """Show a named result in the notebook and save it in ``Run.outputs``.

    In a run, the record is also written to the run folder, so it survives a cleared cell output. Outside a notebook
    nothing happens.

    Parameters
    ----------
    name : str
        An identifier. If a name is recorded twice, the last value counts.
    value : object
        Numbers, text, dates, paths, or lists and dicts of them; numpy and pandas scalars become plain Python. At most
        1 MB as JSON.
    not_secret : bool, default False
        Allow a name that looks like a secret, such as ``token``.

    Raises
    ------
    InvalidParameters
        The name is not an identifier or looks like a secret, or the value cannot be recorded.
    OSError
        The record cannot be written to the run folder.

    Examples
    --------
    >>> record("accuracy", 0.98)
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InvalidParameters(f"record({name!r}, ...): a name must be an identifier, such as 'test_accuracy'.")
    try:
        plain = values.plain(value)
    except TypeError as error:
        raise InvalidParameters(f"record('{name}', ...): {error}.") from None
    if not not_secret and (secret := secret_name(name, plain)):
        raise InvalidParameters(
            f"record('{name}', ...): '{secret}' looks like a secret and was not recorded, because records are stored. "
            "If it is not a secret: record(..., not_secret=True)."
        )
    name, plain = redacted((name, plain))
    stored = values.to_json(plain)
    if len(json.dumps(stored, allow_nan=False)) > 1_000_000:
        raise InvalidParameters(f"record('{name}', ...) is more than 1 MB: write it to a file and record its path.")
    shell = (loaded := sys.modules.get("IPython")) and loaded.get_ipython()
    if shell is None:
        return
    from IPython.display import display

    # An attribute of this kernel, not an environment variable, which notebooks run from this one would inherit.
    if folder := getattr(shell, "genokit_run", None):
        _keep(Path(folder), {"name": name, "value": stored})
    recorded = {"name": name, "value": stored}
    display({RECORD: recorded, "text/plain": f"{name} = {values.shortened(repr(plain), 200)}"}, raw=True)


def _keep(folder: Path, recorded: Mapping[str, Any]) -> None:
    """Append a record to the file in this kernel's run folder."""
    # One write, so that records of several threads and processes do not mix.
    with open(folder / FILE, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(json.dumps(recorded).encode() + b"\n")


def kept(folder: Path) -> dict[str, Any]:
    """What the notebook of a running run has recorded so far, by name."""
    path, found = folder / FILE, dict[str, Any]()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # the kernel died while writing this one
            recorded = json.loads(line)
            found[recorded["name"]] = values.from_json(recorded["value"])
    return found

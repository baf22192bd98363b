"""``record("accuracy", 0.98)``: the named results of a notebook, written and read."""

from __future__ import annotations

import contextlib
import json
import keyword
import sys
from pathlib import Path
from typing import Any

from genokit.errors import InvalidParameters
from genokit.files import NOTES, note, write_atomic
from genokit.pipelines import values
from genokit.pipelines.secret_values import redacted
from genokit.secret_kinds import secret_name

FILES = "files"  # in a run folder: recorded tables, large values and long outputs
LARGEST = 1_000_000  # characters; a longer value or output is written to a file
KEPT = 64_000  # characters of a long output that stay in the notebook


def record(name: str, value: object, *, not_secret: bool = False) -> None:
    """Show a named result in the notebook and save it in ``Run.outputs``.

    In a run, the record is also written to the run folder, so it survives a cleared cell output. Outside a notebook
    nothing happens.

    Parameters
    ----------
    name : str
        An identifier. If a name is recorded twice, the last value counts.
    value : object
        Numbers, text, dates, paths, or lists and dicts of them; numpy and pandas scalars become plain Python. In a run,
        a DataFrame is written to ``files/NAME.parquet`` in the run folder, and a value of more than 1 MB in JSON to
        ``files/NAME.json``; the output is then the file's path.
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
    shell = (loaded := sys.modules.get("IPython")) and loaded.get_ipython()
    # An attribute of this kernel, not an environment variable, which notebooks run from this one would inherit.
    folder = getattr(shell, "genokit_run", None)
    table: Any = value if hasattr(value, "to_parquet") else None
    try:
        plain = values.plain(value) if table is None else None
        if not not_secret and (secret := secret_name(name, plain)):
            raise ValueError(
                f"'{secret}' looks like a secret and was not recorded, because records are stored. If it is not a "
                "secret: record(..., not_secret=True)"
            )
        if table is not None:
            if redacted(text := table.select_dtypes(exclude="number").to_csv()) != text:
                raise ValueError("the table contains a secret: remove it")
            plain = _write(folder, f"{name}.parquet", table.to_parquet())
    except (TypeError, ValueError) as error:
        raise InvalidParameters(f"record('{name}', ...): {error}.") from None
    name, plain = redacted((name, plain))
    if len(text := json.dumps(values.to_json(plain), allow_nan=False)) > LARGEST:
        plain = _write(folder, f"{name}.json", text)
    if shell:
        from IPython.display import display

        if folder:
            note(folder, name=name, value=values.to_json(plain))
        display({"text/plain": f"{name} = {values.shortened(repr(plain), 200)}"}, raw=True)


def _write(folder: str | None, name: str, content: str | bytes) -> Path:
    """Write a file into the folder of this kernel's run, if there is one. Returns its path."""
    path = Path(folder or "", FILES, name)
    return write_atomic(path, content, private=True) if folder else path


def move_long(cell: Any, number: int, folder: Path) -> None:
    """Move the long outputs of a cell into files of its run; the notebook keeps the end of each."""
    for name in ("stdout", "stderr"):
        streams = [out for out in cell.outputs if out.get("name") == name]
        text = redacted("".join(out.text for out in streams)) if streams else ""
        if len(text) > LARGEST:
            path = _write(str(folder), f"cell-{number}-{name}.txt", text.encode(errors="replace"))
            for out in streams:
                out.text = ""
            streams[-1].text = f"[All {len(text):,} characters are in {FILES}/{path.name}; the end:]\n{text[-KEPT:]}"


def noted(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a running notebook has recorded so far, by name, and the hashes of the data sets that it has fetched."""
    recorded, fetched = dict[str, Any](), dict[str, str]()
    path = folder / NOTES
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):  # the kernel died while writing this one
            match json.loads(line):
                case {"name": name, "value": value}:
                    recorded[name] = values.from_json(value)
                case {"manifest": manifest, "sha256": content}:
                    fetched[manifest] = content
    return recorded, fetched

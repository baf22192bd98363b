"""The gate: what a submission has written, checked file by file; only declared outputs pass, each made anew.

A file that passes is written again from its parsed values, so nothing rides along: no metadata, no further bytes, no
spaces, no quoting. A refusal is one of a few fixed sentences, because a free text would be a channel itself.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "summary.json").write_text('{"cases": 120.00001}')
>>> declared = declare({"summary.json": {"type": "numbers", "keys": ["cases"]}})
>>> with opened(folder) as out:
...     [(one.name, one.content) for one in check(out, declared, ReleasePolicy(10))]
[('summary.json', b'{"cases": 120}')]
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from genokit.disclosure import suppress
from genokit.errors import InvalidParameters, OutputRefused
from genokit.workspaces.kinds import ReleasePolicy

TYPES = {
    # type: (its suffix, what it may be given beside its type, of which the first is needed)
    "predictions": (".csv", ("columns",)),
    "aggregate": (".csv", ("columns", "counts", "by")),
    "numbers": (".json", ("keys",)),
    "figure": (".png", ()),
    "model": (".safetensors", ("share",)),
}
KINDS = ("label", "count", "number")  # of columns
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}(\.[a-z]{1,11})")
WORD = re.compile(r"[A-Za-z0-9<>][A-Za-z0-9 _.,:;()/%<>+-]{0,63}")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
NUMBER = re.compile(r"[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})([eE][+-]?\d{1,3})?", re.ASCII)
MOST_ROWS = {"aggregate": 5_000, "predictions": 1_000_000}  # more could fill the memory of the process that checks
MOST_MIB = {"predictions": 64, "model": 64}  # 16 of other types
MOST_PIXELS = 4_000_000
COLOURS = 64


@dataclass(frozen=True)
class Output:
    """A declared output: its file's name, its type, and what belongs to the type."""

    name: str
    type: str
    columns: Mapping[str, str | Sequence[str]]
    counts: Sequence[str] = ()
    by: Sequence[str] = ()
    keys: Sequence[str] = ()
    share: float = 0.05

    @property
    def labels(self) -> list[str]:
        """The columns whose labels are listed; together they name a row of an aggregate."""
        return [name for name, of in self.columns.items() if not isinstance(of, str)]

    @property
    def predicts_labels(self) -> bool:
        """Whether these are predictions, and labels."""
        return self.type == "predictions" and [*self.columns.values()][-1] not in ("count", "number")


@dataclass(frozen=True)
class Passed:
    """An output that passed: its content made anew, what a reader sees of it, and what was checked and hidden."""

    name: str
    type: str
    content: bytes
    table: pd.DataFrame | None
    summary: str
    hidden: int = 0


def declare(outputs: Mapping[str, Mapping[str, Any]]) -> list[Output]:
    """The declared outputs, from the words of a challenge.

    Parameters
    ----------
    outputs : mapping
        File names, each with a mapping: ``type`` is "predictions" (a CSV with a row for each held-out row: ``columns``
        are "id" and one more; it never leaves), "aggregate" (a CSV with ``columns``, of which ``counts`` are numbers of
        persons and ``by`` the groups over which they add up), "numbers" (a flat JSON of ``keys``), "figure" (a PNG) or
        "model" (safetensors, at most this ``share`` of the data's bytes, 0.05 by default). ``columns`` maps
        names to "label", "count" or "number", or to a list of the labels that are allowed. An aggregate has no "label",
        and ``by`` are columns with such a list, because free words and numbers could be the values of persons.

    Raises
    ------
    InvalidParameters
        Something is missing, or does not belong to the type.
    """
    if not isinstance(outputs, Mapping) or not all(isinstance(one, Mapping) for one in outputs.values()):
        raise InvalidParameters(f"Outputs are given as {{'name.png': {{'type': 'figure'}}}}; got {outputs!r}.")
    return [_declared(name, dict(one)) for name, one in sorted(outputs.items())]


def _declared(name: str, given: dict[str, Any]) -> Output:
    kind = given.pop("type", None)
    if kind not in TYPES:
        raise InvalidParameters(f"The output '{name}' needs a type: one of {', '.join(TYPES)}; got {kind!r}.")
    suffix, words = TYPES[kind]
    match = NAME.fullmatch(name)
    if not match or match[1] != suffix:
        raise InvalidParameters(f"'{name}' of type '{kind}' needs a name in lower case that ends with {suffix}.")
    if strange := sorted(set(given) - set(words)):
        raise InvalidParameters(f"The output '{name}' of type '{kind}' does not take '{strange[0]}'.")
    if words[:1] != ("share",) and words and not given.get(words[0]):
        raise InvalidParameters(f"The output '{name}' of type '{kind}' needs {words[0]}.")
    for word in {*given} - {"share"}:
        if not isinstance(given[word], Mapping if word == "columns" else (list, tuple)):
            what = "a mapping of names to types" if word == "columns" else "a list of names"
            raise InvalidParameters(f"The {word} of '{name}' must be {what}, got {given[word]!r}.")
    one = Output(name, kind, **{"columns": {}, **given})
    for column, of in one.columns.items():
        levels = of if isinstance(of, list) and of and all(isinstance(level, str) for level in of) else [of]
        if not WORD.fullmatch(column) or (levels == [of] and of not in KINDS):
            known = f"{', '.join(KINDS)}, or a list of labels"
            raise InvalidParameters(f"Column '{column}' of '{name}' must be one of {known}, got {of!r}.")
    if kind == "predictions" and (len(one.columns) != 2 or next(iter(one.columns)) != "id"):
        raise InvalidParameters(f"'{name}' needs two columns, 'id' and the prediction; got {list(one.columns)}.")
    if kind == "aggregate":
        _check_labels(one)
    if kind == "aggregate" and (not one.counts or any(one.columns.get(count) != "count" for count in one.counts)):
        raise InvalidParameters(f"'{name}' needs counts: the columns of type count that hold numbers of persons.")
    if type(one.share) not in (int, float) or not 0 < one.share <= 1:
        raise InvalidParameters(f"The share of '{name}' must be above 0 and at most 1, got {one.share!r}.")
    if unknown := sorted(set(one.by) - set(one.columns)):
        raise InvalidParameters(f"'{name}' has no column '{unknown[0]}' to group by.")
    return one


def _check_labels(one: Output) -> None:
    """Raise InvalidParameters unless an aggregate names the labels that may occur."""
    for column, of in one.columns.items():
        if isinstance(of, str) and (of == "label" or column in one.by):
            raise InvalidParameters(
                f"Column '{column}' of the aggregate '{one.name}' needs a list of the labels that may occur, such as "
                f"['a', 'b']; got '{of}', in which a submission could write the values of persons."
            )


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A folder as an open descriptor."""
    out = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield out
    finally:
        os.close(out)


def check(
    out: int, declared: Sequence[Output], policy: ReleasePolicy, *, data_bytes: int = 0, most_persons: float = math.inf
) -> list[Passed]:
    """Check all files of a folder and return those that pass, made anew.

    Parameters
    ----------
    out : int
        The folder, an open descriptor.
    declared : sequence of Output
        The outputs that must be there; no others may be.
    policy : ReleasePolicy
        Smaller counts are hidden, and others rounded, as it says.
    data_bytes : int, default 0
        The size of the data, by which that of a model is limited.
    most_persons : float, default inf
        The data hold no more persons; larger counts, or counts over ``by`` that add up to more, are refused.

    Raises
    ------
    OutputRefused
        A file is missing, not declared, or not what was declared.
    """
    names = set(os.listdir(out))
    if names - {one.name for one in declared}:
        raise OutputRefused("There is a file or folder that is not a declared output.")
    passed = []
    for one in declared:
        if one.name not in names:
            raise OutputRefused(f"'{one.name}' is missing.")
        limit = MOST_MIB.get(one.type, 16) * 2**20
        data = _read(out, one.name, min(limit, int(one.share * data_bytes)) if one.type == "model" else limit)
        passed.append(
            _aggregate(one, data, policy, most_persons) if one.type == "aggregate" else CHECKS[one.type](one, data)
        )
    return passed


def _read(out: int, name: str, most: int) -> bytes:
    """The bytes of a plain file of a folder, without following a link. Raises OutputRefused."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=out)
    except OSError as error:
        raise OutputRefused(f"'{name}' is a link or cannot be read.") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1 or about.st_mode & 0o7000:
            raise OutputRefused(f"'{name}' is not a plain file with one name.")
        if about.st_size > most:
            raise OutputRefused(f"'{name}' is larger than allowed.")
        if about.st_blocks * 512 + 4096 < about.st_size:
            raise OutputRefused(f"'{name}' has holes.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


# --- each type


def _predictions(one: Output, data: bytes) -> Passed:
    frame = _csv(one, data)
    if frame["id"].duplicated().any():
        raise OutputRefused(f"'{one.name}' has an id twice.")
    return Passed(one.name, one.type, b"", frame, f"{len(frame):,} rows; they do not leave")


def _aggregate(one: Output, data: bytes, policy: ReleasePolicy, most_persons: float) -> Passed:
    frame = _csv(one, data)
    if frame.duplicated(one.labels).any() if one.labels else len(frame) > 1:
        raise OutputRefused(f"'{one.name}' has rows that repeat.")
    for name in one.counts:
        if (sum(frame[name]) if one.by else max(frame[name], default=0)) > most_persons:
            raise OutputRefused(f"'{one.name}' counts more persons than there are in the data.")
    others = [
        name for name, of in one.columns.items() if of in ("count", "number") and name not in (*one.counts, *one.by)
    ]
    try:
        shown = suppress(frame, one.counts, one.by, also=others, min_cell=policy.min_cell)
    except InvalidParameters as error:
        raise OutputRefused(f"'{one.name}' has groups that repeat, or too many.") from error
    for name in one.counts:
        shown[name] = (shown[name].astype("Float64") / policy.round_to).round().astype("Int64") * policy.round_to
    if one.labels:  # the order of rows could carry the most bits of all
        shown = shown.sort_values(one.labels, key=lambda column: column.map([*one.columns[str(column.name)]].index))
    hidden = int(shown[one.counts[0]].isna().sum())
    words = f"{len(frame):,} rows, {hidden:,} hidden because they are small or reveal a small one"
    return Passed(one.name, one.type, _text(shown), shown, words, hidden)


def _csv(one: Output, data: bytes) -> pd.DataFrame:
    """A CSV with exactly the declared columns."""
    most = MOST_ROWS[one.type]
    try:
        text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
        lines = list(itertools.islice(csv.reader(text, strict=True), most + 2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise OutputRefused(f"'{one.name}' is not a CSV file in UTF-8.") from error
    if not lines or lines[0] != list(one.columns):
        raise OutputRefused(f"'{one.name}' does not have the declared columns in their order.")
    if any(len(line) != len(lines[0]) for line in lines):
        raise OutputRefused(f"'{one.name}' has a row with another number of cells.")
    if len(lines) - 1 > most:
        raise OutputRefused(f"'{one.name}' has more than {most:,} rows.")
    columns = zip(*lines[1:], strict=True) if len(lines) > 1 else ([] for _ in lines[0])
    ids = one.type == "predictions"
    kinds = [("id" if ids and name == "id" else of) for name, of in one.columns.items()]
    return pd.DataFrame(
        {
            name: [_cell(one.name, kind, cell) for cell in cells]
            for name, kind, cells in zip(one.columns, kinds, columns, strict=True)
        }
    )


def _cell(name: str, kind: str | Sequence[str], cell: str) -> str | float | int:
    if not isinstance(kind, str):
        if cell in kind:
            return cell
        raise OutputRefused(f"'{name}' has a label that was not declared.")
    if kind in ("id", "label"):
        if (ID if kind == "id" else WORD).fullmatch(cell):
            return cell
        raise OutputRefused(f"'{name}' has a cell that is not a plain label.")
    if not NUMBER.fullmatch(cell) or not math.isfinite(value := float(cell)):
        raise OutputRefused(f"'{name}' has a cell that is not a number.")
    if kind == "count":
        if value < 0 or value != int(value) or value > 1e15:
            raise OutputRefused(f"'{name}' has a count that is not a whole number.")
        return int(value)
    return value


def _text(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.6g", na_rep="", lineterminator="\n").encode()


def _numbers(one: Output, data: bytes) -> Passed:
    try:
        found = json.loads(data) if len(data) < 2**16 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or sorted(found) != sorted(one.keys):
        raise OutputRefused(f"'{one.name}' is not a JSON object with exactly the declared keys.")
    for value in found.values():
        if type(value) not in (int, float) or not -1e15 <= value <= 1e15:
            raise OutputRefused(f"'{one.name}' has a value that is not a number.")
    content = json.dumps({key: float(f"{found[key]:.6g}") for key in one.keys})
    return Passed(one.name, one.type, re.sub(r"\.0(?=[,}])", "", content).encode(), None, f"{len(found)} numbers")


def _figure(one: Output, data: bytes) -> Passed:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise OutputRefused(f"'{one.name}' has more than {MOST_PIXELS:,} pixels.")
            plain = Image.new("RGB", image.size, "white")
            plain.paste(image.convert("RGBA"), mask=image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OutputRefused(f"'{one.name}' is not a PNG picture.") from error
    made = io.BytesIO()
    plain.quantize(COLOURS).save(made, format="PNG", optimize=True)
    words = f"{plain.width} x {plain.height} pixels, made anew with {COLOURS} colours"
    return Passed(one.name, one.type, made.getvalue(), None, words)


def _model(one: Output, data: bytes) -> Passed:
    import safetensors
    from safetensors.numpy import load, save

    try:
        tensors = load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise OutputRefused(f"'{one.name}' is not a file of safetensors.") from error
    if len(tensors) > 1000 or not all(WORD.fullmatch(name) for name in tensors):
        raise OutputRefused(f"'{one.name}' has too many tensors, or one with a strange name.")
    content = save({name: tensors[name] for name in sorted(tensors)})
    return Passed(one.name, one.type, content, None, f"{len(tensors)} tensors, {len(content):,} bytes")


CHECKS = {"predictions": _predictions, "numbers": _numbers, "figure": _figure, "model": _model}

"""A command wrapped so that its job begins with shipped code or with its row of an array: see ``entry``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from genokit.errors import InvalidRequest

BEGIN = ("python", "-m", "genokit.batch.entry")
REFERENCE, FIELD = "Ref::", "Row::"


def wrapped(words: Sequence[str], *, code: str | None, rows: str | None, columns: Set[str]) -> list[str]:
    """The command that brings code and row to ``words``, or ``words`` themselves where there is neither.

    >>> wrapped(["fit", "Ref::rate", "Ref::out"], code=None, rows="s3://b/rows/1.json", columns={"rate"})[3:]
    ['--rows', 's3://b/rows/1.json', '--', 'fit', 'Row::rate', 'Ref::out']
    """
    if code is None and rows is None:
        return list(words)
    options = [*(["--code", code] if code else []), *(["--rows", rows] if rows else [])]
    return [*BEGIN, *options, "--", *(_field(word, columns) for word in words)]


def rows_of(command: Sequence[str]) -> str | None:
    """Where the rows of a job lie, by its command; None where it has none.

    >>> rows_of(wrapped(["fit", "Ref::rate"], code=None, rows="s3://b/rows/1.json", columns={"rate"}))
    's3://b/rows/1.json'
    """
    return parsed(command[len(BEGIN) :])[1] if tuple(command[: len(BEGIN)]) == BEGIN else None


def unwrapped(command: Sequence[str]) -> list[str]:
    """The words that a job's command becomes.

    >>> unwrapped(wrapped(["fit"], code="s3://b/code/1.tar.gz", rows=None, columns=set()))
    ['fit']
    """
    return parsed(command[len(BEGIN) :])[2] if tuple(command[: len(BEGIN)]) == BEGIN else list(command)


def _field(word: str, columns: Set[str]) -> str:
    # Batch itself must not take a row's column for a parameter, which it would look for in vain.
    name = word.removeprefix(REFERENCE)
    return FIELD + name if word.startswith(REFERENCE) and name in columns else word


def filled(words: Sequence[str], row: Mapping[str, str]) -> list[str]:
    """The words, with those that name a column of the row replaced by its value: whole words, as Batch does it.

    >>> filled(["--rate", "Row::rate", "x=Row::rate", "Row::other"], {"rate": "0.1; rm"})
    ['--rate', '0.1; rm', 'x=Row::rate', 'Row::other']
    """
    return [row.get(word.removeprefix(FIELD), word) if word.startswith(FIELD) else word for word in words]


def parsed(arguments: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """Code, rows and command of a wrapped command's arguments. Raises InvalidRequest."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while len(rest) > 1 and rest[0] in ("--code", "--rows"):
        options[rest[0]], rest = rest[1], rest[2:]
    if len(rest) < 2 or rest[0] != "--":
        raise InvalidRequest(f"Expected [--code URI] [--rows URI] -- COMMAND..., got: {' '.join(arguments)}")
    return options.get("--code"), options.get("--rows"), rest[1:]

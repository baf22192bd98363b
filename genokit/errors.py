"""What can go wrong, in one tree.

    GenokitError
      ConfigError          a setting is missing or wrong             names the file or variable it came from
      MissingDependency    a package or program is not installed     says how to get it
      NotFound             a queue, definition, job, data set ...    lists near misses
      AccessDenied         AWS said no                               .action .resource
      InvalidRequest       a request that the service refuses        .code
      ServiceError         throttled, unreachable, or broken         .code
      ConfirmationNeeded   data or jobs would be lost                .losses
      StackFailed          .stack .resource .reason                  the first to fail
      JobFailed            .job .exit_code .reason .last_lines
      JobTimeout           waited long enough                        .job
      InvalidProject       a folder that cannot be shipped as code
      InvalidManifest      a datapackage.json that cannot be used
      FetchFailed          no source delivered                       .resource .tried
      InvalidSource        clinical data that cannot be read as they stand
      TransformFailed      .table                                    SQL that an engine could not carry out
      QualityFailed        .quality                                  a new CDM that failed mandatory checks
      QueryError           SQL that a database refuses               .sql
      HashMismatch         bytes are not the promised ones           .expected .got
      InvalidParameters    unknown name, wrong type, out of range    lists what is wrong, all of it
      InvalidCheckpoint    a file that is not a whole checkpoint
      InvalidNotebook      a file that is not a notebook this kit can run
      NotebookFailed       .run .cell .path
      PipelineFailed       .runs

Every message says what happened, to which thing, what was expected and what came, and what to do next:

>>> from genokit.errors import GenokitError, HashMismatch
>>> try:
...     raise HashMismatch("'labels.gz' is not the promised file", expected="ab", got="cd")
... except GenokitError as error:
...     print(error, error.expected, error.got)
'labels.gz' is not the promised file ab cd
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from genokit.display import plain


class FailedJob(Protocol):
    """A ``genokit.Job``, as far as its errors need it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


class FailedRun(Protocol):
    """A ``genokit.Run``, as far as its errors need it."""

    @property
    def source(self) -> Path: ...
    @property
    def traceback(self) -> str: ...


class GenokitError(Exception):
    """The root: ``except GenokitError`` catches everything the kit raises on purpose."""

    def __str__(self) -> str:
        return plain(super().__str__())  # it may repeat what a job or a file said, and goes to terminals


class ConfigError(GenokitError):
    """A setting is missing or wrong."""


class MissingDependency(GenokitError):
    """A package or program that this needs is not installed."""


class NotFound(GenokitError):
    """There is no such thing."""


class AccessDenied(GenokitError):
    """AWS refused the call for want of a permission."""

    def __init__(self, message: str, *, action: str = "", resource: str = "") -> None:
        super().__init__(message)
        self.action = action
        self.resource = resource


class InvalidRequest(GenokitError):
    """The service refused the request as wrong."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ServiceError(GenokitError):
    """The service was throttled, unreachable or broken."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ConfirmationNeeded(GenokitError):
    """Data or jobs would be lost, and nobody said that they may be."""

    def __init__(self, message: str, *, losses: Sequence[str]) -> None:
        super().__init__(message)
        self.losses = list(losses)


class StackFailed(GenokitError):
    """A CloudFormation stack could not become what it should; ``resource`` is the first that failed, if one did."""

    def __init__(self, message: str, *, stack: str, resource: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.stack = stack
        self.resource = resource
        self.reason = reason


class JobFailed(GenokitError):
    """A job ended in FAILED."""

    def __init__(
        self, message: str, *, job: FailedJob, exit_code: int | None, reason: str, last_lines: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.job = job
        self.exit_code = exit_code
        self.reason = reason
        self.last_lines = list(last_lines)


class JobTimeout(GenokitError):
    """A job had not ended when the waiting did."""

    def __init__(self, message: str, *, job: FailedJob) -> None:
        super().__init__(message)
        self.job = job


class InvalidProject(GenokitError):
    """A folder cannot be shipped to jobs as code."""


class InvalidManifest(GenokitError):
    """A data manifest cannot be used as it stands."""


class FetchFailed(GenokitError):
    """No source of a resource delivered it."""

    def __init__(self, message: str, *, resource: str, tried: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.resource = resource
        self.tried = list(tried)


class InvalidSource(GenokitError):
    """A source of clinical data, or a table in it, that cannot be read as it stands. Names no value of any row."""


class TransformFailed(GenokitError):
    """An engine could not make a table; what was made before stays, and so does the target."""

    def __init__(self, message: str, *, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class QualityFailed(GenokitError):
    """A new CDM breaks what a CDM must hold, so the old one stays."""

    def __init__(self, message: str, *, quality: object) -> None:
        super().__init__(message)
        self.quality = quality


class QueryError(GenokitError):
    """A database refused a query, or could not end it."""

    def __init__(self, message: str, *, sql: str = "") -> None:
        super().__init__(message)
        self.sql = sql


class HashMismatch(GenokitError):
    """A file's bytes are not the promised ones."""

    def __init__(self, message: str, *, expected: str, got: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.got = got


class InvalidParameters(GenokitError):
    """Parameters with an unknown name, a wrong type or a value out of range."""


class InvalidCheckpoint(GenokitError):
    """A file is not a whole checkpoint of this kit."""


class InvalidNotebook(GenokitError):
    """A file is not a notebook, or not one that this kit can run."""


class NotebookFailed(GenokitError):
    """A notebook did not run to its end."""

    def __init__(self, message: str, *, run: FailedRun, cell: int | None, path: Path) -> None:
        super().__init__(message)
        self.run = run
        self.cell = cell
        self.path = path


class PipelineFailed(GenokitError):
    """At least one notebook of a pipeline did not run to its end."""

    def __init__(self, message: str, *, runs: Sequence[FailedRun]) -> None:
        super().__init__(message)
        self.runs = list(runs)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them.

    >>> did_you_mean("epoch", ["epochs", "seed"])
    "Did you mean 'epochs'?"
    >>> did_you_mean("zzz", ["epochs", "seed"])
    'Known: epochs, seed.'
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(known)}." if known else "There are none."

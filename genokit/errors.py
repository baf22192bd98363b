"""What can go wrong, in one tree.

    GenokitError
      ConfigError          a setting is missing or wrong             names the file or variable it came from
      MissingDependency    a package or program is not installed     says how to install it
      NotFound             a queue, definition, job, data set ...    lists near misses
      AccessDenied         a permission is missing                   .action .resource
      InvalidRequest       a request that the service refuses        .code
      ServiceError         throttled, unreachable, or broken         .code
      ConfirmationNeeded   data or jobs would be lost                .losses
      StackFailed          .stack .resource .reason                  the first to fail
      BuildFailed          .last_lines                       an image could not be built or pushed
      JobFailed            .job .exit_code .reason .last_lines
      JobTimeout           a job that has not ended in time          .job
      InvalidProject       a folder that cannot be shipped as code
      InvalidManifest      a datapackage.json that cannot be used
      FetchFailed          no source delivered a resource            .resource .tried
      InvalidSource        clinical data that cannot be read as they stand
      TransformFailed      an engine could not run a table's SQL     .table
      QualityFailed        a new CDM failed mandatory checks         .quality
      QueryError           SQL that a database refuses               .sql
      LogDamaged           a workspace's log was tampered with       .number
      HashMismatch         bytes do not have the expected hash       .expected .got
      InvalidParameters    unknown name, wrong type, out of range    lists everything that is wrong
      InvalidCheckpoint    a file that is not a complete checkpoint
      OutputRefused        an output of a submission that may not leave
      TrainingStopped      a training that was asked to stop before its end
      InvalidNotebook      a file that is not a notebook this kit can run
      StepFailed           a step of the genomics workflow           .path .reason
      NotebookFailed       .run .cell .path
      PipelineFailed       .runs

Every message says what happened, to which thing, what was expected, what was found, and what to do next:

>>> from genokit.errors import GenokitError, HashMismatch
>>> try:
...     raise HashMismatch("'labels.gz' does not have the expected hash", expected="ab", got="cd")
... except GenokitError as error:
...     print(error, error.expected, error.got)
'labels.gz' does not have the expected hash ab cd
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, dataclass_transform

from genokit.display import plain


@dataclass_transform(eq_default=False, kw_only_default=True)
@dataclass(eq=False, repr=False)
class GenokitError(Exception):
    """The root: ``except GenokitError`` catches everything the kit raises on purpose."""

    message: str

    def __init_subclass__(cls) -> None:
        dataclass(eq=False, repr=False, kw_only=True)(cls)  # what an error carries is named and typed once

    def __str__(self) -> str:
        return plain(super().__str__())  # it may quote a job's or a file's text, and goes to terminals


class ConfigError(GenokitError):
    """A setting is missing or wrong."""


class MissingDependency(GenokitError):
    """A package or program that is needed is not installed."""


class NotFound(GenokitError):
    """There is no such thing."""


class AccessDenied(GenokitError):
    """AWS refused the call, or a workspace the action, because a permission is missing."""

    action: str = ""
    resource: str = ""


class InvalidRequest(GenokitError):
    """The service refused the request as invalid."""

    code: str = ""


class ServiceError(GenokitError):
    """The service was throttled, unreachable or broken."""

    code: str = ""


class ConfirmationNeeded(GenokitError):
    """The action would lose data or jobs and needs confirmation."""

    losses: Sequence[str]


class StackFailed(GenokitError):
    """A CloudFormation stack could not be changed as asked; ``resource`` is the first that failed, if one did."""

    stack: str
    resource: str = ""
    reason: str = ""


class BuildFailed(GenokitError):
    """A container image could not be built or pushed."""

    last_lines: Sequence[str] = ()


class JobFailed(GenokitError):
    """A job ended in FAILED."""

    job: Any  # a genokit.Job
    exit_code: int | None
    reason: str
    last_lines: Sequence[str] = ()


class JobTimeout(GenokitError):
    """A job had not ended when the time to wait was over."""

    job: Any  # a genokit.Job


class InvalidProject(GenokitError):
    """A folder cannot be shipped to jobs as code."""


class InvalidManifest(GenokitError):
    """A data manifest cannot be used as it stands."""


class FetchFailed(GenokitError):
    """No source delivered a resource."""

    resource: str
    tried: Sequence[tuple[str, str]]


class InvalidSource(GenokitError):
    """A source of clinical data, or a table in it, cannot be read as it stands. Names no value of any row."""


class TransformFailed(GenokitError):
    """An engine could not make a table; tables made before stay, and so does the target."""

    table: str = ""


class QualityFailed(GenokitError):
    """A new CDM failed mandatory checks and was not published."""

    quality: object


class QueryError(GenokitError):
    """A database refused a query, or could not finish it."""

    sql: str = ""


class HashMismatch(GenokitError):
    """A file's bytes do not have the expected hash."""

    expected: str
    got: str


@dataclass(eq=False, repr=False, kw_only=True)
class LogDamaged(GenokitError):
    """An entry of a workspace's log was changed, removed, inserted or reordered; ``number`` says which."""

    number: int


class InvalidParameters(GenokitError):
    """Parameters have an unknown name, a wrong type or a value out of range."""


class InvalidCheckpoint(GenokitError):
    """A file is not a complete checkpoint of this kit."""


class OutputRefused(GenokitError):
    """An output of a submission may not leave the workspace. Names no value that the submission wrote."""


class TrainingStopped(GenokitError):
    """A training was asked to stop before its end."""


class StepFailed(GenokitError):
    """A step of the genomics workflow could not make its outputs; ``path`` is the file because of which."""

    path: str
    reason: str


class InvalidNotebook(GenokitError):
    """A file is not a notebook, or not one that this kit can run."""


class NotebookFailed(GenokitError):
    """A notebook did not run to its end."""

    run: Any  # a genokit.Run
    cell: int | None
    path: Path


class PipelineFailed(GenokitError):
    """At least one notebook of a pipeline did not run to its end."""

    runs: Sequence[Any]  # each a genokit.Run


def renamed(old: str, new: str) -> property:
    """The old name of an attribute: it still works, and warns with the new one."""

    def value(self: object) -> object:
        warnings.warn(f"{type(self).__name__}.{old} is now {new}.", DeprecationWarning, stacklevel=2)
        return attrgetter(new)(self)

    return property(value, doc=f"The old name of ``{new}``.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known name, or all of them.

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

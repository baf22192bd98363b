"""The embedded AWS Batch: the operations it offers, in boto3's names.

What it keeps of AWS Batch: the names, the order and the meaning of the statuses, definitions with revisions, ``Ref::``
parameters and overrides, arrays, dependencies, retries, timeouts, multi-node jobs, queues with priorities or fair
shares, environments with a size, cancel and terminate, tags, log streams.
What it cannot: a job of image ``genokit`` is a process of this user, with no walls of a container or of IAM around it.

https://docs.aws.amazon.com/batch/latest/APIReference/
"""

from __future__ import annotations

import fcntl
import functools
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genokit.local import client, store
from genokit.local.batch import definitions, environments, jobs, limits
from genokit.local.client import Caller, Operation


def _limited(operation: Operation) -> Operation:
    @functools.wraps(operation)
    def limited(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        limits.check(caller.operation, request, caller.refuse)
        return operation(caller, request)

    return limited


# An operation is a function of these modules that takes a caller and a request alone.
OPERATIONS: dict[str, Operation] = {
    name: _limited(function)
    for module in (environments, definitions, jobs)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if list(inspect.signature(function).parameters) == ["caller", "request"]
}


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep every other process and thread of the account that asks the same waiting meanwhile."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(home / "alone", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise store.unusable(home, error) from error
    with os.fdopen(file):
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The service of the account in ``home``."""
    return client.offer(OPERATIONS, home, job_environment)

"""The embedded AWS Batch: the operations it offers, in boto3's names.

What it keeps of AWS Batch: the names, the order and the meaning of the statuses, definitions with revisions, ``Ref::``
parameters and overrides, arrays, dependencies, retries, timeouts, multi-node jobs, queues with priorities or fair
shares, environments with a size, cancel and terminate, tags, log streams.
What it cannot: a job of image ``genokit`` is a process of this user, with no walls of a container or of IAM around it.

https://docs.aws.amazon.com/batch/latest/APIReference/
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from genokit.local import store
from genokit.local.batch import definitions, environments, jobs
from genokit.local.client import EmbeddedClient, Operation

OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (
        environments.create_compute_environment,
        environments.update_compute_environment,
        environments.describe_compute_environments,
        environments.delete_compute_environment,
        environments.create_job_queue,
        environments.update_job_queue,
        environments.describe_job_queues,
        environments.delete_job_queue,
        environments.create_scheduling_policy,
        environments.update_scheduling_policy,
        environments.describe_scheduling_policies,
        environments.list_scheduling_policies,
        environments.delete_scheduling_policy,
        environments.list_tags_for_resource,
        environments.tag_resource,
        environments.untag_resource,
        definitions.register_job_definition,
        definitions.describe_job_definitions,
        definitions.deregister_job_definition,
        jobs.submit_job,
        jobs.describe_jobs,
        jobs.list_jobs,
        jobs.cancel_job,
        jobs.terminate_job,
    )
}


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep every other process and thread of the account that asks the same waiting meanwhile."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(home / "alone", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise store.unusable(home, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def client(home: Path, job_environment: Mapping[str, str]) -> EmbeddedClient:
    """The client; ``job_environment`` are the variables that tell a job which settings it was submitted under."""
    return EmbeddedClient("batch", OPERATIONS, home, job_environment)

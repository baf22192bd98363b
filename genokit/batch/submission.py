"""What a submission in plain words means to Batch: the SubmitJob request, as pure functions."""

from __future__ import annotations

import getpass
import os
import re
import reprlib
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients
from genokit.batch import listing
from genokit.batch.definition import CONTENT, JobDefinition, refuse_spot, texts, whole
from genokit.errors import InvalidRequest

if TYPE_CHECKING:
    from genokit.batch.job import Job


def overrides(definition: JobDefinition, changes: dict[str, Any], retry: object) -> dict[str, Any]:
    """The changes to a definition's container, or to those of all its nodes. Raises InvalidRequest."""
    refuse_spot(definition.nodes, retry)
    if "nodeProperties" not in definition.described:
        return {"containerOverrides": changes}
    ranges = definition.described["nodeProperties"]["nodeRangeProperties"]
    each = [{"targetNodes": one["targetNodes"], "containerOverrides": changes} for one in ranges]
    return {"nodeOverrides": {"nodePropertyOverrides": each}} if changes else {}


def array(definition: JobDefinition, rows: Sequence[object] | None, size: int | None) -> dict[str, Any]:
    """arrayProperties, where there is more than one child: Batch knows no array of one."""
    if "nodeProperties" in definition.described and (rows is not None or size is not None):
        raise InvalidRequest(
            f"'{definition.name}' has {definition.nodes} nodes, and AWS Batch has no arrays of multi-node jobs. "
            "Submit a job for each row, without each, only and size."
        )
    if rows is not None and size is not None:
        raise InvalidRequest("Give each=rows or size=number, not both: each row is a child.")
    children = len(rows) if rows is not None else None if size is None else whole("size", size)
    return {"arrayProperties": {"size": children}} if children is not None and (children > 1 or rows is None) else {}


def dependencies(after: Any, after_each: Job | None) -> dict[str, list[dict[str, str]]]:
    """dependsOn: jobs that must have SUCCEEDED, an array whose children go before ours one to one.

    https://docs.aws.amazon.com/batch/latest/userguide/job_dependencies.html
    """
    jobs = () if after is None else (after,) if isinstance(after, str) or not isinstance(after, Iterable) else after
    on = [{"jobId": _id("after", job)} for job in jobs]
    if after_each is not None:
        on.append({"jobId": _id("after_each", after_each), "type": "N_TO_N"})
    return {"dependsOn": on} if on else {}


def _id(member: str, job: object) -> str:
    if not isinstance(found := getattr(job, "id", None), str):
        raise InvalidRequest(
            f"{member} must be a job, but is {reprlib.repr(job)}. Batch().job(id) is the job of an id."
        )
    return found


def existing(clients: Clients, queue: str, name: str, mark: str) -> str | None:
    """The id of the newest job with this name and content, FAILED jobs left out."""
    by_name = [{"name": "JOB_NAME", "values": [name]}]
    try:
        listed = listing.in_queue(clients, queue, filters=by_name)
        ids = [job["jobId"] for job in listed if job["status"] != "FAILED"]
        same = (job for job in listing.described(clients, ids) if job.get("tags", {}).get(CONTENT) == mark)
        return next((job["jobId"] for job in same), None)
    except InvalidRequest:  # no such queue or no such name: the submission will be refused for it, and says more
        return None


def tags(project: str | None, own: Mapping[str, str]) -> dict[str, str]:
    """The tags by which jobs are found and their costs summed: who, in which run, for which project; and ``own``."""
    given = {"genokit:user": _user(os.getuid()), "genokit:run": run(), "genokit:project": project}
    return {key: _taggable(value) for key, value in given.items() if value} | texts("tags", own)


def run() -> str:
    """The run of a notebook or pipeline that this process belongs to; where it is none, this session of work."""
    folder = os.environ.get("GENOKIT_RUN")
    return Path(folder).name if folder else _session(os.getpid())


@cache
def _session(pid: int) -> str:
    return f"session-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


@cache
def _user(uid: int) -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return f"uid-{uid}"


def _taggable(value: str) -> str:
    r"""A text with the characters that AWS takes in a tag.

    >>> _taggable("Müller & Söhne <lab>")
    'Müller _ Söhne _lab_'
    """
    return re.sub(r"[^\w +\-=.:/@]", "_", value)[:256]

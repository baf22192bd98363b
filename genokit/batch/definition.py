"""A job definition: what to run and how much capacity it needs, under a name and a revision."""

from __future__ import annotations

import hashlib
import json
import numbers
import re
import reprlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import requirements
from genokit.display import Html, card, is_missing
from genokit.errors import InvalidRequest, NotFound, did_you_mean
from genokit.refusals import unwritable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
CONTENT = "genokit:content"  # the tag by which a definition, or a job, is found again
# What is tried again, in words: a reclaimed host; besides, a program that SIGTERM has ended, and that goes on in order.
RECLAIMED = {"onStatusReason": "Host EC2*", "action": "RETRY"}
RETRIES = {"spot": (5, [RECLAIMED]), "interrupted": (10, [RECLAIMED, {"onExitCode": "143", "action": "RETRY"}])}


@dataclass(frozen=True)
class JobDefinition:
    """One revision of a job definition, as registered: what ``Batch.define`` and ``Batch.definition`` return.

    Attributes
    ----------
    name, revision, arn
        What it is registered under; revisions count from 1.
    image, command
        The container image and the words of the command; of several containers, those of the first.
    vcpus, memory_gib, gpus
        What each job gets, or each of its nodes.
    described
        The definition in AWS's words, as DescribeJobDefinitions returns it.
    nodes
        The number of nodes of a multi-node parallel job; 1 for any other.

    https://docs.aws.amazon.com/batch/latest/userguide/job_definition_parameters.html
    """

    name: str
    revision: int
    arn: str
    image: str
    command: tuple[str, ...]
    vcpus: float
    memory_gib: float
    gpus: int
    described: Mapping[str, Any] = field(repr=False, compare=False)
    nodes: int = 1

    @property
    def capacity(self) -> requirements.Capacity:
        """vCPU, memory and GPUs as one value."""
        return requirements.Capacity(self.vcpus, self.memory_gib * 1024, self.gpus)

    def __repr__(self) -> str:
        return f"<JobDefinition {self.name}:{self.revision} {self.image}>"

    def _repr_html_(self) -> Html:
        rows = {
            "Image": self.image,
            "Command": shlex.join(self.command),
            "vCPU": f"{self.vcpus:g}",
            "Memory": f"{self.memory_gib:g} GiB",
            "GPU": self.gpus,
            **({"Nodes": f"{self.nodes}, each with the above"} if self.nodes > 1 else {}),
            "ARN": self.arn,
        }
        return card(f"Job definition {self.name}:{self.revision}", rows)


def words(thing: str, command: Sequence[str]) -> list[str]:
    """A command as a list of words. Raises InvalidRequest for a text, which could mean more than one list."""
    thing = reprlib.repr(thing)
    if isinstance(command, (str, bytes, Mapping)) or not isinstance(command, Iterable):
        example = "['python', 'fit.py'], or ['sh', '-c', ...] where a shell is meant"
        raise InvalidRequest(f"{thing}: command must be a list of words, but is {_shown(command)}. Write {example}.")
    return [text(f"{thing}: command[{number}]", word) for number, word in enumerate(command)]


def text(member: str, value: object) -> str:
    """A value as text for a job. Raises InvalidRequest for None, arrays and other values without a text.

    >>> text("rate", 0.1), text("layers", [64, 64])
    ('0.1', '[64, 64]')
    """
    if isinstance(value, str):
        return value
    if is_missing(value):
        raise InvalidRequest(f"{member} has no value: it is {value}. Fill it, or leave it out.")
    if isinstance(value, (bytes, bytearray)) or (hasattr(value, "ndim") and value.ndim):
        raise InvalidRequest(
            f"{member} must be a text or a number, but is {_shown(value)}. Give the path of a file of it."
        )
    try:
        return str(value)
    except (ValueError, RecursionError) as error:  # digits or levels beyond what Python writes
        raise InvalidRequest(f"{member} cannot be written as text: {error}.") from error


def must_be(member: str, value: object, *kinds: type) -> None:
    """Raise InvalidRequest for a value of another kind."""
    if not isinstance(value, kinds):
        named = " or ".join(kind.__name__ for kind in kinds)
        raise InvalidRequest(f"{member} must be of type {named}, but is {_shown(value)}.")


def members(member: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """A dict of names and values, empty for None. Raises InvalidRequest for anything else."""
    if values is None:
        return {}
    must_be(member, values, Mapping)
    return dict(values)


def texts(member: str, values: Mapping[str, object] | None) -> dict[str, str]:
    """Names and values as texts. Raises InvalidRequest."""
    found = members(member, values).items()
    return {text(f"{member}: a name", name): text(f"{member}.{name}", value) for name, value in found}


def whole(member: str, value: Any) -> int:
    """A whole number. Raises InvalidRequest for anything else, a text of digits and True included."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or abs(int(value)) >= 1 << 62:
        raise InvalidRequest(f"{member} must be a whole number, but is {_shown(value)}.")
    return int(value)


def finite(member: str, value: Any) -> float:
    """A number that is neither infinite nor NaN. Raises InvalidRequest."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not abs(value) < 1e15:  # type: ignore[operator]
        raise InvalidRequest(f"{member} must be a number, but is {_shown(value)}.")
    return float(value)


def _shown(value: object) -> str:
    """A wrong value and its type, short enough for a message."""
    try:
        return f"{reprlib.repr(value)} ({type(value).__name__})"
    except ValueError:  # a number of more digits than Python writes
        return f"of type {type(value).__name__}"


def resources(vcpus: float | None, memory_gib: float | None, gpus: int | None) -> list[dict[str, str]]:
    """resourceRequirements in AWS's units: MEMORY in MiB, all as text.

    >>> resources(None, 1.5, 1)
    [{'type': 'MEMORY', 'value': '1536'}, {'type': 'GPU', 'value': '1'}]
    """
    request = {
        "VCPU": None if vcpus is None else f"{finite('vcpus', vcpus):.15g}",
        "MEMORY": None if memory_gib is None else str(round(finite("memory_gib", memory_gib) * 1024)),
        "GPU": str(count) if gpus is not None and (count := whole("gpus", gpus)) else None,
    }
    return [{"type": kind, "value": value} for kind, value in request.items() if value is not None]


def limits(timeout_min: float | None, retry: int | str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The timeout of an attempt, and what is tried again: a number of attempts, a word, or AWS's own retryStrategy.

    "spot" tries again, four times at most, when the host is taken back, and never when the program itself failed.
    "interrupted" does so nine times at most, also when SIGTERM has ended the program.
    https://docs.aws.amazon.com/batch/latest/userguide/best-practices.html

    >>> limits(2, "spot")["timeout"]
    {'attemptDurationSeconds': 120}
    >>> limits(None, "spot")["retryStrategy"]["evaluateOnExit"][0]
    {'onStatusReason': 'Host EC2*', 'action': 'RETRY'}
    """
    request: dict[str, Any] = {}
    if timeout_min is not None:
        request["timeout"] = {"attemptDurationSeconds": round(finite("timeout_min", timeout_min) * 60)}
    if isinstance(retry, str) and retry in RETRIES:
        attempts, rules = RETRIES[retry]
        exits = {"onReason": "*", "action": "EXIT"}
        request["retryStrategy"] = {"attempts": attempts, "evaluateOnExit": [*rules, exits]}
    elif isinstance(retry, Mapping):
        request["retryStrategy"] = dict(retry)
    elif isinstance(retry, str):
        known = f"a number of attempts, {' or '.join(map(repr, RETRIES))}, or a retryStrategy"
        raise InvalidRequest(f"retry must be {known}, but is {_shown(retry)}.")
    elif retry is not None:
        request["retryStrategy"] = {"attempts": whole("retry", retry)}
    return request


def properties(nodes: int, container: Mapping[str, Any], retry: object) -> dict[str, Any]:
    """The type of a definition and its containerProperties, or those of its equal nodes, the first being the main one.

    Raises InvalidRequest for retry="spot" with nodes, which never run on Spot instances.
    https://docs.aws.amazon.com/batch/latest/userguide/multi-node-parallel-jobs.html

    >>> properties(4, {"image": "lenet"}, 2)["nodeProperties"]["nodeRangeProperties"]
    [{'targetNodes': '0:', 'container': {'image': 'lenet'}}]
    """
    if nodes == 1:
        return {"type": "container", "containerProperties": container}
    refuse_spot(nodes, retry)
    ranges = [{"targetNodes": "0:", "container": container}]
    return {"type": "multinode", "nodeProperties": {"numNodes": nodes, "mainNode": 0, "nodeRangeProperties": ranges}}


def refuse_spot(nodes: int, retry: object) -> None:
    """Raise InvalidRequest for retry="spot" with several nodes."""
    if nodes > 1 and retry == "spot":
        raise InvalidRequest(
            f"retry='spot' with nodes={nodes}: AWS runs multi-node jobs on On-Demand instances only, which are not "
            "reclaimed. Give a number of attempts, or a retryStrategy."
        )


def pairs(environment: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Environment variables as AWS writes them. Raises InvalidRequest for a name that no variable can have.

    >>> pairs({"LANG": "C"})
    [{'name': 'LANG', 'value': 'C'}]
    """
    found = texts("environment", environment)
    for name in found:
        if not name or "=" in name:
            raise InvalidRequest(
                f"environment: {name!r} cannot name a variable: use one character or more, and no '='."
            )
    return [{"name": name, "value": value} for name, value in found.items()]


def content(request: Mapping[str, Any]) -> str:
    """What tells one request from another, whatever the order of its members: 16 hexadecimal digits. Raises
    InvalidRequest for a request that cannot be sent.

    >>> content({"a": 1, "b": 2}) == content({"b": 2, "a": 1}) != content({"a": 1})
    True
    """
    name = request.get("jobDefinitionName") or request.get("jobName")
    thing = f"'{name}'" if isinstance(name, str) else _shown(name)
    try:
        text = json.dumps([request], sort_keys=True, separators=(",", ":"), default=str)
        wrong = unwritable(request) if "\\u0000" in text or "\\ud" in text else ""
    except (TypeError, ValueError, RecursionError) as error:  # names that are no text, circles, a thousand levels
        raise InvalidRequest(f"{thing}: the request cannot be written as JSON: {error}.") from error
    if wrong:
        raise InvalidRequest(f"{thing}: {wrong}")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def registered(clients: Clients, request: dict[str, Any]) -> JobDefinition:
    """The ACTIVE revision that was registered from this very request, or a new one."""
    name, mark = request["jobDefinitionName"], content(request)
    with translated_errors(f"job definition '{name}'"), clients.submission_lock():
        for one in _active(clients, name):
            if one.get("tags", {}).get(CONTENT) == mark:
                return of(one)
        answer = clients.batch.register_job_definition(**request, tags={CONTENT: mark})
    return of({**request, "revision": answer["revision"], "jobDefinitionArn": answer["jobDefinitionArn"]})


def find(clients: Clients, reference: str) -> JobDefinition:
    """The definition behind a name (its newest ACTIVE revision), a name:revision or an ARN. Raises NotFound."""
    must_be("definition", reference, str, JobDefinition)
    with translated_errors(f"job definition '{reference}'"):
        is_arn = reference.startswith("arn:")
        name, _, revision = (reference.rpartition("/")[2] if is_arn else reference).partition(":")
        listed = _active(clients, name) if NAME.fullmatch(name) else ()  # the service refuses to look for other names
        known = [of(one) for one in listed if revision in ("", str(one["revision"]))]
        known = [one for one in known if not is_arn or reference in (one.arn, one.arn.rpartition(":")[0])]
        if known:
            return max(known, key=lambda one: one.revision)
        names = {one["jobDefinitionName"] for one in _active(clients)}
    raise NotFound(f"There is no active job definition '{reference}'. {did_you_mean(name, names)}")


def _active(clients: Clients, name: str | None = None) -> Any:
    chosen = {"jobDefinitionName": name} if name else {}
    pages = clients.batch.get_paginator("describe_job_definitions").paginate(status="ACTIVE", **chosen)
    return pages.search("jobDefinitions[]")


def of(described: Mapping[str, Any]) -> JobDefinition:
    """The noun behind a description by DescribeJobDefinitions; one of several containers speaks by its first."""
    container = next(iter(requirements.containers(described)), {})
    capacity = requirements.capacity(container) or requirements.Capacity()
    return JobDefinition(
        name=described["jobDefinitionName"],
        revision=described["revision"],
        arn=described["jobDefinitionArn"],
        image=container.get("image", ""),
        command=tuple(container.get("command", ())),
        vcpus=capacity.vcpus,
        memory_gib=capacity.memory_gib,
        gpus=capacity.gpus,
        described=described,
        nodes=described.get("nodeProperties", {}).get("numNodes", 1),
    )

"""What AWS's documents forbid and its published model does not: each limit once, by the path of its member.

https://docs.aws.amazon.com/batch/latest/userguide/service_limits.html and the pages of the operations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from unicodedata import category

Refuse = Callable[[str], Exception]  # makes the error that an operation raises

QUEUE_PRIORITIES = (0, 1000)
VCPUS = (0, 2**31 - 1)
PAGE = (1, 100)
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys((f"computeResources.{one}vCpus" for one in ("min", "max", "desired")), VCPUS),
    "unmanagedvCpus": VCPUS,
    "arrayProperties.size": (2, 10_000),
    "fairsharePolicy.computeReservation": (0, 99),  # percent
    "fairsharePolicy.shareDecaySeconds": (0, 604_800),
    "fairsharePolicy.shareDistribution.weightFactor": (0.0001, 999.9999),
    "nodeOverrides.numNodes": (1, 1000),
    "nodeProperties.numNodes": (1, 1000),
    "priority": QUEUE_PRIORITIES,
    "retryStrategy.attempts": (1, 10),
    "schedulingPriority": (0, 9999),
    "schedulingPriorityOverride": (0, 9999),
    "timeout.attemptDurationSeconds": (60, 2**31 - 1),
}
MOST = {
    **dict.fromkeys(("arns", "computeEnvironments", "jobDefinitions", "jobQueues", "jobs"), 100),
    "computeEnvironmentOrder": 3,
    "dependsOn": 20,
    "filters": 1,
    "nodeProperties.nodeRangeProperties": 5,
    "reason": 1024,  # characters
    "retryStrategy.evaluateOnExit": 5,
    "tags": 50,
}
SHARE = (re.compile(r"[A-Za-z0-9]{1,255}\*?"), "1 to 255 letters and digits, then * or nothing")
PATTERN = (re.compile(r"(?=.{0,512}\Z)[A-Za-z0-9.: \t_()/-]*\*?"), "at most 512 characters, with * at their end only")
NAME = (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"),
    "1 to 128 letters, digits, hyphens and underscores, and begin with a letter or digit",
)
TEXTS = {
    **dict.fromkeys(("jobName", "jobDefinitionName", "computeEnvironmentName", "jobQueueName", "name"), NAME),
    "fairsharePolicy.shareDistribution.shareIdentifier": SHARE,
    "nodeProperties.nodeRangeProperties.targetNodes": (re.compile("[0-9]{1,4}|[0-9]{0,4}:[0-9]{0,4}"), "such as 0:3"),
    "retryStrategy.evaluateOnExit.onExitCode": (re.compile(r"[0-9]{0,512}\*?"), "digits, then * or nothing"),
    "retryStrategy.evaluateOnExit.onReason": PATTERN,
    "retryStrategy.evaluateOnExit.onStatusReason": PATTERN,
    "shareIdentifier": SHARE,
}
BYTES = {"RegisterJobDefinition": 24 * 1024, "SubmitJob": 30 * 1024}
NOT_OFFERED = {
    "consumableResourceProperties", "consumableResourcePropertiesOverride", "ecsProperties", "ecsPropertiesOverride",
    "eksProperties", "eksPropertiesOverride", "jobStateTimeLimitActions", "quotaSharePolicy", "serviceEnvironmentOrder",
}  # fmt: skip
TAGGABLE = "_.:/=+-@"
NUMBER = re.compile(r"[0-9]{1,12}")


def check(operation: str, request: dict[str, Any], refuse: Refuse) -> None:
    """Refuse a request that breaks a limit, by the member at fault."""
    if operation in BYTES:
        at_most(refuse, "request, in bytes", len(json.dumps(request).encode()), BYTES[operation])
    for path, value in _members(request):
        member = re.sub(r"\[\d+\](?=\.)", "", path)
        if member in NOT_OFFERED and value:
            raise refuse(f"{member}: the embedded account does not offer this")
        if member in BOUNDS:
            within(refuse, member, value, BOUNDS[member])
        if member in MOST:
            at_most(refuse, member, len(value), MOST[member])
        if member in TEXTS and not TEXTS[member][0].fullmatch(value):
            raise refuse(f"{path}: '{value}' must be {TEXTS[member][1]}")
        if member == "tags":
            _tags(refuse, value)
        elif member == "retryStrategy" and value.get("evaluateOnExit") and "attempts" not in value:
            raise refuse("retryStrategy.attempts is missing, which evaluateOnExit needs")
        elif member == "fairsharePolicy.shareDistribution":
            _distinct(refuse, [one["shareIdentifier"] for one in value])
        elif re.search(r"\.(environment|secrets)\[\d+\]$", path):
            _variable(refuse, path, value.get("name", ""))


def _members(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All that a request holds, from the outside in, with its path."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        place = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
        yield place, one
        if isinstance(one, (dict, list, tuple)):
            yield from _members(one, place)


def within(refuse: Refuse, member: str, value: float | None, bounds: tuple[float, float]) -> None:
    if value is not None and not bounds[0] <= value <= bounds[1]:
        raise refuse(f"{member}: {value} is not in {bounds[0]} to {bounds[1]}")


def at_most(refuse: Refuse, member: str, count: int, most: int) -> None:
    if count > most:
        raise refuse(f"{member}: {count}, at most {most} are allowed")


def position(text: str) -> int | None:
    """The number in a page's token, or a moment in milliseconds; None if it is not a number."""
    return int(text) if re.fullmatch("[0-9]{1,20}", text) and int(text) < 1 << 62 else None


def page(refuse: Refuse, member: str, found: list[Any], request: dict[str, Any]) -> dict[str, Any]:
    """One page of a list; the token is the number of the first thing on the next."""
    first = position(request.get("nextToken") or "0")
    if first is None:
        raise refuse("nextToken: not a token of this account")
    within(refuse, "maxResults", request.get("maxResults"), PAGE)
    end = first + request.get("maxResults", PAGE[1])
    return {member: found[first:end]} | ({"nextToken": str(end)} if end < len(found) else {})


def _tags(refuse: Refuse, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        if key.casefold().startswith("aws:"):
            raise refuse(f"tags: '{key}' begins with aws:, which AWS reserves")
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise refuse(f"tags: '{key[:20]}...': keys have 1 to 128 characters and values 256 at most")
        if strange := [one for one in key + value if not (one.isalnum() or one in TAGGABLE or category(one) == "Zs")]:
            raise refuse(
                f"tags: '{key[:20]}' contains {strange[0]!a}: letters, digits, spaces and {TAGGABLE} are allowed"
            )


def _variable(refuse: Refuse, path: str, name: str) -> None:
    if not name or "=" in name:
        raise refuse(f"{path}.name: '{name}' must have at least one character and no '='")
    if name.startswith("AWS_BATCH"):
        raise refuse(f"{path}.name: '{name}' begins with AWS_BATCH, which AWS Batch reserves")


def _distinct(refuse: Refuse, shares: list[str]) -> None:
    for number, one in enumerate(shares):
        for other in shares[:number]:
            long, short = sorted((one, other), key=len, reverse=True)
            if long == short or (short.endswith("*") and long.startswith(short[:-1])):
                raise refuse(f"fairsharePolicy.shareDistribution: '{long}' and '{short}' overlap")


def resources(refuse: Refuse, requirements: dict[str, str]) -> tuple[float, int, int]:
    """vCPUs, MiB of memory and GPUs, checked."""
    for kind in ("VCPU", "MEMORY"):
        if kind not in requirements:
            raise refuse(f"resourceRequirements: {kind} is missing")
    vcpus, memory_mib, gpus = requirements["VCPU"], requirements["MEMORY"], requirements.get("GPU", "0")
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{0,12})?", vcpus) or not float(vcpus):
        raise refuse(f"resourceRequirements: VCPU '{vcpus[:40]}' must be a number above 0")
    if not NUMBER.fullmatch(memory_mib) or int(memory_mib) < 4:
        raise refuse(f"resourceRequirements: MEMORY '{memory_mib[:40]}' must be a whole number of MiB, at least 4")
    if not NUMBER.fullmatch(gpus):
        raise refuse(f"resourceRequirements: GPU '{gpus[:40]}' must be a whole number, 0 or more")
    return float(vcpus), int(memory_mib), int(gpus)

"""What AWS's documents forbid and its published model does not: each limit once, each refusal naming its field.

https://docs.aws.amazon.com/batch/latest/userguide/service_limits.html and the pages of the operations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from unicodedata import category

Refuse = Callable[[str], Exception]  # makes the error that an operation raises

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
PATTERN = re.compile(r"[A-Za-z0-9.: \t_()/-]*\*?")  # of evaluateOnExit: a star at the end alone
CODES = re.compile(r"[0-9]*\*?")
NODES = re.compile(r"[0-9]{1,4}|[0-9]{0,4}:[0-9]{0,4}")
NUMBER = re.compile(r"[0-9]{1,12}")
SHARE = re.compile(r"[A-Za-z0-9]{1,255}\*?")
DESCRIBED = 100  # ids in one DescribeJobs, names in every other description
PAGE = (1, 100)
REASON = 1024  # characters, of CancelJob and TerminateJob
NODE_RANGES = 5
ARRAY = (2, 10_000)
DEPENDENCIES = 20
ATTEMPTS = (1, 10)
RULES = 5  # of evaluateOnExit
TIMEOUTS_S = (60, 2**31 - 1)
PRIORITIES = (0, 9999)  # of jobs in a fair-share queue
QUEUE_PRIORITIES = (0, 1000)
TAGS = 50
TAGGABLE = "_.:/=+-@"
DECAY_S = (0, 604_800)
RESERVATION = (0, 99)  # percent
WEIGHTS = (0.0001, 999.9999)
REQUEST_BYTES = 30 * 1024
DEFINITION_BYTES = 24 * 1024
ENVIRONMENTS_A_QUEUE = 3
QUEUES = 50
VCPUS = (0, 2**31 - 1)  # of an environment
ENVIRONMENTS = 50


def name(refuse: Refuse, member: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise refuse(
            f"{member}: '{value}' must be 1 to 128 letters, digits, hyphens and underscores, a letter or digit first"
        )


def within(refuse: Refuse, member: str, value: float | None, bounds: tuple[float, float]) -> None:
    if value is not None and not bounds[0] <= value <= bounds[1]:
        raise refuse(f"{member}: {value} is not in {bounds[0]} to {bounds[1]}")


def at_most(refuse: Refuse, member: str, count: int, most: int) -> None:
    if count > most:
        raise refuse(f"{member}: {count}, at most {most} are allowed")


def payload(refuse: Refuse, request: dict[str, Any], most: int) -> None:
    at_most(refuse, "request, in bytes", len(json.dumps(request).encode()), most)


def tags(refuse: Refuse, given: dict[str, str]) -> None:
    at_most(refuse, "tags", len(given), TAGS)
    for key, value in given.items():
        if key.casefold().startswith("aws:"):
            raise refuse(f"tags: '{key}' begins with aws:, which is AWS's own")
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise refuse(f"tags: '{key[:20]}...': keys have 1 to 128 characters and values 256 at most")
        if strange := [one for one in key + value if not (one.isalnum() or one in TAGGABLE or category(one) == "Zs")]:
            raise refuse(
                f"tags: '{key[:20]}' contains {strange[0]!a}: letters, digits, spaces and {TAGGABLE} are allowed"
            )


def timeout(refuse: Refuse, given: dict[str, int] | None) -> None:
    within(refuse, "timeout.attemptDurationSeconds", (given or {}).get("attemptDurationSeconds"), TIMEOUTS_S)


def retries(refuse: Refuse, given: dict[str, Any] | None) -> None:
    given = given or {}
    within(refuse, "retryStrategy.attempts", given.get("attempts"), ATTEMPTS)
    rules = given.get("evaluateOnExit", [])
    at_most(refuse, "retryStrategy.evaluateOnExit", len(rules), RULES)
    if rules and "attempts" not in given:
        raise refuse("retryStrategy.attempts is missing, which evaluateOnExit needs")
    for rule in rules:
        for member, allowed in (("onReason", PATTERN), ("onStatusReason", PATTERN), ("onExitCode", CODES)):
            value = rule.get(member)
            if value is not None and (len(value) > 512 or not allowed.fullmatch(value)):
                raise refuse(f"retryStrategy.evaluateOnExit.{member}: '{value}' is not a pattern (* at its end alone)")


def position(text: str) -> int | None:
    """The number in a page's token, or a moment in milliseconds; None if it is not a number."""
    return int(text) if re.fullmatch("[0-9]{1,20}", text) and int(text) < 1 << 62 else None


def share(refuse: Refuse, given: str | None) -> None:
    if given is not None and not SHARE.fullmatch(given):
        raise refuse(f"shareIdentifier: '{given}' must be 1 to 255 letters and digits, then * or nothing")


def fair_shares(refuse: Refuse, given: dict[str, Any]) -> None:
    within(refuse, "fairsharePolicy.shareDecaySeconds", given.get("shareDecaySeconds"), DECAY_S)
    within(refuse, "fairsharePolicy.computeReservation", given.get("computeReservation"), RESERVATION)
    names: list[str] = []
    for one in given.get("shareDistribution", []):
        share(refuse, one["shareIdentifier"])
        within(refuse, "fairsharePolicy.shareDistribution.weightFactor", one.get("weightFactor"), WEIGHTS)
        for other in names:
            long, short = sorted((one["shareIdentifier"], other), key=len, reverse=True)
            if long == short or (short.endswith("*") and long.startswith(short[:-1])):
                raise refuse(f"fairsharePolicy.shareDistribution: '{long}' and '{short}' overlap")
        names.append(one["shareIdentifier"])


def environment(refuse: Refuse, pairs: list[dict[str, str]], member: str = "environment") -> None:
    for number, pair in enumerate(pairs):
        name = pair.get("name", "")
        if not name or "=" in name:
            raise refuse(f"{member}[{number}].name: '{name}' must have at least one character and no '='")
        if name.startswith("AWS_BATCH"):
            raise refuse(f"{member}: '{name}' begins with AWS_BATCH, which is the service's own")


def resources(refuse: Refuse, asked: dict[str, str]) -> tuple[float, int, int]:
    """vCPUs, MiB of memory and GPUs, checked."""
    for kind in ("VCPU", "MEMORY"):
        if kind not in asked:
            raise refuse(f"resourceRequirements: {kind} is missing")
    vcpus, memory_mib, gpus = asked["VCPU"], asked["MEMORY"], asked.get("GPU", "0")
    whole, _, part = vcpus.partition(".")
    if not (NUMBER.fullmatch(whole) and NUMBER.fullmatch(part or "0") and float(vcpus)):
        raise refuse(f"resourceRequirements: VCPU '{vcpus[:40]}' is not a number above 0")
    if not NUMBER.fullmatch(memory_mib) or int(memory_mib) < 4:
        raise refuse(f"resourceRequirements: MEMORY '{memory_mib[:40]}' is not a whole number of MiB, 4 at least")
    if not NUMBER.fullmatch(gpus):
        raise refuse(f"resourceRequirements: GPU '{gpus[:40]}' is not a whole number, 0 or more")
    return float(vcpus), int(memory_mib), int(gpus)

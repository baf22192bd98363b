"""What AWS's documents forbid and its published model does not: the limits of ``limits.toml`` and more."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

Refuse = Callable[[str], Exception]  # makes the error that an operation raises

PAGE = (1, 100)
TAGGABLE = "_.:/=+-@"
NUMBER = re.compile(r"[0-9]{1,12}")


@functools.cache
def table() -> dict[str, Any]:
    """The content of ``limits.toml``, with the patterns and their meanings by member."""
    found = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    texts: dict[str, tuple[re.Pattern[str], str]] = {}
    for one in found["texts"]:
        texts |= dict.fromkeys(one["members"], (re.compile(one["pattern"]), one["meaning"]))
    return found | {"texts": texts}


def check(operation: str, request: dict[str, Any], refuse: Refuse) -> None:
    """Refuse a request that breaks a limit, by the member at fault."""
    known = table()
    if operation in known["bytes"]:
        at_most(refuse, "request, in bytes", len(json.dumps(request).encode()), known["bytes"][operation])
    for path, value in _members(request):
        member = re.sub(r"\[\d+\](?=\.)", "", path)
        if member in known["not_offered"] and value:
            raise refuse(f"{member}: the embedded account does not offer this")
        within(refuse, member, value, known["bounds"].get(member))
        if member in known["most"]:
            at_most(refuse, member, len(value), known["most"][member])
        pattern, meaning = known["texts"].get(member, (None, ""))
        if pattern and not pattern.fullmatch(value):
            raise refuse(f"{path}: '{value}' must be {meaning}")
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


def within(refuse: Refuse, member: str, value: float | None, bounds: Sequence[float] | None) -> None:
    if value is not None and bounds and not bounds[0] <= value <= bounds[1]:
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
        strange = [one for one in key + value if not (one.isalnum() or one in TAGGABLE or category(one) == "Zs")]
        if strange or not 1 <= len(key) <= 128 or len(value) > 256 or key.casefold().startswith("aws:"):
            raise refuse(
                f"tags: '{key[:20]}': keys have 1 to 128 characters and do not begin with aws:, values have 256 at "
                f"most, of letters, digits, spaces and {TAGGABLE}"
            )


def _variable(refuse: Refuse, path: str, name: str) -> None:
    if not name or "=" in name or name.startswith("AWS_BATCH"):
        raise refuse(f"{path}.name: '{name}' must have a character, no '=', and not begin with AWS_BATCH")


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

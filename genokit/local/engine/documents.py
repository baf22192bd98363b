"""What the stored documents of jobs say; light enough for the supervisor, which loads no botocore."""

from __future__ import annotations

from typing import Any


def container(doc: dict[str, Any], idx: int | None) -> dict[str, Any]:
    """The container that a job, or node ``idx`` of a multi-node one, runs."""
    if "nodes" not in doc:
        return dict(doc["container"])
    count, number = doc["nodes"]["numNodes"], doc["nodes"]["mainNode"] if idx is None else idx
    return next(
        dict(one["container"])
        for one in reversed(doc["nodes"]["nodeRangeProperties"])  # the narrower range comes later and wins
        if number in targets(one["targetNodes"], count)
    )


def targets(nodes: str, count: int) -> range:
    """The node numbers that a range such as ``0:3``, ``:2`` or ``4:`` names.

    >>> targets("1:", 4), targets("2", 4)
    (range(1, 4), range(2, 3))
    """
    first, colon, last = nodes.partition(":")
    if not colon:
        return range(int(first), int(first) + 1)
    return range(int(first or 0), int(last) + 1 if last else count)


def requirements(container: dict[str, Any]) -> dict[str, str]:
    """What a container asks for, by type; the members that resourceRequirements replaced are still taken.

    >>> requirements({"vcpus": 1, "resourceRequirements": [{"type": "VCPU", "value": "2"}]})
    {'VCPU': '2'}
    """
    members = (("VCPU", "vcpus"), ("MEMORY", "memory"))
    old = {kind: str(container[member]) for kind, member in members if member in container}
    return old | {one["type"]: one["value"] for one in container.get("resourceRequirements", [])}

"""What the service's own words mean for people: known reasons of waiting and of failing, and what to do about each.

Pure functions over texts and over jobs as DescribeJobs returns them. AWS's texts are in ``known_reasons.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from genokit.batch.diagnose.findings import Finding
from genokit.batch.requirements import requested
from genokit.display import size


def meaning(table: str, text: str, evidence: str = "") -> Finding | None:
    """What the first pattern of a table of ``known_reasons.toml`` that is found in the text stands for.

    >>> meaning("invalid", "CLIENT_ERROR - Clusters can not be blank.", "statusReason").sure
    'certain'
    """
    for known in _known()[table]:
        if re.search(known["pattern"], text, re.IGNORECASE):
            return Finding(known["what"], evidence, known["do"], known.get("sure", "certain"))
    return None


@cache
def _known() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("known_reasons.toml").read_text(encoding="utf-8"))


def failure(detail: Mapping[str, Any]) -> Finding:
    """Why a job has FAILED, as far as its own description says.

    >>> size = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]
    >>> killed = {"exitCode": 137, "reason": "OutOfMemoryError: Container killed", "resourceRequirements": size}
    >>> failure({"container": killed}).do
    'Ask for more: memory_gib=4 for instance.'
    """
    container, job = detail.get("container", {}), requested(detail)
    status, reason, code = detail.get("statusReason", ""), container.get("reason", ""), container.get("exitCode")
    said = {
        "statusReason": status,
        "reason": reason if reason != status else "",
        "exit code": code,
        "isTerminated": detail.get("isTerminated") or None,
        "isCancelled": detail.get("isCancelled") or None,
    }
    evidence = ", ".join(f"{name} '{value}'" for name, value in said.items() if value not in ("", None))
    cause = meaning("blocked" if "JobStateTimeLimit" in status else "failed", evidence, evidence)
    if cause is None:
        return Finding(f"It failed before its program ran: {status or 'no reason given'}", evidence, sure="possible")
    array, mib = detail.get("arrayProperties", {}), job.largest.memory_mib if job else 0
    values = {
        "status": status,
        "code": code,
        "failed": array.get("statusSummary", {}).get("FAILED", "some"),
        "size": array.get("size"),
        "had": size(mib * 2**20),
        "more": f"{max(0.1, round(2 * mib / 1024, 1)):g}",
    }
    what, do = (Template(text).safe_substitute(values) for text in (cause.what, cause.do))
    return replace(cause, what=what, do=do)

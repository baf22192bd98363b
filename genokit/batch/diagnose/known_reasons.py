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
from typing import Any

from genokit.batch.diagnose.findings import Cause, Sure
from genokit.batch.requirements import requested
from genokit.display import size


def meaning(table: str, text: str, evidence: str) -> Cause | None:
    """The cause that the first pattern of a table of ``known_reasons.toml``, found in the text, stands for.

    >>> meaning("invalid", "CLIENT_ERROR - Clusters can not be blank.", "statusReason").sure
    'certain'
    """
    for known in _known()[table]:
        if re.search(known["pattern"], text, re.IGNORECASE):
            return Cause(known["what"], evidence, known["do"], known.get("sure", "certain"))
    return None


@cache
def _known() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("known_reasons.toml").read_text(encoding="utf-8"))


def failure(detail: Mapping[str, Any]) -> Cause:
    """Why a job has FAILED, as far as its own description says.

    >>> size = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]
    >>> killed = {"exitCode": 137, "reason": "OutOfMemoryError: Container killed", "resourceRequirements": size}
    >>> failure({"container": killed}).do
    'Ask for more: memory_gib=4 for instance.'
    """
    container = detail.get("container", {})
    status, reason, code = detail.get("statusReason", ""), container.get("reason", ""), container.get("exitCode")
    said = {
        "statusReason": status,
        "reason": reason if reason != status else "",
        "exit code": "" if code is None else str(code),
    }
    evidence = ", ".join(f"{name} '{text}'" for name, text in said.items() if text) or "no reason and no exit code"
    if "JobStateTimeLimit" in status:
        blocked = meaning("blocked", status, evidence)
        what = "The queue cancelled the job, which had waited longer than the queue allows."
        return replace(blocked, what=f"{what} {blocked.what}") if blocked else Cause(what, evidence, "", "certain")
    known = meaning("ends", status, evidence)
    if known:
        return known
    if detail.get("isTerminated") or detail.get("isCancelled"):
        how = "terminated" if detail.get("isTerminated") else "cancelled"
        return Cause(f"Somebody {how} the job: {status}", evidence, "", "certain")
    if "OutOfMemory" in f"{status} {reason}":
        return _out_of_memory(detail, evidence, "certain")
    known = meaning("starts", f"{status} {reason}", evidence)
    if known:
        return known
    if code == 137:
        return _out_of_memory(detail, evidence, "likely")
    exit_code = _known()["exits"].get(str(code))
    if exit_code:
        return Cause(exit_code["what"], evidence, exit_code["do"], exit_code.get("sure", "certain"))
    if code is not None:
        ended = f"The program itself ended with exit code {code}."
        return Cause(ended, evidence, "Read its last lines: job.log().", "certain")
    return Cause(f"It failed before its program ran: {status or 'no reason given'}", evidence, "", "possible")


def _out_of_memory(detail: Mapping[str, Any], evidence: str, sure: Sure) -> Cause:
    job = requested(detail)
    had = f" than the {size(job.largest.memory_mib * 2**20)} that it had" if job else ""
    more = f": memory_gib={max(0.1, round(2 * job.largest.memory_mib / 1024, 1)):g} for instance" if job else ""
    if sure == "certain":
        return Cause(f"The job took more memory{had}.", evidence, f"Ask for more{more}.", sure)
    what = f"The program was killed (SIGKILL), most often because it took more memory{had}."
    return Cause(what, evidence, f"If its memory is the suspect, ask for more{more}.", sure)

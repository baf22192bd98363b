"""Whether an attempt that failed is tried again. https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html"""

from __future__ import annotations

from typing import Any


def is_retried(strategy: dict[str, Any], attempts: list[dict[str, Any]]) -> bool:
    """Whether a job whose newest of these attempts has just failed gets another.

    The first rule of evaluateOnExit whose every condition matches decides; where none does, the job is retried.

    >>> rules = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    >>> spot = {"attempts": 3, "evaluateOnExit": rules}
    >>> lost = {"statusReason": "Host EC2 (instance i-1) terminated.", "container": {}}
    >>> failed = {"statusReason": "Essential container in task exited", "container": {"exitCode": 1}}
    >>> is_retried(spot, [lost]), is_retried(spot, [failed]), is_retried(spot, [lost, lost, lost])
    (True, False, False)
    """
    if len(attempts) >= strategy.get("attempts", 1):
        return False
    last = attempts[-1]
    said = {
        "onStatusReason": last["statusReason"],
        "onReason": last["container"].get("reason", ""),
        "onExitCode": str(last["container"].get("exitCode", "")),
    }
    for rule in strategy.get("evaluateOnExit", []):
        if all(_matches(rule[member], text) for member, text in said.items() if member in rule):
            return bool(rule["action"].casefold() == "retry")
    return True


def _matches(pattern: str, text: str) -> bool:
    """Whether a pattern of AWS's kind, with a star at its end or none, matches a text.

    >>> _matches("Host EC2*", "Host EC2 (instance i-1) terminated."), _matches("1", "137")
    (True, False)
    """
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern

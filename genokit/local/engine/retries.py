"""Whether an attempt that failed is tried again. https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html"""

from __future__ import annotations

from typing import Any


def is_retried(
    strategy: dict[str, Any], attempts: int, *, status_reason: str, reason: str, exit_code: int | None
) -> bool:
    """Whether a job whose attempt number ``attempts`` has just failed gets another.

    The first rule of evaluateOnExit whose every condition matches decides; where none does, the job is retried.

    >>> spot = {"attempts": 3, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"},
    ...                                           {"onReason": "*", "action": "EXIT"}]}
    >>> is_retried(spot, 1, status_reason="Host EC2 (instance i-1) terminated.", reason="", exit_code=None)
    True
    >>> is_retried(spot, 1, status_reason="Essential container in task exited", reason="", exit_code=1)
    False
    >>> is_retried(spot, 3, status_reason="Host EC2 (instance i-1) terminated.", reason="", exit_code=None)
    False
    """
    if attempts >= strategy.get("attempts", 1):
        return False
    said = {
        "onStatusReason": status_reason,
        "onReason": reason,
        "onExitCode": "" if exit_code is None else str(exit_code),
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

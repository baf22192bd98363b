"""The part of IAM that a workspace's policies use: do the caller's and the bucket's policies allow a request to S3?

An explicit Deny wins; else the caller's own policies must allow it. What is not known here raises, so that no condition
is passed over.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

Statement = Mapping[str, Any]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@functools.cache
def matches(pattern: str, value: str, *, fold: bool = False) -> bool:
    """Whether a value fits a pattern with * and ?."""
    regex = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    return re.fullmatch(regex, value, re.DOTALL | (re.IGNORECASE if fold else 0)) is not None


def put_in(text: str, context: Mapping[str, str]) -> str:
    """A pattern with its policy variables replaced; one that the request does not have fits nothing."""
    return re.sub(r"\$\{([^}]+)\}", lambda found: context.get(found[1], "\0"), text)


TESTS = {
    "StringEquals": lambda wanted, got: wanted == got,
    "StringNotEquals": lambda wanted, got: wanted != got,
    "StringLike": matches,
    "ArnLike": matches,
    "Bool": lambda wanted, got: wanted == got,
    "NumericGreaterThan": lambda wanted, got: float(got) > float(wanted),
    "DateLessThan": lambda wanted, got: got < wanted,
    "DateGreaterThanEquals": lambda wanted, got: got >= wanted,
}
NEGATED = {"StringNotEquals"}  # an absent key fulfils these, and all values must


def holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, keys in condition.items():
        for key, wanted in keys.items():
            values = [put_in(str(one), context) for one in listed(wanted)]
            if operator == "Null":
                good = (key not in context) == (values == ["true"])
            elif key not in context:
                good = operator in NEGATED
            else:
                tests = [TESTS[operator](one, context[key]) for one in values]
                good = all(tests) if operator in NEGATED else any(tests)
            if not good:
                return False
    return True


def applies(one: Statement, action: str, resource: str, context: Mapping[str, str]) -> bool:
    assert {*one} <= {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}, one
    assert one.get("Principal", "*") == "*", "a bucket's policy that refuses some only"
    return (  # what differs most often first
        any(matches(pattern, action, fold=True) for pattern in listed(one["Action"]))
        and any(matches(put_in(pattern, context), resource) for pattern in listed(one["Resource"]))
        and holds(one.get("Condition", {}), context)
    )


def allowed(
    own: Sequence[Statement], bucket: Sequence[Statement], action: str, resource: str, context: Mapping[str, str]
) -> bool:
    """Whether a caller with these policies may do this to an object of a bucket with this policy."""
    found = [one["Effect"] for one in (*own, *bucket) if applies(one, action, resource, context)]
    return "Allow" in found and "Deny" not in found

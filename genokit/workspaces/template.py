"""The stack of a workspace: the kit's template with a role for each member, generated from the log."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from genokit.errors import InvalidRequest
from genokit.workspaces import access
from genokit.workspaces.kinds import ANALYST, CUSTODIAN, MODELLER, VIEWER
from genokit.workspaces.log import LogEntry

MOST_BYTES = 51_200  # of a template that CloudFormation takes with the request
POLICIES = {
    CUSTODIAN: ("ViewerPolicy", "AuthorPolicy", "AnalystPolicy", "CustodianPolicy"),
    ANALYST: ("ViewerPolicy", "AuthorPolicy", "AnalystPolicy"),
    MODELLER: ("ViewerPolicy", "AuthorPolicy", "NoDataPolicy"),
    VIEWER: ("ViewerPolicy", "NoDataPolicy"),
}
Statement = dict[str, Any]


def filled(template: str, entries: Sequence[LogEntry], time: str) -> str:
    """The template with the roles of the members whose membership holds. Raises InvalidRequest.

    JSON is YAML, so that each role is one line.
    """
    roles, outputs = [], []
    for one in access.members(entries).values():
        if one.holds(time):
            name = f"Member{hashlib.sha256(one.member.encode()).hexdigest()[:12]}"
            roles.append(f"  {name}: {json.dumps(role(one, statements(entries, one, time)))}\n")
            about = {"Description": f"The role of {one.member}", "Value": {"Fn::GetAtt": [name, "Arn"]}}
            outputs.append(f"  {name}: {json.dumps(about)}\n")
    text = template.replace("\nOutputs:\n", "".join(roles) + "\nOutputs:\n") + "".join(outputs)
    if len(text.encode()) > MOST_BYTES:
        raise InvalidRequest(
            f"The template of {len(roles)} members has {len(text.encode()):,} bytes, and CloudFormation takes at most "
            f"{MOST_BYTES:,}. Revoke memberships that are not used any more."
        )
    return text


def role(one: access.Membership, allowed: Sequence[Statement]) -> Mapping[str, Any]:
    """The role in which a member acts, under its own name alone and until the membership expires."""
    user = {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:user/{one.member}"}
    trust = {"Effect": "Allow", "Principal": {"AWS": one.principal or user}, "Action": "sts:AssumeRole",
             "Condition": {"StringEquals": {"sts:RoleSessionName": one.member}}}  # fmt: skip
    properties: dict[str, Any] = {
        "Description": f"{one.member}, {one.role}",
        "AssumeRolePolicyDocument": _document([trust]),
        "MaxSessionDuration": 3600,
        "ManagedPolicyArns": [{"Ref": name} for name in POLICIES[one.role]],
        "Tags": [{"Key": "member", "Value": one.member}],
    }
    if allowed:
        properties["Policies"] = [{"PolicyName": "own", "PolicyDocument": _document(allowed)}]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def statements(entries: Sequence[LogEntry], one: access.Membership, time: str) -> list[Statement]:
    """What a member may beyond its role: data sets whose terms it has accepted; and nothing once it has expired."""
    found: list[Statement] = []
    if one.role == ANALYST:
        by_end = defaultdict[str, list[Any]](list)
        for ref, entry in access.published(entries).items():
            if access.reading(entries, one.member, ref, time)[0]:
                until = str(access.accepted_until(entries, one.member, ref))
                by_end[until].append({"Fn::Sub": f"${{Bucket.Arn}}/{entry['folder']}/*"})
        found = [
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resources,
             "Condition": {"DateLessThan": {"aws:CurrentTime": _seconds(until)}}}
            for until, resources in by_end.items()
        ]  # fmt: skip
    if one.expires:
        end = {"DateGreaterThanEquals": {"aws:CurrentTime": _seconds(one.expires)}}
        found.append({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": end})
    return found


def _document(statements: Sequence[Statement]) -> Mapping[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _seconds(time: str) -> str:
    """A time as IAM compares it: without parts of a second, so never later."""
    return f"{time[:19]}Z"

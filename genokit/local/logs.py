"""The embedded CloudWatch Logs: the output of jobs, in one group with a stream for each attempt.

The log groups of stacks are further names of that one.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genokit.local import client
from genokit.local.batch import limits
from genokit.local.client import Caller, Operation
from genokit.local.engine import log_file

GROUP = "/aws/batch/job"
PAGE = 10_000  # events
BAD_TOKEN = "The specified nextToken is invalid."


def get_log_events(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Events of one stream; the end is reached when the forward token comes back as it was sent."""
    _group(caller, request)
    file = _file(caller, request["logStreamName"])
    direction, offset = _position(caller, request)
    with file.open("rb") as opened:
        end = log_file.size(opened)
        if offset is not None and not log_file.starts_event(opened, offset):
            raise _invalid(caller, BAD_TOKEN)
        if direction == "f":
            before = min(offset or 0, end)
            events, after = log_file.forward(opened, before, _limit(caller, request))
        else:
            after = end if offset is None else min(offset, end)
            events, before = log_file.backward(opened, after, _limit(caller, request))
    return {
        "events": [
            {"timestamp": stamp, "message": message, "ingestionTime": stamp}
            for stamp, message in events
            if _in_time(request, stamp)
        ],
        "nextForwardToken": f"f/{after:020d}",
        "nextBackwardToken": f"b/{before:020d}",
    }


def filter_log_events(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Events of many streams that contain all words and quoted phrases of a pattern, stream after stream."""
    _group(caller, request)
    pattern = request.get("filterPattern", "")
    if re.search(r"(^|\s)[{\[%?-]", pattern) or pattern.count('"') % 2:
        raise _invalid(caller, f"filterPattern: '{pattern}': the embedded account takes words and \"quoted phrases\"")
    words = [phrase or word for phrase, word in re.findall(r'"([^"]*)"|(\S+)', pattern)]
    limit = _limit(caller, request)
    names = request.get("logStreamNames") or _names(caller, request.get("logStreamNamePrefix", ""))
    number, _, digits = request.get("nextToken", "0/0").partition("/")
    index, offset = limits.position(number), limits.position(digits)
    if index is None or offset is None:
        raise _invalid(caller, BAD_TOKEN)
    found: list[dict[str, Any]] = []
    while index < len(names) and len(found) < limit:
        with _file(caller, names[index]).open("rb") as opened:
            events, after = log_file.forward(opened, offset, limit - len(found))
        found += [
            {
                "logStreamName": names[index],
                "timestamp": stamp,
                "message": message,
                "ingestionTime": stamp,
                "eventId": f"{index:08d}{offset:020d}{place:08d}",
            }
            for place, (stamp, message) in enumerate(events)
            if _in_time(request, stamp) and all(word in message for word in words)
        ]
        index, offset = (index, after) if events else (index + 1, 0)
    return {"events": found, "searchedLogStreams": []} | (
        {"nextToken": f"{index}/{offset}"} if index < len(names) else {}
    )


def describe_log_streams(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The streams of the group, by name or by their last event."""
    _group(caller, request)
    names = _names(caller, request.get("logStreamNamePrefix", ""))
    if request.get("orderBy") == "LastEventTime":
        names.sort(key=lambda name: (_file(caller, name).stat().st_mtime, name))
    if request.get("descending"):
        names.reverse()
    first = limits.position(request.get("nextToken", "0"))
    if first is None:
        raise _invalid(caller, BAD_TOKEN)
    end = first + _limit(caller, {"limit": 50, **request})
    found = [_stream(caller, name) for name in names[first:end]]
    return {"logStreams": found} | ({"nextToken": str(end)} if end < len(names) else {})


def describe_log_groups(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The group that jobs write to, and those of stacks."""
    names = [name for name in _groups(caller) if name.startswith(request.get("logGroupNamePrefix", ""))]
    arns = {name: f"arn:aws:logs:local:000000000000:log-group:{name}" for name in names}
    return {"logGroups": [{"logGroupName": name, "arn": f"{arn}:*", "logGroupArn": arn} for name, arn in arns.items()]}


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (get_log_events, filter_log_events, describe_log_streams, describe_log_groups)
}


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The service of the account in ``home``."""
    return client.offer(OPERATIONS, home, job_environment)


def _stream(caller: Caller, name: str) -> dict[str, Any]:
    arn = f"arn:aws:logs:local:000000000000:log-group:{GROUP}:log-stream:{name}"
    return {"logStreamName": name, "arn": arn, "storedBytes": _file(caller, name).stat().st_size}


def _names(caller: Caller, prefix: str) -> list[str]:
    logs = caller.home / "logs"
    found = (os.path.join(folder, file) for folder, _, files in os.walk(logs) for file in files)
    names = (os.path.relpath(file, logs).removesuffix(".log") for file in found)
    return sorted(name for name in names if name.startswith(prefix))


def _in_time(request: dict[str, Any], stamp: int) -> bool:
    return bool(request.get("startTime", 0) <= stamp < request.get("endTime", float("inf")))


def _limit(caller: Caller, request: dict[str, Any]) -> int:
    limit: int = request.get("limit", PAGE)
    if not 1 <= limit <= PAGE:
        raise _invalid(caller, f"limit: {limit} is not in 1 to {PAGE}")
    return limit


def _position(caller: Caller, request: dict[str, Any]) -> tuple[str, int | None]:
    token = request.get("nextToken")
    if token is None:
        return ("f", 0) if request.get("startFromHead") else ("b", None)
    direction, _, digits = token.partition("/")
    if direction not in ("f", "b") or limits.position(digits) is None:
        raise _invalid(caller, BAD_TOKEN)
    return direction, int(digits)


def _invalid(caller: Caller, message: str) -> Exception:
    return caller.refuse(message, "InvalidParameterException")


def _group(caller: Caller, request: dict[str, Any]) -> None:
    name = request.get("logGroupName") or request.get("logGroupIdentifier", "")
    given = name.removesuffix(":*").rpartition("log-group:")[2]
    if given != GROUP and given not in _groups(caller):
        message = f"The specified log group does not exist. The embedded account has {', '.join(_groups(caller))}."
        raise caller.refuse(message, "ResourceNotFoundException")


def _groups(caller: Caller) -> list[str]:
    return [GROUP, *caller.stack_resources("AWS::Logs::LogGroup")]


def _file(caller: Caller, name: str) -> Path:
    file = log_file.path(caller.home, name)
    if file is None or not os.path.isfile(file):  # a name too long for the system is none either
        raise caller.refuse("The specified log stream does not exist.", "ResourceNotFoundException")
    return file

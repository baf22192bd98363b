"""The embedded SQS: the queues of stacks receive the state changes of jobs, as by an EventBridge rule on AWS.

Every queue delivers the state changes of all jobs for as long as its MessageRetentionPeriod says, and only the newest
hundred. What a client hides or deletes, it hides from itself alone. Nothing can be sent.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from genokit.local import client, store
from genokit.local.account import Account
from genokit.local.batch import limits
from genokit.local.client import Caller, Operation

DEFAULTS = {"MessageRetentionPeriod": 345_600, "VisibilityTimeout": 30, "ReceiveMessageWaitTimeSeconds": 0}
NEWEST = 100  # events that a queue delivers
POLL_S = 0.2
TYPE = "AWS::SQS::Queue"

Hidden = dict[tuple[str, int], float]  # queue and event -> until when a client does not see it


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The service, as one client sees it."""
    hidden: Hidden = {}
    operations: dict[str, Operation] = {
        "get_queue_url": get_queue_url,
        "list_queues": list_queues,
        "receive_message": functools.partial(receive_message, hidden),
        "delete_message": functools.partial(delete_message, hidden),
    }
    return client.offer(operations, home, job_environment)


def get_queue_url(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The URL of a queue by its name."""
    found = [url for url in caller.stack_resources(TYPE) if url.endswith(f"/{request['QueueName']}")]
    if not found:
        raise _no_such_queue(caller)
    return {"QueueUrl": found[0]}


def list_queues(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The URLs of all queues, or of those whose names begin with a prefix, on one page."""
    prefix = request.get("QueueNamePrefix", "")
    return {"QueueUrls": [url for url in caller.stack_resources(TYPE) if f"/{prefix}" in url]}


def receive_message(hidden: Hidden, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The newest messages that are not hidden; waits up to WaitTimeSeconds for the first of them."""
    url, queue = request["QueueUrl"], _queue(caller, request["QueueUrl"])
    wait_s = request.get("WaitTimeSeconds", int(queue["ReceiveMessageWaitTimeSeconds"]))
    most, hide_s = request.get("MaxNumberOfMessages", 1), request.get("VisibilityTimeout", queue["VisibilityTimeout"])

    def refuse(message: str) -> Exception:
        return caller.refuse(message, "InvalidParameterValue")

    limits.within(refuse, "WaitTimeSeconds", wait_s, (0, 20))
    limits.within(refuse, "MaxNumberOfMessages", most, (1, 10))
    deadline, newest, events = time.monotonic() + wait_s, -1, []
    with store.connect(caller.home) as db:  # one connection for the whole wait: a poll costs microseconds
        while True:
            latest = db.execute("select coalesce(max(seq), 0) from events").fetchone()[0]
            if latest != newest:
                newest, events = latest, _events(caller, queue, latest)
            now = time.monotonic()
            found = [event for event in events if hidden.get((url, event["cursor"]), 0) <= now][:most]
            if found or now >= deadline:
                break
            time.sleep(min(POLL_S, deadline - now))
    hidden |= {(url, event["cursor"]): now + float(hide_s) for event in found}
    return {"Messages": [_message(event) for event in found]} if found else {}


def delete_message(hidden: Hidden, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Never give this client the message again."""
    _queue(caller, request["QueueUrl"])
    if limits.position(request["ReceiptHandle"]) is None:
        raise caller.refuse("ReceiptHandle: not one of this account", "ReceiptHandleIsInvalid")
    hidden[request["QueueUrl"], int(request["ReceiptHandle"])] = float("inf")
    return {}


def _queue(caller: Caller, url: str) -> dict[str, Any]:
    """A queue's properties."""
    queues = caller.stack_resources(TYPE)
    if url not in queues:
        raise _no_such_queue(caller)
    return {**DEFAULTS, **queues[url]}


def _no_such_queue(caller: Caller) -> Exception:
    message = "The specified queue does not exist. The embedded account has those of its stacks."
    return caller.refuse(message, "AWS.SimpleQueueService.NonExistentQueue")


def _events(caller: Caller, queue: dict[str, Any], latest: int) -> list[dict[str, Any]]:
    """What the queue holds, the newest first."""
    since = time.time() - float(queue["MessageRetentionPeriod"])
    events = Account(caller.home).events(after=latest - NEWEST, most=NEWEST)
    return [event for event in reversed(events) if datetime.fromisoformat(event["time"]).timestamp() >= since]


def _message(event: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({name: value for name, value in event.items() if name != "cursor"})
    md5 = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": event["id"], "ReceiptHandle": str(event["cursor"]), "MD5OfBody": md5, "Body": body}

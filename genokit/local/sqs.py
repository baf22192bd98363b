"""The embedded SQS: queues that hear what happens to the account's jobs, as by an EventBridge rule on AWS.

Every queue is a broadcast of the state changes of jobs, kept as long as its MessageRetentionPeriod says; of more than a
hundred the newest count. What a client hides or deletes, it hides from itself alone. Nothing can be sent.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from genokit.config import private_home
from genokit.files import private_folder, write_atomic
from genokit.local import client, store
from genokit.local.account import Account
from genokit.local.batch import limits
from genokit.local.client import ACCOUNT, LOCAL, Caller, Operation

NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
URL = f"https://sqs.{LOCAL}.amazonaws.com/{ACCOUNT}/"
ARN = f"arn:aws:sqs:{LOCAL}:{ACCOUNT}:"
DEFAULTS = {"MessageRetentionPeriod": "345600", "VisibilityTimeout": "30", "ReceiveMessageWaitTimeSeconds": "0"}
HEARD = 100  # events
LOOK_S = 0.2
TYPE = "AWS::SQS::Queue"
MISSING = "AWS.SimpleQueueService.NonExistentQueue"


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The service, as one client sees it."""
    reader = _Reader()
    operations: tuple[Operation, ...] = (
        create_queue,
        get_queue_url,
        get_queue_attributes,
        list_queues,
        delete_queue,
        reader.receive_message,
        reader.delete_message,
    )
    return client.offer({one.__name__: one for one in operations}, home, job_environment)


def create_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A new queue, or the one of this name if it was made with the same attributes."""
    name, attributes = request["QueueName"], request.get("Attributes", {})
    if not NAME.fullmatch(name):
        message = f"QueueName: '{name}' is not 1 to 80 of A-Z, a-z, 0-9, '-' and '_'; the account has no FIFO queues."
        raise caller.refuse(message, "InvalidParameterValue")
    file = _folder(caller) / f"{name}.json"
    if file.is_file():
        if json.loads(file.read_bytes())["given"] != attributes:
            raise caller.refuse(f"There is a queue '{name}' with other attributes.", "QueueAlreadyExists")
    else:
        write_atomic(file, json.dumps({"given": attributes, "created": time.time()}), private=True)
    return {"QueueUrl": URL + name}


def get_queue_url(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The address of a queue by its name."""
    _queue(caller, URL + request["QueueName"])
    return {"QueueUrl": URL + request["QueueName"]}


def get_queue_attributes(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Its attributes: those asked for, or All."""
    queue, wanted = _queue(caller, request["QueueUrl"]), request.get("AttributeNames", [])
    found = {
        **DEFAULTS,
        **queue["given"],
        "QueueArn": ARN + request["QueueUrl"].removeprefix(URL),
        "CreatedTimestamp": str(int(queue["created"])),
        "ApproximateNumberOfMessages": str(len(_heard(caller, queue, _newest(caller)))),
    }
    found = {name: value for name, value in found.items() if name in wanted or "All" in wanted}
    return {"Attributes": found} if found else {}


def list_queues(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The addresses of all queues, or of those whose names begin with a prefix, on one page."""
    urls = [*caller.stack_resources(TYPE), *(URL + file.stem for file in _folder(caller).glob("*.json"))]
    found = sorted(url for url in urls if url.startswith(URL + request.get("QueueNamePrefix", "")))
    return {"QueueUrls": found} if found else {}


def delete_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Forget a queue; one of a stack goes with its stack."""
    _queue(caller, request["QueueUrl"])
    (_folder(caller) / f"{request['QueueUrl'].removeprefix(URL)}.json").unlink(missing_ok=True)
    return {}


class _Reader:
    """One client's reading: which messages it has hidden, until when."""

    def __init__(self) -> None:
        self._hidden: dict[tuple[str, int], float] = {}

    def receive_message(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """The newest messages that are not hidden; waits up to WaitTimeSeconds for the first of them."""
        url, queue = request["QueueUrl"], _queue(caller, request["QueueUrl"])
        given = {**DEFAULTS, **queue["given"]}
        wait_s = request.get("WaitTimeSeconds", int(given["ReceiveMessageWaitTimeSeconds"]))
        most, hide_s = (
            request.get("MaxNumberOfMessages", 1),
            request.get("VisibilityTimeout", int(given["VisibilityTimeout"])),
        )
        for name, value, bounds in (("WaitTimeSeconds", wait_s, (0, 20)), ("MaxNumberOfMessages", most, (1, 10))):
            if not bounds[0] <= value <= bounds[1]:
                message = f"{name}: {value} is not in {bounds[0]} to {bounds[1]}."
                raise caller.refuse(message, "InvalidParameterValue")
        deadline, seen, events = time.monotonic() + wait_s, -1, []
        with store.connect(caller.home) as db:  # one connection for the whole wait: a look costs microseconds
            while True:
                newest = _newest(caller, db)
                if newest != seen:
                    seen, events = newest, _heard(caller, queue, newest)
                now = time.monotonic()
                found = [event for event in events if self._hidden.get((url, event["cursor"]), 0) <= now][:most]
                if found or now >= deadline:
                    break
                time.sleep(min(LOOK_S, deadline - now))
        self._hidden = {place: until for place, until in self._hidden.items() if place[1] > seen - HEARD}
        self._hidden |= {(url, event["cursor"]): now + hide_s for event in found}
        return {"Messages": [_message(event) for event in found]} if found else {}

    def delete_message(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Never give this client the message again."""
        _queue(caller, request["QueueUrl"])
        if limits.position(request["ReceiptHandle"]) is None:
            raise caller.refuse("ReceiptHandle: not one of this account", "ReceiptHandleIsInvalid")
        self._hidden[request["QueueUrl"], int(request["ReceiptHandle"])] = float("inf")
        return {}


def _message(event: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({name: value for name, value in event.items() if name != "cursor"})
    md5 = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": event["id"], "ReceiptHandle": str(event["cursor"]), "MD5OfBody": md5, "Body": body}


def _heard(caller: Caller, queue: dict[str, Any], newest: int) -> list[dict[str, Any]]:
    """What the queue holds, the newest first."""
    kept_s = float(queue["given"].get("MessageRetentionPeriod", DEFAULTS["MessageRetentionPeriod"]))
    since = max(queue["created"], time.time() - kept_s)
    events = Account(caller.home).events(after=newest - HEARD, most=HEARD)
    return [event for event in reversed(events) if datetime.fromisoformat(event["time"]).timestamp() >= since]


def _newest(caller: Caller, db: Any = None) -> int:
    """The cursor of the account's last event."""
    if db is None:
        with store.connect(caller.home) as db:
            return _newest(caller, db)
    newest: int = db.execute("select coalesce(max(seq), 0) from events").fetchone()[0]
    return newest


def _folder(caller: Caller) -> Path:
    return private_folder(private_home(caller.home) / "sqs")


def _queue(caller: Caller, url: str) -> dict[str, Any]:
    """What a queue was made with, by a client or by a stack."""
    name = url.removeprefix(URL)
    file = _folder(caller) / f"{name}.json"
    of_stacks = caller.stack_resources(TYPE)
    if url in of_stacks:
        given = {name: str(value) for name, value in of_stacks[url].items() if isinstance(value, str | int)}
        queue: dict[str, Any] = {"given": given, "created": 0.0}
    elif url.startswith(URL) and NAME.fullmatch(name) and file.is_file():
        queue = json.loads(file.read_bytes())
    else:
        raise caller.refuse("The specified queue does not exist.", MISSING)
    return queue

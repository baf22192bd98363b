"""A stack's events: read as they come, shown as a progress bar, and searched for the first failure."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.display import plain

STACK = "AWS::CloudFormation::Stack"
Event = dict[str, Any]


def say(words: str) -> None:
    """Print a line at once."""
    out = sys.stdout
    print(plain(words), file=out, flush=True)


def pages(clients: Clients, service: str, operation: str, what: str, **request: object) -> Iterator[Any]:
    """The pages of a list, by boto3's paginator; ``what`` names it in errors."""
    with translated_errors(what):
        yield from clients.client(service).get_paginator(operation).paginate(**request)


def read(clients: Clients, stack: str, known: set[str]) -> list[Event]:
    """The events that are not in ``known`` yet, oldest first; the newest pages are read, and no more."""
    found: list[Event] = []
    for page in pages(
        clients, "cloudformation", "describe_stack_events", f"events of stack '{stack}'", StackName=stack
    ):
        new = [event for event in page["StackEvents"] if event["EventId"] not in known]
        found += new
        if len(new) < len(page["StackEvents"]):
            break
    return found[::-1]


def follow(
    clients: Clients, stack: str, known: set[str], total: int | None = None, *, removing: bool = False
) -> tuple[str, list[Event]]:
    """Show a stack's events until CloudFormation has finished: returns the final status, and the events.

    ``known`` holds the ids of earlier events. An interrupt stops the display; CloudFormation continues.
    """
    from genokit.bars import Bar

    name = stack.rpartition(":stack/")[2].partition("/")[0] or stack
    done: set[str] = set()
    events: list[Event] = []
    pause_s = clients.backend.poll_s / 8
    with Bar(total=total, desc=name, unit="resource", leave=False) as bar:
        while True:
            new = read(clients, stack, known)
            if removing and not new and _gone(clients, stack):
                return "DELETE_COMPLETE", events
            for event in new:
                known.add(event["EventId"])
                events.append(event)
                status, logical = event.get("ResourceStatus", ""), event.get("LogicalResourceId", "")
                if event.get("ResourceType") == STACK and logical == name:
                    bar.set_description(f"{name} {status}")
                    if not status.endswith("_IN_PROGRESS"):
                        return status, events
                elif status.endswith("_FAILED") and not _cancelled(event):
                    bar.write(f"{logical}: {status}: {event.get('ResourceStatusReason', '')}", file=sys.stdout)
                elif status.endswith(("_COMPLETE", "_SKIPPED")) and logical not in done:
                    done.add(logical)
                    bar.set_postfix_str(logical, refresh=False)
                    bar.update()
            time.sleep(pause_s)
            pause_s = min(clients.backend.poll_s, pause_s * 1.3)


def first_failure(events: list[Event]) -> Event | None:
    """The failure that caused the others: the first one, of a resource if there is one."""
    failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
    own = [event for event in failed if event.get("ResourceType") != STACK and not _cancelled(event)]
    return next(iter(own or failed), None)


def _gone(clients: Clients, stack: str) -> bool:
    """Whether a stack has been deleted; one that was never created is deleted without an event."""
    with translated_errors(f"stack '{stack}'"):
        found = clients.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return bool(found[0]["StackStatus"] == "DELETE_COMPLETE")


def _cancelled(event: Event) -> bool:
    """Whether a resource failed because another had: CloudFormation then cancels the rest."""
    return "cancelled" in event.get("ResourceStatusReason", "").lower()

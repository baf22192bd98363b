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
    """The events that are not in ``known`` yet, oldest first."""
    what = f"events of stack '{stack}'"
    every = pages(clients, "cloudformation", "describe_stack_events", what, StackName=stack)
    return [one for page in every for one in page["StackEvents"] if one["EventId"] not in known][::-1]


def follow(clients: Clients, stack: str, known: set[str], total: int) -> tuple[str, list[Event]]:
    """Show a stack's events until CloudFormation has finished: returns the final status, and the events.

    ``known`` holds the ids of earlier events. An interrupt stops the display; CloudFormation continues.
    """
    from genokit.bars import Bar

    name = stack.rpartition(":stack/")[2].partition("/")[0]
    done: set[str] = set()
    events: list[Event] = []
    pause_s, status = clients.backend.poll_s / 8, ""
    with Bar(total=total, desc=name, unit="resource", leave=False) as bar:
        while True:
            for event in read(clients, stack, known):
                known.add(event["EventId"])
                events.append(event)
                _show(event, bar, done)
            if status:
                return status, events
            with translated_errors(f"stack '{name}'"):
                found = clients.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
            bar.set_description(f"{name} {found}")
            # Without an event yet, it is still the status from before; a stack that was never created ends without.
            if not found.endswith("_IN_PROGRESS") and (events or found == "DELETE_COMPLETE"):
                status = found  # once more: the events that came with it
                continue
            time.sleep(pause_s)
            pause_s = min(clients.backend.poll_s, pause_s * 1.3)


def _show(event: Event, bar: Any, done: set[str]) -> None:
    status, resource = event.get("ResourceStatus", ""), event.get("LogicalResourceId", "")
    if event.get("ResourceType") == STACK:
        return
    if status.endswith("_FAILED") and not _cancelled(event):
        bar.write(f"{resource}: {status}: {event.get('ResourceStatusReason', '')}", file=sys.stdout)
    elif status.endswith("_COMPLETE") and resource not in done:
        done.add(resource)
        bar.update()


def first_failure(events: list[Event]) -> Event | None:
    """The failure that caused the others: the first one, of a resource if there is one."""
    failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
    own = [event for event in failed if event.get("ResourceType") != STACK and not _cancelled(event)]
    return next(iter(own or failed), None)


def _cancelled(event: Event) -> bool:
    """Whether a resource failed because another had: CloudFormation then cancels the rest."""
    return "cancelled" in event.get("ResourceStatusReason", "").lower()

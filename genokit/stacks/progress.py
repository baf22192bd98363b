"""A stack's events: read as they come, shown as a progress bar, and searched for the first failure."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
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
    events: list[Event] = []
    status = ""
    with Bar(total=total, desc=name, unit="resource", leave=False) as bar:
        while True:
            new = read(clients, stack, known)
            events += new
            known.update(one["EventId"] for one in new)
            done = [one for one in new if one.get("ResourceStatus", "").endswith("_COMPLETE")]
            bar.update(sum(one.get("ResourceType") != STACK for one in done))
            if status:
                return status, events
            with translated_errors(f"stack '{name}'"):
                found = clients.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
            bar.set_description(f"{name} {found}")
            # Without an event yet, it is still the status from before; a stack that was never created ends without.
            if not found.endswith("_IN_PROGRESS") and (events or found == "DELETE_COMPLETE"):
                status = found  # once more: the events that came with it
                continue
            time.sleep(clients.backend.poll_s / 2)


def follow_lines(title: str, lines: Iterable[str]) -> list[str]:
    """Show the lines of a log as they come, each in place of the one before; returns the last twenty."""
    from genokit.bars import Bar

    last = deque[str](maxlen=20)
    with Bar(desc=title, unit=" lines", leave=False) as bar:
        for line in filter(None, (plain(line).strip() for line in lines)):
            last.append(line)
            bar.set_postfix_str(line[:70], refresh=False)
            bar.update()
    return list(last)


def first_failure(events: list[Event]) -> Event | None:
    """The failure that caused the others: the first one, of a resource if there is one.

    CloudFormation cancels the other resources.
    """
    failed = [event for event in events if event.get("ResourceStatus", "").endswith("_FAILED")]
    own = [one for one in failed if one.get("ResourceType") != STACK]
    causes = [one for one in own if "cancelled" not in one.get("ResourceStatusReason", "").lower()]
    return next(iter(causes or failed), None)

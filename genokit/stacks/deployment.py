"""One stack as CloudFormation has it: found, waited for, changed by change sets, and removed."""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.errors import ConfirmationNeeded, GenokitError, InvalidRequest, NotFound, StackFailed
from genokit.stacks import progress, removal
from genokit.stacks.changes import Changes, from_change_set
from genokit.stacks.progress import say

NOT_CREATED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")  # such a stack can only be deleted


@dataclass
class _ChangeSet:
    request: dict[str, str]  # by which CloudFormation knows it
    changes: Changes
    executed: bool = False


@dataclass(frozen=True)
class Deployment:
    """The stack of this name in the clients' account."""

    clients: Clients
    name: str

    @property
    def _cloudformation(self) -> Any:
        return self.clients.client("cloudformation")

    def found(self) -> dict[str, Any] | None:
        """The stack as CloudFormation describes it; None where there is none."""
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", self.name):
            raise InvalidRequest(
                f"'{self.name}' cannot be a stack's name: use at most 128 letters, digits and hyphens, a letter first."
            )
        try:
            with translated_errors(f"stack '{self.name}'"):
                stacks = self._cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        except InvalidRequest as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(stacks[0])

    def deployed(self) -> dict[str, Any]:
        found = self.found()
        if found is None:
            raise NotFound(f"There is no stack '{self.name}' ({self.clients.place}). deploy() creates it.")
        return found

    def check_comparable(self, found: dict[str, Any] | None) -> None:
        """Raise StackFailed if the stack could not be created, so that there is nothing to change."""
        if found and found["StackStatus"] in NOT_CREATED:
            raise StackFailed(
                f"Stack '{self.name}' is {found['StackStatus']}: it could not be created, so there is nothing to "
                "compare with or to update. deploy() removes what is left of it and creates it again.",
                stack=self.name,
            )

    def at_rest(self) -> dict[str, Any] | None:
        """The stack when no operation is in progress."""
        while True:
            found = self.found()
            if found is None or not re.fullmatch(r"(?!REVIEW).*_IN_PROGRESS", found["StackStatus"]):
                return found
            identity, status = found["StackId"], found["StackStatus"]
            say(f"Stack {self.name} is {status}: waiting until it has finished.")
            known = self._known(identity, under_way=True)
            progress.follow(self.clients, identity, known, removing=status.startswith("DELETE"))

    def settled(self) -> dict[str, Any] | None:
        """The stack when it can be changed; one that could not be created is removed first. Raises StackFailed."""
        found = self.at_rest()
        if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":
            return found
        identity, status = found["StackId"], found["StackStatus"]
        if status in NOT_CREATED:
            reason = progress.first_failure(progress.read(self.clients, identity, set())) or {}
            told = f" ({reason.get('LogicalResourceId')}: {reason.get('ResourceStatusReason')})" if reason else ""
            say(f"Stack {self.name} is {status}: an earlier deploy failed{told}. What is left of it is removed first.")
            self.delete(found)
            return None
        if status.endswith("_FAILED"):
            todo = {
                "DELETE_FAILED": f'end its removal with teardown(confirm="{self.name}"), then deploy',
                "UPDATE_ROLLBACK_FAILED": "bring it back with "
                f"'aws cloudformation continue-update-rollback --stack-name {self.name}', then deploy",
            }.get(status, "look into events()")
            raise StackFailed(
                f"Stack '{self.name}' is {status} and cannot be deployed: {found.get('StackStatusReason', '')} "
                f"To go on: {todo}.",
                stack=self.name,
            )
        return found

    @contextmanager
    def change_set(
        self, found: dict[str, Any] | None, template: str, given: list[dict[str, Any]]
    ) -> Iterator[_ChangeSet]:
        """A new change set; unless it is executed, it is removed at the end, with the empty stack that came with it."""
        creates = found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS"
        tags = {"genokit:stack": self.name, "genokit:project": self.clients.settings.project or "genokit"}
        change_set = _ChangeSet(
            {"StackName": self.name, "ChangeSetName": f"genokit-{secrets.token_hex(6)}"}, Changes(self.name, ())
        )
        with translated_errors(f"stack '{self.name}'"):
            self._cloudformation.create_change_set(
                **change_set.request,
                ChangeSetType="CREATE" if creates else "UPDATE",
                TemplateBody=template,
                Parameters=given,
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        try:
            change_set.changes = self._changes(change_set.request)
            yield change_set
        except BaseException:
            with suppress(GenokitError):  # the first error is the one to report
                self._forget(change_set, found)
            raise
        self._forget(change_set, found)

    def _changes(self, request: dict[str, str]) -> Changes:
        """A change set's changes, when CloudFormation has worked them out. Raises StackFailed."""
        pause_s, what = self.clients.backend.poll_s / 8, f"change set of stack '{self.name}'"
        while True:
            found = list(progress.pages(self.clients, "cloudformation", "describe_change_set", what, **request))
            status, reason = found[0]["Status"], found[0].get("StatusReason", "")
            if status == "CREATE_COMPLETE":
                return from_change_set(self.name, [one for page in found for one in page.get("Changes", [])])
            if status == "FAILED":
                if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                    return Changes(self.name, ())
                raise StackFailed(
                    f"Stack '{self.name}' cannot be deployed like this: {reason}", stack=self.name, reason=reason
                )
            time.sleep(pause_s)
            pause_s = min(self.clients.backend.poll_s, pause_s * 1.3)

    def _forget(self, change_set: _ChangeSet, found: dict[str, Any] | None) -> None:
        if change_set.executed:
            return
        with translated_errors(f"change set of stack '{self.name}'"):
            self._cloudformation.delete_change_set(**change_set.request)
            if found is None:
                self._cloudformation.delete_stack(StackName=self.name)

    def become(self, found: dict[str, Any] | None, template: str, given: list[dict[str, Any]], replace: bool) -> None:
        """Show what would change, and change it. Raises ConfirmationNeeded, StackFailed."""
        with self.change_set(found, template, given) as change_set:
            changes = change_set.changes
            _show(changes)
            if changes.losses and not replace:
                lost = [f"{one.resource} ({one.type}): {one.does}, with {one.loses}" for one in changes.losses]
                raise ConfirmationNeeded(
                    f"Stack '{self.name}' would lose what holds data or jobs:"
                    + "".join(f"\n    {one}" for one in lost)
                    + "\nNothing was changed. To proceed: replace=True.",
                    losses=lost,
                )
            if not changes:
                return
            identity = self.deployed()["StackId"]
            known = self._known(identity)
            change_set.executed = True
            with translated_errors(f"stack '{self.name}'"):
                self._cloudformation.execute_change_set(**change_set.request)
        status, seen = progress.follow(self.clients, identity, known, len(changes))
        self._check(status, seen, ("CREATE_COMPLETE", "UPDATE_COMPLETE"))
        say(f"Stack {self.name} is {status}.")

    def delete(self, found: dict[str, Any]) -> None:
        """Empty the stack and delete it, up to three times, because jobs may write into it meanwhile."""
        identity = found["StackId"]
        for _ in range(3):
            made, known = removal.resources(self.clients, identity), self._known(identity)
            removal.empty(self.clients, self.name, made)
            with translated_errors(f"stack '{self.name}'"):
                self._cloudformation.delete_stack(StackName=identity)
            status, seen = progress.follow(self.clients, identity, known, len(made), removing=True)
            if status == "DELETE_COMPLETE":
                break
        self._check(status, seen, ("DELETE_COMPLETE",))

    def _known(self, identity: str, *, under_way: bool = False) -> set[str]:
        """The ids of the events so far, without the last one if an operation is under way: it may be its end."""
        found = progress.read(self.clients, identity, set())
        return {one["EventId"] for one in (found[:-1] if under_way else found)}

    def _check(self, status: str, seen: list[progress.Event], wanted: tuple[str, ...]) -> None:
        self.clients.stack_outputs.clear()  # they may have changed
        if status in wanted:
            return
        first = progress.first_failure(seen) or {}
        resource, reason = first.get("LogicalResourceId", ""), first.get("ResourceStatusReason", "no reason was given")
        todo = {
            "ROLLBACK_COMPLETE": "CloudFormation rolled everything back. Fix the cause and deploy again.",
            "UPDATE_ROLLBACK_COMPLETE": "The stack is unchanged. Fix the cause and try again.",
        }.get(status, "events() shows all failures. Fix the cause and call again.")
        raise StackFailed(
            f"Stack '{self.name}' is {status}. The first to fail was {resource} "
            f"({first.get('ResourceType', '')}): {reason} {todo}",
            stack=self.name,
            resource=resource,
            reason=reason,
        )


def _show(changes: Changes) -> None:
    """The change set: a card in a notebook, lines elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is None or not hasattr(shell.get_ipython(), "kernel"):
        say(str(changes))
        return
    from IPython.display import display

    display(changes)

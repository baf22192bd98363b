"""One stack as CloudFormation has it: found, waited for, changed by change sets, and removed."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.errors import GenokitError, InvalidRequest, NotFound, StackFailed
from genokit.stacks import progress, removal
from genokit.stacks.changes import Changes, from_change_set
from genokit.stacks.progress import say

NOT_CREATED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")  # such a stack can only be deleted
# What to do about a stack in a state that nobody wants.
NEXT = {
    "ROLLBACK_COMPLETE": "It could not be created, so there is nothing to compare with or to update. Fix the cause and "
    "deploy again: deploy() removes what is left of it first.",
    "UPDATE_ROLLBACK_COMPLETE": "The stack is unchanged. Fix the cause and try again.",
    "DELETE_FAILED": 'Fix the cause and end its removal with teardown(confirm="{name}").',
    "UPDATE_ROLLBACK_FAILED": "Bring it back with 'aws cloudformation continue-update-rollback --stack-name {name}', "
    "then deploy.",
}


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
        try:
            with translated_errors(f"stack '{self.name}'"):
                return dict(self._cloudformation.describe_stacks(StackName=self.name)["Stacks"][0])
        except InvalidRequest as error:
            if "does not exist" in str(error):
                return None
            raise

    def deployed(self) -> dict[str, Any]:
        found = self.found()
        if found is None:
            raise NotFound(f"There is no stack '{self.name}' ({self.clients.place}). deploy() creates it.")
        return found

    def at_rest(self) -> dict[str, Any] | None:
        """The stack when no operation is in progress."""
        told = ""
        while (found := self.found()) and re.fullmatch(r"(?!REVIEW).*_IN_PROGRESS", status := found["StackStatus"]):
            if status != told:
                say(f"Stack {self.name} is {status}: waiting until it has finished.")
            told = status
            time.sleep(self.clients.backend.poll_s)
        return found

    def settled(self, *, anew: bool = False) -> dict[str, Any] | None:
        """The stack when it can be changed. Raises StackFailed.

        With ``anew``, one that could not be created is removed first.
        """
        found = self.at_rest()
        status = found["StackStatus"] if found else ""
        if found and status in NOT_CREATED and anew:
            say(f"Stack {self.name} is {status}: an earlier deploy failed. What is left of it is removed first.")
            self.delete(found)
            return None
        if status in NOT_CREATED or status.endswith("_FAILED"):
            raise self._failure(status, [])
        return found

    def proposed(
        self, found: dict[str, Any] | None, template: str, given: list[dict[str, Any]]
    ) -> tuple[dict[str, str], Changes]:
        """A new change set, by which members CloudFormation knows it, and its changes. Raises StackFailed."""
        creates = found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS"
        tags = {"genokit:stack": self.name, "genokit:project": self.clients.settings.project or "genokit"}
        request = {"StackName": self.name, "ChangeSetName": f"genokit-{secrets.token_hex(6)}"}
        with translated_errors(f"stack '{self.name}'"):
            self._cloudformation.create_change_set(
                **request,
                ChangeSetType="CREATE" if creates else "UPDATE",
                TemplateBody=template,
                Parameters=given,
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        try:
            return request, self._changes(request)
        except BaseException:
            with suppress(GenokitError):  # the first error is the one to report
                self.withdraw(request, found)
            raise

    def _changes(self, request: dict[str, str]) -> Changes:
        """A change set's changes, when CloudFormation has worked them out. Raises StackFailed."""
        what = f"change set of stack '{self.name}'"
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
            time.sleep(self.clients.backend.poll_s / 2)

    def withdraw(self, request: dict[str, str], found: dict[str, Any] | None) -> None:
        """Remove a change set, and the empty stack that came with it where there was none."""
        with translated_errors(f"change set of stack '{self.name}'"):
            self._cloudformation.delete_change_set(**request)
            if found is None:
                self._cloudformation.delete_stack(StackName=self.name)

    def become(self, found: dict[str, Any] | None, template: str, given: list[dict[str, Any]], replace: bool) -> None:
        """Show what would change, and change it. Raises ConfirmationNeeded, StackFailed."""
        request, changes = self.proposed(found, template, given)
        say(str(changes))
        if not changes or (changes.losses and not replace):
            self.withdraw(request, found)
            if changes:
                changes.confirm("replace=True")
            return
        identity = self.deployed()["StackId"]
        known = self._known(identity)
        with translated_errors(f"stack '{self.name}'"):
            self._cloudformation.execute_change_set(**request)
        status, seen = progress.follow(self.clients, identity, known, len(changes))
        self._check(status, seen, ("CREATE_COMPLETE", "UPDATE_COMPLETE"))
        say(f"Stack {self.name} is {status}.")

    def delete(self, found: dict[str, Any]) -> None:
        """Empty the stack and delete it, up to three times, because jobs may write into it meanwhile."""
        identity = found["StackId"]
        for _ in range(3):
            made, known = removal.resources(self.clients, identity), self._known(identity)
            removal.empty(self.clients, made)
            with translated_errors(f"stack '{self.name}'"):
                self._cloudformation.delete_stack(StackName=identity)
            status, seen = progress.follow(self.clients, identity, known, len(made))
            if status == "DELETE_COMPLETE":
                break
        self._check(status, seen, ("DELETE_COMPLETE",))

    def _known(self, identity: str) -> set[str]:
        """The ids of the events so far."""
        return {one["EventId"] for one in progress.read(self.clients, identity, set())}

    def _check(self, status: str, seen: list[progress.Event], wanted: tuple[str, ...]) -> None:
        self.clients.stack_outputs.clear()  # they may have changed
        if status not in wanted:
            raise self._failure(status, seen)

    def _failure(self, status: str, seen: list[progress.Event]) -> StackFailed:
        first = progress.first_failure(seen) or {}
        resource, reason = first.get("LogicalResourceId", ""), first.get("ResourceStatusReason", "")
        cause = f"The first to fail was {resource} ({first['ResourceType']}): {reason} " if first else ""
        todo = NEXT.get("ROLLBACK_COMPLETE" if status in NOT_CREATED else status, "events() shows all failures.")
        said = f"Stack '{self.name}' is {status}. {cause}{todo.format(name=self.name)}"
        return StackFailed(said, stack=self.name, resource=resource, reason=reason)

"""Stack: deploy what jobs stand on, see what an update would change, and take all of it away again."""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import backends
from genokit.backends import Clients, translated_errors
from genokit.config import Settings
from genokit.display import Html, card, plain, table
from genokit.errors import ConfirmationNeeded, GenokitError, InvalidRequest, NotFound, StackFailed
from genokit.stacks import progress, removal, templates
from genokit.stacks.changes import Changes, from_change_set

if TYPE_CHECKING:
    import pandas as pd

MADE_IN_VAIN = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")  # nothing can become of such a stack


class Stack:
    """A CloudFormation stack of the kit's templates, in the account that the settings name: AWS's or the embedded one.

    ``name`` is a template of the kit ("batch") or the path of one's own. The stack is called ``stack_name``; without it
    as the settings say, "genokit-batch". Parameters are keywords: capitals and underscores do not matter, so
    ``spot_max_vcpus=64`` sets SpotMaxvCpus.

    >>> Stack("batch").parameters().loc["spot_max_vcpus", "default"]
    '256'

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/
    """

    def __init__(
        self,
        name: str = "batch",
        *,
        stack_name: str | None = None,
        clients: Clients | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.name = str(name)
        self._stack_name = stack_name
        self._clients = clients
        self._settings = settings

    @property
    def clients(self) -> Clients:
        if self._clients is None:
            self._clients = backends.clients(self._settings)
        return self._clients

    @property
    def stack_name(self) -> str:
        """What CloudFormation calls the stack."""
        own = self.clients.settings.stack if self.name == "batch" else f"genokit-{Path(self.name).stem}"
        return self._stack_name or own

    # --- what it is made of

    @property
    def template(self) -> str:
        """The template's text. Raises NotFound."""
        return templates.text(self.name)

    def parameters(self) -> pd.DataFrame:
        """The template's parameters by keyword: default, allowed values and what each is for."""
        return templates.table(templates.declared(self.name))

    def policy(self, name: str = "deployer") -> str:
        """The text of an IAM policy of the kit: what "deployer" allows is what deploying and removing needs."""
        return templates.policy(name)

    # --- what there is

    @property
    def status(self) -> str:
        """The stack's status in AWS's words, such as CREATE_COMPLETE; NOT_DEPLOYED where there is none."""
        found = self._found()
        return str(found["StackStatus"]) if found else "NOT_DEPLOYED"

    @property
    def outputs(self) -> dict[str, str]:
        """What the stack tells those that work with it: names and addresses of what it made."""
        found = self._found() or {}
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def events(self) -> pd.DataFrame:
        """What happened to the stack and its resources, oldest first. Times are UTC. Raises NotFound."""
        found = self._there()
        return _frame(
            progress.read(self.clients, found["StackId"], set()),
            time="Timestamp",
            resource="LogicalResourceId",
            type="ResourceType",
            status="ResourceStatus",
            reason="ResourceStatusReason",
        )

    def resources(self) -> pd.DataFrame:
        """What the stack is made of, as CloudFormation knows it. Raises NotFound."""
        found = self._there()
        return _frame(
            removal.resources(self.clients, found["StackId"]),
            resource="LogicalResourceId",
            type="ResourceType",
            id="PhysicalResourceId",
            status="ResourceStatus",
            since="LastUpdatedTimestamp",
            reason="ResourceStatusReason",
        )

    # --- what changes it

    def diff(self, *, keep: bool = False, **parameters: object) -> Changes:
        """What ``deploy`` with these parameters would change, and with ``keep=True`` what ``update`` would.

        CloudFormation works it out in a change set, which is removed again.
        """
        found = self._found()
        self._comparable(found)
        given = templates.given(self.name, parameters, found if keep else None)
        title, changes = self._foreseen(found, given)
        self._forget(title, found)
        return changes

    def deploy(self, *, replace: bool = False, **parameters: object) -> Stack:
        """Make the stack, or change it to what the template and these parameters say; others take their defaults.

        What changes is shown first. Where it would remove or replace what holds data or jobs, ConfirmationNeeded is
        raised and nothing changes, unless ``replace=True``. An interrupt leaves CloudFormation at work; call again to
        go on watching. Raises StackFailed with the first reason, after everything was rolled back.
        """
        given = templates.given(self.name, parameters, None)
        return self._become(self._settled(), given, replace)

    def update(self, *, replace: bool = False, **parameters: object) -> Stack:
        """Change these parameters and keep the others as they are; else like ``deploy``. Raises NotFound."""
        templates.given(self.name, parameters, None)  # a wrong name is told before anything is done
        self._comparable(self._there())
        found = self._settled()
        return self._become(found, templates.given(self.name, parameters, found), replace)

    def teardown(self, *, confirm: str | None = None) -> None:
        """Remove all that the stack made, with the jobs, files, images and logs in it; ``confirm`` is the stack's name.

        Jobs are ended, queues and environments disabled, the bucket emptied with all versions, and the stack deleted.
        Without ``confirm`` it raises ConfirmationNeeded, which says what would be lost. Interrupted at any point, it
        goes on when it is called again.
        """
        found = self._found()
        if found is None:
            _say(f"There is no stack {self.stack_name}: nothing to remove.")
            return
        if confirm != self.stack_name:
            lost = removal.losses(self.clients, removal.resources(self.clients, found["StackId"]))
            raise ConfirmationNeeded(
                f"Removing stack '{self.stack_name}' would lose:"
                + "".join(f"\n    {one}" for one in lost or ["nothing but its own parts"])
                + f'\nTo do it: teardown(confirm="{self.stack_name}").',
                losses=lost,
            )
        found = self._at_rest()
        if found is not None:
            self._delete(found)
        _say(f"Stack {self.stack_name} and all it made are removed.")

    # --- behind it

    def _found(self) -> dict[str, Any] | None:
        """The stack as CloudFormation describes it; None where there is none."""
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,127}", self.stack_name):
            raise InvalidRequest(
                f"'{self.stack_name}' cannot be a stack's name: that has letters, digits and hyphens, a letter first, "
                "and 128 of them at most."
            )
        try:
            with translated_errors(f"stack '{self.stack_name}'"):
                stacks = self.clients.client("cloudformation").describe_stacks(StackName=self.stack_name)["Stacks"]
        except InvalidRequest as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(stacks[0])

    def _there(self) -> dict[str, Any]:
        found = self._found()
        if found is None:
            raise NotFound(f"There is no stack '{self.stack_name}' ({self.clients.place}). deploy() makes it.")
        return found

    def _comparable(self, found: dict[str, Any] | None) -> None:
        """Raise StackFailed where a stack could not be made, so that nothing can be changed of it."""
        if found and found["StackStatus"] in MADE_IN_VAIN:
            raise StackFailed(
                f"Stack '{self.stack_name}' is {found['StackStatus']}: it could not be made, and there is nothing to "
                "compare with or to update. deploy() removes what is left of it and makes it anew.",
                stack=self.stack_name,
            )

    def _at_rest(self) -> dict[str, Any] | None:
        """The stack when nobody is at work on it."""
        while True:
            found = self._found()
            if found is None or not re.fullmatch(r"(?!REVIEW).*_IN_PROGRESS", found["StackStatus"]):
                return found
            identity, status = found["StackId"], found["StackStatus"]
            _say(f"Stack {self.stack_name} is {status}: waiting for that to end.")
            known = self._known(identity, under_way=True)
            progress.follow(self.clients, identity, known, removing=status.startswith("DELETE"))

    def _settled(self) -> dict[str, Any] | None:
        """The stack at rest and fit to be changed; what could not be made is removed first. Raises StackFailed."""
        found = self._at_rest()
        if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":
            return found
        identity, status = found["StackId"], found["StackStatus"]
        if status in MADE_IN_VAIN:
            reason = progress.first_failure(progress.read(self.clients, identity, set())) or {}
            told = f" ({reason.get('LogicalResourceId')}: {reason.get('ResourceStatusReason')})" if reason else ""
            _say(f"Stack {self.stack_name} is {status}: an earlier deploy failed{told}. Its remains are removed first.")
            self._delete(found)
            return None
        if status.endswith("_FAILED"):
            todo = {
                "DELETE_FAILED": f'end its removal with teardown(confirm="{self.stack_name}"), then deploy',
                "UPDATE_ROLLBACK_FAILED": "bring it back with "
                f"'aws cloudformation continue-update-rollback --stack-name {self.stack_name}', then deploy",
            }.get(status, "look into events()")
            raise StackFailed(
                f"Stack '{self.stack_name}' is {status} and cannot be deployed: {found.get('StackStatusReason', '')} "
                f"To go on: {todo}.",
                stack=self.stack_name,
            )
        return found

    def _foreseen(self, found: dict[str, Any] | None, given: list[dict[str, Any]]) -> tuple[str, Changes]:
        """A new change set's name, and its changes. It is for the caller to execute or to forget."""
        if not Path(self.name).suffix and not re.fullmatch(r"genokit-[a-z0-9-]{1,24}", self.stack_name):
            raise InvalidRequest(
                f"'{self.stack_name}' cannot be the name of this stack: bucket, roles and repository bear it, and the "
                "deployer's policy knows them by it. It begins with genokit-, and has lower-case letters, digits and "
                "hyphens, at most 32 in all."
            )
        cloudformation, title = self.clients.client("cloudformation"), f"genokit-{secrets.token_hex(6)}"
        creates = found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS"
        tags = {"genokit:stack": self.stack_name, "genokit:project": self.clients.settings.project or "genokit"}
        with translated_errors(f"stack '{self.stack_name}'"):
            cloudformation.create_change_set(
                StackName=self.stack_name,
                ChangeSetName=title,
                ChangeSetType="CREATE" if creates else "UPDATE",
                TemplateBody=self.template,
                Parameters=given,
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        with self._forgetting(title, found):
            return title, self._read(title)

    def _read(self, title: str) -> Changes:
        """A change set's changes, when CloudFormation has worked them out. Raises StackFailed."""
        asked, pause_s = {"StackName": self.stack_name, "ChangeSetName": title}, self.clients.backend.poll_s / 8
        found: list[dict[str, Any]] = []
        while True:
            with translated_errors(f"change set of stack '{self.stack_name}'"):
                page = self.clients.client("cloudformation").describe_change_set(**asked)
            if page["Status"] == "FAILED":
                reason = page.get("StatusReason", "")
                if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                    return Changes(self.stack_name, ())
                raise StackFailed(
                    f"Stack '{self.stack_name}' cannot become this: {reason}", stack=self.stack_name, reason=reason
                )
            if page["Status"] != "CREATE_COMPLETE":
                time.sleep(pause_s)
                pause_s = min(self.clients.backend.poll_s, pause_s * 1.3)
                continue
            found += page.get("Changes", [])
            if not page.get("NextToken"):
                return from_change_set(self.stack_name, found)
            asked["NextToken"] = page["NextToken"]

    def _forget(self, title: str, found: dict[str, Any] | None) -> None:
        """Remove a change set, and the empty stack that came with it where there was none before."""
        with translated_errors(f"change set of stack '{self.stack_name}'"):
            self.clients.client("cloudformation").delete_change_set(StackName=self.stack_name, ChangeSetName=title)
            if found is None:
                self.clients.client("cloudformation").delete_stack(StackName=self.stack_name)

    @contextmanager
    def _forgetting(self, title: str, found: dict[str, Any] | None) -> Iterator[None]:
        """Forget the change set where something goes wrong, and tell of that alone."""
        try:
            yield
        except BaseException:
            with suppress(GenokitError):
                self._forget(title, found)
            raise

    def _become(self, found: dict[str, Any] | None, given: list[dict[str, Any]], replace: bool) -> Stack:
        title, changes = self._foreseen(found, given)
        with self._forgetting(title, found):
            _show(changes)
            if changes.losses and not replace:
                lost = [f"{one.resource} ({one.type}): {one.does}, with {one.loses}" for one in changes.losses]
                raise ConfirmationNeeded(
                    f"Stack '{self.stack_name}' would lose what holds data or jobs:"
                    + "".join(f"\n    {one}" for one in lost)
                    + "\nNothing was changed. To do it all the same: replace=True.",
                    losses=lost,
                )
            identity = self._there()["StackId"]
            known = self._known(identity)
        if not changes:
            self._forget(title, found)
            return self
        with translated_errors(f"stack '{self.stack_name}'"):
            asked = {"StackName": self.stack_name, "ChangeSetName": title}
            self.clients.client("cloudformation").execute_change_set(**asked)
        status, seen = progress.follow(self.clients, identity, known, len(changes))
        self._check(status, seen, ("CREATE_COMPLETE", "UPDATE_COMPLETE"))
        _say(f"Stack {self.stack_name} is {status}.")
        return self

    def _delete(self, found: dict[str, Any]) -> None:
        """Empty the stack and delete it; what was written into it meanwhile is the reason of a second round."""
        identity = found["StackId"]
        for _ in range(3):
            made, known = removal.resources(self.clients, identity), self._known(identity)
            removal.empty(self.clients, self.stack_name, made)
            with translated_errors(f"stack '{self.stack_name}'"):
                self.clients.client("cloudformation").delete_stack(StackName=identity)
            status, seen = progress.follow(self.clients, identity, known, len(made), removing=True)
            if status == "DELETE_COMPLETE":
                break
        self._check(status, seen, ("DELETE_COMPLETE",))

    def _known(self, identity: str, *, under_way: bool = False) -> set[str]:
        """The events so far, without the last where the work is under way: that one may be its end."""
        found = progress.read(self.clients, identity, set())
        return {one["EventId"] for one in (found[:-1] if under_way else found)}

    def _check(self, status: str, seen: list[progress.Event], wanted: tuple[str, ...]) -> None:
        self.clients.stack_outputs.clear()  # they may have changed
        if status in wanted:
            return
        first = progress.first_failure(seen) or {}
        resource, reason = first.get("LogicalResourceId", ""), first.get("ResourceStatusReason", "no reason was given")
        todo = {
            "ROLLBACK_COMPLETE": "Everything was taken back. Mend the cause and deploy again.",
            "UPDATE_ROLLBACK_COMPLETE": "The stack is as it was before. Mend the cause and try again.",
        }.get(status, "events() tells all of it; mend the cause and call again.")
        raise StackFailed(
            f"Stack '{self.stack_name}' is {status}. The first to fail was {resource} "
            f"({first.get('ResourceType', '')}): {reason} {todo}",
            stack=self.stack_name,
            resource=resource,
            reason=reason,
        )

    # --- display

    def __repr__(self) -> str:
        return f"<Stack {self.stack_name} {self.clients.place}>"

    def _repr_html_(self) -> Html:
        found = self._found()
        rows: dict[str, object] = {"Template": self.name, "Place": self.clients.place}
        if found is None:
            return card(f"Stack {self.stack_name}", rows, status="NOT_DEPLOYED")
        if found.get("StackStatusReason"):
            rows["Reason"] = found["StackStatusReason"]
        rows["Changed"] = found.get("LastUpdatedTime", found["CreationTime"])
        given = {one["ParameterKey"]: one.get("ParameterValue", "") for one in found.get("Parameters", [])}
        resources = self.resources()[["resource", "status", "type", "id"]]
        fold = {"Outputs": self.outputs, "Parameters": given, f"{len(resources)} resources": table(resources, most=200)}
        return card(f"Stack {self.stack_name}", rows, status=found["StackStatus"], fold=fold)


def _frame(rows: list[dict[str, Any]], **columns: str) -> pd.DataFrame:
    from genokit.frames import Frame

    return Frame([[row.get(key, "") for key in columns.values()] for row in rows], columns=list(columns))


def _say(words: str) -> None:
    out = sys.stdout
    print(plain(words), file=out, flush=True)


def _show(changes: Changes) -> None:
    """The change set: a card in a notebook, lines elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is None or not hasattr(shell.get_ipython(), "kernel"):
        _say(str(changes))
        return
    from IPython.display import display

    display(changes)

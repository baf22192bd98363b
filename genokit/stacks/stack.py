"""Stack: deploy what jobs need, see what an update would change, and remove all of it again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import backends
from genokit.backends import Clients
from genokit.config import Settings
from genokit.display import Html, card, table
from genokit.errors import InvalidRequest
from genokit.stacks import progress, removal, templates
from genokit.stacks.changes import Change, Changes
from genokit.stacks.deployment import Deployment
from genokit.stacks.progress import say

if TYPE_CHECKING:
    import pandas as pd


class Stack:
    """A CloudFormation stack of the kit's templates, in the account that the settings name: AWS's or the embedded one.

    Parameters
    ----------
    name : str, default "batch"
        A template of the kit, "batch", "genomics", "omop" or "workspace", or the path of a template of your own.
    stack_name : str, optional
        What CloudFormation calls the stack. By default the settings' ``stack`` for the template "batch", and
        "genokit-" with the template's name for the others.
    clients : Clients, optional
        Clients of the account; by default those of the settings.
    settings : Settings, optional
        By default those of ``genokit.toml`` and the environment.

    Notes
    -----
    The template's parameters are keywords of ``diff``, ``deploy`` and ``update``. Capitals and underscores do not
    matter: ``spot_max_vcpus=64`` sets SpotMaxvCpus. The embedded account makes queues, environments, job definitions
    and buckets of a template, and keeps roles, networks and functions by name only.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/

    Examples
    --------
    >>> from genokit import Settings, Stack
    >>> stack = Stack("batch", settings=Settings(backend="local"))
    >>> stack.stack_name
    'genokit-batch'
    >>> stack.parameters().loc["spot_max_vcpus", "default"]
    '256'
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
        """The clients of the account that the stack is in."""
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
        """The template's text. Raises NotFound if there is no such template."""
        return templates.text(self.name)

    def parameters(self) -> pd.DataFrame:
        """The template's parameters.

        Returns
        -------
        pandas.DataFrame
            Indexed by keyword, with the columns ``parameter`` (the name in the template), ``default`` (None where one
            must be given) and ``description``. A value that is not allowed is refused with the template's rules.

        Raises
        ------
        NotFound
            There is no such template.

        Examples
        --------
        >>> Stack("omop").parameters().loc["redshift", "default"]
        'false'
        """
        return templates.table(templates.declared(self.name))

    def policy(self, name: str = "deployer") -> str:
        """The text of an IAM policy of the kit, in JSON.

        Parameters
        ----------
        name : str, default "deployer"
            "deployer" allows what deploying and removing need.

        Returns
        -------
        str
            The policy's document.

        Raises
        ------
        NotFound
            There is no such policy; the message names similar ones.

        Examples
        --------
        >>> "cloudformation:ExecuteChangeSet" in Stack().policy("deployer")
        True
        """
        return templates.policy(name)

    # --- what there is

    @property
    def status(self) -> str:
        """The stack's status in AWS's words, such as CREATE_COMPLETE; NOT_DEPLOYED if there is none."""
        found = self._deployment.found()
        return str(found["StackStatus"]) if found else "NOT_DEPLOYED"

    @property
    def outputs(self) -> dict[str, str]:
        """The stack's outputs, names and addresses of what it made; empty if it is not deployed."""
        found = self._deployment.found() or {}
        return {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}

    def events(self) -> pd.DataFrame:
        """What happened to the stack and its resources.

        Returns
        -------
        pandas.DataFrame
            A row for each event, oldest first: ``time`` (UTC), ``resource``, ``type``, ``status`` and ``reason``.

        Raises
        ------
        NotFound
            The stack is not deployed.

        Examples
        --------
        >>> Stack("omop").deploy().events()["status"].iloc[-1]  # doctest: +ELLIPSIS
        Stack genokit-omop: ...
        'CREATE_COMPLETE'
        """
        found = self._deployment.deployed()
        return _frame(
            progress.read(self.clients, found["StackId"], set()),
            time="Timestamp",
            resource="LogicalResourceId",
            type="ResourceType",
            status="ResourceStatus",
            reason="ResourceStatusReason",
        )

    def resources(self) -> pd.DataFrame:
        """What the stack is made of.

        Returns
        -------
        pandas.DataFrame
            A row for each resource: ``resource`` (its name in the template), ``type``, ``id``, ``status``, ``since``
            (UTC) and ``reason``.

        Raises
        ------
        NotFound
            The stack is not deployed.

        Examples
        --------
        >>> "Bucket" in set(Stack("omop").deploy().resources()["resource"])  # doctest: +ELLIPSIS
        Stack genokit-omop: ...
        True
        """
        found = self._deployment.deployed()
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
        """What ``deploy`` with these parameters would change. Nothing is changed.

        Parameters
        ----------
        keep : bool, default False
            Keep parameters that are not given as they are deployed, as ``update`` does. By default they take the
            template's defaults, as with ``deploy``.
        **parameters
            The template's parameters by keyword; see ``parameters()``.

        Returns
        -------
        Changes
            The changes of a CloudFormation change set, which is removed again; false if there are none.

        Raises
        ------
        InvalidParameters
            The template has no such parameter.
        InvalidRequest
            CloudFormation does not accept a value.
        StackFailed
            The stack could not be created earlier, so there is nothing to compare with.

        Examples
        --------
        >>> Stack("batch", stack_name="genokit-new").diff(spot_max_vcpus=64)
        <Changes genokit-new: 40 to add>
        """
        found = self._deployment.settled()
        given = templates.given(self.name, parameters, found if keep else None)
        request, changes = self._deployment.proposed(found, self._template_for_deploy(), given)
        self._deployment.withdraw(request, found)
        return changes

    def deploy(self, *, replace: bool = False, **parameters: object) -> Stack:
        """Create the stack, or change it to what the template and these parameters say.

        The changes are printed first. An interrupt ends the display; CloudFormation continues, and a second call shows
        the rest.

        Parameters
        ----------
        replace : bool, default False
            Also make changes that remove or replace what holds data or jobs, such as a bucket or a queue.
        **parameters
            The template's parameters by keyword; those not given take the template's defaults.

        Returns
        -------
        Stack
            This stack.

        Raises
        ------
        ConfirmationNeeded
            The change would lose data or jobs, and ``replace`` is False. Nothing was changed.
        InvalidParameters
            The template has no such parameter.
        StackFailed
            A resource failed; the first reason is given, and CloudFormation has rolled everything back.

        Examples
        --------
        >>> Stack("batch").deploy(attempts=2).outputs["LogGroup"]  # doctest: +ELLIPSIS
        Stack genokit-batch: ...
        '/genokit/genokit-batch/jobs'
        """
        given = templates.given(self.name, parameters, None)
        self._deployment.become(self._deployment.settled(anew=True), self._template_for_deploy(), given, replace)
        return self

    def update(self, *, replace: bool = False, **parameters: object) -> Stack:
        """Change these parameters and keep the others as they are deployed; otherwise like ``deploy``.

        Parameters
        ----------
        replace : bool, default False
            Also make changes that remove or replace what holds data or jobs.
        **parameters
            The parameters to change, by keyword.

        Returns
        -------
        Stack
            This stack.

        Raises
        ------
        NotFound
            The stack is not deployed.
        ConfirmationNeeded, InvalidParameters, StackFailed
            As ``deploy``.

        Examples
        --------
        >>> stack = Stack("batch").deploy(attempts=2).update(spot_max_vcpus=8)  # doctest: +ELLIPSIS
        Stack genokit-batch: ...
        >>> stack.status
        'UPDATE_COMPLETE'
        """
        templates.given(self.name, parameters, None)  # a wrong name is told before anything is done
        self._deployment.deployed()
        found = self._deployment.settled()
        given = templates.given(self.name, parameters, found)
        self._deployment.become(found, self._template_for_deploy(), given, replace)
        return self

    def teardown(self, *, confirm: str | None = None) -> None:
        """Remove the stack and everything in it: jobs, files with all versions, images and logs.

        Buckets are emptied, and the stack is deleted, with its queues and their jobs. If it is interrupted, call it
        again: it continues.

        Parameters
        ----------
        confirm : str, optional
            The stack's name, as confirmation.

        Raises
        ------
        ConfirmationNeeded
            ``confirm`` is not the stack's name; the message says what would be lost. Nothing was changed.
        StackFailed
            A resource cannot be removed; the first reason is given.

        Examples
        --------
        >>> Stack("batch", stack_name="genokit-new").teardown(confirm="genokit-new")
        There is no stack genokit-new: nothing to remove.
        """
        found = self._deployment.found()
        if found is None:
            say(f"There is no stack {self.stack_name}: nothing to remove.")
            return
        if confirm != self.stack_name:
            made = removal.resources(self.clients, found["StackId"])
            removed = tuple(Change("remove", one["LogicalResourceId"], one["ResourceType"]) for one in made)
            Changes(self.stack_name, removed).confirm(f'teardown(confirm="{self.stack_name}")')
        found = self._deployment.at_rest()
        if found is not None:
            self._deployment.delete(found)
        say(f"Stack {self.stack_name} and everything in it have been removed.")

    # --- behind it

    @property
    def _deployment(self) -> Deployment:
        return Deployment(self.clients, self.stack_name)

    def _template_for_deploy(self) -> str:
        """The template, if the stack may have its name."""
        if not Path(self.name).suffix and not re.fullmatch(r"genokit-[a-z0-9-]{1,24}", self.stack_name):
            raise InvalidRequest(
                f"'{self.stack_name}' cannot be the name of this stack, because its bucket, roles and repository have "
                "the same name and the deployer's policy is limited to it. It must begin with genokit- and have "
                "lower-case letters, digits and hyphens, at most 32 characters in all."
            )
        return self.template

    # --- display

    def __repr__(self) -> str:
        return f"<Stack {self.stack_name} {self.clients.place}>"

    def _repr_html_(self) -> Html:
        found = self._deployment.found()
        rows: dict[str, object] = {"Template": self.name, "Place": self.clients.place}
        if found is None:
            return card(f"Stack {self.stack_name}", rows, status="NOT_DEPLOYED")
        given = {one["ParameterKey"]: one.get("ParameterValue", "") for one in found.get("Parameters", [])}
        resources = self.resources()[["resource", "status", "type", "id"]]
        fold = {"Outputs": self.outputs, "Parameters": given, f"{len(resources)} resources": table(resources, most=200)}
        return card(f"Stack {self.stack_name}", rows, status=found["StackStatus"], fold=fold)


def _frame(rows: list[dict[str, Any]], **columns: str) -> pd.DataFrame:
    from genokit.frames import Frame

    return Frame([[row.get(key, "") for key in columns.values()] for row in rows], columns=list(columns))

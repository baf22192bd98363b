"""What a deploy would change: a change set for people, and what would be lost by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from genokit.display import Html, card, table
from genokit.errors import ConfirmationNeeded

# What holds data or jobs, so that its replacement or removal loses them.
HOLDS = {
    "AWS::Batch::ComputeEnvironment": "running jobs",
    "AWS::Batch::JobQueue": "waiting and running jobs",
    "AWS::ECR::Repository": "images",
    "AWS::EMRServerless::Application": "running jobs",
    "AWS::Logs::LogGroup": "the logs of jobs",
    "AWS::RedshiftServerless::Namespace": "tables",
    "AWS::S3::Bucket": "files",
}
COLUMNS = ("does", "resource", "type", "properties", "loses")
SIGNS = {"add": "+", "change": "~", "replace": "!", "may replace": "!", "remove": "-"}


@dataclass(frozen=True)
class Change:
    """One resource of a change set: ``does`` is add, change, replace, may replace or remove."""

    does: str
    resource: str
    type: str
    properties: tuple[str, ...] = ()

    @property
    def loses(self) -> str:
        """What would be lost with it; nothing of most resources.

        >>> Change("replace", "Bucket", "AWS::S3::Bucket").loses, Change("change", "Bucket", "AWS::S3::Bucket").loses
        ('files', '')
        """
        return HOLDS.get(self.type, "") if self.does in ("replace", "may replace", "remove") else ""


@dataclass(frozen=True)
class Changes:
    """What a deploy of a stack would change, nothing where it is empty.

    >>> changes = Changes("genokit-batch", (Change("add", "Bucket", "AWS::S3::Bucket"),))
    >>> print(changes)
    Stack genokit-batch: 1 to add
      + Bucket (AWS::S3::Bucket)
    """

    stack: str
    changes: tuple[Change, ...]
    outputs: bool = False  # or tags, which are no resource's either

    @property
    def losses(self) -> list[str]:
        """Those that would remove or replace what holds data or jobs, in words."""
        return [f"{one.resource} ({one.type}): {one.does}, with {one.loses}" for one in self.changes if one.loses]

    def confirm(self, how: str) -> None:
        """Raise ConfirmationNeeded, which tells what would be lost and how to confirm it."""
        raise ConfirmationNeeded(
            f"Stack '{self.stack}' would lose what holds data or jobs:"
            + "".join(f"\n    {one}" for one in self.losses or ["nothing but its own parts"])
            + f"\nNothing was changed. To proceed: {how}.",
            losses=self.losses,
        )

    def __bool__(self) -> bool:
        return self.outputs or bool(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    @property
    def summary(self) -> str:
        """How many of each kind, in words."""
        counts = Counter(one.does for one in self.changes)
        nothing = "outputs or tags alone" if self.outputs else "nothing to change"
        return ", ".join(f"{counts[does]} to {does}" for does in SIGNS if counts[does]) or nothing

    def __repr__(self) -> str:
        return f"<Changes {' '.join(self.stack.split())}: {self.summary}>"

    def __str__(self) -> str:
        lines = [f"Stack {self.stack}: {self.summary}"]
        for one in sorted(self.changes, key=lambda one: [*SIGNS].index(one.does)):
            names = f": {', '.join(one.properties)}" if one.properties else ""
            loss = f"  <- loses {one.loses}" if one.loses else ""
            lines.append(f"  {SIGNS[one.does]} {one.resource} ({one.type}){names}{loss}")
        return "\n".join(lines)

    def _repr_html_(self) -> Html:
        # Not by way of pandas, which cannot hold every text.
        shown = [{**vars(one), "properties": ", ".join(one.properties), "loses": one.loses} for one in self.changes]
        used = [name for name in COLUMNS if any(one[name] for one in shown)]
        fold = {"Resources": table(shown, columns=used, most=200)} if shown else None
        rows: dict[str, object] = {"Changes": self.summary}
        if self.losses:
            rows["Would lose"] = "; ".join(self.losses)
        return card(f"Changes of stack {self.stack}", rows, fold=fold)


def from_change_set(stack: str, found: list[dict[str, Any]]) -> Changes:
    """The changes that DescribeChangeSet lists."""
    changes = tuple(_change(one["ResourceChange"]) for one in found if "ResourceChange" in one)
    return Changes(stack, changes, outputs=not changes)


def _change(change: dict[str, Any]) -> Change:
    does = {"Add": "add", "Remove": "remove", "Import": "add"}.get(change["Action"], "change")
    if does == "change":
        does = {"True": "replace", "Conditional": "may replace"}.get(change.get("Replacement", ""), "change")
    targets = [detail.get("Target", {}) for detail in change.get("Details", [])]
    names = dict.fromkeys(target.get("Name") or target.get("Attribute", "") for target in targets)
    return Change(does, change["LogicalResourceId"], change["ResourceType"], tuple(filter(None, names)))

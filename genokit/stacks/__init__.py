"""What jobs on AWS stand on, as CloudFormation templates, and ``Stack``, which deploys, changes and removes them."""

from genokit.stacks.changes import Change, Changes
from genokit.stacks.stack import Stack

__all__ = ["Change", "Changes", "Stack"]

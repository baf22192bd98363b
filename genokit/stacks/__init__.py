"""What jobs on AWS stand on: templates, ``Stack``, which deploys and removes them, and ``Image``, what jobs run in."""

from genokit.stacks.changes import Change, Changes
from genokit.stacks.image import Image
from genokit.stacks.stack import Stack

__all__ = ["Change", "Changes", "Image", "Stack"]

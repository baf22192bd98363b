"""Consortium workspaces: data stay with their custodian; members, terms, data sets and runs are entries of one log."""

from genokit.workspaces.workspace import Workspace

__all__ = ["Workspace"]

"""Data sets by name: described by a manifest, fetched from a source the site can reach, verified before use."""

from __future__ import annotations

from genokit.data.dataset import Dataset
from genokit.data.manifest import Manifest

__all__ = ["Dataset", "Manifest"]

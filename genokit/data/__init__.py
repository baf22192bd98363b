"""Data sets by name: described in a manifest, fetched from wherever the site can reach, checked before use."""

from __future__ import annotations

from genokit.data.dataset import Dataset
from genokit.data.manifest import Manifest

__all__ = ["Dataset", "Manifest"]

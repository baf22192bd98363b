"""Genomics: reads aligned, variants called and annotated, and their quality, by tools that pip installs.

>>> from genokit import genomics
>>> genomics.simulate.__name__
'simulate'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genokit.genomics.accuracy import compare
    from genokit.genomics.sample_jobs import Workflow, workflow
    from genokit.genomics.simulation import simulate

__all__ = ["Workflow", "compare", "simulate", "workflow"]

_HOMES = {
    "Workflow": "sample_jobs",
    "compare": "accuracy",
    "simulate": "simulation",
    "workflow": "sample_jobs",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'genokit.genomics' has no attribute '{name}'")
    return getattr(import_module(f"genokit.genomics.{_HOMES[name]}"), name)

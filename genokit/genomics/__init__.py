"""Genomics: reads aligned, variants called and annotated, and their quality, by tools that pip installs.

>>> from genokit import genomics
>>> genomics.simulate.__name__
'simulate'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genokit.genomics.accuracy import compare
    from genokit.genomics.quality_control import CohortQuality, qc
    from genokit.genomics.read_view import pileup
    from genokit.genomics.sample_jobs import Workflow, workflow
    from genokit.genomics.simulation import simulate
    from genokit.genomics.state_machine import StateMachine, export
    from genokit.genomics.variant_table import variants

__all__ = [
    "CohortQuality",
    "StateMachine",
    "Workflow",
    "compare",
    "export",
    "pileup",
    "qc",
    "simulate",
    "variants",
    "workflow",
]

_HOMES = {
    "CohortQuality": "quality_control",
    "StateMachine": "state_machine",
    "Workflow": "sample_jobs",
    "compare": "accuracy",
    "export": "state_machine",
    "pileup": "read_view",
    "qc": "quality_control",
    "simulate": "simulation",
    "variants": "variant_table",
    "workflow": "sample_jobs",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'genokit.genomics' has no attribute '{name}'")
    return getattr(import_module(f"genokit.genomics.{_HOMES[name]}"), name)

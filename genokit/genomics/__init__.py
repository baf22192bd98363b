"""Genomics: reads aligned, variants called and annotated, and their quality, by tools that pip installs.

>>> from genokit import genomics
>>> genomics.simulate.__name__
'simulate'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genokit.genomics.simulation import simulate

__all__ = ["simulate"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in __all__:
        return getattr(import_module("genokit.genomics.simulation"), name)
    raise AttributeError(f"module 'genokit.genomics' has no attribute '{name}'")

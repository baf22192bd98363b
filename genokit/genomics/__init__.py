"""Genomics: reads aligned, variants called and annotated, and their quality, by tools that pip installs.

>>> from genokit import genomics
>>> genomics.simulate.__name__
'simulate'
"""

from genokit.genomics.simulate import simulate

__all__ = ["simulate"]

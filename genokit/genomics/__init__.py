"""Genomics: reads aligned, variants called and annotated, and their quality, by tools that pip installs.

>>> from genokit import genomics
>>> genomics.simulate.__name__
'simulate'
"""

from genokit.lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__)

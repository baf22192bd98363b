"""genokit: a Jupyter-first research kit; the same notebook on a laptop and on AWS.

The public names are in ``__init__.pyi`` and load on first use, so that ``import genokit`` costs next to nothing.
"""

from genokit.lazy import attach as _attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _attach(__name__)
__all__ = sorted([*__all__, "__version__"])


def load_ipython_extension(shell: object) -> None:
    """What ``%load_ext genokit`` calls: the cell magic ``%%omop``."""
    from genokit.omop import magic

    magic.load_ipython_extension(shell)

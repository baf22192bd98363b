"""The paper that every figure is drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def white_paper() -> Iterator[None]:
    """White paper and dark ink, also in a notebook with a dark style."""
    from matplotlib import pyplot as plt

    # A fresh kernel takes up its backend with the first figure, and the backend then sets rcParams, such as
    # interactive=True, without which a notebook shows no figure. Inside the context they would be undone with it,
    # and only the first figure were shown. This call takes up the backend, and draws nothing yet.
    plt.draw_if_interactive()  # type: ignore[no-untyped-call]
    with plt.style.context("default"):
        yield

"""A sheet in the notebook to draw a digit on, and what a model makes of it."""

from __future__ import annotations

import io
import math
from pathlib import Path

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from genokit import display, live
from genokit.train.digits import SIDE
from genokit.train.model import Model

BOX = 20  # pixels: MNIST's digits fit a square of this size


class Sheet(anywidget.AnyWidget):
    """The sheet: ``ink`` is a byte for each pixel of a square, 0 for paper; ``words`` stand below and are read out."""

    _esm = Path(__file__).with_name("drawing.js")
    ink = traitlets.CBytes().tag(sync=True, echo_update=False)
    words = traitlets.Unicode().tag(sync=True)


class Drawing:
    """A sheet, and what the model makes of what is drawn on it.

    Attributes
    ----------
    image : ndarray
        uint8 (28, 28): the drawing as the model sees it.
    probabilities : ndarray
        float32 (10,): the probability of each digit.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._sheet, self._answer = Sheet(), widgets.HTML()
        style = widgets.HTML(live.style(), layout={"height": "0", "margin": "0"})
        self.box = widgets.VBox([style, widgets.HBox([self._sheet, self._answer]).add_class("gk-chosen")])
        self.box.add_class("gk-view").add_class("gk-draw")
        self._sheet.observe(lambda _: self._look(), "ink")
        self._look()

    def __repr__(self) -> str:
        return f"<Drawing: {self._sheet.words}>"

    def _repr_html_(self) -> str:
        if not self.image.any():
            return display.card("Drawn digit", {"drawing": "none: run this cell in JupyterLab to draw a digit"})
        likely = [f"{digit}: {self.probabilities[digit]:.1%}" for digit in np.argsort(-self.probabilities)[:3]]
        return display.card("Drawn digit", {"drawing": self._picture(), "probabilities": ", ".join(likely)})

    def _ipython_display_(self) -> None:
        if not live.is_interactive():
            raise NotImplementedError  # tells IPython to use the other representations
        live.show(self.box, display.Html(self._repr_html_()), repr(self))

    def _look(self) -> None:
        side = math.isqrt(len(self._sheet.ink))
        self.image = as_mnist(np.frombuffer(self._sheet.ink, np.uint8).reshape(side, side))
        self.probabilities = self.model.probabilities(self.image[None])[0]
        best, drawn = int(self.probabilities.argmax()), bool(self.image.any())
        self._sheet.words = f"Most likely a {best} ({self.probabilities[best]:.0%})." if drawn else "Nothing is drawn."
        rows = [(str(digit), [100.0 * part * drawn]) for digit, part in enumerate(self.probabilities)]
        likely = live.panel("Probability of each digit (%)", live.bars(rows, most=100))
        self._answer.value = live.view(live.panels(likely, live.panel("What the model sees", self._picture())))
        live.answer_at_once(self._sheet)

    def _picture(self) -> display.Html:
        from matplotlib.image import imsave

        png, large = io.BytesIO(), self.image.repeat(5, axis=0).repeat(5, axis=1)
        imsave(png, large, cmap="gray_r", vmin=0, vmax=255, format="png")
        return display.image(png.getvalue(), f"The drawing in {SIDE} x {SIDE} pixels")


def draw(model: Model) -> Drawing:
    """Show a sheet to draw a digit on, with mouse, pen or finger, and what the model makes of it.

    The drawing is brought to the form of MNIST's digits (see ``as_mnist``). This picture and the probability of each
    digit are shown beside it. Under papermill, or without a kernel, the last drawing is shown instead.

    Parameters
    ----------
    model : Model
        A trained model.

    Returns
    -------
    Drawing
        Its attributes ``image`` and ``probabilities`` hold the last drawing, for the next cell.

    Raises
    ------
    MissingDependency
        The model cannot compute here.

    Examples
    --------
    In JupyterLab, with a checkpoint that ``train.fit`` wrote::

        from genokit import train

        train.draw(train.load("lenet.safetensors"))
    """
    return Drawing(model)


def as_mnist(ink: np.ndarray) -> np.ndarray:
    """Bring a drawing to the form of MNIST's digits.

    As http://yann.lecun.com/exdb/mnist/ describes it: scaled to fit a square of 20 x 20 pixels with its aspect ratio
    kept, grey where ink covers a part of a pixel, and moved so that its centre of mass is the centre of 28 x 28 pixels,
    as far as it stays inside.

    Parameters
    ----------
    ink : ndarray
        uint8 (H, W), from 0 (paper) to 255 (ink), of any size.

    Returns
    -------
    ndarray
        uint8 (28, 28); all 0 where nothing is drawn.

    Examples
    --------
    >>> line = np.zeros((200, 100), np.uint8)
    >>> line[20:180, 40:60] = 255
    >>> rows, columns = as_mnist(line).nonzero()
    >>> [int(one) for one in (rows.min(), rows.max(), columns.min(), columns.max())]
    [4, 23, 13, 14]
    """
    sheet = np.zeros((SIDE, SIDE), np.uint8)
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    if len(rows):
        drawn = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
        high, wide = (max(1, round(size * BOX / max(drawn.shape))) for size in drawn.shape)
        scaled = _averages(len(drawn), high) @ drawn @ _averages(drawn.shape[1], wide).T
        top, left = (_start(scaled.sum(axis=axis)) for axis in (1, 0))
        sheet[top : top + high, left : left + wide] = scaled.round()
    return sheet


def _averages(old: int, new: int) -> np.ndarray:
    """(new, old): the part of each new pixel that each old pixel covers."""
    edges = np.arange(new + 1)[:, None] * old / new
    covered = np.clip(edges - np.arange(old), 0, 1)  # of each old pixel, before each edge
    return np.diff(covered, axis=0) * new / old


def _start(mass: np.ndarray) -> int:
    """Where a digit begins along one axis, given its mass along it."""
    middle = float(mass @ (np.arange(len(mass)) + 0.5) / mass.sum())
    # Rounded up, as in MNIST: its centres of mass lie between 14 and 15.
    return min(max(math.ceil(SIDE / 2 - middle), 0), SIDE - len(mass))

"""Figures: data in, Axes out, the numbers in them those of the data."""

from __future__ import annotations

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest

from genokit import Settings, plots, run
from genokit.plots import paper

TABLE = pd.DataFrame(
    {"epoch": [0, 1], "loss": [0.5, 0.25], "accuracy": [0.75, 0.875], "validation_loss": [0.375, 0.125],
     "validation_accuracy": [0.8, 0.9]}
)  # fmt: skip
BATCHES = pd.DataFrame(
    {"epoch": [0, 0, 1, 1], "batch": [4, 9, 4, 9], "loss": [1, 0.5, 0.4, 0.3], "accuracy": [0.5] * 4}
)


@pytest.fixture(autouse=True)
def _figures_close():
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    yield
    plt.close("all")


def test_a_learning_curve_draws_each_epoch_where_it_ends():
    loss, accuracy = plots.learning_curve(TABLE, BATCHES, note="sample")
    stretches, epochs, validation = loss.lines
    assert stretches.get_xdata().tolist() == [0.5, 1, 1.5, 2]
    assert epochs.get_xdata().tolist() == [1, 2]
    assert validation.get_ydata().tolist() == [0.375, 0.125]
    assert "nats" in loss.get_ylabel()
    assert "%" in accuracy.get_ylabel()
    assert "sample" in loss.figure.get_suptitle()


def test_a_learning_curve_can_be_drawn_into_given_axes_and_of_nothing():
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(1, 2)
    assert plots.learning_curve(TABLE, axes=axes)[0] is axes[0]
    plots.learning_curve(TABLE[:0], BATCHES[:0])[0].figure.canvas.draw()


def test_a_confusion_matrix_counts_every_pair():
    truth, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    ax = plots.confusion_matrix(truth, predicted)
    cells = {text.get_position(): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (2, 2): "2", (0, 2): "1"}  # (predicted, truth)
    assert ax.get_title() == "2 wrong of 6 (66.67% right)"


def test_digits_show_mistakes_only_when_there_are_predictions():
    images = np.random.RandomState(0).randint(0, 256, (50, 28, 28)).astype(np.uint8)
    labels = np.arange(50) % 10
    assert len(plots.digits(images, labels).texts) == 40
    predictions = labels.copy()
    predictions[[3, 17]] = 0
    ax = plots.digits(images, labels, predictions)
    assert [text.get_text() for text in ax.texts] == ["3 → 0", "7 → 0"]
    assert ax.get_title().startswith("2 mistakes in 50 digits")
    assert (ax.images[0].get_array()[:28, 30:58] == images[17]).all()
    assert plots.digits(images, labels, labels).get_title().startswith("0 mistakes")


def test_figures_are_transparent_and_legible_on_light_and_dark_backgrounds():
    from matplotlib import pyplot as plt
    from matplotlib.colors import to_rgb
    from matplotlib_inline.backend_inline import _fetch_figure_metadata

    def light(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    with plt.style.context("dark_background"):
        loss, _ = plots.learning_curve(TABLE)
        ax = plots.confusion_matrix(np.array([0, 1]), np.array([0, 1]))
    for one in (loss, ax):
        assert one.figure.get_facecolor()[3] == one.get_facecolor()[3] == 0
        assert _fetch_figure_metadata(one.figure) is None, "JupyterLab would put a slab under it"
        ink = light(one.xaxis.label.get_color())
        contrasts = [1.05 / (ink + 0.05), (ink + 0.05) / (light("#111111") + 0.05)]
        assert min(contrasts) > 3.9
    with paper.clear_paper():
        bare = plt.subplots()[1]
    bare.figure.canvas.draw()
    assert {label.get_color() for label in bare.get_xticklabels()} != {
        label.get_color() for label in bare.get_yticklabels()
    }


def test_a_notebook_shows_every_figure_and_not_only_its_first(tmp_path):
    sources = ["from genokit import plots", *["plots.confusion_matrix([0, 1], [0, 1]);"] * 3]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "figures.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    finished = run(path, settings=Settings(home=tmp_path), progress=False)
    outputs = [
        output for cell in nbformat.read(finished.notebook, as_version=4).cells for output in cell.get("outputs", [])
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3

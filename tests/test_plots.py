"""Figures: data in, Axes out, the numbers in them those of the data."""

from __future__ import annotations

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest

from genokit import Settings, plots, run
from genokit.errors import InvalidParameters
from genokit.plots import paper, pipelines

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


TRIALS = pd.DataFrame(
    {"rate": [0.001, 0.1, 0.01, np.nan], "batch": [64, 64, 128, 128], "engine": ["mxnet", None, "numpy", "mxnet"],
     "shuffle": [True, False, True, True], "accuracy": [0.5, 0.9, np.nan, 0.8]}, index=["a", "b", "c", "d"]
)  # fmt: skip
PARAMETERS = ["rate", "batch", "engine", "shuffle"]


def drawn(ax):
    """The lines of the trials: the failed ones, the others from the worst to the best, and the best again."""
    return [line.get_ydata().round(3).tolist() for line in ax.lines]


def test_each_trial_is_a_line_across_axes_with_scales_of_their_own():
    ax = plots.parallel_coordinates(TRIALS, PARAMETERS, "accuracy", unit="%")
    axes = [one for one in ax.figure.axes if one.bbox.bounds == ax.bbox.bounds and one is not ax]
    assert [one.get_yscale() for one in axes] == ["log", "linear", "linear", "linear"]
    assert [text.get_text() for text in axes[2].get_yticklabels()] == ["mxnet", "numpy"]
    assert [text.get_text() for text in axes[3].get_yticklabels()] == ["False", "True"]
    low, high = 0.06 / 1.12, 1.06 / 1.12  # of an axis; above and below is a margin of 6 % of the values' range
    expected = np.array(
        [[0.5, 1, 1, 1],  # c, failed
         [0, 0, 0, 1],  # a, the worst
         [np.nan, 1, 0, 1],  # d
         [1, 0, np.nan, 0]]  # b, the best
    )  # fmt: skip
    np.testing.assert_allclose(drawn(ax), np.vstack([expected, expected[-1:]]) * (high - low) + low, atol=1e-3)
    failed, *_, best = ax.lines
    assert (failed.get_linestyle(), failed.get_color()) == ("--", paper.INK)
    assert (best.get_marker(), best.get_linewidth()) == ("*", 3)
    assert ax.get_title("left") == "4 trials, 1 failed; best: trial b, 90 %"


def test_the_colours_of_a_sweep_have_the_results_unit_and_end_where_outliers_begin():
    losses = pd.DataFrame({"rate": range(9), "loss": [*np.linspace(0.1, 0.8, 8), 1e6]})
    ax = plots.parallel_coordinates(losses, ["rate"], "loss", unit="nats", largest=False)
    (bar,) = [one for one in ax.figure.axes if one.get_ylabel()]
    assert bar.get_ylabel() == "loss (nats)"
    assert bar.get_ylim() == pytest.approx((0.1, 0.7 + 1.5 * 0.4))
    assert ax.get_title("left") == "9 trials; best: trial 0, 0.1 nats"
    worst, *_, best = [line.get_color() for line in ax.lines[:-1]]
    assert mpl.colors.to_hex(worst).upper() == "#0072B2"
    assert mpl.colors.to_hex(best).upper() == "#D55E00"


def test_a_sweep_is_drawn_of_no_trial_of_one_of_failed_ones_and_of_hundreds():
    assert "No trials" in plots.parallel_coordinates(TRIALS[:0], PARAMETERS, "accuracy").texts[0].get_text()
    one = plots.parallel_coordinates(TRIALS[:1], PARAMETERS, "accuracy")
    assert one.get_title("left") == "1 trial; best: trial a, 0.5"
    assert drawn(one) == [[0.5] * 4] * 2
    failed = TRIALS.assign(accuracy=[np.inf, -np.inf, np.nan, np.nan], rate=np.nan, batch=[1, np.inf, 2, 3])
    assert plots.parallel_coordinates(failed, PARAMETERS, "accuracy").get_title("left") == "4 trials, 4 failed"
    random = np.random.RandomState(0)
    many = pd.DataFrame({"rate": 10 ** random.uniform(-4, 0, 400), "name": [f"trial {i}" for i in range(400)]})
    many = many.assign(accuracy=random.uniform(size=400)).convert_dtypes()
    ax = plots.parallel_coordinates(many, ["rate", "name"], "accuracy")
    assert len(ax.lines) == 401
    for figure in (one.figure, ax.figure):
        figure.canvas.draw()


def test_a_column_that_a_sweep_lacks_is_named():
    with pytest.raises(InvalidParameters, match=r"no column 'rates'\. Did you mean 'rate'\?"):
        plots.parallel_coordinates(TRIALS, ["rates"], "accuracy")


def curve(*accuracies):
    return pd.DataFrame({"epoch": range(len(accuracies)), "validation_accuracy": accuracies}, dtype=float)


def test_learning_curves_count_completed_epochs_and_draw_the_best_trial_last_and_strong():
    tables = {"a": curve(0.5, 0.9), "b": curve(0.6, np.nan, 0.95), "c": curve(0.97, 0.1), "d": curve(np.nan)}
    ax = plots.learning_curves(tables)
    *pale, best = ax.lines
    assert [line.get_ydata()[-1] for line in pale] == [0.1, 0.9]
    assert best.get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_array_equal(best.get_ydata(), [0.6, np.nan, 0.95])
    assert best.get_linewidth() > 2 * pale[0].get_linewidth()
    assert ax.get_title("left") == "4 trials, 1 failed; best: trial b, 95 %"


def test_learning_curves_are_drawn_of_no_epoch_of_one_trial_and_of_hundreds():
    assert "No trial" in plots.learning_curves([curve(), curve(np.nan)]).texts[0].get_text()
    assert plots.learning_curves([curve(0.5)]).get_title("left") == "1 trial; best: trial 0, 50 %"
    assert len(plots.learning_curves([curve(0.5, i / 300) for i in range(300)]).lines) == 300


def test_a_reliability_diagram_has_the_expected_calibration_error_computed_by_hand():
    confidence = np.array([0.9, 0.85, 0.65, 0.55, 0.6])
    probabilities = np.column_stack([confidence, 1 - confidence])
    ax = plots.reliability_diagram(np.array([0, 1, 0, 1, 0]), probabilities, bins=5)
    # Of (0.4, 0.6] one of two is right, of (0.6, 0.8] one of one, of (0.8, 1] one of two.
    bars = {(round(bar.get_x(), 3), round(bar.get_height(), 3)) for bar in ax.patches[:3]}
    assert bars == {(0.4, 0.5), (0.6, 1), (0.8, 0.5)}
    gaps = [round(bar.get_height(), 3) for bar in ax.patches[3:]]
    assert gaps == [0.075, -0.35, 0.375]
    (below,) = ax.child_axes
    assert [bar.get_height() for bar in below.patches] == [2, 1, 2]
    error = (2 * 0.075 + 0.35 + 2 * 0.375) / 5
    assert ax.get_title() == f"expected calibration error {100 * error:.2f} %\n5 predictions in 5 bins"


def test_calibrated_probabilities_have_no_calibration_error_to_speak_of():
    random = np.random.RandomState(0)
    probabilities = random.dirichlet(np.ones(10) / 3, 50_000).astype(np.float32)
    truth = (probabilities.cumsum(axis=1) < random.uniform(size=(50_000, 1))).sum(axis=1)
    error = float(plots.reliability_diagram(truth, probabilities).get_title().split()[3])
    assert error < 1


def test_a_reliability_diagram_leaves_out_what_is_not_a_probability_and_counts_it():
    truth, sure = np.array([0, 1, 0]), np.array([[1.0, 0], [0, 1], [np.nan, np.nan]])
    ax = plots.reliability_diagram(truth, sure)
    assert ax.get_title().endswith("0.00 %\n2 predictions in 15 bins, 1 without probabilities left out")
    assert "No predictions" in plots.reliability_diagram(truth, sure * np.nan).texts[0].get_text()
    with pytest.raises(InvalidParameters, match=r"got \(2,\) and \(3, 2\)"):
        plots.reliability_diagram(truth[:2], sure)


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
        sweep = plots.parallel_coordinates(TRIALS, PARAMETERS, "accuracy")
        reliability = plots.reliability_diagram(np.array([0, 1]), np.eye(2))
    for one in (loss, ax, sweep, reliability):
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


def notebooks(*rows):
    columns = ["notebook", "file", "needs", "state", "duration_s", "restored"]
    table = pd.DataFrame([(*row, None, False)[:6] for row in rows], columns=columns)
    return table.assign(group=table["notebook"].str.replace(r"-\d+$", "", regex=True))


def boxes(ax):
    return dict(
        zip(*([text.get_text().replace("\n", " ") for text in ax.texts][start::2] for start in (0, 1)), strict=True)
    )


def test_a_graph_puts_each_notebook_below_those_it_needs():
    ax = pipelines.graph(
        notebooks(
            ("report", "r.ipynb", ["calls", "reads"], "NOT_RUN"),
            ("calls", "c.ipynb", ["reads"], "RUNNING"),
            ("reads", "s.ipynb", [], "SUCCEEDED", 90.0),
        )
    )
    at = {text.get_text(): ax.transData.transform(text.get_position())[1] for text in ax.texts}
    assert at["reads"] > at["calls"] > at["report"]
    assert boxes(ax) == {"reads": "✓ SUCCEEDED, 1 min 30 s", "calls": "● RUNNING", "report": "○ NOT_RUN"}
    assert len([one for one in ax.patches if type(one).__name__ == "FancyArrowPatch"]) == 3


def test_the_many_combinations_of_a_matrix_are_one_box_with_their_counts():
    states = ["SUCCEEDED"] * 10 + ["RUNNING", "FAILED"]
    calls = [(f"calls-{i}", "c.ipynb", ["reads"], state) for i, state in enumerate(states)]
    ax = pipelines.graph(notebooks(("reads", "r.ipynb", [], "SUCCEEDED", 0.0, True), *calls))
    assert boxes(ax) == {"reads": "✓ restored", "calls (12)": "10 succeeded, 1 running, 1 failed"}
    assert len(boxes(pipelines.graph(notebooks(*calls[:6])))) == 6, "few have a box each"
    assert boxes(pipelines.graph(notebooks(*calls).assign(state=None))) == {"calls (12)": "c.ipynb"}


@pytest.mark.parametrize("n", [2, 40])
def test_the_boxes_of_a_graph_lie_beside_one_another_and_inside_the_figure(n):
    rng = np.random.RandomState(n)
    names = [f"a long name for the notebook {i}" for i in range(n)]
    needs = [[names[j] for j in rng.choice(i, min(i, 2))] if i else [] for i in range(n)]
    rows = [(name, f"{i}.ipynb", needs[i], "SUCCEEDED", 1.0) for i, name in enumerate(names)]
    ax = pipelines.graph(notebooks(*rows))
    ax.figure.canvas.draw()
    places = [one.get_window_extent() for one in ax.patches if type(one).__name__ == "FancyBboxPatch"]
    assert len(places) == n
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])
    for text in ax.texts:
        assert any(place.contains(*corner) for place in places for corner in [text.get_window_extent().max])
    assert all(ax.figure.bbox.contains(*place.min) and ax.figure.bbox.contains(*place.max) for place in places)


def test_a_timeline_shows_when_each_notebook_waited_and_ran_in_units_that_fit():
    start = pd.Timestamp("2026-01-02T03:00:00Z")
    times = [start + pd.Timedelta(minutes=m) for m in (0, 1, 5, 5, 6, 6)]
    rows = [
        ("a", "SUCCEEDED", False, *times[:3]),
        ("b", "FAILED", False, *times[3:]),
        ("c", "NOT_RUN", False, *[None] * 3),
    ]
    ax = pipelines.timeline(pd.DataFrame(rows, columns=["notebook", "state", "restored", "ready", "started", "ended"]))
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 1), (1, 4), (5, 1), (6, 0)]
    assert [text.get_text().strip() for text in ax.texts] == ["✓ 4 min 00 s", "✕ 0.00 s"]
    assert ax.get_xlabel() == "time since the start (min)"
    pipelines.timeline(pd.DataFrame(rows[2:], columns=["notebook", "state", "restored", "ready", "started", "ended"]))

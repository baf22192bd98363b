"""Histories out of logs: clean, mixed with other output, cut, repeated."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genokit.train import History, Parameters
from genokit.train.training_log import batch_line, epoch_lines, header_lines

LOG = "\n".join(
    [
        "Epoch[0] Batch [100]\tSpeed: 2999.00 samples/sec\taccuracy=0.950000\tcross-entropy=0.160000",
        "Epoch[0] Batch [200]\tSpeed: 3001.00 samples/sec\taccuracy=0.970000\tcross-entropy=0.100000",
        "Epoch[0] Train-accuracy=0.960000",
        "Epoch[0] Time cost=20.000",
        "Epoch[0] Validation-accuracy=0.981000",
        "Epoch[1] Train-accuracy=0.985000",
        "Epoch[1] Time cost=19.500",
        "Epoch[1] Validation-accuracy=0.987000",
        "",
    ]
)


def test_a_log_gives_one_row_per_epoch_and_one_per_group_of_batches():
    history = History.from_log(LOG)
    assert history.table["validation_accuracy"].tolist() == [0.981, 0.987]
    assert history.table["seconds"].tolist() == [20.0, 19.5]
    assert history.table["samples_per_s"][0] == 3000
    assert history.batches["batch"].tolist() == [100, 200]
    assert history.validation_accuracy == 0.987
    assert history.sample is None


def test_the_formats_of_other_programs_are_read():
    text = (
        "INFO:root:Epoch[3] Batch [0-20]\tSpeed: 41234.5 samples/sec\tTrain-accuracy=0.79\n"
        "2017-05-04 12:00:00,123 Node[0] Epoch[3] Train-accuracy=nan\r\n"
        "Epoch[3] Validation-top_k_accuracy_5=0.99\n"
        "Epoch[3] Train-cross-entropy=1.5e-05\n"
    )
    history = History.from_log(text)
    assert history.batches.to_dict("records")[0]["samples_per_s"] == 41234.5
    assert history.batches[["batch", "accuracy"]].to_numpy().tolist() == [[20, 0.79]]
    assert history.table["epoch"].tolist() == [3]
    assert np.isnan(history.table["accuracy"][0])
    assert history.table["loss"][0] == 1.5e-05


def test_other_text_in_a_log_is_ignored():
    noisy = LOG.replace("\n", "\nDownloading 5%\r10%\rEpoch[ 7 Epoch[x] Train-accuracy=1 <b>\x1b[0m\n\n")
    assert History.from_log(noisy).table.equals(History.from_log(LOG).table)
    assert History.from_log(LOG.replace("\n", " ")).table.equals(History.from_log(LOG).table)


def test_a_truncated_log_gives_no_partial_number():
    cut = History.from_log(LOG[: LOG.index("0.987000") + 4])  # "...=0.98"
    assert cut.table["epoch"].tolist() == [0, 1]
    assert np.isnan(cut.table["validation_accuracy"][1])
    assert cut.validation_accuracy == 0.981
    assert len(History.from_log("Epoch[0] Train-accuracy=0.95").table) == 1
    assert len(History.from_log("")) == 0
    assert np.isnan(History.from_log("nothing").validation_accuracy)


@given(st.integers(0, len(LOG)))
def test_a_log_cut_anywhere_gives_no_wrong_number(length):
    whole, part = History.from_log(LOG).table, History.from_log(LOG[:length]).table
    for column in ("accuracy", "validation_accuracy"):
        assert set(part[column].dropna()) <= set(whole[column])


@given(st.text())
def test_no_text_breaks_the_parser(text):
    History.from_log(text + LOG[:90] + text)


def test_the_last_of_repeated_lines_counts():
    again = "Epoch[1] Train-accuracy=0.990000\nEpoch[1] Validation-accuracy=0.988000\n"
    assert History.from_log(LOG + again).table["validation_accuracy"].tolist() == [0.981, 0.988]


def test_the_kit_reads_its_own_log():
    epoch = {"epoch": 4, "loss": 0.5, "accuracy": 0.75, "validation_loss": 0.25, "validation_accuracy": 0.875,
             "seconds": 1.5, "samples_per_s": 1000.0}  # fmt: skip
    batch = {"epoch": 4, "batch": 7, "loss": 0.5, "accuracy": 0.75, "samples_per_s": 1000.0}
    data = {"name": "mnist", "title": 'a "title" {x}', "version": "1", "sha256": "00", "sample": True}
    lines = [*header_lines(Parameters(epochs=5), data), batch_line(batch), *epoch_lines(epoch)]
    history = History.from_log("\n".join(lines))
    assert history.table.to_dict("records") == [epoch]
    assert history.batches.to_dict("records") == [batch]
    assert history.parameters == Parameters(epochs=5)
    assert history.sample is True
    assert "not MNIST" in history._repr_html_()
    assert "held out of a sample" in repr(history)


def test_headers_of_another_version_do_not_affect_the_numbers():
    history = History.from_log('Parameters {"epochs": 5, "colour": "red"}\nData [1]\nData {broken}\n' + LOG)
    assert history.parameters is None
    assert history.data is None
    assert len(history) == 2


@pytest.mark.parametrize("log", [LOG, ""])
def test_a_history_plots_itself_and_shows_a_card(log):
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    loss, accuracy = History.from_log(log).plot()
    assert loss.get_ylabel() == "cross-entropy (nats)"
    assert accuracy.get_xlabel() == "completed epochs"
    loss.figure.canvas.draw()
    plt.close(loss.figure)
    assert "Training history" in History.from_log(log)._repr_html_()


def test_a_log_of_a_diverged_training_is_a_problem_and_a_log_without_losses_is_not():
    good = "Epoch[0] Train-accuracy=0.91\nEpoch[0] Validation-accuracy=0.97\n"
    assert History.from_log(good).problem is None
    assert History.from_log("").problem is None
    assert "has not learned" in History.from_log(good.replace("0.97", "0.11")).problem
    for loss in ("nan", "inf"):
        diverged = f"Epoch[0] Train-cross-entropy={loss}\nEpoch[0] Validation-accuracy=0.11\n"
        assert "diverged: after 1 epoch its loss is not a finite number" in History.from_log(diverged).problem
    broken_off = "Epoch[0] Batch [100]\tSpeed: 2999.00 samples/sec\taccuracy=0.1\tcross-entropy=nan\n"
    assert "diverged: after 0 epochs" in History.from_log(broken_off).problem

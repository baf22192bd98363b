"""Training itself: accuracy, bit-for-bit repetition, interruption and resumption, on real digits."""

from __future__ import annotations

import hashlib
import logging
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from small_mnist import small_mnist

from genokit import Manifest, train
from genokit.errors import InvalidManifest, InvalidParameters, NotFound, TrainingStopped


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    """A data set of its own, with the first 1,000 images to learn from (a last batch of 40) and 300 to test on."""
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 1000, 300)


@pytest.fixture(scope="module")
def history(few, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("checkpoints") / "two-epochs.safetensors"
    return train.fit(few, train.Parameters(epochs=2), checkpoint=checkpoint, progress=False), checkpoint


def command(dataset, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "genokit.train", "--data", dataset.ref, "--out", str(out), *options]


@pytest.mark.slow
def test_one_epoch_on_all_of_mnist_reaches_0975(mnist, tmp_path):
    history = train.fit(mnist, checkpoint=tmp_path / "lenet.safetensors")
    if mnist.sample:  # the machine could not get all four files
        assert "sample" in repr(history)
        assert history.validation_accuracy > 0.9
    else:
        assert history.sample is False
        assert history.validation_accuracy >= 0.975


def test_a_fit_logs_every_epoch(few, history):
    table = history[0].table
    assert list(table["epoch"]) == [0, 1]
    assert table.notna().all().all()
    assert table["loss"][1] < table["loss"][0]
    assert table["validation_accuracy"][1] > 0.75
    assert set(history[0].batches["epoch"]) == {0, 1}
    assert history[0].data["sha256"] == few.sha256
    assert "Training history" in history[0]._repr_html_()
    assert "2 epochs" in repr(history[0])


def test_the_model_is_as_accurate_as_its_history_says(few, history):
    digits = train.load_digits(few)
    model = history[0].model
    assert model.evaluate(digits.test_images, digits.test_labels).accuracy == pytest.approx(
        history[0].validation_accuracy
    )
    probabilities = model.probabilities(digits.test_images[:7])
    assert probabilities.shape == (7, 10)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    assert (probabilities.argmax(axis=1) == model.predict(digits.test_images[:7])).all()
    assert model.predict(digits.test_images[:0]).shape == (0,)


def test_a_model_takes_uint8_images_only(history):
    with pytest.raises(InvalidParameters, match=r"got float64 \(28, 28\)"):
        history[0].model.predict(np.zeros((28, 28)))


@pytest.mark.parametrize(
    "labels", [[1, 2, 3], [[1], [2]], [1, 10], [1, -1], [1, np.nan], [1, 2.5], ["1", "2"], [], None], ids=repr
)
def test_an_evaluation_needs_a_digit_for_each_image(history, labels):
    images = np.zeros((2, 28, 28), np.uint8)
    with pytest.raises(InvalidParameters, match="one label per image, each a digit from 0 to 9, got"):
        history[0].model.evaluate(images, labels)
    assert history[0].model.evaluate(images, [1.0, 2.0]).loss > 0


def test_a_checkpoint_predicts_the_same_in_a_fresh_process(few, history):
    model, path = history[0].model, history[1]
    images = train.load_digits(few).test_images
    program = (
        "import hashlib, sys; from pathlib import Path; from genokit import train;"
        "from genokit.train.digits import read_idx;"
        "images = read_idx(Path(sys.argv[2])); p = train.load(sys.argv[1]).probabilities(images);"
        "print(hashlib.sha256(p.tobytes()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(path), str(few["t10k-images"])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert there.stdout.strip() == hashlib.sha256(model.probabilities(images).tobytes()).hexdigest()


def test_an_interrupted_and_resumed_training_gives_the_same_weights(few, history, tmp_path):
    straight = subprocess.run(command(few, tmp_path / "a", "--epochs", "2"), capture_output=True, text=True, check=True)
    assert history[0].model.sha256 in straight.stdout

    with subprocess.Popen(
        command(few, tmp_path / "b", "--epochs", "1000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as interrupted:
        for line in interrupted.stdout:
            if line.startswith("Epoch[1] Batch"):
                interrupted.send_signal(signal.SIGINT)
                break
        _, errors = interrupted.communicate(timeout=240)
    assert interrupted.returncode == 130
    stopped = train.load(tmp_path / "b")
    assert (stopped.epoch, stopped.batch) > (1, 0)
    at = f"in epoch {stopped.epoch + 1} of 1000, after {stopped.batch} of its batches"
    assert errors.startswith(f"TrainingStopped: The training was stopped {at}")

    p, until = train.Parameters(epochs=1000), stopped.epoch + 1
    resumed = train.fit(few, p, checkpoint=tmp_path / "b", resume=True, until=until, progress=False)
    assert resumed.model.sha256 == train.fit(few, p, until=until, progress=False).model.sha256
    assert len(resumed.table) == until


@pytest.mark.slow
def test_a_training_killed_at_twenty_random_moments_ends_with_the_weights_of_one_that_was_not(few, tmp_path):
    options = ("--epochs", "2", "--batch-size", "8", "--shift", "1", "--schedule", "cosine", "--threads", "1")
    whole = train.fit(few, train.Parameters(epochs=2, batch_size=8, shift=1, schedule="cosine", threads=1))
    dice, kills = random.Random(1), 0
    while kills < 20:
        out = tmp_path / str(kills)
        while not (out / "lenet.safetensors").exists() or train.load(out).epoch < 2:
            running = subprocess.Popen(
                command(few, out, *options, "--resume", "--save-batches", "5"), stdout=subprocess.PIPE, text=True
            )
            sent = None
            running.stdout.readline()  # the training begins
            time.sleep(dice.uniform(0, 2))
            if kills < 20 and running.poll() is None:
                sent = dice.choice([signal.SIGTERM, signal.SIGKILL])
                running.send_signal(sent)
            running.communicate()
            kills += running.returncode != 0
            assert running.returncode in {signal.SIGTERM: (0, 143), signal.SIGKILL: (0, -9), None: (0,)}[sent]
        assert train.load(out).sha256 == whole.model.sha256
        assert [row["epoch"] for row in train.load(out).epochs] == [0, 1]


@pytest.mark.slow
def test_a_training_repeats_bit_for_bit_with_each_number_of_threads(few, tmp_path):
    reached = set()
    for threads in ("1", "2"):
        for out in ("a", "b"):
            words = command(few, tmp_path / threads / out, "--threads", threads)
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        models = [train.load(tmp_path / threads / out) for out in ("a", "b")]
        assert models[0].sha256 == models[1].sha256
        assert models[0].parameters.threads == int(threads)
        reached.add(round(models[0].history.validation_accuracy, 1))
    assert len(reached) == 1  # other bits, the same learning


def test_a_training_stops_when_told_and_resumes_in_the_middle_of_an_epoch(few, tmp_path):
    parameters, stop = train.Parameters(batch_size=100, shift=2), threading.Event()
    stop.set()
    with pytest.raises(TrainingStopped, match=r"epoch 1 of 1, after 1 of its batches.*Nothing was saved"):
        train.fit(few, parameters, stop=stop, progress=False)
    with pytest.raises(TrainingStopped, match=r"saved in .*half\.safetensors: resume=True continues"):
        train.fit(few, parameters, checkpoint=tmp_path / "half.safetensors", stop=stop, progress=False)
    assert train.load(tmp_path / "half.safetensors").batch == 1
    resumed = train.fit(few, parameters, checkpoint=tmp_path / "half.safetensors", resume=True, progress=False)
    straight = train.fit(few, parameters, progress=False)
    assert resumed.model.sha256 == straight.model.sha256
    assert np.allclose(resumed.table[["loss", "accuracy"]], straight.table[["loss", "accuracy"]])


def test_a_checkpoint_within_an_epoch_is_written_every_so_many_batches_or_minutes(few, tmp_path):
    seen = []

    class Watch(threading.Event):  # asked after every batch
        def is_set(self) -> bool:
            seen.append(train.load(tmp_path).batch if (tmp_path / "lenet.safetensors").exists() else None)
            return False

    tmp_path.mkdir(exist_ok=True)
    p = train.Parameters(batch_size=100)
    train.fit(few, p, checkpoint=tmp_path / "lenet.safetensors", save_batches=4, stop=Watch(), progress=False)
    assert [*dict.fromkeys(seen), train.load(tmp_path).batch] == [None, 4, 8, 0]
    seen.clear()
    train.fit(few, p, checkpoint=tmp_path / "lenet.safetensors", save_min=1e-9, stop=Watch(), progress=False)
    assert set(seen) == {0, *range(1, 10)}  # 0 is the checkpoint of before


def test_a_finished_training_resumed_returns_at_once(few, history):
    again = train.fit(few, train.Parameters(epochs=2), checkpoint=history[1], resume=True, progress=False)
    assert again.table.equals(history[0].table)


def test_other_parameters_or_data_cannot_be_resumed(few, mnist, history):
    path = history[1]
    with pytest.raises(InvalidParameters, match=r"momentum is 0.9 there and 0.5 here.*resume=False"):
        train.fit(few, train.Parameters(epochs=2, momentum=0.5), checkpoint=path, resume=True)
    with pytest.raises(InvalidParameters, match="other parameters or data: data is '"):
        train.fit(mnist, train.Parameters(epochs=2), checkpoint=path, resume=True)
    with pytest.raises(InvalidParameters, match="needs a checkpoint"):
        train.fit(few, resume=True)


def test_without_momentum_none_is_stored(few, tmp_path):
    parameters = train.Parameters(momentum=0, batch_size=500)
    history = train.fit(few, parameters, checkpoint=tmp_path / "plain.safetensors", progress=False)
    assert train.load(tmp_path / "plain.safetensors").momentum == {}
    assert train.load(tmp_path / "plain.safetensors").sha256 == history.model.sha256


def test_the_bar_shows_accuracy_and_speed(few, capsys):
    train.fit(few, train.Parameters(batch_size=500))
    shown = capsys.readouterr().err
    assert "Epoch 1/1" in shown
    assert "images/s" in shown
    assert "validation 0." in shown


def test_the_log_of_a_fit_gives_its_history_back(few, caplog):
    with caplog.at_level(logging.INFO, "genokit.train"):
        history = train.fit(few, train.Parameters(batch_size=100), progress=False)
    read = train.History.from_log("\n".join(record.message for record in caplog.records))
    assert read.parameters == history.parameters
    assert read.data == history.data
    columns = ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy"]
    assert np.allclose(read.table[columns], history.table[columns], atol=1e-6)
    assert len(read.batches) == len(history.batches) > 3
    with pytest.raises(NotFound, match=r"train\.load"):
        read.model  # noqa: B018


def test_a_missing_gpu_is_an_error_with_a_way_out(few):
    from genokit.errors import MissingDependency

    with pytest.raises(MissingDependency, match=r"device='gpu'.*device='cpu'"):
        train.fit(few, train.Parameters(device="gpu"), progress=False)


def test_data_without_digits_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    notes = Manifest.freeze(tmp_path, "notes").fetch(progress=False)
    with pytest.raises(InvalidParameters, match=r"dataset must be fetched data.*got <Manifest mnist>"):
        train.fit(Manifest("mnist"))
    with pytest.raises(
        InvalidManifest, match=r"'notes' cannot train LeNet: expected the resources train-images.*got notes"
    ):
        train.fit(notes, checkpoint=tmp_path / "out" / "lenet.safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("learning_rate", "epochs", "said"),
    [
        (50, 2, "The training diverged: after 2 epochs its loss is "),
        (1e30, 3, "The training diverged: after 1 epoch its loss is not a finite number"),
        (0, 1, "The training has not learned: after 1 epoch its validation accuracy is 0.1"),
    ],
)
def test_a_training_that_diverges_or_does_not_learn_says_so(few, tmp_path, caplog, learning_rate, epochs, said):
    parameters = train.Parameters(epochs=epochs, learning_rate=learning_rate)
    history = train.fit(few, parameters, checkpoint=tmp_path / "bad.safetensors", progress=False)
    loaded = train.load(tmp_path / "bad.safetensors")
    assert history.problem.startswith(said)
    assert history.problem in caplog.text
    for shown in (history._repr_html_(), loaded._repr_html_(), loaded.history._repr_html_()):
        assert said in shown
    assert said.partition(":")[0] in repr(history)
    resumed = train.fit(few, parameters, checkpoint=tmp_path / "bad.safetensors", resume=True, progress=False)
    assert resumed.problem == history.problem


def test_a_training_that_learns_reports_no_problem(few, history, caplog):
    assert history[0].problem is None
    assert "problem" not in history[0]._repr_html_()
    resumed = train.fit(few, train.Parameters(epochs=2), checkpoint=history[1], resume=True, progress=False)
    assert resumed.problem is None
    assert caplog.text == ""

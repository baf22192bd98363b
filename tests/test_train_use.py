"""Using a model: predictions, evaluation, jobs that predict a whole data set, and a training followed from outside."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import psutil
import pytest
from embedded import wait_until
from small_mnist import small_mnist

from genokit import Batch, train
from genokit.errors import InvalidParameters, JobFailed, NotFound


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 512, 256)


@pytest.fixture(scope="module")
def model(few):
    return train.fit(few, train.Parameters(epochs=2, batch_size=32), progress=False).model


def test_a_model_predicts_the_same_with_numpy_and_with_mxnet(few, model):
    images = train.load_digits(few).test_images
    assert np.abs(model.logits(images) - model.logits(images, engine="mxnet")).max() < 1e-5
    assert model.predict(images[:0]).shape == (0,)
    with pytest.raises(InvalidParameters, match="engine must be"):
        model.logits(images, engine="jax")


def test_an_evaluation_counts_and_calibrates(few, model):
    digits = train.load_digits(few)
    evaluation = model.evaluate(digits.test_images, digits.test_labels)
    right = model.predict(digits.test_images) == digits.test_labels
    assert evaluation.accuracy == right.mean() == pytest.approx(model.history.validation_accuracy)
    assert evaluation.loss == pytest.approx(model.history.table["validation_loss"].iloc[-1], abs=1e-5)
    assert f"{(~right).sum()} wrong of 256" in evaluation.confusion().get_title()
    assert "calibration error" in evaluation.calibration().get_title()
    assert "accuracy" in evaluation._repr_html_()


def test_a_data_set_is_predicted_in_parts(few, model, account, tmp_path):
    job = train.predict(model, few, shards=3, batch=Batch(settings=account))
    assert train.load(job.parameters["model"]).sha256 == model.sha256
    table = train.predictions(job)
    digits = train.load_digits(few)
    assert list(table["image"]) == [*range(512), *range(256)]
    assert list(table["part"]) == ["train"] * 512 + ["test"] * 256
    assert (table["label"][512:] == digits.test_labels).all()
    assert (table["predicted"][512:] == model.predict(digits.test_images)).all()
    assert np.allclose(table[[f"p{n}" for n in range(10)]].sum(axis=1), 1, atol=1e-4)
    with pytest.raises(NotFound, match="There is no checkpoint"):
        train.predict(tmp_path / "none.safetensors", few, batch=Batch(settings=account))


@pytest.mark.slow
def test_a_job_that_gets_sigterm_saves_and_its_next_attempt_goes_on(few, account):
    job = train.submit(few, epochs=4, batch_size=4, save_min=60, batch=Batch(settings=account))
    out = job.parameters["out"]

    def own() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if out in (one.info["cmdline"] or [])]

    wait_until(own)
    wait_until(lambda: "Epoch[0] Batch" in job.log())
    own()[-1].terminate()
    history = train.follow(job)
    assert len(job.attempts) == 2
    assert list(job.attempts["exit_code"]) == [143, 0]
    assert len(history) == 4
    straight = train.fit(few, train.Parameters(epochs=4, batch_size=4, threads=1), progress=False)
    assert train.load(out).sha256 == straight.model.sha256
    assert np.allclose(history.table["validation_loss"], straight.table["validation_loss"], atol=1e-6)


def test_following_a_job_prints_its_log_and_raises_if_it_fails(few, account, capsys):
    job = train.submit(few, batch_size=128, batch=Batch(settings=account))
    assert len(train.follow(job)) == 1
    assert "Epoch[0] Validation-accuracy=" in capsys.readouterr().out
    Path(job.parameters["out"], "lenet.safetensors").write_bytes(b"damaged")
    failing = train.submit(few, batch_size=128, out=job.parameters["out"], batch=Batch(settings=account))
    with pytest.raises(JobFailed, match="not a valid checkpoint"):
        train.follow(failing)


def test_a_model_leaves_as_an_onnx_file_that_says_where_it_comes_from(model, tmp_path):
    data = Path(model.to_onnx(tmp_path / "lenet.onnx")).read_bytes()
    assert io.BytesIO(data).read(2) == b"\x08\x08"  # the version of the format
    assert model.sha256.encode() in data
    assert model.data["sha256"].encode() in data

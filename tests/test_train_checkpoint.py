"""Checkpoints: what goes in comes out, and what is no whole checkpoint is said so."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from genokit import train
from genokit.errors import GenokitError, InvalidCheckpoint, InvalidParameters, NotFound
from genokit.train.checkpoint import locate
from genokit.train.model import NONE, Model
from genokit.train.network import SHAPES, first_weights

DATA = {"name": "digits", "title": "Digits", "version": "1", "sha256": "5e" * 32, "sample": False}
EPOCH = {"epoch": 0, "loss": 0.5, "accuracy": 0.75, "validation_accuracy": 0.875, "samples_per_s": 1000.0}


@pytest.fixture
def model():
    return Model(train.Parameters(), 1, 0, NONE, DATA, [EPOCH], [], first_weights(1), first_weights(2))


def rewritten(path, change):
    """The checkpoint with its parts changed: ``change`` gets and changes its tensors and its record."""
    with safe_open(path, "np") as file:
        record = json.loads(file.metadata()["genokit"])
    tensors = load_file(path)
    change(tensors, record)
    save_file(tensors, path, {"genokit": json.dumps(record)})


def test_a_checkpoint_is_read_as_written(model, tmp_path):
    where = model.save(tmp_path / "new folder" / "a.safetensors")
    read = train.load(where)
    assert read.parameters == model.parameters
    assert (read.epoch, read.data, read.epochs, read.batches) == (1, DATA, [EPOCH], [])
    assert read.sha256 == model.sha256 != Model(**{**vars(read), "weights": first_weights(3)}).sha256
    assert all((read.momentum[name] == array).all() for name, array in model.momentum.items())
    assert read.versions["numpy"] == np.__version__


def test_equal_trainings_make_equal_bytes(model, tmp_path):
    one, two = (model.save(tmp_path / name) for name in ("1.safetensors", "2.safetensors"))
    with open(one, "rb") as a, open(two, "rb") as b:
        assert a.read() == b.read()


def test_other_programs_read_the_weights_by_the_names_of_the_network(model, tmp_path):
    tensors = load_file(model.save(tmp_path / "a.safetensors"))
    assert {name for name in tensors if "." not in name} == set(SHAPES)
    assert all((tensors[name] == model.weights[name]).all() for name in SHAPES)


def test_a_loaded_model_can_be_saved_again(model, tmp_path):
    model = train.load(model.save(tmp_path))  # a folder: lenet.safetensors in it
    assert (tmp_path / "lenet.safetensors").exists()
    again = train.load(model.save(tmp_path / "copy.safetensors"))
    assert again.sha256 == model.sha256
    assert again.history.validation_accuracy == 0.875
    assert repr(again) == f"<Model lenet, 1 epoch, weights {model.sha256[:12]}>"
    assert model.sha256 in again._repr_html_()


def test_a_truncated_checkpoint_is_refused(model, tmp_path):
    path = tmp_path / "cut.safetensors"
    model.save(path)
    data = path.read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(
            InvalidCheckpoint, match=rf"cut\.safetensors is not a valid checkpoint: expected .* got {size:,} bytes"
        ):
            train.load(path)


def test_a_flipped_byte_is_detected(model, tmp_path):
    path = tmp_path / "flipped.safetensors"
    model.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidCheckpoint, match="the file is damaged"):
        train.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, r: r.clear(), "expected a checkpoint of ('lenet', 2), got (None, None)"),
        (lambda t, r: r.update(format=3), "got ('lenet', 3), of another version of genokit"),
        (lambda t, r: r.pop("epoch"), "its record is not valid"),
        (lambda t, r: t.pop("conv1_bias"), "conv1_bias: expected float32 (20,), got none"),
        (lambda t, r: t.pop("momentum.conv1_bias"), "momentum.conv1_bias: expected float32 (20,), got none"),
        (lambda t, r: t.update(conv1_bias=np.zeros(6, np.float32)), "got float32 (6,)"),
        (lambda t, r: t.update(conv1_bias=np.zeros(20)), "got float64 (20,)"),
        (lambda t, r: t.update(conv1_bias=np.ones(20, np.float32)), "the file is damaged"),
    ],
)
def test_a_foreign_file_is_refused(model, tmp_path, change, said):
    path = tmp_path / "foreign.safetensors"
    model.save(path)
    rewritten(path, change)
    with pytest.raises(InvalidCheckpoint) as raised:
        train.load(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)


class Evil:
    def __reduce__(self):
        return print, ("run!",)


def header(said: object, tail: bytes = b"") -> bytes:
    text = json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text + tail


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Evil()),
        header([]),
        header({"__metadata__": {"genokit": "{}"}, "conv1_bias": {"dtype": "F32", "shape": [10**12],
                                                                 "data_offsets": [0, 4 * 10**12]}}),
        header({"conv1_bias": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
        header({"conv1_bias": {"dtype": "O", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        header({"__metadata__": {}}),
        header({}),
        (2**62).to_bytes(8, "little") + b"{}",
    ],
)  # fmt: skip
def test_a_false_header_is_refused_and_nothing_in_it_runs(tmp_path, capsys, data):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(data)
    assert memory_of_refusal(path, "expected a safetensors file of genokit") < 2**25
    assert "run!" not in capsys.readouterr().out


def memory_of_refusal(path, words: str) -> int:
    tracemalloc.start()
    with pytest.raises(InvalidCheckpoint, match=words):
        train.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_file_larger_than_a_checkpoint_can_be_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(2**34)
    assert memory_of_refusal(tmp_path / "large.safetensors", "expected at most") < 2**26


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", "1"), ("data", []), ("epochs", {}), ("epochs", [1]), ("epochs", [{"loss": "x"}]), ("batches", [{}]),
     ("versions", None), ("data", {"sample": 1}), ("epochs", [[[]]])],
)  # fmt: skip
def test_a_record_of_the_wrong_type_is_refused_on_reading(model, tmp_path, name, value):
    path = tmp_path / "odd.safetensors"
    model.save(path)

    rewritten(path, lambda tensors, record: record.update({name: value}))
    with pytest.raises(InvalidCheckpoint, match="its record is not valid"):
        train.load(path)


def test_invalid_parameters_in_a_checkpoint_are_refused(model, tmp_path):
    path = tmp_path / "odd.safetensors"
    model.save(path)

    rewritten(path, lambda tensors, record: record["parameters"].update(epochs=-3))
    with pytest.raises(InvalidCheckpoint, match="epochs must be a whole number"):
        train.load(path)


def test_a_missing_checkpoint_is_not_found_and_a_bad_address_is_refused_before_training(tmp_path):
    with pytest.raises(NotFound, match=r"There is no checkpoint .*none\.safetensors"):
        train.load(tmp_path / "none.safetensors")
    with pytest.raises(InvalidParameters, match="not an address on S3"):
        locate("s3://")


def test_a_checkpoint_can_be_on_s3(model, monkeypatch):
    import boto3
    from moto import mock_aws

    for name, value in {"GENOKIT_BACKEND": "aws", "GENOKIT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x",
                        "AWS_SECRET_ACCESS_KEY": "x"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="lab")
        with pytest.raises(NotFound, match=r"s3://lab/runs/7/lenet\.safetensors"):
            train.load("s3://lab/runs/7")
        assert model.save("s3://lab/runs/7") == "s3://lab/runs/7/lenet.safetensors"
        assert train.load("s3://lab/runs/7").sha256 == model.sha256
        with pytest.raises(GenokitError, match=r"s3://nowhere/lenet\.safetensors"):
            model.save("s3://nowhere")

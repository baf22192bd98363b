"""Checkpoints: what goes in comes out, and what is no whole checkpoint is said so."""

from __future__ import annotations

import io
import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from genokit import train
from genokit.errors import GenokitError, InvalidCheckpoint, InvalidParameters, NotFound
from genokit.train.checkpoint import locate
from genokit.train.model import Model
from genokit.train.network import first_weights

DATA = {"name": "digits", "title": "Digits", "version": "1", "sha256": "5e" * 32, "sample": False}
EPOCH = {"epoch": 0, "loss": 0.5, "accuracy": 0.75, "validation_accuracy": 0.875, "samples_per_s": 1000.0}


@pytest.fixture
def model():
    return Model(train.Parameters(), 1, DATA, [EPOCH], [], first_weights(1), first_weights(2))


def rewritten(path, change):
    """The checkpoint with its members changed: ``change`` gets and changes {name: bytes}."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_a_checkpoint_is_read_as_written(model, tmp_path):
    where = model.save(tmp_path / "new folder" / "a.ckpt")
    read = train.load(where)
    assert read.parameters == model.parameters
    assert (read.epoch, read.data, read.epochs, read.batches) == (1, DATA, [EPOCH], [])
    assert read.sha256 == model.sha256 != Model(**{**vars(read), "weights": first_weights(3)}).sha256
    assert all((read.momentum[name] == array).all() for name, array in model.momentum.items())
    assert read.versions["numpy"] == np.__version__


def test_equal_trainings_make_equal_bytes_and_nothing_is_pickled(model, tmp_path):
    one, two = (model.save(tmp_path / name) for name in ("1.ckpt", "2.ckpt"))
    with open(one, "rb") as a, open(two, "rb") as b:
        assert a.read() == b.read()
    with zipfile.ZipFile(one) as archive:
        assert {name.rpartition(".")[2] for name in archive.namelist()} == {"json", "npy"}


def test_a_loaded_model_can_be_saved_again(model, tmp_path):
    model = train.load(model.save(tmp_path))  # a folder: lenet.ckpt in it
    assert (tmp_path / "lenet.ckpt").exists()
    again = train.load(model.save(tmp_path / "copy.ckpt"))
    assert again.sha256 == model.sha256
    assert again.history.validation_accuracy == 0.875
    assert repr(again) == f"<Model lenet, 1 epoch, weights {model.sha256[:12]}>"
    assert model.sha256 in again._repr_html_()


def test_a_truncated_checkpoint_is_refused(model, tmp_path):
    path = tmp_path / "cut.ckpt"
    model.save(path)
    data = path.read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(
            InvalidCheckpoint, match=rf"cut\.ckpt is not a valid checkpoint: expected .* got {size:,} bytes"
        ):
            train.load(path)


def test_a_flipped_byte_is_detected(model, tmp_path):
    path = tmp_path / "flipped.ckpt"
    model.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidCheckpoint, match="CRC"):
        train.load(path)


class Evil:
    def __reduce__(self):
        return print, ("run!",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop("checkpoint.json"), "expected a zip with checkpoint.json"),
        (lambda f: f.update({"checkpoint.json": b"[]"}), "expected a checkpoint of ('lenet', 1), got none"),
        (lambda f: f.update({"checkpoint.json": b'{"network": "lenet", "format": 2}'}), "got ('lenet', 2), of another"),
        (lambda f: f.update({"checkpoint.json": b'{"network": "lenet", "format": 1}'}), "checkpoint.json is not valid"),
        (lambda f: f.pop("weights/conv1_bias.npy"), "weights/conv1_bias.npy is missing or not a plain array"),
        (lambda f: f.pop("momentum/conv1_bias.npy"), "momentum/conv1_bias.npy is missing or not a plain array"),
        (lambda f: f.update({"weights/conv1_bias.npy": npy(np.zeros(6, np.float32))}),
         "weights/conv1_bias.npy as float32 (20,), got float32 (6,)"),
        (lambda f: f.update({"weights/conv1_bias.npy": npy(np.zeros(20))}), "got float64 (20,)"),
        (lambda f: f.update({"weights/conv1_bias.npy": npy(np.array([Evil()] * 20))}), "not a plain array"),
        (lambda f: f.update({"weights/conv1_bias.npy": pickle.dumps(Evil())}), "not a plain array"),
    ],
)  # fmt: skip
def test_a_foreign_file_is_refused_and_nothing_in_it_runs(model, tmp_path, capsys, change, said):
    path = tmp_path / "foreign.ckpt"
    model.save(path)
    rewritten(path, change)
    with pytest.raises(InvalidCheckpoint) as raised:
        train.load(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)
    assert "run!" not in capsys.readouterr().out


def header(**said) -> bytes:
    """The start of an .npy file that tells of any array."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (20,), **said})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        header(shape=(10**12,)),
        header(shape=(10**30,)),
        header(shape=(2,) * 64),
        header(shape=(20,)) + bytes(79),
        header(shape=(20,)) + bytes(81),
        header(descr="|O") + bytes(80),
        header(descr=">f4") + bytes(80),
        header(descr=[("a", "<f4")]) + bytes(80),
        header(shape=(20, 1)) + bytes(80),
        header()[:20],
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff" + b" " * 99,
        b"",
    ],
)
def test_an_array_with_a_false_header_is_refused(model, tmp_path, array):
    path = tmp_path / "foreign.ckpt"
    model.save(path)
    rewritten(path, lambda files: files.update({"weights/conv1_bias.npy": array}))
    with pytest.raises(InvalidCheckpoint, match=r"weights/conv1_bias\.npy"):
        train.load(path)


def memory_of_refusal(path, words: str) -> int:
    tracemalloc.start()
    with pytest.raises(InvalidCheckpoint, match=words):
        train.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_decompression_bomb_is_refused_and_other_members_are_not_read(model, tmp_path, packing):
    path = tmp_path / "bomb.ckpt"
    for name in ("weights/conv1_bias.npy", "checkpoint.json", "other"):
        model.save(path)
        rewritten(path, lambda files, name=name: files.pop(name, None))
        with zipfile.ZipFile(path, "a", packing) as archive, archive.open(name, "w") as member:
            for _ in range(64):
                member.write(bytes(2**20))
        if name == "other":
            assert train.load(path).sha256 == model.sha256
        else:
            assert memory_of_refusal(path, "compressed") < 2**25


def test_a_file_larger_than_a_checkpoint_can_be_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "large.ckpt").open("wb") as file:
        file.truncate(2**34)
    assert memory_of_refusal(tmp_path / "large.ckpt", "expected at most") < 2**26


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", "1"), ("data", []), ("epochs", {}), ("epochs", [1]), ("epochs", [{"loss": "x"}]), ("batches", [{}]),
     ("versions", None), ("data", {"sample": 1}), ("epochs", [[[]]])],
)  # fmt: skip
def test_a_record_of_the_wrong_type_is_refused_on_reading(model, tmp_path, name, value):
    path = tmp_path / "odd.ckpt"
    model.save(path)

    def spoil(files):
        record = json.loads(files["checkpoint.json"])
        record[name] = value
        files["checkpoint.json"] = json.dumps(record).encode()

    rewritten(path, spoil)
    with pytest.raises(InvalidCheckpoint, match=r"checkpoint\.json is not valid"):
        train.load(path)


def test_invalid_parameters_in_a_checkpoint_are_refused(model, tmp_path):
    path = tmp_path / "odd.ckpt"
    model.save(path)

    def spoil(files):
        record = json.loads(files["checkpoint.json"])
        record["parameters"]["epochs"] = -3
        files["checkpoint.json"] = json.dumps(record).encode()

    rewritten(path, spoil)
    with pytest.raises(InvalidCheckpoint, match="epochs must be a whole number"):
        train.load(path)


def test_a_missing_checkpoint_is_not_found_and_a_bad_address_is_refused_before_training(tmp_path):
    with pytest.raises(NotFound, match=r"There is no checkpoint .*none\.ckpt"):
        train.load(tmp_path / "none.ckpt")
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
        with pytest.raises(NotFound, match=r"s3://lab/runs/7/lenet\.ckpt"):
            train.load("s3://lab/runs/7")
        assert model.save("s3://lab/runs/7") == "s3://lab/runs/7/lenet.ckpt"
        assert train.load("s3://lab/runs/7").sha256 == model.sha256
        with pytest.raises(GenokitError, match=r"s3://nowhere/lenet\.ckpt"):
            model.save("s3://nowhere")

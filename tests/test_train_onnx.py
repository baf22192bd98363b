"""ONNX files: what the kit writes, ONNX's own checker accepts and onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genokit import backends, storage
from genokit.errors import InvalidParameters
from genokit.train import network
from genokit.train.numpy_network import numpy_logits
from genokit.train.onnx import to_onnx

WEIGHTS = network.first_weights(1)
ABOUT = {"data": "MNIST, größer", "epochs": 3, "parameters": {"learning_rate": 0.05}}


def test_the_same_weights_give_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    first = to_onnx(WEIGHTS, tmp_path / "a" / "lenet.onnx", ABOUT)
    backwards = [dict(reversed(one.items())) for one in (WEIGHTS, ABOUT)]
    second = to_onnx(backwards[0], str(tmp_path / "b.onnx"), backwards[1])
    assert first == str(tmp_path / "a" / "lenet.onnx")
    assert storage.read(first) == storage.read(second)
    to_onnx(network.first_weights(2), second, ABOUT)
    assert storage.read(first) != storage.read(second)


def test_a_file_can_be_written_to_s3() -> None:
    address = f"s3://{backends.clients().bucket}/models/lenet.onnx"
    assert to_onnx(WEIGHTS, address, {}) == address
    assert WEIGHTS["conv2_weight"].tobytes() in storage.read(address)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (
            {**WEIGHTS, "conv3_weight": WEIGHTS["conv1_weight"]},
            r"conv3_weight: expected none, got float32",
        ),
        (
            {name: WEIGHTS[name] for name in list(WEIGHTS)[1:]},
            r"conv1_weight: expected float32 .*, got none",
        ),
        ({**WEIGHTS, "dense1_weight": WEIGHTS["dense1_weight"].T}, r"float32 \(500, 800\), got float32 \(800, 500\)"),
        ({**WEIGHTS, "conv1_bias": np.zeros(20)}, r"float32 \(20,\), got float64 \(20,\)"),
    ],
)
def test_weights_that_are_not_a_lenets_are_refused_and_nothing_is_written(
    weights: network.Weights, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameters, match=said):
        to_onnx(weights, tmp_path / "lenet.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
def test_onnx_finds_the_file_correct_and_reads_what_it_is_about(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(to_onnx(WEIGHTS, tmp_path / "lenet.onnx", ABOUT))
    onnx.checker.check_model(model, full_check=True)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts.pop("input").startswith("image: float32 (batch, 1, 28, 28), pixels / 255")
    assert texts.pop("output").startswith("logits")
    assert texts == {"data": "MNIST, größer", "epochs": "3", "parameters": '{"learning_rate": 0.05}'}
    read = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    assert all((read[name] == array).all() for name, array in WEIGHTS.items())


@pytest.mark.torch
@pytest.mark.parametrize("n", [1, 200])
def test_onnxruntime_computes_the_same_logits(n: int, tmp_path: Path) -> None:
    import onnxruntime

    images = np.random.RandomState(n).randint(0, 256, (n, 28, 28)).astype(np.uint8)
    biased = {name: array + np.float32(0.1) * (array.ndim == 1) for name, array in WEIGHTS.items()}
    session = onnxruntime.InferenceSession(to_onnx(biased, tmp_path / "lenet.onnx", {}))
    (got,) = session.run(["logits"], {"image": network.to_input(images)})
    assert np.abs(got - numpy_logits(biased, images)).max() < 1e-5

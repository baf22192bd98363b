"""A LeNet as an ONNX file, for any program that runs such networks.

The file is written here in Protocol Buffers' wire format: ten operators need no package, and the same weights give the
same bytes. ONNX's own schema, with the numbers of the fields: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from genokit import __version__, storage
from genokit.errors import InvalidParameters
from genokit.train.network import SHAPES, Weights, misfits

IR_VERSION, OPSET = 8, 13  # of 2020: what reads ONNX today reads these
FLOAT = 1  # TensorProto.DataType

# Operator, name of its weights, attributes. Each takes the output of the one before.
OPERATORS: list[tuple[str, str, dict[str, int | list[int]]]] = [
    ("Conv", "conv1", {"kernel_shape": [5, 5]}),
    ("Tanh", "", {}),
    ("MaxPool", "", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Conv", "conv2", {"kernel_shape": [5, 5]}),
    ("Tanh", "", {}),
    ("MaxPool", "", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Flatten", "", {"axis": 1}),
    ("Gemm", "dense1", {"transB": 1}),
    ("Tanh", "", {}),
    ("Gemm", "dense2", {"transB": 1}),
]


def to_onnx(weights: Weights, address: storage.Address, about: Mapping[str, object]) -> str:
    """Write a LeNet as an ONNX file, whole or not at all.

    The network takes ``image``, float32 (batch, 1, 28, 28) from 0 (paper) to 1 (ink), that is pixels / 255, and gives
    ``logits``, float32 (batch, 10). The same weights and metadata give the same bytes.

    Parameters
    ----------
    weights : dict of str to ndarray
        The weights of a LeNet, float32, with the names and shapes of ``network.SHAPES``.
    address : str or path
        The file: a path on this machine or ``s3://bucket/key``.
    about : mapping of str to object
        Metadata to store in the file, such as the hash of the data; what is not text is stored as JSON. ``input`` and
        ``output`` are always added and describe both.

    Returns
    -------
    str
        The address.

    Raises
    ------
    InvalidParameters
        The weights are not those of a LeNet.
    NotFound, ConfigError, AccessDenied, ServiceError
        The file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from genokit.train.network import first_weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.path.getsize(to_onnx(first_weights(1), f"{folder}/lenet.onnx", {"data": "MNIST"})) // 1000
    1725
    """
    if wrong := misfits(weights):
        raise InvalidParameters(
            f"The weights are not those of a LeNet: {'; '.join(wrong)}. "
            "Give the weights of a model: train.load(path).weights."
        )
    return storage.write(address, _model(weights, about))


def _model(weights: Weights, about: Mapping[str, object]) -> bytes:
    nodes, last = [], "image"  # NodeProto: input 1, output 2, name 3, op_type 4, attribute 5
    for i, (operator, owner, attributes) in enumerate(OPERATORS):
        inputs = [last, f"{owner}_weight", f"{owner}_bias"] if owner else [last]
        last = "logits" if i == len(OPERATORS) - 1 else f"{operator.lower()}_{i}"
        node = _repeated(1, inputs) + _field(2, last) + _field(3, f"node_{i}") + _field(4, operator)
        nodes.append(node + _repeated(5, [_attribute(*pair) for pair in attributes.items()]))
    # GraphProto: node 1, name 2, initializer 5, input 11, output 12
    graph = _repeated(1, nodes) + _field(2, "lenet") + _repeated(5, [_tensor(name, weights[name]) for name in SHAPES])
    graph += _field(11, _declared("image", ["batch", 1, 28, 28])) + _field(12, _declared("logits", ["batch", 10]))
    texts = {name: text if isinstance(text, str) else json.dumps(text, default=str) for name, text in about.items()} | {
        "input": "image: float32 (batch, 1, 28, 28), pixels / 255, 0 is paper and 1 is ink",
        "output": "logits: float32 (batch, 10), one for each digit; softmax gives probabilities",
    }
    entries = [_field(1, name) + _field(2, texts[name]) for name in sorted(texts)]
    # ModelProto: ir_version 1, producer_name 2, producer_version 3, graph 7, opset_import 8, metadata_props 14
    model = _field(1, IR_VERSION) + _field(2, "genokit") + _field(3, __version__) + _field(7, graph)
    return model + _field(8, _field(1, "") + _field(2, OPSET)) + _repeated(14, entries)


def _tensor(name: str, array: np.ndarray) -> bytes:
    # TensorProto: dims 1, data_type 2, name 8, raw_data 9
    data = np.ascontiguousarray(array, "<f4").tobytes()
    return _repeated(1, array.shape) + _field(2, FLOAT) + _field(8, name) + _field(9, data)


def _attribute(name: str, value: int | list[int]) -> bytes:
    # AttributeProto: name 1, i 3, ints 8, type 20 (INT 2, INTS 7)
    return _field(1, name) + (
        _repeated(8, value) + _field(20, 7) if isinstance(value, list) else _field(3, value) + _field(20, 2)
    )


def _declared(name: str, shape: Sequence[str | int]) -> bytes:
    # ValueInfoProto: name 1, type 2; in it tensor_type 1: elem_type 1, shape 2; of a dimension dim_value 1, dim_param 2
    dimensions = [_field(1 if isinstance(size, int) else 2, size) for size in shape]
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, _repeated(1, dimensions))))


def _repeated(number: int, values: Sequence[int | str | bytes]) -> bytes:
    return b"".join(_field(number, value) for value in values)


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field of a message: a varint, or its length and its bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])

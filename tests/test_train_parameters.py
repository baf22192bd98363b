"""What may be asked of a training."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genokit import train
from genokit.errors import InvalidParameters


def test_all_invalid_parameters_are_listed_at_once():
    with pytest.raises(InvalidParameters) as raised:
        train.Parameters(epochs=0, learning_rate="fast", momentum=1, device="tpu", seed=True)
    lines = str(raised.value).splitlines()
    assert len(lines) == 5
    assert lines[0] == "epochs must be a whole number from 1 to 10000, got 0"
    assert "learning_rate must be a number of at least 0 and below inf, got 'fast'" in lines
    assert "device must be 'cpu' or 'gpu', got 'tpu'" in lines


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 1.5), ("epochs", None), ("learning_rate", math.nan), ("learning_rate", math.inf), ("batch_size", -1),
     ("weight_decay", -1e-9), ("seed", 2**32), ("threads", -1), ("engine", "jax"),
     ("shift", 9), ("schedule", "step"), ("precision", "int8"), ("final_rate", [])],
)  # fmt: skip
def test_values_out_of_range_or_of_the_wrong_type_are_refused(name, value):
    with pytest.raises(InvalidParameters, match=name):
        train.Parameters(**{name: value})


def test_unknown_names_are_refused_with_the_nearest_known_one():
    with pytest.raises(InvalidParameters, match=r"no parameter 'learning_rte'\. Did you mean 'learning_rate'\?"):
        train.Parameters().replace(learning_rte=0.1, epochs=2)


def test_equal_numbers_of_any_type_are_equal_parameters():
    assert train.Parameters(epochs=np.int64(2), momentum=0, learning_rate=np.float64(0.05)) == train.Parameters(
        epochs=2, momentum=0.0
    )
    assert isinstance(train.Parameters(seed=np.uint8(3)).seed, int)
    assert train.Parameters.from_dict(train.Parameters(epochs=3).to_dict()) == train.Parameters(epochs=3)


def test_the_learning_rate_rises_then_falls_to_its_final_fraction():
    parameters = train.Parameters(epochs=2, learning_rate=1, final_rate=0.4, warmup_steps=200)
    rates = [parameters.learning_rate_at(step, 938) for step in range(2 * 938)]
    top = int(np.argmax(rates))
    assert 199 <= top <= 200
    assert np.all(np.diff(rates[:200]) > 0)
    assert np.all(np.diff(rates[200:]) < 0)
    assert rates[-1] == pytest.approx(0.4, abs=1e-3)
    # Where an epoch has few steps, warming up leaves most of it for learning; an epoch of one step is no special case.
    assert int(np.argmax([parameters.learning_rate_at(step, 40) for step in range(80)])) <= 10
    assert parameters.learning_rate_at(0, 1) == 1


def test_parameters_have_a_card_and_a_repr_of_what_differs():
    assert repr(train.Parameters(epochs=3, seed=7)) == "Parameters(epochs=3, seed=7)"
    assert "warmup_steps" in train.Parameters()._repr_html_()

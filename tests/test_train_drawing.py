"""Drawing a digit: the form of MNIST's digits, and what the widget shows without a browser."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest

from genokit import Settings, run, train
from genokit.train import network
from genokit.train.drawing import as_mnist
from genokit.train.numpy_network import numpy_logits


class Untrained:
    """A LeNet with its first weights."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        return np.exp(network.log_softmax(numpy_logits(network.first_weights(1), images)))


def disc(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return np.where((rows - row) ** 2 + (columns - column) ** 2 <= radius**2, 255, 0).astype(np.uint8)


def box(image: np.ndarray) -> tuple[int, int]:
    """The height and width of what is drawn."""
    rows, columns = image.nonzero()
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def centre(image: np.ndarray) -> tuple[float, float]:
    at = np.arange(28) + 0.5
    return float(image.sum(axis=1) @ at / image.sum()), float(image.sum(axis=0) @ at / image.sum())


@pytest.mark.parametrize("times", [1, 5])
def test_a_digit_of_mnist_of_any_size_comes_back_as_it_was(mnist, times: int) -> None:
    for image in train.load_digits(mnist).test_images[:200]:
        if max(box(image)) == 20:  # as in all of MNIST; a sample may differ
            np.testing.assert_array_equal(as_mnist(image.repeat(times, axis=0).repeat(times, axis=1)), image)


@pytest.mark.parametrize(("height", "width", "expected"), [(200, 50, (20, 5)), (30, 120, (5, 20)), (7, 7, (20, 20))])
def test_a_drawing_is_scaled_to_20_pixels_with_its_aspect_ratio_kept(height, width, expected) -> None:
    ink = np.zeros((210, 170), np.uint8)
    ink[3 : 3 + height, 40 : 40 + width] = 200
    image = as_mnist(ink)
    assert (image.dtype, image.shape, box(image)) == (np.uint8, (28, 28), expected)
    assert set(image[image > 0]) == {200}


def test_edges_are_grey_where_ink_covers_a_part_of_a_pixel() -> None:
    ink = np.zeros((40, 40), np.uint8)
    ink[:, 0] = ink[0] = 240  # a corner of lines one pixel wide, in two pixels each
    image = as_mnist(ink)
    assert sorted(set(image.ravel())) == [0, 120, 180]


@pytest.mark.parametrize("corner", [(20, 20), (20, 100), (110, 30)])
def test_the_centre_of_mass_is_the_centre_wherever_one_draws(corner: tuple[int, int]) -> None:
    ink = disc(140, 140, *corner, 18)
    ink[corner[0] - 2 : corner[0] + 2, corner[1] : corner[1] + 30] = 255  # a disc with a tail
    assert all(14 <= at < 15 for at in centre(as_mnist(ink)))


def test_what_is_heavy_at_one_end_stays_inside() -> None:
    ink = np.zeros((200, 200), np.uint8)
    ink[:, 95:105] = ink[160:] = 255  # its centre would move it three pixels above the upper edge
    image = as_mnist(ink)
    assert box(image) == (20, 20)
    assert image[0].any()


def test_an_empty_sheet_is_an_empty_image_and_a_dot_a_disc() -> None:
    assert not as_mnist(np.zeros((140, 140), np.uint8)).any()
    assert not as_mnist(np.zeros((0, 0), np.uint8)).any()
    dot = as_mnist(disc(140, 140, 9, 130, 6))
    assert box(dot) == (20, 20)
    assert all(14 <= at < 15 for at in centre(dot))
    one = np.zeros((50, 50), np.uint8)
    one[3, 4] = 77
    assert (as_mnist(one)[4:24, 4:24] == 77).all()


def test_what_is_drawn_is_shown_to_the_model_and_told() -> None:
    drawing = train.draw(Untrained())
    assert repr(drawing) == "<Drawing: Nothing is drawn.>"
    assert "none: run this cell" in drawing._repr_html_()
    ink = disc(140, 140, 70, 70, 30)
    drawing._sheet.ink = ink.tobytes()
    np.testing.assert_array_equal(drawing.image, as_mnist(ink))
    np.testing.assert_allclose(drawing.probabilities, Untrained().probabilities(drawing.image[None])[0])
    best = drawing.probabilities.argmax()
    assert repr(drawing) == f"<Drawing: Most likely a {best} ({drawing.probabilities[best]:.0%}).>"
    assert f"{best}: {drawing.probabilities[best]:.1%}" in drawing._repr_html_()
    assert 'alt="The drawing in 28 x 28 pixels"' in drawing._repr_html_()
    drawing._sheet.ink = bytes(140 * 140)
    assert "Nothing" in repr(drawing)


def test_a_run_without_a_person_shows_a_sentence(tmp_path: Path) -> None:
    code = (
        "from genokit import train\nfrom genokit.train import network, numpy_network\n"
        "class Untrained:\n    def probabilities(self, images):\n        return network.log_softmax("
        "numpy_network.numpy_logits(network.first_weights(1), images))\n"
        "train.draw(Untrained())"
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "draw.ipynb")
    finished = run(tmp_path / "draw.ipynb", settings=Settings(home=tmp_path / "home"), progress=False)
    (output,) = nbformat.read(finished.notebook, as_version=4).cells[-1].outputs
    assert "run this cell in JupyterLab to draw a digit" in output["data"]["text/html"]
    assert output["data"]["text/plain"] == "<Drawing: Nothing is drawn.>"


def test_the_wheel_has_the_sheets_program(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("genokit-*.whl")
    assert "genokit/train/drawing.js" in zipfile.ZipFile(wheel).namelist()

"""Drawing a digit in a real JupyterLab, in headless Chromium, with the mouse and with keys."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from browser.lab import ROOT, Opened
from small_mnist import small_mnist

from genokit import train

pytestmark = pytest.mark.browser

SHOTS = ROOT / "runs" / "browser"


@pytest.fixture(scope="module")
def model(place: tuple[Path, str], mnist, tmp_path_factory) -> str:
    """A model trained on 4,000 digits, in the folder of the notebooks."""
    few = small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("digits"), 4000, 500)
    history = train.fit(few, train.Parameters(epochs=3), progress=False)
    assert history.validation_accuracy > 0.85
    return history.model.save(place[0] / "work" / "lenet.safetensors")


def bars(book: Opened) -> dict[str, int]:
    """The probability of each digit in percent, as it stands on the page."""
    lanes = book.page.locator(".gk-draw .gk-lane").all_inner_texts()
    return {name: int(value) for name, value in (lane.split() for lane in lanes)}


def drag(book: Opened, *points: tuple[float, float]) -> None:
    """Draw with the mouse through points given as parts of the sheet."""
    box = book.page.locator(".gk-sheet canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    book.page.mouse.move(*places[0])
    book.page.mouse.down()
    for place in places[1:]:
        book.page.mouse.move(*place, steps=8)
    book.page.mouse.up()


def reads(book: Opened, words: str) -> None:
    book.page.locator(".gk-sheet [role=status]", has_text=words).wait_for()


def test_a_digit_is_drawn_and_the_model_says_what_it_sees(place: tuple[Path, str], opened, model: str) -> None:
    """Leaves pictures of it in runs/browser, to be looked at."""
    book = opened(
        f"from genokit import train\ndrawing = train.draw(train.load({model!r}))\ndrawing",
        "print(drawing, drawing.image.shape, drawing.image.max())",
        "import time; time.sleep(600); print('slept')",
    )
    book.command("application:toggle-left-area")
    book.run(0)
    reads(book, "Nothing is drawn.")
    assert set(bars(book).values()) == {0}
    SHOTS.mkdir(parents=True, exist_ok=True)
    book.page.locator(".gk-draw").screenshot(path=SHOTS / "drawing-light-empty.png")

    drag(book, (0.53, 0.15), (0.5, 0.5), (0.47, 0.85))
    reads(book, "Most likely a 1")
    book.page.wait_for_function("() => document.querySelector('.gk-draw img.gk-image').naturalWidth === 140")
    book.settled(".gk-draw")
    one = bars(book)
    assert one["1"] == max(one.values()) > 50
    book.page.locator(".gk-draw").screenshot(path=SHOTS / "drawing-light.png")
    book.run(1)
    assert "<Drawing: Most likely a 1" in book.output(1)
    assert "(28, 28)" in book.output(1)

    book.page.get_by_role("button", name="Clear").click()
    reads(book, "Nothing is drawn.")
    assert set(bars(book).values()) == {0}

    book.start(2)  # while this cell runs, a 7 is drawn
    drag(book, (0.25, 0.2), (0.75, 0.2), (0.45, 0.85))
    reads(book, "Most likely a 7")
    assert "slept" not in book.output(2)
    book.theme("Dark")
    book.settled(".gk-draw").screenshot(path=SHOTS / "drawing-dark.png")
    book.page.set_viewport_size({"width": 560, "height": 1200})
    view = book.settled(".gk-draw")
    assert view.evaluate("one => one.scrollWidth <= one.clientWidth + 1")
    view.screenshot(path=SHOTS / "drawing-dark-narrow.png")


def test_a_digit_is_drawn_with_the_keys_alone_and_every_part_has_a_name(opened, model: str) -> None:
    book = opened(f"from genokit import train\ntrain.draw(train.load({model!r}))", "1")
    book.run(0)
    reads(book, "Nothing is drawn.")
    canvas = book.page.get_by_role("application", name="Sheet to draw a digit on")
    canvas.focus()
    for _ in range(17):
        book.page.keyboard.press("ArrowDown")
    reads(book, "Most likely a 1")
    book.page.locator(".gk-draw").screenshot(path=SHOTS / "drawing-focus.png")
    book.page.keyboard.press("Tab")
    assert book.page.evaluate("() => document.activeElement.textContent") == "Clear"
    book.page.keyboard.press("Shift+Tab")
    book.page.keyboard.press("Delete")
    reads(book, "Nothing is drawn.")
    book.page.keyboard.press("Shift+ArrowLeft")
    time.sleep(0.5)
    reads(book, "Nothing is drawn.")
    assert book.page.locator(".gk-draw img.gk-image").get_attribute("alt") == "The drawing in 28 x 28 pixels"

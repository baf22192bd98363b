"""Pieces of live views: with ``display``, the only place that makes HTML.

They share one style sheet, which ``style()`` adds to a page once, so that an update sends little but what changed.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genokit.display import STATUS_COLOURS, Html, bare, escape, pill, sign, style_sheet

NONE = ' class="gk-none"'
_HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # of Okabe and Ito's, for light and dark grounds


def view(*parts: object) -> Html:
    """Fragments of a live view, without the style sheet, which ``style`` adds once."""
    return Html(f'<div class="genokit gk-live">{"".join(bare(part) for part in parts)}</div>')


def style() -> Html:
    """The style sheet of the views on a page."""
    return Html(f'<div class="genokit"><style>{style_sheet("display.css")}{style_sheet("live.css")}</style></div>')


def group(*parts: Html) -> Html:
    """Pieces one below the other."""
    return Html("".join(map(bare, parts)))


def beside(*parts: Html) -> Html:
    """Pieces side by side, if there is room."""
    return Html(f'<div class="gk-usages">{"".join(map(bare, parts))}</div>')


def heading(title: str, place: str, state: str, said: str) -> Html:
    """What is watched, where, and how recent it is."""
    return Html(
        f'<div class="gk-title"><strong>{escape(title)}</strong> {pill(state)} '
        f'<span class="gk-note">{escape(said)}</span></div><div class="gk-note">Jobs run {escape(place)}.</div>'
    )


def title(words: str) -> Html:
    """A title."""
    return Html(f'<div class="gk-title"><strong>{escape(words)}</strong></div>')


def quiet(words: str) -> Html:
    """A remark."""
    return Html(f'<p class="gk-note">{escape(words)}</p>')


def grid(names: Sequence[str], lines: Sequence[Sequence[object]]) -> Html:
    """A table whose lines have the same height, so that a widget can stand beside each."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{bare(value) if isinstance(value, Html) else escape(value)}</td>" for value in line)
        + "</tr>" for line in lines
    )  # fmt: skip
    return Html(f'<table class="gk-grid"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def share(counts: Mapping[str, int]) -> Html:
    """The progress of an array: a small stacked bar, and how many children have ended and failed."""
    ended, total = counts.get("SUCCEEDED", 0) + counts.get("FAILED", 0), sum(counts.values())
    failed = f", {sign('FAILED')} {counts['FAILED']:,}" if counts.get("FAILED") else ""
    words = f"{ended:,} of {total:,}{failed}"
    return Html(f'<span class="gk-share">{_bar(counts, words)}<span>{escape(words)}</span></span>')


def notice(words: str) -> Html:
    """Something that went wrong, which screen readers announce at once."""
    return Html(f'<div class="gk-notice gk-bad" role="alert">{sign("FAILED")} {escape(words)}</div>')


def tallies(counts: Mapping[str, int]) -> Html:
    """How many jobs are in each status: a stacked bar, and below it every status with its sign and number."""
    keys = "".join(
        f'<li{"" if n else NONE}><span class="gk-key" style="background:{_colour(status)}"></span>'
        f"<strong>{n:,}</strong> {sign(status)} {escape(status)}</li>"
        for status, n in counts.items()
    )
    said = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n) or "none"
    return Html(f'{_bar(counts, f"{sum(counts.values()):,} jobs: {said}")}<ul class="gk-keys">{keys}</ul>')


def meter(label: str, part: float, whole: float | None, note: str = "") -> Html:
    """How much of something is in use, as words and a bar; ``whole`` is None if the total is unknown."""
    used = f"{round(part, 2):,.12g}"
    words = f"{used} of {round(whole, 2):,.12g}{note}" if whole else f"{used}, of an unknown size"
    share = min(100.0, 100 * part / whole) if whole else 0
    bar = f'<span class="gk-meter"><span style="width:{share:.1f}%"></span></span>'
    return Html(f'<div class="gk-usage"><span>{escape(label)} <strong>{escape(words)}</strong></span>{bar}</div>')


def progress(words: str, done: float, whole: float | None) -> Html:
    """The progress of some work: words, and a bar if the total is known."""
    bar = f'<progress value="{min(done, whole):g}" max="{whole:g}"></progress> ' if whole else ""
    return Html(f'<div style="font-variant-numeric:tabular-nums">{bar}{escape(words)}</div>')


def lanes(bars: Sequence[tuple[str, str, float, float, str]], ticks: Sequence[tuple[float, str]]) -> Html:
    """A timeline of bars: (name, status, left, right, words), left and right from 0 to 1, with ``ticks`` below."""
    lines = "".join(
        f'<div class="gk-lane">{_who(name)}'
        f'<span class="gk-track" role="img" aria-label="{escape(f"{status}, {words}")}"><span class="gk-fill" '
        f'title="{escape(f"{status}, {words}")}" style="left:{100 * left:.2f}%;width:{100 * (right - left):.2f}%;'
        f'background:{_colour(status)}">{sign(status)}</span></span></div>'
        for name, status, left, right, words in bars
    )
    return Html(f'<div class="gk-lanes">{lines}<div class="gk-lane">{_who("")}{_axis(ticks)}</div></div>')


def panels(*parts: Html) -> Html:
    """Pictures side by side, as many in a row as fit."""
    return Html(f'<div class="gk-panels">{"".join(map(bare, parts))}</div>')


def panel(title: str, *parts: Html) -> Html:
    """A picture under its title."""
    return Html(f'<section class="gk-panel"><h4>{escape(title)}</h4>{"".join(map(bare, parts))}</section>')


def bars(rows: Sequence[tuple[str, Sequence[float]]], keys: Sequence[str] = (), most: float = 0) -> Html:
    """Numbers as bars: (name, one number for each of ``keys``, each with its own colour); ``most`` is a full bar."""
    most = most or max((n for _, numbers in rows for n in numbers if n == n), default=0) or 1
    legend = "".join(
        f'<li><span class="gk-key" style="background:{_HUES[i % len(_HUES)]}"></span>{escape(key)}</li>'
        for i, key in enumerate(keys)
    )
    lines = "".join(
        f'<div class="gk-lane">{_who(name)}<span class="gk-bars">'
        + "".join(
            f'<span title="{escape(keys[i] if keys else name)}"><span class="gk-fill" style="flex-basis:'
            f'{80 * n / most:.1f}%;background:{_HUES[i % len(_HUES)]}"></span>{n:,.0f}</span>'
            for i, n in enumerate(numbers)
            if n == n
        )
        + "</span></div>"
        for name, numbers in rows
    )
    return Html((f'<ul class="gk-keys">{legend}</ul>' if keys else "") + f'<div class="gk-lanes">{lines}</div>')


def columns(heights: Sequence[float], ticks: Sequence[tuple[float, str]], every: str) -> Html:
    """A series of numbers in time as thin columns, with ``ticks`` from 0 to 1 below; a 0 is left blank."""
    most = max(heights, default=0) or 1
    path = "".join(f"M{x} 100V{100 - 100 * n / most:.1f}h1V100z" for x, n in enumerate(heights) if n)
    said = f"at most {most:,.0f} {every}"
    label = f"{said}, {ticks[0][1]} to {ticks[-1][1]}" if ticks else said
    return Html(
        f'<svg class="gk-columns" viewBox="0 0 {len(heights)} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><path fill="{_HUES[0]}" d="{path}" /></svg>'
        f'<div class="gk-lane">{_axis(ticks)}</div><p class="gk-note">{escape(said)}</p>'
    )


def download(name: str, content: str, words: str) -> Html:
    """A link that saves a text as a file, without a kernel."""
    data = base64.b64encode(content.encode(errors="replace")).decode()
    return Html(f'<a class="gk-save" download="{escape(name)}" href="data:text/csv;base64,{data}">{escape(words)}</a>')


def replaced(shown: Any, html: Html, words: str) -> Any:
    """Show HTML in place of what ``shown`` is the handle of, or below if it is None; returns the handle."""
    from IPython.display import display

    data = {"text/html": html, "text/plain": words}
    if shown is None:
        return display(data, raw=True, display_id=True)
    shown.update(data, raw=True)
    return shown


def follow(ended: Callable[[], bool], look: Callable[[], tuple[str, Callable[[], Html]]], every_s: float) -> None:
    """Wait until it has ended; where a view can be updated, show what is seen whenever its words have changed.

    ``look`` returns the words, and what makes the HTML; ``every_s`` are the seconds between two looks.
    """
    shown, before = None, ""
    while True:
        over = ended()  # before the look, which so misses nothing
        if is_interactive():
            words, html = look()
            if words != before:
                shown, before = replaced(shown, html(), words), words
        if over:
            return
        time.sleep(every_s)


def is_interactive() -> bool:
    """Whether a view can be updated after it is shown: in a kernel that a person's notebook is connected to.

    Papermill, nbclient and nbconvert are connected to a kernel too, but they do not allow input from a person, and
    say so in every request.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return False
    return bool(kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def show(box: Any, still: Html, plain: str) -> None:
    """Display a view's widgets, and a still of it for when the notebook is opened again without them.

    The still is hidden while the widgets live, and hides JupyterLab's "Error displaying widget" once they do not.
    """
    import ipywidgets
    from IPython.display import display

    name = f"gk-still-{box.model_id}"
    style = f"<style>.{name} {{ display: none; }}</style>"
    if all(getattr(one, "value", None) != style for one in box.children):  # it may be shown again
        box.children = (*box.children, ipywidgets.HTML(style, layout={"height": "0", "margin": "0"}))
    lost = "<style>.jp-OutputArea-output.jupyter-widgets:not(:has(*)) { display: none; }</style>"
    display({**box._repr_mimebundle_(), "text/plain": plain}, raw=True)
    display({"text/html": f'<div class="{name}">{lost}{still}</div>', "text/plain": plain}, raw=True)


def answer_at_once(*pressed: Any) -> None:
    """Let widgets answer clicks while a cell runs.

    For that, JupyterLab sends a view's messages to a subshell of the kernel. But ipykernel 7.4 routes them to the
    sender of the widget's own last message, which is the busy cell. So the record of that sender is deleted.
    """
    for widget in pressed:
        vars(widget.comm or widget).pop("_reply_subshell_id", None)


def _bar(counts: Mapping[str, int], words: str) -> str:
    shares = "".join(
        f'<span class="gk-fill" style="flex-grow:{n};background:{_colour(status)}"></span>'
        for status, n in counts.items()
        if n
    )
    return f'<div class="gk-bar" role="img" aria-label="{escape(words)}">{shares}</div>'


def _who(name: str) -> str:
    return f'<bdi class="gk-who" title="{escape(name)}">{escape(name)}</bdi>'


def _axis(ticks: Sequence[tuple[float, str]]) -> str:
    marks = "".join(f'<span style="left:{100 * at:.2f}%">{escape(words)}</span>' for at, words in ticks)
    return f'<span class="gk-axis">{marks}</span>'


def _colour(status: str) -> str:
    return STATUS_COLOURS.get(status, "rgba(128,128,128,.4)")

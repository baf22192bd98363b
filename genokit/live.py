"""Pieces of live views: with ``display``, the only place that makes HTML.

They share one style sheet, which ``style()`` adds to a page once, so that an update sends little but what changed.
"""

from __future__ import annotations

import base64
import io
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

from genokit.display import STATUS_COLOURS, Html, bare, escape, pill, sign, style_sheet

NONE = ' class="gk-none"'
ACROSS = 400  # steps in time of a drawing of many bars
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


def lanes(
    bars: Sequence[tuple[str, str, float, float, str]], ticks: Sequence[tuple[float, str]], *, named: int = 20
) -> Html:
    """A timeline of bars: (name, status, left, right, words), left and right from 0 to 1, with ``ticks`` below.

    Up to ``named`` bars have a line and a name each; more are drawn thin, without names.
    """
    marks = "".join(f'<span style="left:{100 * at:.2f}%">{escape(words)}</span>' for at, words in ticks)
    axis = f'<div class="gk-lane"><span class="gk-who"></span><span class="gk-axis">{marks}</span></div>'
    if len(bars) > named:
        return Html(f'<div class="gk-lanes gk-thin">{_thin(bars)}{axis}</div>')
    lines = "".join(
        f'<div class="gk-lane"><bdi class="gk-who" title="{escape(name)}">{escape(name)}</bdi>'
        f'<span class="gk-track" role="img" aria-label="{escape(f"{status}, {words}")}"><span class="gk-fill" '
        f'title="{escape(f"{status}, {words}")}" style="left:{100 * left:.2f}%;width:{100 * (right - left):.2f}%;'
        f'background:{_colour(status)}">{sign(status)}</span></span></div>'
        for name, status, left, right, words in bars
    )
    return Html(f'<div class="gk-lanes">{lines}{axis}</div>')


def strip(places: bytes, words: str, *, across: int = 250) -> Html:
    """An array's children as one picture, a dot per child, row by row; each byte is an index in STATUS_COLOURS."""
    across = min(across, max(1, len(places)))
    down = -(-len(places) // across)
    picture = _picture(places.ljust(across * down, b"\xfe"), across)
    tall = max(16, min(5 * down, 200))
    return Html(
        f'<img class="gk-strip" alt="{escape(words)}" style="height:{tall}px" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}" />'
    )


def panels(*parts: Html) -> Html:
    """Pictures side by side, as many in a row as fit."""
    return Html(f'<div class="gk-panels">{"".join(map(bare, parts))}</div>')


def panel(title: str, *parts: Html) -> Html:
    """A picture under its title."""
    return Html(f'<section class="gk-panel"><h4>{escape(title)}</h4>{"".join(map(bare, parts))}</section>')


def bars(rows: Sequence[tuple[str, Sequence[float]]], keys: Sequence[str] = ()) -> Html:
    """Numbers as bars: (name, one number for each of ``keys``, each with its own colour)."""
    most = max((n for _, numbers in rows for n in numbers if n == n), default=0) or 1
    legend = "".join(
        f'<li><span class="gk-key" style="background:{_HUES[i % len(_HUES)]}"></span>{escape(key)}</li>'
        for i, key in enumerate(keys)
    )
    lines = "".join(
        f'<div class="gk-lane"><bdi class="gk-who" title="{escape(name)}">{escape(name)}</bdi><span class="gk-bars">'
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


def spreads(rows: Sequence[tuple[str, Sequence[float], str]], *, alike: bool = True) -> Html:
    """Distributions, a line each: (name, [10th, 25th, 50th, 75th, 90th percentile], how many).

    If they are ``alike``, all share one scale, which includes 0; else each has its own.
    """
    low, high = (end([0, *(n for _, parts, _ in rows for n in parts)]) for end in (min, max))
    lines = []
    for name, parts, many in rows:
        first, last = (low, high) if alike else (parts[0], parts[-1])
        places = [100 * (n - first) / (last - first) if last > first else 50.0 for n in parts]
        ends = "".join(
            f'<span class="{kind}" style="left:{places[a]:.1f}%;width:{places[b] - places[a]:.1f}%"></span>'
            for kind, a, b in (("gk-whole", 0, 4), ("gk-half", 1, 3), ("gk-middle", 2, 2))
        )
        words = f"{parts[2]:.4g} ({parts[0]:.4g} to {parts[4]:.4g})"
        lines.append(
            f'<div class="gk-lane"><bdi class="gk-who" title="{escape(name)}">{escape(name)}</bdi>'
            f'<span class="gk-track" title="{escape(f"{parts[1]:.4g} to {parts[3]:.4g} are the middle half")}">{ends}'
            f'</span><span class="gk-said"><strong>{escape(words)}</strong> of {escape(many)}</span></div>'
        )
    if alike:
        marks = "".join(
            f'<span style="left:{100 * (n - low) / ((high - low) or 1):.1f}%">{n:.6g}</span>' for n in _round(low, high)
        )
        lines.append(
            f'<div class="gk-lane"><span class="gk-who"></span><span class="gk-axis">{marks}</span>'
            '<span class="gk-said"></span></div>'
        )
    key = '<p class="gk-note">Median (10th to 90th percentile).</p>'
    return Html(f'<div class="gk-lanes">{"".join(lines)}</div>{key}')


def columns(heights: Sequence[float], ticks: Sequence[tuple[float, str]], every: str) -> Html:
    """A series of numbers in time as thin columns, with ``ticks`` from 0 to 1 below; a 0 is left blank."""
    most = max(heights, default=0) or 1
    path = "".join(f"M{x} 100V{100 - 100 * n / most:.1f}h1V100z" for x, n in enumerate(heights) if n)
    marks = "".join(f'<span style="left:{100 * at:.2f}%">{escape(words)}</span>' for at, words in ticks)
    said = f"at most {most:,.0f} {every}"
    label = f"{said}, {ticks[0][1]} to {ticks[-1][1]}" if ticks else said
    return Html(
        f'<svg class="gk-columns" viewBox="0 0 {len(heights)} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><path fill="{_HUES[0]}" d="{path}" /></svg>'
        f'<div class="gk-lane"><span class="gk-axis">{marks}</span></div><p class="gk-note">{escape(said)}</p>'
    )


def download(name: str, content: str, words: str) -> Html:
    """A link that saves a text as a file, without a kernel."""
    data = base64.b64encode(content.encode(errors="replace")).decode()
    return Html(f'<a class="gk-save" download="{escape(name)}" href="data:text/csv;base64,{data}">{escape(words)}</a>')


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


def _round(low: float, high: float) -> list[float]:
    """Three to five round numbers between two ends.

    >>> _round(0, 44), _round(0, 1), _round(-3, 0)
    ([0, 10, 20, 30, 40], [0.0, 0.25, 0.5, 0.75, 1.0], [-3, -2, -1, 0])
    """
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span))
    step = next(power * part for part in (0.25, 0.5, 1, 2, 2.5) if span / (power * part) < 5)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _colour(status: str) -> str:
    return STATUS_COLOURS.get(status, "rgba(128,128,128,.4)")


def _thin(bars: Sequence[tuple[str, str, float, float, str]]) -> str:
    """Many bars as one drawing, a path per status. With more bars than lines, a line shows its commonest status."""
    lines = min(150, len(bars))
    rows: list[dict[str, list[int]]] = [{} for _ in range(lines)]  # by status: beginnings minus ends at each step
    for place, (_, status, left, right, _) in enumerate(bars):
        steps = rows[place * lines // len(bars)].setdefault(status, [0] * (ACROSS + 1))
        begin = min(int(ACROSS * left), ACROSS - 1)
        steps[begin] += 1
        steps[max(begin + 1, round(ACROSS * right))] -= 1
    paths: dict[str, list[str]] = {}
    for y, row in enumerate(rows):
        there = zip(*(accumulate(steps) for steps in row.values()), strict=True)
        most = [max(zip(counts, row, strict=True)) for counts in there]
        for status, run in groupby(enumerate(most), key=lambda one: one[1][1] if one[1][0] else ""):
            places = [x for x, _ in run]
            if status:
                paths.setdefault(status, []).append(f"M{places[0]} {y}H{places[-1] + 1}v1H{places[0]}z")
    drawn = "".join(f'<path fill="{_colour(status)}" d="{"".join(parts)}" />' for status, parts in paths.items())
    words = f"{len(bars):,} attempts, ordered by their start"
    view_box = f'viewBox="0 0 {ACROSS} {lines}" preserveAspectRatio="none"'
    svg = f'<svg {view_box} role="img" aria-label="{words}">{drawn}</svg>'
    return f'<div class="gk-lane"><span class="gk-who">{len(bars):,} attempts</span>{svg}</div>'


def _picture(places: bytes, across: int) -> bytes:
    """A PNG with a palette: the statuses' colours, grey for what is not known yet, and transparent."""
    from PIL import Image

    known = len(STATUS_COLOURS)
    dots = bytes(byte if byte < known else known + (byte == 0xFE) for byte in range(256))
    picture = Image.frombytes("P", (across, len(places) // across), places.translate(dots))
    picture.putpalette(bytes.fromhex("".join(STATUS_COLOURS.values()).replace("#", "")) + b"\x80\x80\x80" * 2)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=b"\xff" * known + b"\x50\0")
    return file.getvalue()

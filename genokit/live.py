"""Pieces of views that change while they are looked at: with ``display``, the only place that makes HTML.

They share one style, which ``style()`` brings to a page once, so that a change carries little more than what changed.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

from genokit.display import STATUS_COLOURS, Html, bare, escape, pill, sheets, sign

NONE = ' class="gk-none"'
ACROSS = 400  # places in time of a drawing of many bars


def view(*parts: object) -> Html:
    """Fragments for a view that is changed often: without the style, which ``style`` brings once."""
    return Html(f'<div class="genokit gk-live">{"".join(bare(part) for part in parts)}</div>')


def style() -> Html:
    """The style of views on the same page."""
    return Html(f'<div class="genokit"><style>{sheets("display.css", "live.css")}</style></div>')


def group(*parts: Html) -> Html:
    """Pieces one below the other."""
    return Html("".join(map(bare, parts)))


def beside(*parts: Html) -> Html:
    """Pieces side by side, where there is room."""
    return Html(f'<div class="gk-usages">{"".join(map(bare, parts))}</div>')


def heading(title: str, place: str, state: str, said: str) -> Html:
    """What is watched, where, and how fresh it is."""
    return Html(
        f'<div class="gk-title"><strong>{escape(title)}</strong> {pill(state)} '
        f'<span class="gk-note">{escape(said)}</span></div><div class="gk-note">Jobs run {escape(place)}.</div>'
    )


def quiet(words: str) -> Html:
    """A remark."""
    return Html(f'<p class="gk-note">{escape(words)}</p>')


def grid(names: Sequence[str], lines: Sequence[Sequence[object]]) -> Html:
    """A table of lines of one height each, so that something else can stand beside every line."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{bare(value) if isinstance(value, Html) else escape(value)}</td>" for value in line)
        + "</tr>" for line in lines
    )  # fmt: skip
    return Html(f'<table class="gk-grid"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def share(counts: Mapping[str, int]) -> Html:
    """How far an array is: a small bar in parts, and the numbers that matter."""
    ended, total = counts.get("SUCCEEDED", 0) + counts.get("FAILED", 0), sum(counts.values())
    failed = f", {sign('FAILED')} {counts['FAILED']:,}" if counts.get("FAILED") else ""
    words = f"{ended:,} of {total:,}{failed}"
    return Html(f'<span class="gk-share">{_bar(counts, words)}<span>{escape(words)}</span></span>')


def notice(words: str) -> Html:
    """Something that went wrong, which screen readers say at once."""
    return Html(f'<div class="gk-notice gk-bad" role="alert">{sign("FAILED")} {escape(words)}</div>')


def tallies(counts: Mapping[str, int]) -> Html:
    """How many there are in each status: a bar in parts, and below it every status with its sign and number."""
    keys = "".join(
        f'<li{"" if n else NONE}><span class="gk-key" style="background:{_colour(status)}"></span>'
        f"<strong>{n:,}</strong> {sign(status)} {escape(status)}</li>"
        for status, n in counts.items()
    )
    said = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n) or "none"
    return Html(f'{_bar(counts, f"{sum(counts.values()):,} jobs: {said}")}<ul class="gk-keys">{keys}</ul>')


def meter(label: str, part: float, whole: float | None, note: str = "") -> Html:
    """How much of something is in use, as words and a bar; ``whole`` None where nobody says how much there is."""
    words = f"{part:,.4g} of {whole:,.4g}{note}" if whole else f"{part:,.4g}, of an unknown size"
    share = min(100.0, 100 * part / whole) if whole else 0
    bar = f'<span class="gk-meter"><span style="width:{share:.1f}%"></span></span>'
    return Html(f'<div class="gk-usage"><span>{escape(label)} <strong>{escape(words)}</strong></span>{bar}</div>')


def lanes(
    bars: Sequence[tuple[str, str, float, float, str]], ticks: Sequence[tuple[float, str]], *, named: int = 20
) -> Html:
    """Bars in time: (name, status, left, right, words), left and right from 0 to 1, with ``ticks`` below.

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
    """An array's children as one picture, a dot a child, row after row; a byte is a place in STATUS_COLOURS."""
    across = min(across, max(1, len(places)))
    down = -(-len(places) // across)
    picture = _picture(places.ljust(across * down, b"\xfe"), across)
    tall = max(16, min(5 * down, 200))
    return Html(
        f'<img class="gk-strip" alt="{escape(words)}" style="height:{tall}px" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}" />'
    )


def _bar(counts: Mapping[str, int], words: str) -> str:
    shares = "".join(
        f'<span class="gk-fill" style="flex-grow:{n};background:{_colour(status)}"></span>'
        for status, n in counts.items()
        if n
    )
    return f'<div class="gk-bar" role="img" aria-label="{escape(words)}">{shares}</div>'


def _colour(status: str) -> str:
    return STATUS_COLOURS.get(status, "rgba(128,128,128,.4)")


def _thin(bars: Sequence[tuple[str, str, float, float, str]]) -> str:
    """Many bars as one drawing, a path a status. With more bars than lines, a line shows what most of its bars were."""
    lines = min(150, len(bars))
    rows: list[dict[str, list[int]]] = [{} for _ in range(lines)]  # by status: how many begin less end, at each place
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
    words = f"{len(bars):,} attempts, one below the other by their start"
    view_box = f'viewBox="0 0 {ACROSS} {lines}" preserveAspectRatio="none"'
    svg = f'<svg {view_box} role="img" aria-label="{words}">{drawn}</svg>'
    return f'<div class="gk-lane"><span class="gk-who">{len(bars):,} attempts</span>{svg}</div>'


def _picture(places: bytes, across: int) -> bytes:
    """A PNG with a palette: the statuses' colours, a grey for what nobody has seen, and nothing at all."""
    palette = bytes.fromhex("".join(STATUS_COLOURS.values()).replace("#", ""))
    known = len(STATUS_COLOURS)
    dots = bytes(byte if byte < known else known + (byte == 0xFE) for byte in range(256))
    rows = (b"\0" + places[at : at + across].translate(dots) for at in range(0, len(places), across))
    header = struct.pack(">IIBBBBB", across, len(places) // across, 8, 3, 0, 0, 0)
    chunks = {"IHDR": header, "PLTE": palette + b"\x80\x80\x80" * 2, "tRNS": b"\xff" * known + b"\x50\0"}
    chunks |= {"IDAT": zlib.compress(b"".join(rows)), "IEND": b""}
    parts = (
        struct.pack(">I", len(data)) + name.encode() + data + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

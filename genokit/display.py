"""All HTML that the kit shows is made here, and everything is escaped unless it was made here.

Fragments are well-formed and self-contained, without scripts and network. In JupyterLab they follow its theme (light
or dark), elsewhere the colours around them; without style sheets, as on GitHub, they are plain tables.

>>> card("Job align", {"status": "RUNNING", "reads": "<a & b>"}).count("&lt;a &amp; b&gt;")
1
"""

from __future__ import annotations

import base64
import datetime
import html
import io
import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


# What a page made here may do in a browser: show its own pictures and styles; load and run nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Text that is safe HTML already; any other text is escaped on its way into a page."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


class Log(str):
    """Lines of a log as they were written: ``plain`` when printed, a scrolling block in a notebook."""

    __slots__ = ()

    def __str__(self) -> str:
        return plain(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return log(self)


def card(
    title: str,
    rows: Mapping[str, object] | Sequence[tuple[str, object]],
    *,
    status: str | None = None,
    fold: Mapping[str, object] | None = None,
) -> Html:
    """A titled box of names and values, with a status beside the title and folded parts below.

    ``fold`` maps a label to what opens under it: HTML of this module, or any value, which is shown as text.
    """
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    body = _rows(pairs)
    folds = "".join(
        f"<details><summary>{escape(label)}</summary>{bare(content)}</details>"
        for label, content in (fold or {}).items()
    )
    mark = f" {pill(status)}" if status is not None else ""
    head = f'<div class="gk-head"><strong>{escape(title)}</strong>{mark}</div>'
    return _fragment(f'<div class="gk-card">{head}{body}{folds}</div>')


def table(
    frame_or_rows: DataFrame | Iterable[Mapping[str, object]] | Iterable[Sequence[object]],
    *,
    columns: Sequence[str] | None = None,
    most: int = 50,
) -> Html:
    """A table of a DataFrame, dicts or tuples: at most ``most`` rows, with a note if there are more.

    Numbers are right-aligned; a column called status or state is shown as in cards. An index comes first, unless it
    only counts the rows.
    """
    names, rows = _names_and_rows(frame_or_rows, columns)
    shown = rows[:most]
    parts = [_column(name, [row[i] for row in shown]) for i, name in enumerate(names)]
    head = "".join(
        f'<th scope="col"{attribute}>{escape(name)}</th>' for name, (attribute, _) in zip(names, parts, strict=True)
    )
    cells = ([f"<td{attribute}>{value}</td>" for value in values] for attribute, values in parts)
    lines = "".join(f"<tr>{''.join(line)}</tr>" for line in zip(*cells, strict=True))
    note = ""
    if not rows:
        note = '<p class="gk-note">No rows.</p>'
    elif len(rows) > most:
        note = f'<p class="gk-note">The first {most:,} of {len(rows):,} rows.</p>'
    whole = f'<table class="gk-table"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>' if names else ""
    return _fragment(f'<div class="gk-wide">{whole}</div>{note}')


def log(text: str) -> Html:
    """A log as a scrolling block, without terminal colours; a progress bar shows only its last state."""
    return _fragment(f'<pre class="gk-log" tabindex="0">{escape(plain(text))}</pre>')


def figure(fig: Figure, alt: str, *, caption: str = "") -> Html:
    """A matplotlib figure as an image inside the HTML, at its size in inches; ``alt`` describes it."""
    buffer = io.BytesIO()
    # Twice the dots for sharp screens; no Software entry, so that the same figure gives the same bytes.
    fig.savefig(buffer, format="png", dpi=192, bbox_inches="tight", metadata={"Software": None})
    return image(buffer.getvalue(), alt, scale=0.5, caption=caption)


def drawn(ax: Axes, alt: str, *, caption: str = "") -> Html:
    """The figure of these axes as an image inside the HTML, described by ``alt``; it is closed."""
    from matplotlib import pyplot as plt

    html = figure(ax.figure, alt, caption=caption)  # type: ignore[arg-type]
    plt.close(ax.figure)  # type: ignore[arg-type]
    return html


def image(png: bytes, alt: str, *, scale: float = 1.0, caption: str = "") -> Html:
    """A PNG inside the HTML, never wider than the page; ``alt`` describes it to those who cannot see it.

    A JPEG, or an SVG (whose scripts do not run here), is shown at its own size.
    """
    kind = {b"\xff\xd8": "jpeg"}.get(png[:2], "svg+xml" if png[:1] == b"<" else "png")
    width = round(int.from_bytes(png[16:20], "big") * scale)  # the header's first field
    size = f' width="{width}"' if kind == "png" else ""
    source = f"data:image/{kind};base64,{base64.b64encode(png).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    picture = f'<img class="gk-image" src="{source}" alt="{escape(alt)}"{size} />'
    return _fragment(f'<figure class="gk-figure">{picture}{below}</figure>')


def link(href: str | Path, words: object) -> Html:
    """A link to a web page or a file; for anything else, such as a script, only its words."""
    address = quote(os.fsencode(href)) if isinstance(href, Path) else href
    scheme, colon, _ = re.split("[/?#]", address, maxsplit=1)[0].partition(":")
    if colon and scheme.lower() not in ("http", "https", "file"):
        return Html(escape(words))
    return Html(f'<a href="{escape(address)}">{escape(words)}</a>')


def stack(*parts: object) -> Html:
    """Fragments one below the other; anything but HTML of this module is escaped."""
    return _fragment("".join(bare(part) for part in parts))


def noted(value: object, note: str) -> Html:
    """A value with a remark in grey after it."""
    return Html(f'{_value(value)} <span class="gk-aside">{escape(note)}</span>')


def pill(status: str) -> Html:
    """A status as a word with a sign and a colour, never the colour alone."""
    kind = _kind(status)
    return Html(f'<span class="gk-pill gk-{kind}">{_SIGNS[kind]} {escape(status)}</span>')


def page(title: str, sections: Sequence[tuple[str, Html]], *, lead: object = "") -> Html:
    """An HTML document in one file, light or dark as the reader's system is, and fit for printing.

    ``lead``, a sentence or HTML, stands below the title; each section has a heading. It loads and runs nothing.
    """
    from genokit import __version__

    items = "".join(f'<li><a href="#s{i}">{escape(name)}</a></li>' for i, (name, _) in enumerate(sections, 1))
    index = f'<nav aria-label="Contents"><ol>{items}</ol></nav>' if len(sections) > 2 else ""
    parts = "".join(
        f'<section id="s{i}"><h2>{escape(name)}</h2>{bare(content)}</section>'
        for i, (name, content) in enumerate(sections, 1)
    )
    opening = bare(lead) if isinstance(lead, Html) else f'<p class="gk-lead">{escape(lead)}</p>' if lead else ""
    return Html(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8" />'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />'
        '<meta name="color-scheme" content="light dark" />'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
        f"<title>{escape(title)}</title><style>{style_sheet('page.css')}{style_sheet('display.css')}</style></head>"
        f'<body class="genokit"><header><h1>{escape(title)}</h1>{opening}{index}</header>'
        f"<main>{parts}</main><footer>genokit {escape(__version__)}</footer></body></html>\n"
    )


def escape(value: object) -> str:
    """Any value as text that is safe in HTML and its attributes; control characters become visible signs.

    >>> escape('<b a="1">\\x00')
    '&lt;b a=&quot;1&quot;&gt;␀'
    """
    return html.escape(_UNSHOWABLE.sub(_sign, str(value)))


def plain(text: str) -> str:
    r"""A text without colours and other sequences that a terminal would obey; control characters become visible signs.

    Of a line that carriage returns overwrote, the last state is left.

    >>> plain("10%\r100%\n\x1b[31mred\x1b[0m\x1b]52;c;cm0gLXJm\x07 \x1b")
    '100%\nred ␛'
    """
    lines = _TERMINAL.sub("", text.replace("\r\n", "\n")).split("\n")
    return _UNSHOWABLE.sub(_sign, "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines))


def seconds(s: float) -> str:
    """A duration in words.

    >>> seconds(0.25), seconds(12.34), seconds(131), seconds(7380), seconds(200_000)
    ('0.25 s', '12.3 s', '2 min 11 s', '2 h 03 min', '2 d 8 h')
    """
    if s < 59.95:
        return f"{s:.2f} s" if s < 1 else f"{s:.1f} s"
    minutes, left = divmod(round(s), 60)
    if minutes < 60:
        return f"{minutes} min {left:02d} s"
    hours, minutes = divmod(round(s / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(s / 3600), 24)
    return f"{days} d {hours} h"


def size(n_bytes: float) -> str:
    """A number of bytes in words.

    >>> size(0), size(1536), size(11_594_722)
    ('0 B', '1.5 KiB', '11.1 MiB')
    """
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} TiB"


# Escape sequences of ECMA-48 in seven bits and in eight: CSI (colours); strings such as OSC, which may set the window's
# title or the clipboard; and the short ones.
_TERMINAL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90-\x9f\n]*(?:\x07|\x9c|\x1b\\)|"
    r"\x1b[ -/]*[0-~]"
)
# What HTML and XML cannot hold: control characters, halves of surrogate pairs, and two that are no characters. And what
# shows the text around it in another order, so that a reader would see other words.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

# Okabe and Ito's colours, which colour-blind readers can distinguish too, in the order of a job's statuses.
STATUS_COLOURS = {
    "SUBMITTED": "#c3c8ce",
    "PENDING": "#8b929a",
    "RUNNABLE": "#e69f00",
    "STARTING": "#56b4e9",
    "RUNNING": "#0072b2",
    "SUCCEEDED": "#009e73",
    "FAILED": "#d55e00",
}

_KINDS = {
    "good": (
        "succeeded", "finished before", "ok", "complete", "completed", "verified", "valid", "enabled", "passed", "done",
        "approved", "released",
    ),
    "bad": (
        "failed", "problem", "error", "kernel_died", "timed_out", "invalid", "mismatch", "wrong", "damaged", "refused",
        "rejected",
    ),
    "warn": ("warning", "exited_early", "cancelled", "missing", "skipped", "sample"),
    "busy": ("running", "starting", "live"),
}  # fmt: skip
_SIGNS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "●", "idle": "○"}


def sign(status: str) -> str:
    """The sign that goes with a status, beside its colour."""
    return _SIGNS[_kind(status)]


def _kind(status: str) -> str:
    """The kind of a status; CloudFormation's long ones are judged by their end, unless they contain ROLLBACK.

    >>> _kind("SUCCEEDED"), _kind("UPDATE_COMPLETE"), _kind("ROLLBACK_COMPLETE"), _kind("DELETE_IN_PROGRESS")
    ('good', 'good', 'bad', 'busy')
    """
    word = status.lower()
    if "rollback" in word:
        return "bad"
    for end, kind in (("_complete", "good"), ("_failed", "bad"), ("_in_progress", "busy")):
        if word.endswith(end):
            return kind
    return next((kind for kind, words in _KINDS.items() if word in words), "idle")


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


@cache
def style_sheet(name: str) -> str:
    """A style sheet of this package, minified."""
    sheet = re.sub(r"/\*.*?\*/", "", Path(__file__).with_name(name).read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", sheet)).strip()


def _fragment(body: str) -> Html:
    return Html(f'<div class="genokit"><style>{style_sheet("display.css")}</style>{body}</div>')


def bare(content: object) -> str:
    """A part of another fragment: HTML without its own copy of the style sheet, anything else escaped."""
    if isinstance(content, Html):
        return content.replace(f"<style>{style_sheet('display.css')}</style>", "")
    if isinstance(content, Log):
        return bare(log(content))
    if _is_frame(content):
        return bare(table(content))
    if isinstance(content, Mapping):
        return _rows(content.items())
    return _value(content)


def _rows(pairs: Iterable[tuple[object, object]]) -> str:
    lines = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{_value(value)}</td></tr>' for name, value in pairs)
    return f'<table class="gk-rows"><tbody>{lines}</tbody></table>' if lines else ""


def _value(value: object) -> str:
    if isinstance(value, Html):
        return bare(value)
    if is_missing(value):
        return '<span class="gk-none">–</span>'
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return escape(f"{float(value):.6g}")
    if isinstance(value, datetime.timedelta):
        return escape(seconds(value.total_seconds()))
    if isinstance(value, datetime.datetime):
        return escape(f"{value:%Y-%m-%d %H:%M:%S %Z}".strip())
    if isinstance(value, Mapping):
        return escape(", ".join(f"{name} = {part}" for name, part in value.items()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return escape(", ".join(str(part) for part in value))
    return escape(value)


def _is_frame(value: object) -> TypeGuard[DataFrame]:
    return hasattr(value, "itertuples")  # without importing pandas


def is_missing(value: object) -> bool:
    """Whether a value is missing: None, NaN, NaT or pandas' NA."""
    if isinstance(value, numbers.Real):
        return bool(value != value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _names_and_rows(source: Any, columns: Sequence[str] | None) -> tuple[list[str], list[Sequence[object]]]:
    if _is_frame(source):
        frame = source if type(source.index).__name__ == "RangeIndex" else source.reset_index()
        frame = frame if columns is None else frame[list(columns)]
        return [str(name) for name in frame.columns], list(frame.itertuples(index=False, name=None))
    rows = list(source)
    if rows and isinstance(rows[0], Mapping):
        keys = list(columns) if columns is not None else list(dict.fromkeys(key for row in rows for key in row))
        return [str(key) for key in keys], [[row.get(key) for key in keys] for row in rows]
    return list(columns or []), rows


def _column(name: str, values: Sequence[object]) -> tuple[str, list[str]]:
    """The class attribute and the cells of a column: long texts get their width."""
    known = [value for value in values if not is_missing(value)]
    if known and all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in known):
        return ' class="gk-number"', [_value(value) for value in values]
    if name.lower() in ("status", "state"):
        return "", [_value(value if is_missing(value) else pill(str(value))) for value in values]
    is_long = any(len(str(value)) > 30 for value in known if not isinstance(value, Html))
    return ' class="gk-long"' if is_long else "", [_value(value) for value in values]

"""Figures of a CDM: its persons, observation, records, completeness, and the quality of its tables.

Each takes a table with at least one row; for an empty one ``paper.blank`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from genokit.plots.paper import INK, axes_on_clear_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

# Okabe and Ito's, distinguishable with any colour vision; men and women also by side or marker.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7f7f7f", "#e69f00")
MOST = 25  # named rows that a figure has room for
LABELLED = 60  # rectangles that a treemap has room for
POINTS = 320  # the height of a treemap
TINY = 7  # the size of its labels, in points
THOUSANDS = "{x:,.0f}"


def pyramid(persons: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Persons by five years of birth, one gender to the left, the others to the right.

    ``persons`` has a row for each year and gender: year_of_birth, gender, persons.
    """
    steps = persons.assign(born=persons["year_of_birth"] // 5 * 5)
    sums = steps.groupby(["born", "gender"])["persons"].sum().unstack(fill_value=0)
    genders = sorted(sums.columns, key=lambda gender: (gender != "men", -sums[gender].sum()))
    with axes_on_clear_paper(ax, 7, 5) as ax:
        right: Any = 0
        for number, gender in enumerate(genders):
            sign = -1 if number == 0 else 1
            ax.barh(sums.index + 2.5, sign * sums[gender], height=4.4, left=right, color=COLOURS[number % 8],
                    label=f"{gender} ({sums[gender].sum():,})")  # fmt: skip
            right = right + sums[gender] if number else 0
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.xaxis.set_major_formatter(lambda x, _: f"{abs(x):,.0f}")
        ax.set(xlabel="persons", ylabel="year of birth")
        return _with_legend(ax)


def observed(months: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Persons observed in each month: month (a period), persons."""
    import pandas as pd

    known = months.set_index("month")["persons"].astype(float)
    known = known.reindex(pd.period_range(known.index.min(), known.index.max(), freq="M"))  # a hidden month is a gap
    years = [month.year + (month.month - 0.5) / 12 for month in known.index]
    with axes_on_clear_paper(ax, 7, 3) as ax:
        ax.fill_between(years, known, step="mid", color=COLOURS[0], alpha=0.25, linewidth=0)
        ax.plot(years, known, ".-", markersize=2, drawstyle="steps-mid", color=COLOURS[0], linewidth=1.2)
        ax.set(ylim=(0, None), xlabel="year", ylabel="persons observed")
        ax.yaxis.set_major_formatter(THOUSANDS)
        return ax


def treemap(concepts: DataFrame, *, what: str = "concept", ax: Axes | None = None) -> Axes:
    """A rectangle for each concept, its area the number of persons: concept_name, persons, share.

    Of more than sixty concepts the most frequent are drawn, which the title says; labels stand where there is room.
    """
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    known = concepts.sort_values("persons", ascending=False, ignore_index=True)
    shown = known.head(LABELLED)
    wide, top, paint = 9 / 5.2, float(known["share"].max()), mpl.colormaps["cividis_r"]
    places = tiles(shown["persons"].tolist(), 0, 0, wide, 1)
    with axes_on_clear_paper(ax, 9, 5.6) as ax:
        for words, share, (x, y, w, h) in zip(shown["concept_name"], shown["share"], places, strict=True):
            fill = paint(0.08 + 0.9 * share / top)
            ax.add_patch(Rectangle((x, y), w, h, facecolor=fill, edgecolor="white", linewidth=1))
            ink = "white" if share / top > 0.5 else "black"
            room, lines = w * POINTS - 4, int(h * 34)
            letters = int(room / 3)
            while letters >= 7 and _widest(parts := _wrapped(words, letters, lines)) > room:
                letters -= 1
            if letters < 7 or lines < 1:
                continue
            number = f"{100 * share:.3g} %"
            if len(parts) < lines and _widest([number]) <= room:
                parts.append(number)
            ax.text(x + w / 2, y + h / 2, "\n".join(parts), ha="center", va="center", fontsize=TINY, color=ink)
        ax.set(xlim=(0, wide), ylim=(1, 0))
        ax.axis("off")
        if len(known) > len(shown):
            ax.set_title(f"the {len(shown)} most frequent of {len(known):,}", fontsize=9, loc="left")
        colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100 * top), paint)
        ax.figure.colorbar(colours, ax=ax, fraction=0.03, label=f"persons with the {what} (% of all)")
        return ax


def _wrapped(words: str, letters: int, lines: int) -> list[str]:
    """Words wrapped to so many lines of so many letters; if they do not fit, their beginning."""
    import textwrap

    parts = textwrap.wrap(words, letters, break_long_words=False)
    whole = len(parts) <= lines and all(len(part) <= letters for part in parts)
    return parts if whole else [words[: letters - 1] + "…"]


def _widest(lines: Sequence[str]) -> float:
    """The width of the widest of these lines, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=TINY)
    return max(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines)


def tiles(sizes: Sequence[float], x: float, y: float, w: float, h: float) -> list[tuple[float, float, float, float]]:
    """A treemap: rectangles of these areas that fill a rectangle, which is halved along its longer side, and so on.

    >>> tiles([2, 1, 1], 0, 0, 2, 1)
    [(0, 0, 1.0, 1), (1.0, 0, 0.5, 1), (1.5, 0, 0.5, 1)]
    """
    if len(sizes) < 2:
        return [(x, y, w, h)] * len(sizes)
    n = next(n for n in range(1, len(sizes)) if n == len(sizes) - 1 or 2 * sum(sizes[:n]) >= sum(sizes))
    share = sum(sizes[:n]) / sum(sizes)
    if w >= h:
        return [*tiles(sizes[:n], x, y, w * share, h), *tiles(sizes[n:], x + w * share, y, w * (1 - share), h)]
    return [*tiles(sizes[:n], x, y, w, h * share), *tiles(sizes[n:], x, y + h * share, w, h * (1 - share))]


def ages(spread: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Age at the first record of the most frequent conditions, by gender: condition, gender, p10_value to p90_value."""
    names = list(dict.fromkeys(spread["condition"]))[:MOST]
    genders = sorted(spread["gender"].unique(), key=lambda gender: (gender != "men", gender))
    with axes_on_clear_paper(ax, 7.5, 1.2 + 0.32 * max(len(names), 2)) as ax:
        for number, gender in enumerate(genders):
            rows = spread[(spread["gender"] == gender) & spread["condition"].isin(names)]
            places = [names.index(name) + 0.26 * (number - (len(genders) - 1) / 2) for name in rows["condition"]]
            _boxes(ax, places, rows, COLOURS[number % 8], "os^D"[number % 4], gender)
        ax.set_xlabel("age at the first record (years)")
        return _with_legend(_named(ax, names))


def density(records: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Records per person-month of observation, a line for each domain: domain, year, records, per_month."""
    domains = records.groupby("domain")["records"].sum().sort_values(ascending=False).index
    with axes_on_clear_paper(ax, 7.5, 3.6) as ax:
        for number, domain in enumerate(domains):
            known = records[records["domain"] == domain].set_index("year")["per_month"].astype(float)
            known = known.reindex(range(known.index.min(), known.index.max() + 1))  # a hidden year is a gap
            style = ("-", "--", ":", "-.")[number // 4 % 4]
            ax.plot(
                known.index, known, "." + style, markersize=3, label=domain, color=COLOURS[number % 8], linewidth=1.4
            )
        ax.set(ylim=(0, None), xlabel="year", ylabel="records per person-month")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        return ax


def completeness(shares: DataFrame, *, ax: Axes | None = None) -> Axes:
    """The share of complete records: domain, records, and a column for each attribute, from 0 to 1 or NA."""
    columns = [column for column in shares.columns if column not in ("domain", "records")]
    cells = [[100 * float(row[column]) for column in columns] for _, row in shares.iterrows()]
    words = [[f"{share:.3g} %" if share == share else "–" for share in row] for row in cells]  # NaN: no such column
    names = [f"{row.domain} ({row.records:,})" for row in shares.itertuples()]
    with axes_on_clear_paper(ax, 6.5, 1.2 + 0.36 * max(len(shares), 2)) as ax:
        return _cells(ax, names, [f"with a {column}" for column in columns], cells, words, "cividis", 0, 55)


def quality(counts: DataFrame, *, ax: Axes | None = None) -> Axes:
    """A heat map of the share of checks passed, with the numbers: a row for each table, a column for each category.

    ``counts`` has a row for each table and category: cdm_table_name, category, passed, failed. Cells without any
    applicable check are empty; tables without any are left out.
    """
    known = counts.assign(of=counts["passed"] + counts["failed"])
    known = known[known["of"] > 0].set_index(["cdm_table_name", "category"])
    categories = list(dict.fromkeys(counts["category"]))
    names = list(dict.fromkeys(known.index.get_level_values(0)))
    passed, of = (known[name].unstack().reindex(names, columns=categories) for name in ("passed", "of"))
    words = [
        [f"{a:,.0f} of {b:,.0f}" if b == b else "" for a, b in zip(*row, strict=True)]
        for row in zip(passed.to_numpy(), of.to_numpy(), strict=True)
    ]
    with axes_on_clear_paper(ax, 7.2, 1.5 + 0.26 * len(names)) as ax:
        # Passed is pale, so that failures stand out; light to dark is readable without colours, too.
        return _cells(ax, names, categories, (100 * passed / of).to_numpy(), words, "YlOrBr_r", 50, 75)


def _cells(
    ax: Axes, names: Sequence[str], columns: Sequence[str], shares: Any, words: Sequence[Sequence[str]],
    colours: str, low: float, dark: float,
) -> Axes:  # fmt: skip
    """A heat map of shares in percent, from ``low`` on, with words in its cells; below ``dark`` they are white."""
    if len(names):
        ax.imshow(shares, cmap=colours, vmin=low, vmax=100, aspect="auto")
    for y, row in enumerate(words):
        for x, text in enumerate(row):
            share = shares[y][x]
            ink = INK if share != share else "white" if share < dark else "black"
            ax.text(x, y, text, ha="center", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(columns)), columns, fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _boxes(
    ax: Axes, places: Sequence[float], rows: DataFrame, colour: str = COLOURS[0], mark: str = "o", label: str = ""
) -> None:
    """A thin line from the 10th to the 90th percentile, a thick one from the 25th to the 75th, a mark at the median."""
    ax.hlines(places, rows["p10_value"], rows["p90_value"], color=colour, linewidth=1)
    ax.hlines(places, rows["p25_value"], rows["p75_value"], color=colour, linewidth=5, alpha=0.45)
    ax.plot(rows["median_value"], places, mark, color=colour, markersize=4.5, label=label)


def _named(ax: Axes, names: Iterable[str]) -> Axes:
    """The axes with names down the side, the first on top, long ones shortened."""
    cut = [name if len(name) <= 44 else name[:43] + "…" for name in names]
    ax.set_yticks(range(len(cut)), cut, fontsize=8)
    ax.set_ylim(len(cut) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    return ax


def _with_legend(ax: Axes) -> Axes:
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=9)
    return ax

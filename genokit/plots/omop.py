"""Figures of a CDM: its persons, observation, records, completeness, and the quality of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genokit.plots.paper import INK, axes_on_clear_paper, only_left_and_bottom

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

# Okabe and Ito's, distinguishable with any colour vision; men and women also by side or marker.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7f7f7f", "#e69f00")
MOST = 25  # named rows that a figure has room for
LABELLED = 60  # rectangles that a treemap has room for
POINTS = 320  # the height of a treemap
TINY = 7  # the size of its labels, in points


def pyramid(persons: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Persons by five years of birth, one gender to the left, the others to the right.

    ``persons`` has a row for each year and gender: year_of_birth, gender, persons.
    """
    from matplotlib.ticker import FuncFormatter

    steps = persons.assign(born=persons["year_of_birth"] // 5 * 5)
    sums = steps.groupby(["born", "gender"])["persons"].sum().unstack(fill_value=0)
    genders = sorted(sums.columns, key=lambda gender: (gender != "men", -sums[gender].sum()))
    with axes_on_clear_paper(ax, 7, 5) as ax:
        right: Any = 0
        for number, gender in enumerate(genders):
            sign = -1 if number == 0 else 1
            left = right if number else 0
            ax.barh(sums.index + 2.5, sign * sums[gender], height=4.4, left=left, color=COLOURS[number % 8],
                    label=f"{gender} ({sums[gender].sum():,})")  # fmt: skip
            right = left + sums[gender] if number else 0
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{abs(x):,.0f}"))
        ax.set_xlabel("persons")
        ax.set_ylabel("year of birth")
        _legend(ax, len(genders))
        return only_left_and_bottom(ax)


def observed(months: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Persons observed in each month: month (a period), persons."""
    import pandas as pd

    with axes_on_clear_paper(ax, 7, 3) as ax:
        known = months.set_index("month")["persons"].astype(float)
        if len(known):  # a hidden month is a gap
            known = known.reindex(pd.period_range(known.index.min(), known.index.max(), freq="M"))
        x = _years(known.index)
        ax.fill_between(x, known, step="mid", color=COLOURS[0], alpha=0.25, linewidth=0)
        ax.plot(x, known, ".-", markevery=_alone(known), drawstyle="steps-mid", color=COLOURS[0], linewidth=1.2)
        ax.set_ylim(0, None)
        ax.set_xlabel("year")
        ax.set_ylabel("persons observed")
        return only_left_and_bottom(_thousands(ax))


def lengths(persons: DataFrame, *, ax: Axes | None = None) -> Axes:
    """The share of persons observed for at least so many years: days, persons."""
    with axes_on_clear_paper(ax, 7, 3) as ax:
        whole = persons["persons"].sum()
        left = 100 * persons["persons"][::-1].cumsum()[::-1] / max(whole, 1)
        # Lengths are in 30 days; the last step is drawn to its end, or a single one would be a dot.
        days = [0, *persons["days"], persons["days"].max() + 30]
        if whole:
            ax.step([one / 365.25 for one in days], [100, *left, 0], where="post", color=COLOURS[0], linewidth=1.5)
        else:
            ax.text(0.5, 0.5, "no count is large enough to be shown", transform=ax.transAxes, ha="center")
        ax.set_xlim(0, None)
        ax.set_ylim(0, 102)
        ax.set_xlabel("observed for at least so many years")
        ax.set_ylabel("persons (%)")
        return only_left_and_bottom(ax)


def visits(kinds: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Persons with each kind of visit, annotated with its records and days: concept_name, persons, records, ..."""
    shown = kinds.head(MOST).reset_index(drop=True)
    with axes_on_clear_paper(ax, 7, 1.1 + 0.34 * max(len(shown), 2)) as ax:
        ax.barh(shown.index, shown["persons"], height=0.66, color=COLOURS[0])
        for y, (_, row) in enumerate(shown.iterrows()):
            records = "" if row["records"] is None or row.isna()["records"] else f"{row['records']:,} visits"
            days = "" if row.isna()["median_value"] else f", median {row['median_value']:g} days"
            ax.annotate(records + days, (row["persons"], y), xytext=(4, 0), textcoords="offset points",
                        va="center", fontsize=8)  # fmt: skip
        _names(ax, list(shown["concept_name"]))
        ax.set_xlim(0, 1.6 * max(shown["persons"].max() if len(shown) else 1, 1))
        ax.set_xlabel("persons")
        return only_left_and_bottom(_thousands(ax, "x"))


def treemap(concepts: DataFrame, *, what: str = "concept", ax: Axes | None = None) -> Axes:
    """A rectangle for each concept, its area the number of persons: concept_name, persons, share.

    Of more than sixty concepts the most frequent are drawn, which the title says; labels stand where there is room.
    """
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    known = concepts.sort_values("persons", ascending=False, ignore_index=True)
    shown = known.head(LABELLED)
    columns = (shown[name].tolist() for name in ("persons", "concept_name", "share"))
    tiles: list[tuple[float, str, float]] = list(zip(*columns, strict=True))
    with axes_on_clear_paper(ax, 9, 5.6) as ax:
        wide = 9 / 5.2
        top = max(float(known["share"].max()) if len(known) else 0, 1e-9)
        paint = mpl.colormaps["cividis_r"]
        places = squares([size for size, _, _ in tiles], 0, 0, wide, 1)
        for (_, words, share), (x, y, w, h) in zip(tiles, places, strict=True):
            fill = paint(0.08 + 0.9 * share / top)
            ax.add_patch(Rectangle((x, y), w, h, facecolor=fill, edgecolor="white", linewidth=1))
            ink = "white" if share / top > 0.5 else "black"
            number = f"{100 * share:.3g} %"
            room, lines = w * POINTS - 4, int(h * 34)
            letters = int(room / 3)
            while letters >= 7 and _widest(parts := _wrapped(words, letters, lines)) > room:
                letters -= 1
            if letters < 7 or lines < 1:
                continue
            if len(parts) < lines and _widest([number]) <= room:
                parts.append(number)
            ax.text(x + w / 2, y + h / 2, "\n".join(parts), ha="center", va="center", fontsize=TINY, color=ink)
        ax.set_xlim(0, wide)
        ax.set_ylim(1, 0)
        ax.axis("off")
        if len(known) > len(shown):
            ax.set_title(f"the {len(shown)} most frequent of {len(known):,}", fontsize=9, loc="left")
        if len(known):
            colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100 * top), paint)
            bar = ax.figure.colorbar(colours, ax=ax, fraction=0.03, aspect=35, pad=0.01)
            bar.set_label(f"persons with the {what} (% of all)", fontsize=8)
            bar.ax.tick_params(labelsize=8)
        return ax


def _wrapped(words: str, letters: int, lines: int) -> list[str]:
    """Words wrapped to so many lines of so many letters; if they do not fit, their beginning."""
    import textwrap

    parts = textwrap.wrap(words, letters, break_long_words=False)
    whole = len(parts) <= lines and all(len(part) <= letters for part in parts)
    return parts if whole else [words[: letters - 1] + "…"]


def _widest(lines: Sequence[str]) -> float:
    """The width of the widest of these lines, in points."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    font.set_size(TINY, 72)
    widths = []
    for line in lines:
        font.set_text(line)
        widths.append(font.get_width_height()[0] / 64)
    return max(widths)


def ages(spread: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Age at the first record of the most frequent conditions, by gender: condition, gender, p10_value to p90_value."""
    names = list(dict.fromkeys(spread["condition"]))[:MOST]
    genders = sorted(spread["gender"].unique(), key=lambda gender: (gender != "men", gender))
    with axes_on_clear_paper(ax, 7.5, 1.2 + 0.32 * max(len(names), 2)) as ax:
        for number, gender in enumerate(genders):
            rows = spread[(spread["gender"] == gender) & spread["condition"].isin(names)]
            places = [names.index(name) + 0.26 * (number - (len(genders) - 1) / 2) for name in rows["condition"]]
            _boxes(ax, places, rows, COLOURS[number % 8], "os^D"[number % 4], gender)
        _names(ax, names)
        ax.set_xlabel("age at the first record (years)")
        _legend(ax, len(genders))
        return only_left_and_bottom(ax)


def concepts_per_person(spread: DataFrame, *, ax: Axes | None = None) -> Axes:
    """The number of different concepts per person, by domain: domain, p10_value to p90_value."""
    with axes_on_clear_paper(ax, 7, 1.1 + 0.34 * max(len(spread), 2)) as ax:
        _boxes(ax, list(range(len(spread))), spread, COLOURS[0], "o", None)
        _names(ax, list(spread["domain"]))
        ax.set_xlim(0, None)
        ax.set_xlabel("different concepts per person")
        return only_left_and_bottom(ax)


def values(spread: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Values of the most frequent measurements; each row has its own scale, from its 10th to its 90th percentile.

    ``spread`` has a row for each measurement and unit: measurement, unit, count_value, p10_value to p90_value, ...
    """
    shown = spread.head(MOST).reset_index(drop=True)
    with axes_on_clear_paper(ax, 9, 1.1 + 0.34 * max(len(shown), 2)) as ax:
        low, high = shown["p10_value"], shown["p90_value"]
        width = (high - low).where(high > low, 1.0)
        scaled = shown.copy()
        for part in ("p10_value", "p25_value", "median_value", "p75_value", "p90_value"):
            scaled[part] = ((shown[part] - low) / width).where(high > low, 0.5)
        _boxes(ax, list(range(len(shown))), scaled, COLOURS[0], "o", None)
        for at, (_, row) in enumerate(shown.iterrows()):
            if row["p90_value"] > row["p10_value"]:
                ax.text(-0.03, at, f"{row['p10_value']:.4g}", ha="right", va="center", fontsize=8)
                ax.text(1.03, at, f"{row['p90_value']:.4g}", ha="left", va="center", fontsize=8)
            ax.text(1.22, at, f"{row['median_value']:.4g} {row['unit']}", ha="left", va="center", fontsize=8)
            ax.text(1.95, at, f"{row['count_value']:,}", ha="right", va="center", fontsize=8)
        ax.text(1.22, -0.9, "median", fontsize=8, weight="bold")
        ax.text(1.95, -0.9, "values", fontsize=8, weight="bold", ha="right")
        _names(ax, list(shown["measurement"]))
        ax.set_xlim(-0.2, 1.97)
        ax.tick_params(bottom=False, labelbottom=False)
        if len(spread) > len(shown):
            ax.set_xlabel(f"the {len(shown)} most frequent of {len(spread):,} measurements and units", fontsize=9)
        ax.spines["bottom"].set_visible(False)
        return only_left_and_bottom(ax)


def density(records: DataFrame, *, ax: Axes | None = None) -> Axes:
    """Records per person-month of observation, a line for each domain: domain, year, records, per_month."""
    with axes_on_clear_paper(ax, 7.5, 3.6) as ax:
        styles = ("-", "--", ":", "-.")
        domains = list(records.groupby("domain")["records"].sum().sort_values(ascending=False).index)
        for number, domain in enumerate(domains):
            known = records[records["domain"] == domain].set_index("year")["per_month"].astype(float)
            known = known.reindex(range(known.index.min(), known.index.max() + 1))  # a hidden year is a gap
            ax.plot(known.index, known, "." + styles[number // 4 % 4], markevery=_alone(known), label=domain,
                    color=COLOURS[number % 8], linewidth=1.4)  # fmt: skip
        ax.set_ylim(0, None)
        ax.set_xlabel("year")
        ax.set_ylabel("records per person-month")
        if domains:
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
        return only_left_and_bottom(ax)


def completeness(shares: DataFrame, *, ax: Axes | None = None) -> Axes:
    """The share of complete records: domain, records, and a column for each attribute, from 0 to 1 or NA."""
    columns = [column for column in shares.columns if column not in ("domain", "records")]
    with axes_on_clear_paper(ax, 6.5, 1.2 + 0.36 * max(len(shares), 2)) as ax:
        cells = [[100 * float(row[column]) for column in columns] for _, row in shares.iterrows()]
        if cells:
            ax.imshow(cells, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for y, row in enumerate(cells):
            for x, share in enumerate(row):
                known = share == share  # a table without the column has a dash
                ax.text(x, y, f"{share:.3g} %" if known else "–", ha="center", va="center", fontsize=9,
                        color=INK if not known else "white" if share < 55 else "black")  # fmt: skip
        named = [f"{row.domain} ({row.records:,})" for row in shares.itertuples()]
        ax.set_yticks(range(len(named)), named, fontsize=9)
        ax.set_xticks(range(len(columns)), [f"with a {column}" for column in columns], fontsize=9)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return ax


def squares(sizes: Sequence[float], x: float, y: float, w: float, h: float) -> list[tuple[float, float, float, float]]:
    """A squarified treemap: rectangles of these areas, in falling order, that fill a rectangle.

    >>> squares([2, 1, 1], 0, 0, 2, 1)
    [(0, 0, 1.0, 1.0), (1.0, 0, 1.0, 0.5), (1.0, 0.5, 1.0, 0.5)]
    """
    whole = sum(sizes)
    if not whole:
        return []
    areas = [size * w * h / whole for size in sizes]
    done: list[tuple[float, float, float, float]] = []
    while areas:
        short = min(w, h)
        row, worst = 1, float("inf")
        for n in range(1, len(areas) + 1):
            total = sum(areas[:n])
            side = max(short**2 * max(areas[:n]) / total**2, total**2 / (short**2 * max(min(areas[:n]), 1e-12)))
            if side > worst:
                break
            row, worst = n, side
        total, along = sum(areas[:row]), 0.0
        thick = total / short
        for area in areas[:row]:
            long = area / thick
            done.append((x, y + along if along else y, thick, long) if w >= h else (x + along, y, long, thick))
            along += long
        x, y, w, h = (x + thick, y, w - thick, h) if w >= h else (x, y + thick, w, h - thick)
        areas = areas[row:]
    return done


def _boxes(ax: Axes, places: Sequence[float], rows: DataFrame, colour: str, mark: str, label: str | None) -> None:
    """A thin line from the 10th to the 90th percentile, a thick one from the 25th to the 75th, a mark at the median."""
    ax.hlines(places, rows["p10_value"], rows["p90_value"], color=colour, linewidth=1)
    ax.hlines(places, rows["p25_value"], rows["p75_value"], color=colour, linewidth=5, alpha=0.45)
    ax.plot(rows["median_value"], places, mark, color=colour, markersize=4.5, label=label)


def quality(counts: DataFrame, *, ax: Axes | None = None) -> Axes:
    """A heat map of the share of checks passed, with the numbers: a row for each table, a column for each category.

    ``counts`` has a row for each table and category: cdm_table_name, category, passed, failed. Cells without any
    applicable check are empty; tables without any are left out.
    """
    import numpy as np

    applicable = counts[counts["passed"] + counts["failed"] > 0]
    names = list(dict.fromkeys(applicable["cdm_table_name"]))
    categories = list(dict.fromkeys(counts["category"]))
    columns = applicable[["cdm_table_name", "category", "passed", "failed"]].itertuples(index=False)
    cells = {(names.index(name), categories.index(kind)): (passed, failed) for name, kind, passed, failed in columns}
    with axes_on_clear_paper(ax, 7.2, 1.5 + 0.26 * len(names)) as ax:
        shares = np.full((len(names), len(categories)), np.nan)
        for place, (passed, failed) in cells.items():
            shares[place] = 100 * passed / (passed + failed)
        if names:
            # Passed is pale, so that failures stand out; light to dark is readable without colours, too.
            image = ax.imshow(shares, cmap="YlOrBr_r", vmin=50, vmax=100, aspect="auto")
            bar = ax.figure.colorbar(image, ax=ax, extend="min", fraction=0.05, aspect=30)
            bar.set_label("checks passed (%)", fontsize=8)
            bar.ax.tick_params(labelsize=8)
        for (y, x), (passed, failed) in cells.items():
            ink = "white" if shares[y, x] < 75 else "black"
            ax.text(x, y, f"{passed:,} of {passed + failed:,}", ha="center", va="center", fontsize=8, color=ink)
        ax.set_xticks(range(len(categories)), categories, fontsize=9)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xticks([x + 0.5 for x in range(len(categories) - 1)], minor=True)
        ax.set_yticks([y + 0.5 for y in range(len(names) - 1)], minor=True)
        ax.grid(which="minor", color="white", linewidth=2)
        ax.tick_params(which="minor", length=0)
        return ax


def _names(ax: Axes, names: Sequence[str]) -> None:
    """Names down the side, the first on top, long ones shortened."""
    cut = [name if len(name) <= 44 else name[:43] + "…" for name in names]
    ax.set_yticks(range(len(cut)), cut, fontsize=8)
    ax.set_ylim(max(len(cut), 1) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _legend(ax: Axes, columns: int) -> None:
    if columns:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(columns, 4), frameon=False, fontsize=9)


def _thousands(ax: Axes, which: str = "y") -> Axes:
    from matplotlib.ticker import StrMethodFormatter

    (ax.yaxis if which == "y" else ax.xaxis).set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return ax


def _alone(numbers: Series[Any]) -> list[int]:
    """The positions of numbers without neighbours, which a line would not show."""
    known = numbers.notna()
    alone = known & ~known.shift(fill_value=False) & ~known.shift(-1, fill_value=False)
    return [int(place) for place in alone.to_numpy().nonzero()[0]]


def _years(months: Any) -> list[float]:
    return [month.year + (month.month - 0.5) / 12 for month in months]

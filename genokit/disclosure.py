"""Statistical disclosure control for counts of persons: primary and secondary suppression, and differencing.

Primary suppression hides small counts. Secondary suppression hides further cells, so that row and column sums do not
give the small ones back; it uses boxes, as in Repsilber's hypercube method. The corners of a box are cells that differ
from the small cell in some of the columns. Adding a number to the corners and subtracting it in turn changes no sum, so
a reader cannot tell the true table from another one in which the cell is not small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame, Series

from genokit.config import Settings
from genokit.errors import InvalidParameters, did_you_mean

HIDDEN = "*"  # for a count where "<5" would reveal too much
MOST_CELLS = 1_000_000  # of one table, including combinations that no row holds

Cell = tuple[int, ...]


def suppress(
    frame: DataFrame,
    counts: Sequence[str],
    by: Sequence[str] = (),
    *,
    within: Sequence[str] = (),
    also: Sequence[str] = (),
    total: str | None = None,
    hide: Any = None,
    min_cell: int | None = None,
) -> DataFrame:
    """Hide every small count of a frame, and the counts from which it could be calculated.

    Parameters
    ----------
    frame
        A row for each group of persons, with the true counts.
    counts
        The columns with counts. They are hidden together, row by row.
    by
        The columns over which the counts add up because each person is in one row only (sex, age at entry). Other rows
        are then hidden too, so that a reader who knows all sums over these columns does not learn that a count is
        small; or, where the sums alone show that it is small, does not learn the count. A count that the sums alone
        determine cannot be protected. Without ``by``, only small counts and ``hide`` are hidden.
    within
        Columns for each of whose values the rows are a table of their own.
    also
        Other columns to hide with the counts, such as a mean.
    total
        The label in ``by`` that marks a row as the sum of others, such as "all". Totals are hidden if they have to be.
    hide
        True for further rows to hide, such as those whose count ``differs_by_few`` from another.
    min_cell
        Counts from 1 to below this number are small; never less than ``min_cell`` of the settings.

    Returns
    -------
    DataFrame
        The rows in their order, hidden counts as <NA>. If a zero that no row holds must be hidden, a row for it is
        appended.

    Raises
    ------
    InvalidParameters
        If a column is missing, counts are not whole numbers, rows repeat, or totals are not sums of the other rows.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"sex": ["F", "M", "other"], "persons": [120, 98, 2]})
    >>> suppress(frame, ["persons"], by=["sex"])["persons"].tolist()
    [120, <NA>, <NA>]
    """
    for name in (*counts, *by, *within, *also):
        if name not in frame.columns:
            raise InvalidParameters(f"There is no column '{name}' to suppress. {did_you_mean(name, frame.columns)}")
    if by and frame.duplicated([*within, *by]).any():
        raise InvalidParameters(
            f"Several rows have the same {', '.join(by)}. Name in 'within' the columns that distinguish them."
        )
    least = threshold(min_cell)
    values = np.stack([_whole(frame[name], name) for name in counts], axis=1)  # (rows, counts)
    hidden: NDArray[np.bool_] = np.any((values > 0) & (values < least), axis=1)
    hidden |= False if hide is None else np.asarray(hide, dtype=bool)
    tables: Any = np.zeros(len(frame), dtype=np.int64)  # the number of each row's table
    if within:
        tables = frame.groupby(list(within), dropna=False, sort=False).ngroup().to_numpy()
    added: list[list[int]] = []  # for each new row, the rows that have its values of the columns by
    if len(by) > 1 or total is not None:
        codes = _codes(frame, by, total)
        order = np.argsort(tables, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(tables[order])) + 1):
            if hidden[rows].any():
                grid = _grid(codes[rows], values[rows], by)
                added += [[int(rows[of]) for of in origin] for origin in _protect(grid, hidden, rows, least)]
                if total is not None:
                    _protect_remainders(grid, hidden, rows, least)
    if by and total is None:
        _suppress_one_more(tables, values, hidden, least)
    shown = frame.assign(**{name: frame[name].astype("Int64").mask(hidden) for name in counts})
    shown = shown.assign(**{name: frame[name].mask(hidden) for name in also})
    if not added:
        return shown
    known = {name: frame[name].iloc[[of[0] for of in added]].array for name in within}
    known |= {name: frame[name].iloc[[of[i] for of in added]].array for i, name in enumerate(by)}
    return pd.concat([shown, pd.DataFrame(known)], ignore_index=True)


def differs_by_few(numbers: Any, *others: Any, min_cell: int | None = None) -> NDArray[np.bool_]:
    """Which numbers are small, or differ by a small number from another that is shown (differencing).

    Each of ``others`` is one number, or one for each number; missing values are ignored.

    >>> differs_by_few([100, 97, 50, 3], 100).tolist()
    [False, True, False, True]
    """
    found, least = np.asarray(numbers, dtype="float64"), threshold(min_cell)
    apart = [np.abs(found - np.asarray(one, dtype="float64")) for one in (0, *others)]
    small: NDArray[np.bool_] = np.any([(one > 0) & (one < least) for one in apart], axis=0)
    return small


def suppress_nested(
    counts: Sequence[int],
    *others: Sequence[int],
    first: Sequence[int] = (),
    beside: Sequence[Sequence[int]] = (),
    min_cell: int | None = None,
) -> list[int | None]:
    """Hide counts of a nested series, such as an attrition, that are small or differ from a shown one by few.

    The positions ``first`` are kept before all others, then the last count, the first, and those between. ``others``
    are series that must be safe at the same positions. ``beside`` has, for each position, counts that are shown
    elsewhere, from which this one must not differ by few.

    >>> suppress_nested([200, 198, 150, 147, 60, 3, 0])
    [200, None, 150, None, 60, None, 0]
    """
    least, last = threshold(min_cell), len(counts) - 1
    shown: dict[int, int] = {}
    for i in dict.fromkeys([*first, last, 0, *range(last)] if counts else []):
        known = [(of[i], (0, *(of[j] for j in shown), *(beside[i] if beside else ()))) for of in (counts, *others)]
        if not any(0 < abs(count - n) < least for count, numbers in known for n in numbers):
            shown[i] = counts[i]
    return [shown.get(i) for i in range(len(counts))]


def pool_rare(
    frame: DataFrame, count: str, steps: Sequence[str], *, other: str, min_cell: int | None = None
) -> DataFrame:
    """Pool rare paths with those that begin alike, so that no row stands for few persons.

    ``frame`` has a row for each path: ``steps`` are its columns, missing after its end, and ``count`` its persons.
    Each person is in one row, so sums of rows reveal nothing. Pooled paths continue as ``other``; if no similar path is
    left for a rare one, it is pooled with the rarest other path. Raises InvalidParameters.

    >>> import pandas as pd
    >>> paths = pd.DataFrame({"first": ["a", "a", "a", "b"], "then": [None, "b", "c", None], "persons": [90, 4, 3, 50]})
    >>> pool_rare(paths, "persons", ["first", "then"], other="...").values.tolist()
    [['a', None, 90], ['a', '...', 7], ['b', None, 50]]
    """
    least, steps = threshold(min_cell), list(steps)
    rows = frame[steps].fillna("").assign(**{count: _whole(frame[count], count)})
    rows = rows[rows[count] > 0].reset_index(drop=True)
    rare = rows[count] < least
    for i in reversed(range(len(steps))):
        together = rows[rare].groupby(steps[:i] or rare[rare])[count].transform("sum") > least
        enough = together.reindex(rows.index, fill_value=False)
        rows.loc[enough, steps[i:]] = [other, *[""] * (len(steps) - i - 1)]
        rare &= ~enough
    if rare.any():
        row = rows.groupby(steps).ngroup()
        rest = rows[~rare].groupby(row)[count].sum()
        rare |= row == (rest.idxmin() if len(rest) else -1)
        differ = (i for i, step in enumerate(steps) if rows.loc[rare, step].nunique() > 1)
        # Of few persons in all, not even the first step is shown.
        alike = 0 if rows[count].sum() < least else next(differ, 0)
        rows.loc[rare, steps[alike:]] = [other, *[""] * (len(steps) - alike - 1)]
    pooled = rows.groupby(steps, sort=False)[count].sum().astype("Int64").reset_index()
    pooled[count] = pooled[count].mask(pooled[count] < least)  # if all persons together are few
    return pooled.assign(**{step: pooled[step].astype(object).where(pooled[step] != "", None) for step in steps})


def formatted(
    frame: DataFrame, counts: Sequence[str], by: Sequence[str] = (), *, min_cell: int | None = None
) -> DataFrame:
    """A suppressed frame with its counts as text.

    A hidden count is "<5" if only small counts are hidden. With ``by`` it is "*", because some hidden counts are not
    small, and telling which ones would help to calculate the others.

    >>> import pandas as pd
    >>> formatted(suppress(pd.DataFrame({"persons": [1234, 2]}), ["persons"]), ["persons"])["persons"].tolist()
    ['1,234', '<5']
    """
    sign = HIDDEN if by else f"<{threshold(min_cell)}"
    return frame.assign(**{name: [sign if pd.isna(n) else f"{n:,}" for n in frame[name]] for name in counts})


def formatted_count(count: int, min_cell: int | None = None) -> str:
    """One number of persons as text; a small one as "<5".

    >>> formatted_count(1234), formatted_count(3)
    ('1,234', '<5')
    """
    least = threshold(min_cell)
    return f"<{least}" if 0 < count < least else f"{count:,}"


def note(by: Sequence[str] = (), *, min_cell: int | None = None) -> str:
    """The sentence to show beside suppressed counts.

    >>> note(["sex"])
    'Counts of 1 to 4 persons are not shown, nor are counts that would reveal them.'
    """
    also = ", nor are counts that would reveal them" if by else ""
    return f"Counts of 1 to {threshold(min_cell) - 1} persons are not shown{also}."


def threshold(min_cell: int | None = None, settings: Settings | None = None) -> int:
    """The smallest count that is shown: ``min_cell``, or that of the settings if it is larger.

    Raises InvalidParameters.
    """
    if min_cell is not None and (isinstance(min_cell, bool) or not isinstance(min_cell, int)):
        raise InvalidParameters(f"min_cell must be a whole number of persons, but is {min_cell!r}.")
    return max(Settings.load().min_cell, min_cell or 0, settings.min_cell if settings else 0)


@dataclass(frozen=True)
class _Grid:
    """A table as a flat grid: an axis for each column, its total last; cells that no row holds are calculated."""

    shape: Cell
    values: NDArray[np.int64]  # (counts, cells)
    row: NDArray[np.int64]  # (cells,): the row of each cell, -1 if it has none
    elsewhere: NDArray[np.bool_]  # (cells,): totals that no row holds
    price: NDArray[np.float64]  # (cells,): the cost of hiding each
    origin: tuple[NDArray[np.int64], ...]  # for each axis and value, a row with it


def _suppress_one_more(
    table: NDArray[np.int64], values: NDArray[np.int64], hidden: NDArray[np.bool_], least: int
) -> None:
    """In each table whose hidden rows are a single one, or few persons together, hide the smallest other row too."""
    many, whole = np.bincount(table, hidden), values.sum(axis=1)
    sums = [np.bincount(table, count * hidden) for count in values.T]
    needs = (many == 1) | ((many > 1) & np.any([(one > 0) & (one <= least) for one in sums], axis=0))
    at = np.flatnonzero(~hidden & needs[table])
    at = at[np.lexsort((whole[at], whole[at] == 0, table[at]))]
    hidden[at[np.unique(table[at], return_index=True)[1]]] = True


def _whole(column: Series[Any], name: str) -> NDArray[np.int64]:
    numbers = column.to_numpy(dtype=object)
    if column.isna().any():
        raise InvalidParameters(f"The counts '{name}' have gaps. Give the true counts, not suppressed ones.")
    if any(isinstance(n, (bool, np.bool_, str)) or n != int(n) or n < 0 for n in pd.unique(numbers)):
        raise InvalidParameters(f"The counts '{name}' must be whole numbers, 0 or more.")
    return numbers.astype(np.int64)


def _codes(frame: DataFrame, by: Sequence[str], total: str | None) -> NDArray[np.int64]:
    """The values of these columns as codes, -1 for a total: (rows, axes)."""
    codes = [pd.factorize(frame[name], use_na_sentinel=False)[0] for name in by]
    totals = [[isinstance(value, str) and value == total for value in frame[name]] for name in by]
    return np.where(np.array(totals, dtype=bool), -1, np.array(codes, dtype=np.int64)).T


def _grid(codes: NDArray[np.int64], values: NDArray[np.int64], by: Sequence[str]) -> _Grid:
    axes = range(len(by))
    origin: list[NDArray[np.int64]] = []
    at = codes.T.copy()
    for axis in axes:
        base = np.flatnonzero(codes[:, axis] >= 0)
        _, first, at[axis, base] = np.unique(codes[base, axis], return_index=True, return_inverse=True)
        origin.append(base[first])
        at[axis, codes[:, axis] < 0] = len(first)
    shape = tuple(len(rows) + 1 for rows in origin)
    if prod(shape) > MOST_CELLS:
        raise InvalidParameters(
            f"A table by {', '.join(by)} has {prod(shape):,} cells, but at most {MOST_CELLS:,} can be protected."
        )
    places = np.ravel_multi_index(tuple(at), shape)
    row = np.full(prod(shape), -1)
    row[places] = np.arange(len(codes))
    summed = np.zeros((values.shape[1], *shape), dtype=np.int64)
    summed.reshape(len(summed), -1)[:, places] = values.T
    on_a_total = np.zeros(shape, dtype=bool)
    for axis in axes:
        last = (slice(None),) * axis + (-1,)
        on_a_total[last] = True
        summed[:, *last] = np.delete(summed, -1, axis=axis + 1).sum(axis=axis + 1)
    flat = summed.reshape(len(summed), -1)
    if (flat[:, places] != values.T).any():
        raise InvalidParameters(
            f"The totals over {', '.join(by)} are not the sums of the other rows: rows are missing, or persons are in "
            "several rows. Name in 'by' only columns with one value per person, and the others in 'within'."
        )
    total = on_a_total.ravel()
    persons = flat.sum(axis=0)
    price = np.where(row >= 0, np.where(total, 100, 1), np.where(total, 1e6, 1000))
    price = price + persons / (1 + persons.max()) / 2 ** len(by)  # of as many cells, those with fewer persons
    return _Grid(shape, flat, row, total & (row < 0), price, tuple(origin))


def _protect(grid: _Grid, hidden: NDArray[np.bool_], rows: NDArray[np.int64], least: int) -> Iterator[tuple[int, ...]]:
    """Secondary suppression of a table. Yields hidden cells that no row holds, as rows that have their values."""
    lost = (grid.row >= 0) & hidden[rows[grid.row]]
    for cell in np.flatnonzero(lost):  # those hidden so far: cells hidden below are not small
        for corner in _box(grid, int(cell), lost, least):
            if not lost[corner]:
                lost[corner] = True
                if grid.row[corner] >= 0:
                    hidden[rows[grid.row[corner]]] = True
                elif not grid.elsewhere[corner]:
                    places = np.unravel_index(corner, grid.shape)
                    yield tuple(int(origin[i]) for origin, i in zip(grid.origin, places, strict=True))


def _protect_remainders(grid: _Grid, hidden: NDArray[np.bool_], rows: NDArray[np.int64], least: int) -> None:
    """If a shown total reveals that its hidden parts are few persons together, hide one more part, and then whatever
    would reveal that one."""
    lost = (grid.row >= 0) & hidden[rows[grid.row]]
    places = np.arange(lost.size).reshape(grid.shape)
    lines = [
        line for axis in range(places.ndim) for line in np.moveaxis(places, axis, -1).reshape(-1, places.shape[axis])
    ]
    lines = [line for line in lines if grid.row[line[-1]] >= 0]  # the total comes last
    before, more = -1, False
    while lost.sum() > before:
        before = lost.sum()
        for line in lines:
            left = grid.values[:, line[:-1][lost[line[:-1]]]].sum(axis=1)
            few = not lost[line[-1]] and ((left > 0) & (left < least)).any()
            if few or (more and lost[line].sum() == 1):
                others = line[~lost[line] & (grid.row[line] >= 0)]
                cost = np.where(grid.values[:, others].any(axis=0), 0, 1e9) + grid.price[others]
                if len(others):
                    lost[others[cost.argmin()]], more = True, True
    hidden[rows[grid.row[lost]]] = True


def _box(grid: _Grid, cell: int, lost: NDArray[np.bool_], least: int) -> list[int]:
    """The corners of the box that protects a cell best, and among equally good boxes the cheapest.

    In the best boxes the cell could be as large as the threshold and no other corner need be zero; in the next best it
    could be one more or one less. Boxes that preserve all sums come first, then those that hide sums among the rows.
    """
    own = grid.values[:, cell]
    small = np.flatnonzero((own > 0) & (own < least))
    if not len(small):  # hidden because of differencing: no sum may reveal it
        small, own = np.flatnonzero(own), np.zeros_like(own)
    # Boxes of small tables are needed again and again, for one table after another.
    find = _boxes if len(lost) < 1000 else _boxes.__wrapped__
    boxes, rising, kept = find(grid.shape, cell)
    values = grid.values[small][:, boxes]  # (counts, corners, boxes)
    enough = (rising | (values > (least - own[small])[:, None, None])).all(axis=(0, 1))
    less = values >= 1  # it could be one less
    some = ((rising | less).all(axis=1) | (~rising | less).all(axis=1)).all(axis=0)
    known = ~grid.elsewhere[boxes].any(axis=0)
    whole = known | True
    choices = [fits & sums for sums in (kept & known, known, whole) for fits in (enough, some)]
    fit = next(one for one in (*choices, whole) if one.any())
    cost = np.where(lost[boxes], 0, grid.price[boxes]).sum(axis=0)
    return [int(corner) for corner in boxes[:, np.where(fit, cost, np.inf).argmin()]]


@lru_cache(maxsize=1000)
def _boxes(shape: Cell, cell: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """All boxes with a corner at this cell: their corners, which rise with it, and which boxes preserve all sums."""
    here = np.array(np.unravel_index(cell, shape))[:, None]
    last = np.array(shape)[:, None] - 1
    far = np.indices(shape).reshape(len(shape), -1)
    far = far[:, (far != here).all(axis=0)]  # (axes, boxes)
    moved = np.array(list(product([False, True], repeat=len(shape))))[:, :, None]  # (corners, axes, 1)
    boxes = np.ravel_multi_index(tuple(np.where(moved, far, here).swapaxes(0, 1)), shape)  # (corners, boxes)
    # A total changes with its cells, every other corner against them.
    against = moved & (far != last) & (here != last)
    return boxes, against.sum(axis=1) % 2 == 0, (far != last).all(axis=0)

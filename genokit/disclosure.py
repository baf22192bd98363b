"""Counts of persons that may be shown: small ones are hidden, and so many others that sums don't give them back.

A small cell of a table that adds up is protected by a box, as in Repsilber's hypercube method: cells that differ from
it in some columns and are hidden with it. Adding a number to the corners of the box, and taking it off in turn, changes
no sum: so there is another table that a reader cannot tell from the true one, and in it the cell is not small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from genokit.config import Settings
from genokit.errors import InvalidParameters, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

HIDDEN = "*"  # in place of a count, where to say "fewer than" would tell too much
MOST_CELLS = 1_000_000  # of one table, with the combinations that no row has

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
    """The rows with every small count missing (<NA>): the counts of a row, and the columns ``also``, go together.

    ``by`` are the columns over which the counts add up, because each person is in one row only (sex, age at entry):
    then other rows are hidden too, such that nobody who has all sums over these columns learns that a count is small;
    or learns it exactly, where the sums alone tell that it is small. What the sums alone tell exactly is beyond help.
    ``total`` is the label in these columns by which a row is the sum of others; such rows are hidden if need be. A
    hidden zero may come as a row of its own. ``within`` are columns for each of whose values this is a table by itself.
    ``hide`` is true of other rows to hide, as of those with a number ``near`` another. Without ``by`` only these and
    what is small are hidden. A count is small from 1 to below ``min_cell``, which is at least that of the settings.
    Raises InvalidParameters.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"sex": ["F", "M", "other"], "persons": [120, 98, 2]})
    >>> suppress(frame, ["persons"], by=["sex"])["persons"].tolist()
    [120, <NA>, <NA>]
    """
    import numpy as np

    for name in (*counts, *by, *within, *also):
        if name not in frame.columns:
            raise InvalidParameters(f"There is no column '{name}' to suppress. {did_you_mean(name, frame.columns)}")
    if by and frame.duplicated([*within, *by]).any():
        raise InvalidParameters(f"Several rows have the same {', '.join(by)}: name what tells them apart in within.")
    least = smallest(min_cell)
    values = np.stack([_whole(frame[name], name) for name in counts], axis=1)  # (rows, counts)
    hidden: NDArray[np.bool_] = np.any((values > 0) & (values < least), axis=1)
    hidden |= False if hide is None else np.asarray(hide, dtype=bool)
    added: list[list[int]] = []  # for each new row, a row to take each column of by from
    if len(by) > 1 or total is not None:
        codes = _codes(frame, by, total)
        for rows in _groups(frame, within):
            if hidden[rows].any():
                grid = _grid(codes[rows], values[rows], by)
                added += [[int(rows[of]) for of in origin] for origin in _protect(grid, hidden, rows, least)]
                if total is not None:
                    _hide_few_together(grid, hidden, rows, least)
    if by and total is None:
        tables: Any = frame.groupby(list(within), dropna=False).ngroup().to_numpy() if within else 0 * values[:, 0]
        _partner(tables, values, hidden, least)
    return _without(frame, hidden, added, counts, by, within, also)


def near(numbers: Any, *told: Any, min_cell: int | None = None) -> NDArray[np.bool_]:
    """Which numbers are small, or differ by a small number from one that is told beside them.

    Each of ``told`` is a number, or one for each number; where it is missing there is none.

    >>> near([100, 97, 50, 3], 100).tolist()
    [False, True, False, True]
    """
    import numpy as np

    found, least = np.asarray(numbers, dtype="float64"), smallest(min_cell)
    apart = [np.abs(found - np.asarray(one, dtype="float64")) for one in (0, *told)]
    small: NDArray[np.bool_] = np.any([(one > 0) & (one < least) for one in apart], axis=0)
    return small


def steps(
    counts: Sequence[int],
    *others: Sequence[int],
    first: Sequence[int] = (),
    beside: Sequence[Sequence[int]] = (),
    min_cell: int | None = None,
) -> list[int | None]:
    """Nested counts, such as the steps of an attrition: hide those that are small or differ by a small number.

    The last is kept before the first, and both before those between; before all of them, those at the places
    ``first``. ``beside`` are, for each count, others that are told elsewhere: it differs by little from none of them.
    ``others`` are series that go with it, each of which is held to the same.

    >>> steps([200, 198, 150, 147, 60, 3, 0])
    [200, None, 150, None, 60, None, 0]
    """
    least, last = smallest(min_cell), len(counts) - 1
    shown: dict[int, int] = {}
    for i in dict.fromkeys([*first, last, 0, *range(last)] if counts else []):
        told = [(of[i], (0, *(of[j] for j in shown), *(beside[i] if beside else ()))) for of in (counts, *others)]
        if not any(0 < abs(one - n) < least for one, numbers in told for n in numbers):
            shown[i] = counts[i]
    return [shown.get(i) for i in range(len(counts))]


def gathered(
    frame: DataFrame, count: str, steps: Sequence[str], *, other: str, min_cell: int | None = None
) -> DataFrame:
    """Paths, a row each, with their counts: rare ones put together with those that begin alike, and then go on as
    ``other``.

    Each person is in one row, so that sums of rows give nothing back: a row is a path, or so many together that each
    may be as many as is told. Whom nobody is left to go with, the rarest other path joins. ``steps`` are the columns of
    a path, missing after its end. Raises InvalidParameters.

    >>> import pandas as pd
    >>> paths = pd.DataFrame({"first": ["a", "a", "a", "b"], "then": [None, "b", "c", None], "persons": [90, 4, 3, 50]})
    >>> gathered(paths, "persons", ["first", "then"], other="...").values.tolist()
    [['a', None, 90], ['a', '...', 7], ['b', None, 50]]
    """
    least, steps = smallest(min_cell), list(steps)
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
        alike = 0 if rows[count].sum() < least else next(differ, 0)  # of few in all, not even the first step is told
        rows.loc[rare, steps[alike:]] = [other, *[""] * (len(steps) - alike - 1)]
    told = rows.groupby(steps, sort=False)[count].sum().astype("Int64").reset_index()
    told[count] = told[count].mask(told[count] < least)  # of all, if they are few
    return told.assign(**{step: told[step].astype(object).where(told[step] != "", None) for step in steps})


def written(
    frame: DataFrame, counts: Sequence[str], by: Sequence[str] = (), *, min_cell: int | None = None
) -> DataFrame:
    """A suppressed frame with its counts as texts, to be shown.

    What is hidden is "<5" where only small counts are; with ``by`` all of it is "*", as some of it is not small, and to
    tell which would give sums a hold.

    >>> import pandas as pd
    >>> written(suppress(pd.DataFrame({"persons": [1234, 2]}), ["persons"]), ["persons"])["persons"].tolist()
    ['1,234', '<5']
    """
    import pandas as pd

    sign = HIDDEN if by else f"<{smallest(min_cell)}"
    return frame.assign(**{name: [sign if pd.isna(n) else f"{n:,}" for n in frame[name]] for name in counts})


def told(count: int, min_cell: int | None = None) -> str:
    """One number of persons as text: "<5" where it is small.

    >>> told(1234), told(3)
    ('1,234', '<5')
    """
    least = smallest(min_cell)
    return f"<{least}" if 0 < count < least else f"{count:,}"


def note(by: Sequence[str] = (), *, min_cell: int | None = None) -> str:
    """What is to be said beside suppressed counts.

    >>> note()
    'Counts of 1 to 4 persons are not shown.'
    """
    also = ", nor are those that would give them back" if by else ""
    return f"Counts of 1 to {smallest(min_cell) - 1} persons are not shown{also}."


def smallest(min_cell: int | None = None, settings: Settings | None = None) -> int:
    """The smallest count that is shown: ``min_cell``, but at least that of the settings. Raises InvalidParameters."""
    if min_cell is not None and (isinstance(min_cell, bool) or not isinstance(min_cell, int)):
        raise InvalidParameters(f"min_cell must be a whole number of persons, but is {min_cell!r}.")
    return max(Settings.load().min_cell, min_cell or 0, settings.min_cell if settings else 0)


@dataclass(frozen=True)
class _Grid:
    """A table with an axis a column, each with its total at the end; flat, and what no row has is summed up."""

    shape: Cell
    values: NDArray[np.int64]  # (counts, cells)
    row: NDArray[np.int64]  # (cells,), -1 where there is none
    elsewhere: NDArray[np.bool_]  # (cells,): totals that no row has
    price: NDArray[np.float64]  # (cells,): of hiding it
    origin: tuple[NDArray[np.int64], ...]  # for each axis, a row that has each of its values


def _partner(table: NDArray[np.int64], values: NDArray[np.int64], hidden: NDArray[np.bool_], least: int) -> None:
    """Of each table, hide the least other row where what is hidden is one alone, or few together."""
    import numpy as np

    many, whole = np.bincount(table, hidden), values.sum(axis=1)
    sums = [np.bincount(table, count * hidden) for count in values.T]
    needs = (many == 1) | ((many > 1) & np.any([(one > 0) & (one <= least) for one in sums], axis=0))
    at = np.flatnonzero(~hidden & needs[table])
    at = at[np.lexsort((whole[at], whole[at] == 0, table[at]))]
    hidden[at[np.unique(table[at], return_index=True)[1]]] = True


def _whole(column: Series[Any], name: str) -> NDArray[np.int64]:
    import numpy as np
    import pandas as pd

    numbers = column.to_numpy(dtype=object)
    if column.isna().any():
        raise InvalidParameters(f"The counts '{name}' have gaps: suppress takes the true counts, once.")
    if any(isinstance(n, (bool, np.bool_, str)) or n != int(n) or n < 0 for n in pd.unique(numbers)):
        raise InvalidParameters(f"The counts '{name}' must be whole numbers, 0 or more.")
    return numbers.astype(np.int64)


def _groups(frame: DataFrame, within: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """The positions of the rows of each table."""
    import numpy as np

    if not within:
        return iter([np.arange(len(frame))])
    number = frame.groupby(list(within), dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    return iter(np.split(order, np.flatnonzero(np.diff(number[order])) + 1))


def _codes(frame: DataFrame, by: Sequence[str], total: str | None) -> NDArray[np.int64]:
    """The values of these columns as numbers, -1 for a total: (rows, axes)."""
    import numpy as np
    import pandas as pd

    codes = [pd.factorize(frame[name], use_na_sentinel=False)[0] for name in by]
    totals = [[isinstance(value, str) and value == total for value in frame[name]] for name in by]
    return np.where(np.array(totals, dtype=bool), -1, np.array(codes, dtype=np.int64)).T


def _grid(codes: NDArray[np.int64], values: NDArray[np.int64], by: Sequence[str]) -> _Grid:
    import numpy as np

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
        raise InvalidParameters(f"A table by {', '.join(by)} has {prod(shape):,} cells: more than {MOST_CELLS:,}.")
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
            "several of them. Name in by only what each person has one of, and the rest in within."
        )
    total = on_a_total.ravel()
    persons = flat.sum(axis=0)
    price = np.where(row >= 0, np.where(total, 100, 1), np.where(total, 1e6, 1000))
    price = price + persons / (1 + persons.max()) / 2 ** len(by)  # of as many cells, those with fewer persons
    return _Grid(shape, flat, row, total & (row < 0), price, tuple(origin))


def _protect(grid: _Grid, hidden: NDArray[np.bool_], rows: NDArray[np.int64], least: int) -> Iterator[tuple[int, ...]]:
    """Hide what protects the small cells of a table; yields what no row has, by rows that have its values."""
    import numpy as np

    lost = (grid.row >= 0) & hidden[rows[grid.row]]
    for cell in np.flatnonzero(lost):  # as they are now: what is hidden below isn't small
        for corner in _box(grid, int(cell), lost, least):
            if not lost[corner]:
                lost[corner] = True
                if grid.row[corner] >= 0:
                    hidden[rows[grid.row[corner]]] = True
                elif not grid.elsewhere[corner]:
                    places = np.unravel_index(corner, grid.shape)
                    yield tuple(int(origin[i]) for origin, i in zip(grid.origin, places, strict=True))


def _hide_few_together(grid: _Grid, hidden: NDArray[np.bool_], rows: NDArray[np.int64], least: int) -> None:
    """Where a total that is shown tells that what is hidden of its parts is few together, hide one more; and then
    whatever would give that one back."""
    import numpy as np

    lost = (grid.row >= 0) & hidden[rows[grid.row]]
    places = np.arange(lost.size).reshape(grid.shape)
    lines = [
        line for axis in range(places.ndim) for line in np.moveaxis(places, axis, -1).reshape(-1, places.shape[axis])
    ]
    lines = [line for line in lines if grid.row[line[-1]] >= 0]  # the total is the last
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
    """The corners of the box that protects a cell best, and of these at the least cost.

    Best is that the cell can be as large as what is shown, and nothing else zero; then, that it can be one more or one
    less. And best is a box that keeps all sums; then, one that hides sums among the rows; then, any.
    """
    import numpy as np

    own = grid.values[:, cell]
    small = np.flatnonzero((own > 0) & (own < least))
    if not len(small):  # hidden as it is near another number, so that it may not come back as a sum
        small, own = np.flatnonzero(own), np.zeros_like(own)
    # A box of few cells is wanted again and again, for one table after the other.
    find = _boxes if len(lost) < 1000 else _boxes.__wrapped__
    boxes, rising, kept = find(grid.shape, cell)
    values = grid.values[small][:, boxes]  # (counts, corners, boxes)
    enough = (rising | (values > (least - own[small])[:, None, None])).all(axis=(0, 1))
    less = values >= 1  # can be one less
    some = ((rising | less).all(axis=1) | (~rising | less).all(axis=1)).all(axis=0)
    known = ~grid.elsewhere[boxes].any(axis=0)
    whole = known | True
    choices = [fits & sums for sums in (kept & known, known, whole) for fits in (enough, some)]
    fit = next(one for one in (*choices, whole) if one.any())
    cost = np.where(lost[boxes], 0, grid.price[boxes]).sum(axis=0)
    return [int(corner) for corner in boxes[:, np.where(fit, cost, np.inf).argmin()]]


@lru_cache(maxsize=1000)
def _boxes(shape: Cell, cell: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """All boxes with a corner in this cell: their corners, which of these rise with it, and which keep all sums."""
    import numpy as np

    here = np.array(np.unravel_index(cell, shape))[:, None]
    last = np.array(shape)[:, None] - 1
    far = np.indices(shape).reshape(len(shape), -1)
    far = far[:, (far != here).all(axis=0)]  # (axes, boxes)
    moved = np.array(list(product([False, True], repeat=len(shape))))[:, :, None]  # (corners, axes, 1)
    boxes = np.ravel_multi_index(tuple(np.where(moved, far, here).swapaxes(0, 1)), shape)  # (corners, boxes)
    # A total moves with its cells, everything else against them.
    against = moved & (far != last) & (here != last)
    return boxes, against.sum(axis=1) % 2 == 0, (far != last).all(axis=0)


def _without(
    frame: DataFrame,
    hidden: NDArray[np.bool_],
    added: Sequence[Sequence[int]],
    counts: Sequence[str],
    by: Sequence[str],
    within: Sequence[str],
    also: Sequence[str],
) -> DataFrame:
    import pandas as pd

    shown = frame.copy()
    for name in counts:
        shown[name] = frame[name].astype("Int64").mask(hidden)
    for name in also:
        shown[name] = frame[name].mask(hidden)
    if not added:
        return shown
    columns = {}
    for name in frame.columns:
        if name in by:
            more = frame[name].iloc[[of[list(by).index(name)] for of in added]]
        else:
            more = shown[name].iloc[[of[0] for of in added]]
            more = more if name in within else more.mask(pd.Series(True, index=more.index))
        columns[name] = pd.concat([shown[name], more], ignore_index=True)
    return pd.DataFrame(columns)

"""Counts of persons that may be shown: small ones are hidden, and so many others that sums don't give them back.

A small cell of a table that adds up is protected by a box, as in Repsilber's hypercube method: cells that differ from
it in some columns and are hidden with it. Adding a number to the corners of the box, and taking it off in turn, changes
no sum: so there is another table that a reader cannot tell from the true one, and in it the cell is not small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from genokit.config import Settings
from genokit.errors import InvalidParameters, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

MOST_CELLS = 4_000_000  # of one table, with the combinations that no row has

Cell = tuple[int, ...]


def suppress(
    frame: DataFrame,
    counts: Sequence[str],
    by: Sequence[str] = (),
    *,
    within: Sequence[str] = (),
    also: Sequence[str] = (),
    total: str | None = None,
    min_cell: int | None = None,
) -> DataFrame:
    """The rows with every small count missing (<NA>): the counts of a row, and the columns ``also``, go together.

    ``by`` are the columns over which the counts add up, because each person is in one row only (sex, age at entry):
    then other rows are hidden too, such that nobody who has all sums over these columns learns that a count is small;
    or learns it exactly, where the sums alone tell that it is small. What the sums alone tell exactly is beyond help.
    ``total`` is the label in these columns by which a row is the sum of others; such rows are hidden if need be. A
    hidden zero may come as a row of its own. ``within`` are columns for each of whose values this is a table by itself.
    Without ``by`` only what is small is hidden. A count is small from 1 to below ``min_cell``, which is at least that
    of the settings. Raises InvalidParameters.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"sex": ["F", "M", "other"], "persons": [120, 98, 2]})
    >>> suppress(frame, ["persons"], by=["sex"])["persons"].tolist()
    [120, <NA>, <NA>]
    """
    import numpy as np

    for name in (*counts, *by, *within, *also):
        if name not in frame.columns:
            raise InvalidParameters(f"There is no column '{name}' to suppress. {did_you_mean(name, frame.columns)}")
    least = smallest(min_cell)
    values = np.stack([_whole(frame[name], name) for name in counts], axis=1)  # (rows, counts)
    hidden: NDArray[np.bool_] = np.any((values > 0) & (values < least), axis=1)
    added: list[list[int]] = []  # for each new row, a row to take each column of by from
    if by:
        for rows in _groups(frame, within):
            if hidden[rows].any():
                grid = _grid(frame.iloc[rows], values[rows], by, total)
                added += [[int(rows[of]) for of in origin] for origin in _protect(grid, hidden, rows, least)]
    return _without(frame, hidden, added, counts, by, within, also)


def steps(counts: Sequence[int], *, min_cell: int | None = None) -> list[int | None]:
    """The counts of an attrition, each of which is part of the one before: neither they nor their differences small.

    The last is kept before the first, and both before those between. Raises InvalidParameters.

    >>> steps([200, 198, 150, 147, 60, 3, 0])
    [200, None, 150, None, 60, None, 0]
    """
    if any(after > before for before, after in pairwise(counts)) or min(counts, default=0) < 0:
        raise InvalidParameters("The counts of an attrition can only fall, to 0 at the least.")
    least = smallest(min_cell)
    shown: dict[int, int] = {}
    last = len(counts) - 1
    for i in dict.fromkeys([last, 0, *range(last)] if counts else []):
        before = max((j for j in shown if j < i), default=None)
        after = min((j for j in shown if j > i), default=None)
        told = [counts[i]]
        told += [] if before is None else [shown[before] - counts[i]]
        told += [] if after is None else [counts[i] - shown[after]]
        if not any(0 < n < least for n in told):
            shown[i] = counts[i]
    return [shown.get(i) for i in range(len(counts))]


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

    sign = "*" if by else f"<{smallest(min_cell)}"
    return frame.assign(**{name: [sign if pd.isna(n) else f"{n:,}" for n in frame[name]] for name in counts})


def note(by: Sequence[str] = (), *, min_cell: int | None = None) -> str:
    """What is to be said beside suppressed counts.

    >>> note()
    'Counts of 1 to 4 persons are not shown.'
    """
    also = ", nor are those that would give them back" if by else ""
    return f"Counts of 1 to {smallest(min_cell) - 1} persons are not shown{also}."


def smallest(min_cell: int | None = None) -> int:
    """The smallest count that is shown: what is asked for, and not below the settings'. Raises InvalidParameters."""
    if min_cell is not None and (isinstance(min_cell, bool) or not isinstance(min_cell, int)):
        raise InvalidParameters(f"min_cell must be a whole number of persons, but is {min_cell!r}.")
    return max(Settings.load().min_cell, min_cell or 0)


@dataclass(frozen=True)
class _Grid:
    """A table as an array with an axis a column, each with its total at the end; what no row has is summed up."""

    values: NDArray[np.int64]  # (counts, *shape)
    row: NDArray[np.int64]  # (*shape), -1 where there is none
    on_a_total: NDArray[np.bool_]  # (*shape)
    origin: tuple[NDArray[np.int64], ...]  # for each axis, a row that has each of its values


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


def _grid(frame: DataFrame, values: NDArray[np.int64], by: Sequence[str], total: str | None) -> _Grid:
    import numpy as np
    import pandas as pd

    codes: list[Any] = []
    origin = []
    for name in by:
        is_total = np.array([isinstance(value, str) and value == total for value in frame[name]], dtype=bool)
        code = np.empty(len(frame), dtype=np.int64)
        code[~is_total], labels = pd.factorize(frame[name][~is_total], use_na_sentinel=False)
        code[is_total] = len(labels)
        codes.append(code)
        origin.append(np.flatnonzero(~is_total)[np.unique(code[~is_total], return_index=True)[1]])
    shape = tuple(len(rows) + 1 for rows in origin)
    if prod(shape) > MOST_CELLS:
        raise InvalidParameters(f"A table by {', '.join(by)} has {prod(shape):,} cells: more than {MOST_CELLS:,}.")
    if len(set(zip(*codes, strict=True))) < len(frame):
        raise InvalidParameters(f"Several rows have the same {', '.join(by)}: name what tells them apart in within.")
    row = np.full(shape, -1)
    row[tuple(codes)] = np.arange(len(frame))
    whole = np.zeros((values.shape[1], *shape), dtype=np.int64)
    whole[:, *codes] = values.T
    on_a_total = np.zeros(shape, dtype=bool)
    summed = whole.copy()
    for axis in range(len(by)):
        last = (slice(None),) * axis + (-1,)
        on_a_total[last] = True
        summed[:, *last] = np.delete(summed, -1, axis=axis + 1).sum(axis=axis + 1)
    if (whole != summed)[:, row >= 0].any():
        raise InvalidParameters(
            f"The totals over {', '.join(by)} are not the sums of the other rows: rows are missing, or persons are in "
            "several of them. Name in by only what each person has one of, and the rest in within."
        )
    return _Grid(summed, row, on_a_total, tuple(origin))


def _protect(grid: _Grid, hidden: NDArray[np.bool_], rows: NDArray[np.int64], least: int) -> Iterator[tuple[int, ...]]:
    """Hide what protects the small cells of a table; yields what no row has, by rows that have its values."""
    import numpy as np

    lost = (grid.row >= 0) & hidden[rows[grid.row]]
    for cell in zip(*np.nonzero(lost), strict=True):  # as they are now: what is hidden below isn't small
        for corner in _box(grid, tuple(map(int, cell)), lost, least):
            if not lost[corner]:
                lost[corner] = True
                if grid.row[corner] >= 0:
                    hidden[rows[grid.row[corner]]] = True
                elif not grid.on_a_total[corner]:
                    yield tuple(int(origin[i]) for origin, i in zip(grid.origin, corner, strict=True))


def _box(grid: _Grid, cell: Cell, lost: NDArray[np.bool_], least: int) -> list[Cell]:
    """The corners of the box that protects a cell best, and of these at the least cost.

    Best is that the cell can be as large as what is shown, and nothing else zero; then, that it can be one more or one
    less. And best is a box that keeps all sums; then, one that hides sums among the rows; then, any.
    """
    import numpy as np

    shape = grid.row.shape
    axes = range(len(shape))
    here: Any = (slice(None), *cell)
    own = grid.values[here]
    small = (own > 0) & (own < least)
    missing = (least - own[small]).reshape(-1, *[1] * len(shape))
    persons = grid.values.sum(axis=0)
    price = np.where(grid.row >= 0, np.where(grid.on_a_total, 100, 1), np.where(grid.on_a_total, 1e6, 1000))
    price = np.where(lost, 0, price + persons / (1 + persons.max()) / 2 ** len(shape))

    # Of each opposite corner: what its box costs, and what it is good for.
    cost = np.zeros(shape)
    possible, kept, known = (np.ones(shape, dtype=bool) for _ in range(3))
    enough, up, down = (np.ones((len(missing), *shape), dtype=bool) for _ in range(3))
    signs = []
    for axis in axes:
        far = np.arange(shape[axis]).reshape([-1 if axis == other else 1 for other in axes])
        total = shape[axis] - 1
        possible &= far != cell[axis]
        kept &= far != total
        # A total moves with its cells, everything else against them.
        signs.append(np.where((far == total) | (cell[axis] == total), 1, -1))
    for moved in _subsets(len(shape)):
        place: tuple[Any, ...] = tuple(slice(None) if axis in moved else at for axis, at in enumerate(cell))
        broad = [size if axis in moved else 1 for axis, size in enumerate(shape)]
        sign = prod(signs[axis] for axis in moved)
        values = grid.values[:, *place][small].reshape(-1, *broad)
        cost = cost + price[place].reshape(broad)
        known &= ((grid.row[place] >= 0) | ~grid.on_a_total[place]).reshape(broad)
        enough &= (sign > 0) | (values > missing)
        up &= (sign > 0) | (values >= 1)
        down &= (sign < 0) | (values >= 1)
    fits = (enough.all(axis=0) & possible, (up | down).all(axis=0) & possible)
    fit = next(fit & sums for sums in (kept & known, known, possible) for fit in fits if (fit & sums).any())
    best = np.unravel_index(int(np.where(fit, cost, np.inf).argmin()), shape)
    return [
        tuple(int(best[axis]) if axis in moved else at for axis, at in enumerate(cell))
        for moved in _subsets(len(shape))
    ]


def _subsets(n: int) -> Iterator[tuple[int, ...]]:
    return (moved for size in range(n + 1) for moved in combinations(range(n), size))


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

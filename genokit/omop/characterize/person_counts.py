"""What is recorded of persons over their lives, counted from one sorted column of numbers.

Who had what, and when, is nearly as many groups as there are records. To sort numbers takes a small part of the time
and memory that a table of all those groups takes; and from months to years to a life, each step is then one look at
what stands beside a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

CHUNK = 1 << 16  # keys that are looked at together, so that all that is made of them stays in the processor's cache
DENSE = 1 << 22  # so many different numbers are counted in an array that has them all
TIMES = 1 << 32  # more records of a concept than any person has


class Tally:
    """How often each number has been added, of the numbers from 0 below ``size``."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self._all = np.zeros(size, np.int64) if size <= DENSE else None
        self._some: list[tuple[Numbers, Numbers]] = []

    def add(self, numbers: Numbers) -> None:
        import numpy as np

        if self._all is None:
            self._some.append(np.unique(numbers, return_counts=True))
        else:
            np.add.at(self._all, numbers, 1)

    def rows(self) -> tuple[Numbers, Numbers]:
        """Each number that was added, and how often."""
        import numpy as np

        if self._all is not None:
            there = np.flatnonzero(self._all)
            return there, self._all[there]
        numbers, times = (np.concatenate(parts) for parts in zip(*self._some, strict=True))
        numbers, where = np.unique(numbers, return_inverse=True)
        return numbers, np.bincount(where, times).astype(np.int64)


@dataclass(frozen=True)
class Numbering:
    """What is in a key, ``(person * concepts + concept) * months + month``, all numbered from 0.

    ``nothing``, if any, is the concept that is none; ``first`` is the month 0, counted from the year 0. ``group`` says
    of each person which group it is of, and ``decile`` and ``age`` of each group and year what it is counted by.
    """

    concepts: int
    nothing: int | None
    months: int
    first: int
    group: Numbers
    decile: Numbers
    age: Numbers

    @cached_property
    def year(self) -> Numbers:
        """Which year each month is in, from 0."""
        import numpy as np

        return (self.first + np.arange(self.months)) // 12 - self.first // 12

    @cached_property
    def deciles(self) -> int:
        return int(self.decile.max()) + 1

    @cached_property
    def ages(self) -> int:
        return int(self.age.max()) + 1

    def tallies(self) -> dict[int, Tally]:
        """What is counted of keys, by the kind of the analysis; see KINDS in achilles.py."""
        of = {2: self.months, 4: self.deciles, 6: self.ages, 91: TIMES}
        tallies = {kind: Tally(self.concepts * size) for kind, size in of.items()}
        return tallies | {20: Tally(self.months), 3: Tally(self.concepts + 1)}


def count(keys: Numbers, by: Numbering, tallies: Mapping[int, Tally]) -> None:
    """Add the records of persons to tallies: all records that these persons have, in any order."""
    keys.sort()
    each, start = by.concepts * by.months, 0
    while start < len(keys):
        last = keys[min(start + CHUNK, len(keys)) - 1]
        end = int(keys.searchsorted((last // each + 1) * each))  # where the next person begins
        _count(keys[start:end], by, tallies)
        start = end


def _count(keys: Numbers, by: Numbering, tallies: Mapping[int, Tally]) -> None:
    import numpy as np

    tallies[20].add(keys % by.months)
    first = _first(keys)
    who, month = np.divmod(keys[first], by.months)  # a person with a concept, in each month
    tallies[2].add(who % by.concepts * by.months + month)

    years = int(by.year[-1]) + 1
    year = by.year[month]
    yearly = _first(who * years + year)
    person, concept = np.divmod(who[yearly], by.concepts)
    tallies[4].add(concept * by.deciles + by.decile[by.group[person] * years + year[yearly]])

    life = _first(who)
    person, concept = np.divmod(who[life], by.concepts)
    tallies[6].add(concept * by.ages + by.age[by.group[person] * years + year[life]])
    tallies[91].add(concept * TIMES + np.diff(first[life], append=len(keys)))
    tallies[3].add(
        np.add.reduceat((concept != (-1 if by.nothing is None else by.nothing)).astype(np.int64), _first(person))
    )


def _first(numbers: Numbers) -> Numbers:
    """Where in sorted numbers each other one begins."""
    import numpy as np

    return np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))


def table(tallies: Mapping[int, Tally]) -> pa.Table:
    """What was counted: the kind of analysis, the number, and how often it was there."""
    import numpy as np
    import pyarrow as pa

    rows = {kind: tally.rows() for kind, tally in tallies.items()}
    return pa.table(
        {
            "kind": np.concatenate([np.full(len(numbers), kind) for kind, (numbers, _) in rows.items()]),
            "number": np.concatenate([numbers for numbers, _ in rows.values()]),
            "n": np.concatenate([times for _, times in rows.values()]),
        }
    )

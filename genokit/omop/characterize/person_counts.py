"""Persons with each concept by month, by year and ever, counted from one sorted column of numbers.

There are nearly as many groups of person, concept and month as records. Sorting numbers takes a small part of the time
and memory of a hash table of all groups; and from months to years to ever, each step then only compares neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

CHUNK = 1 << 16  # keys to count together, so that all intermediate arrays stay in the processor's cache
DENSE = 1 << 22  # a tally of up to so many numbers is an array
TIMES = 1 << 32  # more than any person's records of a concept


class Tally:
    """How often each number from 0 to ``size`` - 1 has been added."""

    def __init__(self, size: int) -> None:
        self._all = np.zeros(size, np.int64) if size <= DENSE else None
        self._some: list[tuple[Numbers, Numbers]] = []

    def add(self, numbers: Numbers) -> None:
        if self._all is None:
            self._some.append(np.unique(numbers, return_counts=True))
        else:
            np.add.at(self._all, numbers, 1)

    def rows(self) -> tuple[Numbers, Numbers]:
        """The numbers that were added, and how often each."""
        if self._all is not None:
            there = np.flatnonzero(self._all)
            return there, self._all[there]
        numbers, times = (np.concatenate(parts) for parts in zip(*self._some, strict=True))
        numbers, where = np.unique(numbers, return_inverse=True)
        return numbers, np.bincount(where, times).astype(np.int64)


@dataclass(frozen=True)
class Numbering:
    """How to read a key, ``(person * concepts + concept) * months + month``, all numbered from 0.

    ``nothing`` is the number of the concept null, if there is one; ``first`` is month 0, counted from the year 0.
    ``group`` has the group of each person; ``decile`` and ``age`` what each group is counted by in each year.
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
        """The year of each month, from 0."""
        return (self.first + np.arange(self.months)) // 12 - self.first // 12

    @cached_property
    def deciles(self) -> int:
        return int(self.decile.max()) + 1

    @cached_property
    def ages(self) -> int:
        return int(self.age.max()) + 1

    def tallies(self) -> dict[int, Tally]:
        """A tally for each kind of analysis; see persons_of.sql."""
        of = {2: self.months, 4: self.deciles, 6: self.ages, 91: TIMES}
        tallies = {kind: Tally(self.concepts * size) for kind, size in of.items()}
        return tallies | {20: Tally(self.months), 3: Tally(self.concepts + 1)}


def count(keys: Numbers, by: Numbering, tallies: Mapping[int, Tally]) -> None:
    """Add the records of some persons to the tallies: all their records, in any order."""
    keys.sort()
    each, start = by.concepts * by.months, 0
    while start < len(keys):
        last = keys[min(start + CHUNK, len(keys)) - 1]
        end = int(keys.searchsorted((last // each + 1) * each))  # where the next person begins
        _count(keys[start:end], by, tallies)
        start = end


def _count(keys: Numbers, by: Numbering, tallies: Mapping[int, Tally]) -> None:
    tallies[20].add(keys % by.months)
    first = _first(keys)
    who, month = np.divmod(keys[first], by.months)  # person and concept, once a month
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
    """The positions in sorted numbers at which the number changes."""
    return np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))


def table(tallies: Mapping[int, Tally]) -> pa.Table:
    """All tallies: the kind of analysis, the number, and its count."""
    rows = [(kind, *tally.rows()) for kind, tally in tallies.items()]
    parts = zip(*((np.full(len(numbers), kind), numbers, times) for kind, numbers, times in rows), strict=True)
    return pa.table(list(map(np.concatenate, parts)), names=["kind", "number", "n"])

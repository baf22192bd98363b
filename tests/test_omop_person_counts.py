"""What is counted of sorted keys is what a table of all groups says, however many numbers there can be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from genokit.omop.characterize import person_counts
from genokit.omop.characterize.person_counts import DENSE, TIMES, Numbering, Tally


def test_few_and_many_possible_numbers_are_counted_alike():
    numbers = np.random.default_rng(1).integers(0, 50, 1000)
    few, many = Tally(50), Tally(DENSE + 1)
    for tally in (few, many):
        tally.add(numbers[:300])
        tally.add(numbers[300:])
    assert [part.tolist() for part in few.rows()] == [part.tolist() for part in many.rows()]


@pytest.mark.parametrize("nothing", [None, 2])
def test_persons_are_counted_as_a_table_of_groups_counts_them(nothing, monkeypatch):
    monkeypatch.setattr(person_counts, "CHUNK", 64)  # smaller than what one person has
    persons, concepts, months, first, groups = 20, 5, 30, 2010 * 12 + 7, 3
    random = np.random.default_rng(2)
    keys = random.integers(0, persons * concepts * months, 4000)
    years = (first + months - 1) // 12 - first // 12 + 1
    decile, age = (random.integers(0, 4, groups * years) for _ in range(2))
    group = random.integers(0, groups, persons)
    by = Numbering(concepts, nothing, months, first, group, decile, age)
    rows = pd.DataFrame({"key": keys}).eval(f"month = key % {months}\nwho = key // {months}")
    rows = rows.eval(f"person = who // {concepts}\nconcept = who % {concepts}\nyear = (month + {first}) // 12")
    rows["of"] = group[rows["person"]] * years + rows["year"] - first // 12
    yearly = rows.drop_duplicates(["who", "year"])
    life = rows.sort_values("month").drop_duplicates("who")
    told = life[life["concept"] != (-1 if nothing is None else nothing)]
    right = {
        20: rows["month"],
        2: rows.drop_duplicates(["who", "month"]).eval(f"concept * {months} + month"),
        4: yearly["concept"] * by.deciles + decile[yearly["of"]],
        6: life["concept"] * by.ages + age[life["of"]],
        91: rows.groupby("who").size().pipe(lambda n: n.index % concepts * TIMES + n.to_numpy()).to_series(),
        3: told.groupby("person").size().reindex(rows["person"].unique(), fill_value=0),
    }

    tallies = by.tallies()
    half = keys // (concepts * months) < persons // 2
    for some in (keys[half], keys[~half]):
        person_counts.count(some, by, tallies)
    found = person_counts.table(tallies).to_pandas()
    for kind, numbers in right.items():
        counted = found[found["kind"] == kind].set_index("number")["n"]
        assert counted.to_dict() == numbers.value_counts().to_dict(), kind

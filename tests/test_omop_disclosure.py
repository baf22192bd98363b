"""What is hidden in counts of persons, and whether a reader who knows all sums gets any of it back.

The reader here is exact: he tries every whole number at every hidden cell.
"""

from __future__ import annotations

from itertools import product

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genokit.config import Settings
from genokit.disclosure import _box, _codes, _grid, formatted, note, suppress, suppress_nested, threshold
from genokit.errors import ConfigError, InvalidParameters

QUICK = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def can_be(value, cells, truth, hidden, sums):
    """Whether some table of whole numbers has this value as the sum of these cells, and all else that a reader knows.

    ``truth`` maps each cell (a tuple) to its count, which he knows unless it is hidden; ``sums`` are lists of cells
    whose sum he knows.
    """
    lines = [[c for c in line if c in hidden] for line in (cells, *sums)]
    left = [sum(truth[c] for c in line) for line in lines]
    left[0] += value - sum(truth[c] for c in cells)
    if left[0] < 0:
        return False
    order = sorted(hidden, key=lambda c: (c not in cells, c))
    of = [[i for i, line in enumerate(lines) if c in line] for c in order]
    last = [max((order.index(c) for c in line), default=-1) for line in lines]
    if any(at == -1 and n for at, n in zip(last, left, strict=True)):
        return False

    def search(i):
        if i == len(order):
            return True
        most = min((left[j] for j in of[i]), default=0)
        forced = [left[j] for j in of[i] if last[j] == i]
        for v in forced[:1] or range(most + 1):
            if v <= most and all(f == v for f in forced):
                for j in of[i]:
                    left[j] -= v
                found = search(i + 1)
                for j in of[i]:
                    left[j] += v
                if found:
                    return True
        return False

    return search(0)


def margins(shape):
    """The cells of every sum over one of the columns."""
    cells = list(product(*map(range, shape)))
    for axis in range(len(shape)):
        lines = {}
        for cell in cells:
            lines.setdefault(cell[:axis] + cell[axis + 1 :], []).append(cell)
        yield from lines.values()


def near(n):
    """Numbers other than this one: with one, all between are possible, as the sums are of rows and columns."""
    return [n - 1, n + 1]


def frame_of(truth, names):
    rows = [(*map(str, cell), n) for cell, n in truth.items()]
    return pd.DataFrame(rows, columns=[*names, "persons"])


def hidden_in(shown, names):
    return {tuple(map(int, row[:-1])) for row in shown[[*names, "persons"]].itertuples(index=False) if row[-1] is pd.NA}


def few(n):
    """Counts as they come in practice: many zeros, many small."""
    return st.lists(st.one_of(st.just(0), st.integers(1, 4), st.integers(0, 12)), min_size=n, max_size=n)


@st.composite
def tables(draw, shapes):
    shape = draw(shapes)
    cells = list(product(*map(range, shape)))
    truth = dict(zip(cells, draw(few(len(cells))), strict=True))
    return shape, truth


ONE = st.tuples(st.integers(2, 6))
TWO = st.tuples(st.integers(2, 4), st.integers(2, 3))


@QUICK
@given(tables(st.one_of(ONE, TWO, st.just((2, 2, 2)))), st.booleans())
def test_a_reader_with_all_sums_recovers_no_small_cell_that_the_sums_alone_do_not_reveal(table, sparse):
    shape, truth = table
    names = ["a", "b", "c"][: len(shape)]
    given = {cell: n for cell, n in truth.items() if n or not sparse}
    if not given:
        return
    shown = suppress(frame_of(given, names), ["persons"], by=names)
    hidden = hidden_in(shown, names)
    # In a frame without its zeros, a value that no row has is not one of the table's.
    seen = [sorted({cell[axis] for cell in given}) for axis in range(len(shape))]
    cells = set(product(*seen))
    sums = [[cell for cell in line if cell in cells] for line in margins(shape)]
    for cell, n in given.items():
        if 0 < n < 5:
            assert cell in hidden
            if any(can_be(v, [cell], truth, cells, sums) for v in near(n)):
                assert any(can_be(v, [cell], truth, hidden, sums) for v in near(n)), (cell, n, hidden)


@QUICK
@given(tables(st.one_of(ONE, TWO)))
def test_nothing_is_hidden_without_a_small_count_and_what_is_shown_is_true(table):
    shape, truth = table
    names = ["a", "b"][: len(shape)]
    frame = frame_of(truth, names)
    shown = suppress(frame, ["persons"], by=names)
    assert len(shown) == len(frame)
    assert shown["persons"].isna().any() == any(0 < n < 5 for n in truth.values())
    assert (shown["persons"].isna() | (shown["persons"] == frame["persons"])).all()
    assert not (shown["persons"].between(1, 4)).any()


@QUICK
@given(st.data())
def test_beside_larger_counts_not_even_that_a_count_is_small_is_revealed(data):
    shape = data.draw(st.one_of(ONE, TWO))
    names = ["a", "b"][: len(shape)]
    cells = list(product(*map(range, shape)))
    truth = {cell: data.draw(st.integers(10, 14)) for cell in cells}
    cell = data.draw(st.sampled_from(cells))
    truth[cell] = data.draw(st.integers(1, 4))
    hidden = hidden_in(suppress(frame_of(truth, names), ["persons"], by=names), names)
    # He knows, too, that nothing hidden is zero: one person of each is as good as shown.
    rest = {c: n - (c in hidden) for c, n in truth.items()}
    assert any(can_be(v - 1, [cell], rest, hidden, list(margins(shape))) for v in range(5, 20))


def parts(place, cells):
    """The cells that a place, which may be a total, sums up."""
    return [cell for cell in cells if all(p in ("all", c) for p, c in zip(place, cell, strict=True))]


@QUICK
@given(tables(st.one_of(st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(1, 4)))), st.data())
def test_totals_among_the_rows_and_their_cells_do_not_reveal_each_other(table, data):
    shape, truth = table
    names = ["a", "b"][: len(shape)]
    every = {p: sum(truth[c] for c in parts(p, truth)) for p in product(*([*range(n), "all"] for n in shape))}
    totals = [place for place in every if "all" in place]
    # All totals; or some, while the reader has no other.
    kept = data.draw(st.one_of(st.just(totals), st.lists(st.sampled_from(totals), unique=True)))
    rows = truth | {place: every[place] for place in kept}
    shown = suppress(frame_of(rows, names), ["persons"], by=names, total="all")
    lost = {place for place, n in zip(rows, shown["persons"], strict=True) if n is pd.NA}
    hidden = {cell for cell in truth if cell in lost}
    told = [parts(place, truth) for place in kept if place not in lost]
    for place, n in rows.items():
        if 0 < n < 5:
            assert place in lost
            assert any(can_be(v, parts(place, truth), truth, hidden, told) for v in near(n)), (place, n, lost)


@QUICK
@given(tables(TWO))
def test_with_all_sums_among_the_rows_a_small_cell_is_safe_from_a_reader_who_knows_them(table):
    shape, truth = table
    every = {p: sum(truth[c] for c in parts(p, truth)) for p in product(*([*range(n), "all"] for n in shape))}
    shown = suppress(frame_of(every, ["a", "b"]), ["persons"], by=["a", "b"], total="all")
    hidden = {p for p, n in zip(every, shown["persons"], strict=True) if n is pd.NA and "all" not in p}
    sums = list(margins(shape))
    for cell, n in truth.items():
        if 0 < n < 5 and any(can_be(v, [cell], truth, set(truth), sums) for v in near(n)):
            assert any(can_be(v, [cell], truth, hidden, sums) for v in near(n)), (cell, n, hidden)


@QUICK
@given(st.data())
def test_beside_larger_counts_not_even_that_a_total_is_small_is_revealed(data):
    shape = data.draw(st.tuples(st.integers(3, 4), st.integers(2, 3)))
    few, many = st.integers(0, 1), st.integers(20, 24)
    truth = {cell: data.draw(many if cell[0] else few) for cell in product(*map(range, shape))}
    every = {p: sum(truth[c] for c in parts(p, truth)) for p in product(*([*range(n), "all"] for n in shape))}
    shown = suppress(frame_of(every, ["a", "b"]), ["persons"], by=["a", "b"], total="all")
    lost = {place for place, n in zip(every, shown["persons"], strict=True) if n is pd.NA}
    told = [parts(place, truth) for place in every if "all" in place and place not in lost]
    hidden = {cell for cell in truth if cell in lost}
    for place, n in every.items():
        if 0 < n < 5:
            assert any(can_be(v, parts(place, truth), truth, hidden, told) for v in range(5, 9)), (place, n, lost)


@QUICK
@given(tables(st.one_of(st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(st.integers(1, 5)))), st.data())
def test_the_corners_of_a_box_can_change_together_with_no_other_change_in_table_or_totals(table, data):
    shape, truth = table
    names = ["a", "b"][: len(shape)]
    every = {p: sum(truth[c] for c in parts(p, truth)) for p in product(*([*range(n), "all"] for n in shape))}
    kept = data.draw(st.sets(st.sampled_from([place for place in every if "all" in place])))
    frame = frame_of(truth | {place: every[place] for place in every if place in kept}, names)
    grid = _grid(_codes(frame, names, "all"), frame[["persons"]].to_numpy(), names)
    lost = (grid.row >= 0) & (grid.values[0] > 0) & (grid.values[0] < 5)
    for cell in map(int, lost.nonzero()[0]):
        box = _box(grid, cell, lost, 5)
        assert box[0] == cell
        assert any(stays_a_table(grid, box, change) for change in product([1, -1], repeat=len(box)))


def stays_a_table(grid, box, change):
    values = grid.values[0].copy()
    values[box] += change
    values = values.reshape(grid.shape)
    base = [values.take(range(size - 1), axis).sum(axis) for axis, size in enumerate(grid.shape)]
    return (values >= 0).all() and all((values.take(-1, axis) == sums).all() for axis, sums in enumerate(base))


def test_a_total_is_hidden_if_it_would_reveal_its_only_row():
    frame = pd.DataFrame(
        {"sex": ["F", "F", "F", "all", "all", "all"], "age": ["20", "30", "all"] * 2, "persons": [3, 97, 100] * 2}
    )
    shown = suppress(frame, ["persons"], by=["sex", "age"], total="all")
    assert shown["persons"].tolist() == [pd.NA, pd.NA, 100, pd.NA, pd.NA, 100]


def test_totals_that_are_not_sums_are_refused_because_persons_are_in_several_rows():
    frame = pd.DataFrame({"year": ["2001", "2002", "all"], "persons": [10, 2, 11]})
    with pytest.raises(InvalidParameters, match="not the sums of the other rows"):
        suppress(frame, ["persons"], by=["year"], total="all")


def test_without_by_only_what_is_small_is_hidden_and_zero_is_not():
    frame = pd.DataFrame({"concept": ["a", "b", "c"], "persons": [0, 4, 5], "share": [0.0, 0.4, 0.5]})
    shown = suppress(frame, ["persons"], also=["share"])
    assert shown["persons"].tolist() == [0, pd.NA, 5]
    assert shown["share"].isna().tolist() == [False, True, False]
    assert frame["persons"].tolist() == [0, 4, 5]
    assert formatted(shown, ["persons"])["persons"].tolist() == ["0", "<5", "5"]
    assert note() == "Counts of 1 to 4 persons are not shown."


def test_the_counts_of_a_row_go_together():
    frame = pd.DataFrame({"sex": ["F", "M", "x"], "persons": [50, 40, 20], "cases": [20, 15, 3]})
    shown = suppress(frame, ["persons", "cases"], by=["sex"])
    assert shown["persons"].isna().tolist() == shown["cases"].isna().tolist() == [False, True, True]
    assert formatted(shown, ["cases"], by=["sex"])["cases"].tolist() == ["20", "*", "*"]
    assert note(["sex"]).endswith(", nor are counts that would reveal them.")


def test_each_value_of_within_is_a_table_by_itself():
    frame = pd.DataFrame({"drug": [1, 1, 2, 2, 2], "sex": ["F", "M", "F", "M", "x"], "persons": [9, 8, 3, 30, 40]})
    shown = suppress(frame, ["persons"], by=["sex"], within=["drug"])
    assert shown["persons"].tolist() == [9, 8, pd.NA, pd.NA, 40]


def test_a_zero_without_a_row_is_appended_as_a_hidden_row_if_nothing_else_protects():
    # 53 in the first row less 53 below "x" but for 3, and so on: the sums tell all, were the zero below "y" known.
    frame = pd.DataFrame({"a": [1, 1, 2], "b": ["x", "y", "y"], "persons": [3, 50, 40], "mean": [1.5, 2.5, 3.5]})
    shown = suppress(frame, ["persons"], by=["a", "b"], also=["mean"])
    assert shown[["a", "b"]].to_numpy().tolist() == [[1, "x"], [1, "y"], [2, "y"], [2, "x"]]
    assert shown["persons"].isna().all()
    assert shown["mean"].isna().all()


def test_the_same_frame_is_suppressed_the_same_way_and_keeps_its_index():
    frame = pd.DataFrame({"a": list("pqrs"), "persons": [7, 7, 2, 7]}, index=[4, 3, 2, 1])
    shown = suppress(frame, ["persons"], by=["a"])
    pd.testing.assert_frame_equal(shown, suppress(frame, ["persons"], by=["a"]))
    assert shown.index.tolist() == [4, 3, 2, 1]
    assert suppress(frame.iloc[:0], ["persons"], by=["a"]).empty


@QUICK
@given(st.lists(st.integers(0, 40), max_size=8).map(lambda counts: sorted(counts, reverse=True)))
def test_no_count_of_an_attrition_and_no_difference_of_two_is_small(counts):
    shown = suppress_nested(counts)
    seen = [n for n in shown if n is not None]
    assert all(a in (None, b) for a, b in zip(shown, counts, strict=True))
    assert not any(0 < n < 5 for n in seen)
    assert not any(0 < a - b < 5 for i, a in enumerate(seen) for b in seen[i + 1 :])


def test_an_attrition_keeps_its_last_count_then_its_first():
    assert suppress_nested([100, 98, 97, 97]) == [None, None, 97, 97]
    assert suppress_nested([100, 98, 97, 60]) == [100, None, None, 60]
    assert suppress_nested([100, 3]) == [100, None]
    assert suppress_nested([]) == []
    assert suppress_nested([53, 50, 60], beside=[(), (), (58,)]) == [53, None, None]


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        ({"persons": [1]}, {"by": ["sex"]}, "There is no column 'sex'"),
        ({"persons": [1, None]}, {}, "have gaps"),
        ({"persons": [-1]}, {}, "whole numbers"),
        ({"persons": [1.5]}, {}, "whole numbers"),
        ({"persons": ["<5"]}, {}, "whole numbers"),
        ({"persons": [1, 2], "sex": ["F", "F"]}, {"by": ["sex"]}, "Several rows have the same sex"),
        ({"persons": [1]}, {"min_cell": 5.0}, "min_cell must be a whole number"),
    ],
)
def test_what_cannot_be_suppressed_is_refused(frame, options, said):
    with pytest.raises(InvalidParameters, match=said):
        suppress(pd.DataFrame(frame), ["persons"], **options)


def test_the_settings_raise_the_threshold_and_nothing_lowers_it(tmp_path, monkeypatch):
    (tmp_path / "genokit.toml").write_text("min_cell = 11")
    monkeypatch.chdir(tmp_path)
    assert (threshold(), threshold(5), threshold(20)) == (11, 11, 20)
    assert Settings.load(min_cell=6).min_cell == 11
    assert Settings.load(min_cell=12).min_cell == 12
    assert Settings.load(environ={"GENOKIT_MIN_CELL": "7"}).origins["min_cell"].endswith("genokit.toml")
    assert formatted(suppress(pd.DataFrame({"n": [10, 11]}), ["n"]), ["n"])["n"].tolist() == ["<11", "11"]
    for wrong in ("4", "0", "-1", "5.5", "off"):
        with pytest.raises(ConfigError, match="min_cell must be a whole number of persons, 5 or more"):
            Settings.load(environ={"GENOKIT_MIN_CELL": wrong})
    with pytest.raises(ConfigError, match="5 or more"):
        Settings(min_cell=0)

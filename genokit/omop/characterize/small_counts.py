"""Which of Achilles' counts may be kept and shown: none that is small, and none that would reveal a small one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genokit import disclosure
from genokit.omop.characterize.achilles import having_of
from genokit.omop.characterize.analyses import find
from genokit.omop.characterize.result_file import STRATA

OF_PERSONS = (0, 2, 4, 6, 91)  # kinds of analyses that count the persons with a concept


def suppressed(counted: Iterable[pa.Table], least: int, everyone: int | None = None) -> list[pa.Table]:
    """The rows of both tables that may be shown.

    ``least`` is the smallest count that is shown, ``everyone`` the number of all persons, which is shown beside them.
    """
    results, distributions = counted
    return [_suppressed(table, least, everyone, results) for table in (results, distributions)]


def only(table: pa.Table, analysis_id: int) -> pa.Table:
    """The rows of one analysis."""
    return table.filter(pc.equal(table["analysis_id"], analysis_id))


def _suppressed(table: pa.Table, least: int, everyone: int | None = None, results: pa.Table | None = None) -> pa.Table:
    """Analyses that add up get secondary suppression; in the others, small counts and those that differ by few from a
    count that contains them are hidden.

    Of a concept that few persons have, everything is hidden; of one that all but few have, its persons are.
    """
    kept = []
    for analysis_id in pc.unique(table["analysis_id"]).to_pylist():
        rows, having = only(table, analysis_id), having_of(analysis_id)
        counts, whole = rows["count_value"].to_numpy(), np.full(rows.num_rows, np.nan)
        if having is not None and results is not None:
            of = only(results, having).combine_chunks()
            at = pc.index_in(rows["stratum_1"], of["stratum_1"].combine_chunks())
            whole = of["count_value"].take(at).to_numpy().astype("float64")
        kind = analysis_id - (having or 0)
        lost = disclosure.differs_by_few(counts, everyone, whole, min_cell=least) | (whole < least)
        if kind in OF_PERSONS:
            lost |= disclosure.differs_by_few(whole, everyone, min_cell=least)
        if kind == 91 and having:
            lost |= _nested(rows, whole, least)
        analysis = find(analysis_id)
        first, by = analysis.adds_up_after, list(STRATA[: len(analysis.strata)])
        if first is not None and by and lost.any():
            frame = rows.select([*by, "count_value"]).to_pandas().assign(lost=lost)
            within, over = by[:first], by[first:]
            if within:  # only groups in which something is hidden
                frame = frame[frame.groupby(within, dropna=False)["lost"].transform("any")]
            if kind == 4 and having:  # no sums over sex or age are shown, so each row is one part
                frame, over = frame.assign(row=range(len(frame))), ["row"]
            shown = disclosure.suppress(frame, ["count_value"], over, within=within, hide=frame["lost"], min_cell=least)
            shown = shown.iloc[: len(frame)]  # rows appended for hidden zeros: no zero is in the results anyway
            lost[frame.index[shown["count_value"].isna()]] = True
        kept.append(rows.filter(pa.array(~lost & (counts >= least))))
    return pa.concat_tables(kept) if kept else table


def _nested(rows: pa.Table, whole: NDArray[np.float64], least: int) -> NDArray[np.bool_]:
    """Of persons with so many records or more, the counts that differ by few from the last one shown."""
    lost, last, concept = np.zeros(rows.num_rows, dtype=bool), np.nan, None
    frame = rows.select(["stratum_1", "count_value"]).to_pandas().assign(whole=whole)
    frame["records"] = rows["stratum_2"].to_numpy().astype("int64")
    for i, name, count, persons, _ in frame.sort_values(["stratum_1", "records"]).itertuples():
        last, concept = (last, concept) if name == concept else (persons, name)
        lost[i] = 0 < last - count < least
        last = last if lost[i] else count
    return lost

"""A CDM characterized: who is in it, when they are seen, what is recorded of them, and how completely.

The numbers are Achilles' analyses (achilles.py); small counts are taken out before anything is kept or shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from genokit import disclosure
from genokit.databases import AthenaDatabase, DuckDatabase, told
from genokit.errors import NotFound, did_you_mean
from genokit.omop.characterize import achilles, pictures
from genokit.omop.characterize.achilles import SCANS, Scan
from genokit.omop.characterize.achilles_athena import OnAthena
from genokit.omop.characterize.achilles_results import STRATA, opened

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

    from genokit.display import Html
    from genokit.omop.cdm import Cdm
    from genokit.omop.characterize.concept_summary import Recorded
    from genokit.omop.characterize.explorer import Explorer

RULE = 2  # of what may be told: what was stored under an older one is counted again
PERSONS = (0, 2, 4, 6, 91)  # what is counted of the persons who have a concept
MORE_SEEN = " Persons of observation_period are not in person, so that more are observed than there are persons."
PASSES = ["table", "rows", "seconds", "counted", "bytes", "usd"]


@dataclass(frozen=True)
class Characterization:
    """What a CDM holds, in counts: ``table(name)`` and ``plot(name)`` for each of ``names``; ``page()`` has them all.

    ``results`` and ``distributions`` are the tables achilles_results and achilles_results_dist. A count below
    ``min_cell`` is in none of them, nor one that would give such a count away.
    """

    title: str
    min_cell: int
    results: pa.Table = field(repr=False)
    distributions: pa.Table = field(repr=False)
    concepts: Mapping[int, str] = field(repr=False)
    scans: DataFrame = field(repr=False)

    @property
    def names(self) -> list[str]:
        """What there is to look at."""
        return list(pictures.PICTURES)

    def table(self, name: str) -> DataFrame:
        """The numbers of one picture. Raises NotFound."""
        return pictures.PICTURES[self._known(name)].table(self)

    def plot(self, name: str, *, ax: Axes | None = None) -> Axes:
        """One picture. Raises NotFound."""
        picture = pictures.PICTURES[self._known(name)]
        return picture.draw(self.table(name), ax=ax)

    def counts(self, analysis_id: int) -> DataFrame:
        """The counts of one analysis, its strata under their names. Raises NotFound."""
        return self._of(analysis_id, self._results)

    def distribution(self, analysis_id: int) -> DataFrame:
        """The distributions of one analysis, its strata under their names. Raises NotFound."""
        return self._of(analysis_id, self._distributions)

    def analyses(self) -> DataFrame:
        """Every analysis: its number and name, what its strata are, and how many rows it has."""
        import pandas as pd

        rows = {**self._results.groupby("analysis_id").size(), **self._distributions.groupby("analysis_id").size()}
        named = {number: achilles.named(number) for scan in SCANS for number in scan.analyses}
        known = [(number, name, ", ".join(strata), rows.get(number, 0)) for number, (name, strata) in named.items()]
        frame = pd.DataFrame(known, columns=["analysis_id", "analysis_name", "strata", "rows"])
        return frame.sort_values("analysis_id", ignore_index=True)

    def concept(self, concept_id: int, table: str | None = None) -> Recorded:
        """What is told of one concept, in the table where most persons have it or in this one. Raises NotFound."""
        from genokit.omop.characterize.concept_summary import recorded

        return recorded(self, concept_id, table)

    def explore(self) -> Explorer:
        """Go through tables, concepts and pictures by hand, in a notebook; elsewhere a card with all pictures."""
        from genokit.omop.characterize.explorer import Explorer

        return Explorer(self)

    def page(self, path: str | os.PathLike[str] | None = None) -> Html:
        """All pictures as one HTML page that needs nothing else; also written to ``path``."""
        from genokit import display
        from genokit.files import write_atomic

        drawn = ((pictures.PICTURES[name].title, self.drawn(name)) for name in self.names)
        sections = [(title, shown) for title, shown in drawn if shown]
        page = display.page(f"{self.title}, characterized", sections, lead=self.said)
        if path is not None:
            write_atomic(path, page)
        return page

    def drawn(self, name: str) -> Html | None:
        """One picture as HTML, with what it says in words; None where there is nothing to see. Raises NotFound."""
        from matplotlib import pyplot as plt

        from genokit import display

        picture, frame = pictures.PICTURES[self._known(name)], self.table(name)
        if not len(frame):
            return None
        figure: Figure = picture.draw(frame).figure  # type: ignore[assignment]
        shown = display.figure(figure, picture.title, caption=picture.caption)
        plt.close(figure)
        return shown

    @cached_property
    def _results(self) -> DataFrame:
        frame: DataFrame = self.results.to_pandas()
        return frame

    @cached_property
    def _distributions(self) -> DataFrame:
        frame: DataFrame = self.distributions.to_pandas()
        return frame

    def _of(self, analysis_id: int, frame: DataFrame) -> DataFrame:
        _, strata = achilles.named(analysis_id)
        found = frame[frame["analysis_id"] == analysis_id].drop(columns=["analysis_id", *STRATA[len(strata) :]])
        names = dict(zip(STRATA, strata, strict=False))
        return found.rename(columns=names).reset_index(drop=True)

    def _known(self, name: str) -> str:
        if name not in pictures.PICTURES:
            raise NotFound(f"There is no picture '{name}'. {did_you_mean(name, pictures.PICTURES)}")
        return name

    @property
    def said(self) -> str:
        """What is to be said beside the numbers."""
        note = disclosure.note(STRATA, min_cell=self.min_cell)
        seen, known = (self.distribution(number)["count_value"].sum() for number in (105, 103))
        return note + MORE_SEEN * bool(seen > known > 0)

    def __repr__(self) -> str:
        return f"<Characterization of {self.title}: {self.results.num_rows + self.distributions.num_rows:,} rows>"

    def _repr_html_(self) -> str:
        from genokit import display

        persons = self.counts(1)["count_value"]
        seen = self.table("observed")
        records = self.table("completeness")
        counted = self.scans["counted"]
        about = {
            "persons": f"{persons.iloc[0]:,}" if len(persons) else f"<{self.min_cell}",
            "observed": f"{seen['month'].iloc[0]} to {seen['month'].iloc[-1]}" if len(seen) else None,
            "records": f"{records['records'].sum():,}",
            "counted": "all tables"
            if counted.all()
            else f"{counted.sum()} of {len(counted)} tables; no other has changed",
            "analyses": f"{len(self.analyses()):,}, in {display.seconds(self.scans['seconds'].sum())}",
            "small counts": self.said,
        }
        if "usd" in self.scans:
            read, usd = self.scans["bytes"].sum(), self.scans["usd"].sum()
            about["cost"] = f"about ${usd:.4f}, at Athena's list price, for {display.size(int(read))} read"
        fold = {
            "Pictures": ", ".join(self.names),
            "Analyses": display.table(self.analyses(), most=200),
            "Passes": display.table(self.scans),
        }
        return display.card(f"{self.title}, characterized", about, fold=fold)


def characterize(
    cdm: Cdm,
    results: str | os.PathLike[str] | None = None,
    *,
    min_cell: int | None = None,
    progress: bool = True,
) -> Characterization:
    """Count what a CDM holds, each table in few passes. See ``Cdm.characterize``."""
    import pandas as pd
    import pyarrow as pa

    from genokit.bars import Bar

    least = disclosure.smallest(min_cell)
    columns = cdm.columns()
    if "person" not in columns:
        raise NotFound(f"{cdm!r} has no table 'person', so it is no CDM.")
    scans = [scan for scan in SCANS if scan.reads[-1] in columns]
    made, told = [], []
    there: OnAthena | _OnDuck
    if isinstance(cdm.database, AthenaDatabase):
        there = OnAthena(cdm.database, columns, scans)
    else:
        there = _OnDuck(cdm, scans, hashed=results is not None)
    said, everyone = f"Characterize{there.said}", None
    with opened(results) as kept, Bar(scans, desc=said, unit="table", disable=not progress) as bar:
        for scan in bar:
            bar.set_postfix_str(scan.name)
            begun = time.perf_counter()
            key = f"{there.key(scan)} {least} {RULE}"
            found = kept.get(scan.name, key, scan.analyses)
            fresh, read, usd = found is None, None, None
            if found is None:
                counted, read, usd = there.run(scan)
                found = safe(counted, least, everyone)
                kept.put(scan.name, key, scan.analyses, found)
            made.append(found)
            if scan.name == "person":
                everyone = next(iter(_only(found[0], 1)["count_value"].to_pylist()), None)
            told.append((scan.name, there.rows(scan), time.perf_counter() - begun, fresh, read, usd))
        kept.describe(
            [(one, *achilles.named(one), one in achilles.DISTRIBUTIONS) for scan in SCANS for one in scan.analyses]
        )
        if any(fresh for _, _, _, fresh, *_ in told):
            kept.count_concepts(_above(cdm, kept.concepts()))
    whole, spread = (pa.concat_tables(one[i] for one in made) for i in (0, 1))
    passes = pd.DataFrame(told, columns=PASSES)
    few = disclosure.near(passes["rows"].astype("float64"), everyone, min_cell=least)
    passes["rows"] = passes["rows"].astype("Int64").mask(few)
    return Characterization(
        title=_title(whole) or (cdm.place or "A CDM"),
        min_cell=least,
        results=whole,
        distributions=spread,
        concepts=_concepts(cdm, whole, spread),
        scans=passes.dropna(axis=1, how="all"),
    )


class _OnDuck:
    """How a CDM is counted in DuckDB."""

    said = ""

    def __init__(self, cdm: Cdm, scans: Sequence[Scan], hashed: bool) -> None:
        assert isinstance(cdm.database, DuckDatabase)
        self.con = cdm.database.cursor()
        self.con.execute("set enable_progress_bar = false")
        columns = cdm.columns()
        read = {table: columns[table] for scan in scans for table in scan.reads}
        with told(""):
            self.prints = achilles.prints(self.con, read, hashed=hashed)

    def rows(self, scan: Scan) -> int:
        return self.prints[scan.reads[-1]][1]

    def key(self, scan: Scan) -> str:
        return scan.key({table: self.prints[table][0] for table in scan.reads})

    def run(self, scan: Scan) -> tuple[Iterable[pa.Table], None, None]:
        with told(""):
            return scan.run(self.con, self.rows(scan)), None, None


def _title(results: pa.Table) -> str | None:
    """What the CDM calls its source."""
    named: list[str | None] = _only(results, 0)["stratum_1"].to_pylist()
    return named[0] if named else None


def safe(counted: Iterable[pa.Table], least: int, everyone: int | None = None) -> list[pa.Table]:
    """The rows of both tables that may be seen: no count below ``least``, and none that would give such a one away.

    ``everyone`` is how many persons there are, which is told beside them.
    """
    results, spread = counted
    return [_safe(table, least, everyone, results) for table in (results, spread)]


def _safe(table: pa.Table, least: int, everyone: int | None = None, results: pa.Table | None = None) -> pa.Table:
    """Analyses whose rows add up are suppressed as such; of the others goes what is small, or near what it is part of.

    With a concept that few persons have goes all that is told of it; with one that all but few have, its persons.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = []
    for analysis_id in pc.unique(table["analysis_id"]).to_pylist():
        rows, having = _only(table, analysis_id), achilles.having(analysis_id)
        counts, whole = rows["count_value"].to_numpy(), np.full(rows.num_rows, np.nan)
        if having is not None and results is not None:
            of = _only(results, having).combine_chunks()
            at = pc.index_in(rows["stratum_1"], of["stratum_1"].combine_chunks())
            whole = of["count_value"].take(at).to_numpy().astype("float64")
        kind = analysis_id - (having or 0)
        lost = disclosure.near(counts, everyone, whole, min_cell=least) | (whole < least)
        if kind in PERSONS:
            lost |= disclosure.near(whole, everyone, min_cell=least)
        if kind == 91 and having:
            lost |= _nested(rows, whole, least)
        within = achilles.adds_up(analysis_id)
        _, strata = achilles.named(analysis_id)
        by = list(STRATA[: len(strata)])
        if within is not None and by and lost.any():
            frame = rows.select([*by, "count_value"]).to_pandas().assign(lost=lost)
            told, over = by[:within], by[within:]
            if told:  # only groups with something to hide
                frame = frame[frame.groupby(told, dropna=False)["lost"].transform("any")]
            if kind == 4 and having:  # no sums over sex or age are told, so each row is one part
                frame, over = frame.assign(row=range(len(frame))), ["row"]
            safe = disclosure.suppress(frame, ["count_value"], over, within=told, hide=frame["lost"], min_cell=least)
            safe = safe.iloc[: len(frame)]  # what comes after them are zeros, which nobody sees anyway
            lost[frame.index[safe["count_value"].isna()]] = True
        kept.append(rows.filter(pa.array(~lost & (counts >= least))))
    return pa.concat_tables(kept) if kept else table


def _nested(rows: pa.Table, whole: NDArray[np.float64], least: int) -> NDArray[np.bool_]:
    """Of persons with so many records or more, where few have one less."""
    import numpy as np

    lost, last, concept = np.zeros(rows.num_rows, dtype=bool), np.nan, None
    frame = rows.select(["stratum_1", "count_value"]).to_pandas().assign(whole=whole)
    frame["records"] = rows["stratum_2"].to_numpy().astype("int64")
    for i, name, count, most, _ in frame.sort_values(["stratum_1", "records"]).itertuples():
        last, concept = (last, concept) if name == concept else (most, name)
        lost[i] = 0 < last - count < least
        last = last if lost[i] else count
    return lost


def _only(table: pa.Table, analysis_id: int) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["analysis_id"], analysis_id))


def _concepts(cdm: Cdm, *tables: pa.Table) -> dict[int, str]:
    """The names of the concepts that the results speak of."""
    import pyarrow.compute as pc

    ids = {
        int(one)
        for table in tables
        for column in ("stratum_1", "stratum_2")
        for one in pc.unique(table[column]).to_pylist()
        if one and one.isdigit()
    }
    names: dict[int, str] = {}
    for found in _asked(cdm, "concept", "concept_id, concept_name", "concept_id", sorted(ids)):
        names |= zip(found["concept_id"].tolist(), found["concept_name"], strict=True)
    return names


def _above(cdm: Cdm, ids: Sequence[int]) -> pa.Table:
    """What is above these concepts: pairs of an ancestor and one of them."""
    import pandas as pd
    import pyarrow as pa

    pair = ["ancestor_concept_id", "descendant_concept_id"]
    none = pd.DataFrame(columns=pair, dtype="int64")
    found = _asked(cdm, "concept_ancestor", ", ".join(pair), "descendant_concept_id", ids)
    return pa.Table.from_pandas(pd.concat([none, *found]), preserve_index=False)


def _asked(cdm: Cdm, table: str, columns: str, by: str, ids: Sequence[int]) -> Iterator[DataFrame]:
    """The rows of a table of the vocabulary with these ids; some ids at a time, as Athena takes no longer query."""
    if table in cdm.columns():
        for at in range(0, len(ids), 20_000):
            sql = f"select {columns} from {table} where {by} in $ids"
            yield cdm.lookup(sql, {"ids": ids[at : at + 20_000]})

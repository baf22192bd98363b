"""The explorer: browse a characterization by table, concept and picture."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import ipywidgets as widgets
import pyarrow.compute as pc
from pandas import DataFrame

from genokit import display, live
from genokit.display import Html
from genokit.omop.characterize import pictures
from genokit.omop.characterize.achilles import DOMAINS
from genokit.omop.characterize.achilles_results import AchillesResults
from genokit.omop.characterize.concept_summary import summary

ROWS = 100  # of the list at most

View = tuple[str, int | None]  # a table or a picture, and a concept


class Explorer:
    """A widget to browse tables, their concepts and pictures; where no widget can live, a card with all pictures.

    It reads the results only, which have no small counts.
    """

    def __init__(self, of: AchillesResults) -> None:
        self._of = of
        self._history: list[View] = []
        self._position = -1
        self._lists: dict[str, DataFrame] = {}
        self._drawn: dict[str, tuple[Html, str]] = {}
        self._lock = threading.RLock()
        self._quiet = False  # while widgets are set by the program, not by the user

    @cached_property
    def tables(self) -> dict[str, int]:
        """The tables of events, and the number of their concepts that enough persons have."""
        rows = self._of.results
        rows = rows.filter(pc.not_equal(rows["stratum_1"], "0"))["analysis_id"]
        known = {one["values"]: one["counts"] for one in pc.value_counts(rows).to_pylist()}
        return {domain.table: known[domain.number] for domain in DOMAINS if known.get(domain.number)}

    def concepts(self, table: str, sought: str = "") -> DataFrame:
        """The concepts of a table, the most frequent first; ``sought`` are words of their names, or similar."""
        if table not in self._lists:
            [domain] = [domain for domain in DOMAINS if domain.table == table]
            frame = pictures.prevalence(self._of, domain).rename(columns={domain.concept: "concept_id"})
            self._lists[table] = frame.astype({"concept_id": int})
        return matching(self._lists[table], sought)

    def __repr__(self) -> str:
        return f"<Explorer of {self._of.title}: {sum(self.tables.values()):,} concepts in {len(self.tables)} tables>"

    def _repr_html_(self) -> Html:
        return self._card(list(pictures.PICTURES))

    def _card(self, names: Sequence[str]) -> Html:
        about = {table: f"{n:,} concept{'' if n == 1 else 's'}" for table, n in self.tables.items()}
        drawn = {pictures.PICTURES[name].title: pictures.drawn(self._of, name) for name in names}
        fold = {title: shown for title, shown in drawn.items() if shown}
        return display.card(
            f"{self._of.title}: tables and pictures", {**about, "small counts": self._of.note}, fold=fold
        )

    def _ipython_display_(self) -> None:
        if not live.is_interactive():
            raise NotImplementedError  # IPython's word for: take the other forms
        again = live.quiet("Run the cell again to explore.")
        live.show(self.box, display.stack(self._card(()), again), repr(self))

    # --- widgets

    @cached_property
    def box(self) -> widgets.VBox:
        """The widgets, made when first shown."""
        choices = [(f"{table.replace('_', ' ')} ({n:,})", table) for table, n in self.tables.items()]
        choices += [(picture.title, name) for name, picture in pictures.PICTURES.items()]
        self._what = widgets.Dropdown(options=choices, description="Look at")
        self._sought = widgets.Text(description="Search", placeholder="name or concept_id", continuous_update=True)
        self._names = widgets.RadioButtons(options=[])
        self._back, self._forward = widgets.Button(description="Back"), widgets.Button(description="Forward")
        self._note, self._cells, self._detail, self._save = (widgets.HTML() for _ in range(4))
        head = widgets.HTML(live.view(live.quiet(self._of.note)))
        top = _box("gk-top", widgets.HTML(live.view(live.title(f"{self._of.title}: tables and concepts"))), self._back,
                   self._forward, self._save)  # fmt: skip
        self._list = _box("gk-list", self._note, _box("gk-jobs", self._names, self._cells), column=True)
        body = _box("gk-chosen", self._list, _box("gk-about", self._detail, column=True))
        sheet = widgets.HTML(live.style(), layout={"height": "0", "margin": "0"})
        box = _box("gk-view", sheet, top, head, _box("gk-filter", self._what, self._sought), body, column=True)
        box.add_class("gk-explorer")
        self._what.observe(lambda change: self._chosen((change["new"], None)), "value")
        self._names.observe(lambda change: self._chosen((self._what.value, change["new"])), "value")
        self._sought.observe(lambda _: self._paint_list(), "value")
        self._back.on_click(lambda _: self._turn(-1))
        self._forward.on_click(lambda _: self._turn(1))
        self._go((max(self.tables, key=self.tables.__getitem__, default=self._what.value), None))
        live.answer_at_once(self._what, self._sought, self._names, self._back, self._forward)
        return box

    def _chosen(self, view: View) -> None:
        with self._lock:
            if not self._quiet and view != self._history[self._position]:
                if view[0] != self._history[self._position][0]:
                    self._sought.value = ""
                self._go(view)

    def _turn(self, by: int) -> None:
        with self._lock:
            self._position += by
            self._paint()

    def _go(self, view: View) -> None:
        self._history = [*self._history[: self._position + 1], view]
        self._position += 1
        self._paint()

    def _paint(self) -> None:
        name, concept_id = self._history[self._position]
        self._back.disabled, self._forward.disabled = self._position == 0, self._position + 1 == len(self._history)
        self._quiet = True
        self._what.value = name
        self._quiet = False
        is_table = name in self.tables
        self._list.layout.display = None if is_table else "none"
        self._sought.disabled = not is_table
        self._paint_list()
        if is_table:
            one = summary(self._of, concept_id, name)
            shown, numbers = one.html(), one.table().to_csv(index=False)
        else:
            shown, numbers = self._picture(name)
        self._detail.value = live.view(shown)
        file = "-".join([name, *([str(concept_id)] if concept_id is not None else [])])
        self._save.value = live.view(live.download(f"{file}.csv", numbers, "Save as CSV"))

    def _picture(self, name: str) -> tuple[Html, str]:
        if name not in self._drawn:
            shown = pictures.drawn(self._of, name) or live.quiet("Nothing to show.")
            self._drawn[name] = shown, pictures.find(name).table(self._of).to_csv()
        return self._drawn[name]

    def _paint_list(self) -> None:
        table, concept_id = self._history[self._position]
        if table not in self.tables:
            return
        with self._lock:
            found = self.concepts(table, self._sought.value)
            shown = found.head(ROWS)
            names = tuple(zip(shown["concept_name"], shown["concept_id"].tolist(), strict=True))
            self._quiet = True
            if tuple(self._names.options) != names:
                with self._names.hold_trait_notifications():
                    self._names.options = names
                    self._names.value = None
            self._names.value = concept_id if concept_id in {number for _, number in names} else None
            self._quiet = False
            numbers = [shown[name].map("{:,}".format, na_action="ignore") for name in ("persons", "records")]
            share = shown["share"].map(lambda share: f"{100 * share:.3g} %")
            lines = list(zip(numbers[0], share, numbers[1].fillna("–"), strict=True))
            self._cells.value = live.view(live.grid(["persons", "of all", "records"], lines))
            self._note.value = live.view(live.quiet(_how_many(len(shown), len(found))))


def matching(concepts: DataFrame, sought: str) -> DataFrame:
    """The rows with each sought word in their name, or as their id.

    A word that occurs in no name stands for similar words.
    """
    names = concepts["concept_name"].str.lower()
    known: set[str] | None = None
    for part in sought.lower().split():
        there = names.str.contains(part, regex=False) | (concepts["concept_id"].astype(str) == part)
        if not there.any():
            known = known or {word for name in names for word in name.split()}
            near = difflib.get_close_matches(part, known, n=20, cutoff=0.7)
            there = names.map(lambda name, near=frozenset(near): not near.isdisjoint(name.split()))
        concepts, names = concepts.loc[there.astype(bool)], names.loc[there.astype(bool)]
    return concepts


def _how_many(shown: int, found: int) -> str:
    if not found:
        return "No concept has these words. Try fewer words."
    return f"{found:,} concept{'' if found == 1 else 's'}" + (f"; {shown} of them shown" if shown < found else "")


def _box(name: str, *children: Any, column: bool = False) -> widgets.Box:
    box = (widgets.VBox if column else widgets.Box)(children)
    box.add_class(name)
    return box

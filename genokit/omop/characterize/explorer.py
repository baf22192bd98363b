"""The explorer: browse a characterization by table, concept and picture."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import ipywidgets as widgets
from pandas import DataFrame

from genokit import display, live
from genokit.display import Html
from genokit.omop.characterize import pictures
from genokit.omop.characterize.achilles import DOMAINS
from genokit.omop.characterize.achilles_results import AchillesResults
from genokit.omop.characterize.concept_summary import summary

ROWS = 100  # of the list at most


class Explorer:
    """A widget to browse tables, their concepts and pictures; where no widget can live, a card with all pictures.

    It reads the results only, which have no small counts.
    """

    def __init__(self, of: AchillesResults) -> None:
        self._of = of
        self._lock = threading.RLock()
        self._quiet = False  # while widgets are set by the program, not by the user

    @cached_property
    def _lists(self) -> dict[str, DataFrame]:
        lists = {domain.table: pictures.prevalence(self._of, domain) for domain in DOMAINS}
        return {
            table: frame.set_axis(["concept_id", *frame.columns[1:]], axis=1).astype({"concept_id": int})
            for table, frame in lists.items()
            if len(frame)
        }

    @property
    def tables(self) -> dict[str, int]:
        """The tables of events, and the number of their concepts that enough persons have."""
        return {table: len(frame) for table, frame in self._lists.items()}

    def concepts(self, table: str, sought: str = "") -> DataFrame:
        """The concepts of a table, the most frequent first; ``sought`` are words of their names."""
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
        largest = max(self.tables, key=self.tables.__getitem__, default=choices[0][1])
        self._what = widgets.Dropdown(options=choices, value=largest, description="Look at")
        self._sought = widgets.Text(description="Search", placeholder="name or concept_id", continuous_update=True)
        self._names = widgets.RadioButtons(options=[])
        self._note, self._cells, self._detail, self._save = (widgets.HTML() for _ in range(4))
        head = widgets.HTML(live.view(live.quiet(self._of.note)))
        title = widgets.HTML(live.view(live.title(f"{self._of.title}: tables and concepts")))
        self._list = _box("gk-list", self._note, _box("gk-jobs", self._names, self._cells), column=True)
        body = _box("gk-chosen", self._list, _box("gk-about", self._detail, column=True))
        sheet = widgets.HTML(live.style(), layout={"height": "0", "margin": "0"})
        box = _box("gk-view", sheet, _box("gk-top", title, self._save), head,
                   _box("gk-filter", self._what, self._sought), body, column=True)  # fmt: skip
        box.add_class("gk-explorer")
        self._what.observe(lambda _: self._turn(), "value")
        self._names.observe(lambda _: self._paint(), "value")
        self._sought.observe(lambda _: self._paint_list(self._names.value), "value")
        self._turn()
        live.answer_at_once(self._what, self._sought, self._names)
        return box

    def _turn(self) -> None:
        """Turn to another table or picture."""
        with self._lock:
            is_table = self._what.value in self.tables
            self._list.layout.display = None if is_table else "none"
            self._sought.disabled = not is_table
            if is_table:
                self._sought.value = ""
                self._paint_list(None)
            self._paint()

    def _paint(self) -> None:
        with self._lock:
            if self._quiet:
                return
            name, concept_id = self._what.value, self._names.value
            if name not in self.tables:
                shown = pictures.drawn(self._of, name) or live.quiet("Nothing to show.")
                frame = pictures.find(name).table(self._of)
            elif concept_id is None:
                about = {"concepts": f"{self.tables[name]:,}; choose one to see its numbers"}
                shown, frame = display.card(name.replace("_", " ").capitalize(), about), self._lists[name]
            else:
                one = summary(self._of, concept_id, name)
                name, shown, frame = f"{name}-{concept_id}", one.html(), one.table()
            self._detail.value = live.view(shown)
            self._save.value = live.view(live.download(f"{name}.csv", frame.to_csv(index=False), "Save as CSV"))

    def _paint_list(self, chosen: int | None) -> None:
        with self._lock:
            found = self.concepts(self._what.value, self._sought.value)
            shown = found.head(ROWS)
            names = tuple(zip(shown["concept_name"], shown["concept_id"].tolist(), strict=True))
            self._quiet = True
            with self._names.hold_trait_notifications():
                self._names.options = names
                self._names.value = None
            self._names.value = chosen if chosen in {number for _, number in names} else None
            self._quiet = False
            numbers = [shown[name].map("{:,}".format, na_action="ignore") for name in ("persons", "records")]
            share = shown["share"].map(lambda share: f"{100 * share:.3g} %")
            lines = list(zip(numbers[0], share, numbers[1].fillna("–"), strict=True))
            self._cells.value = live.view(live.grid(["persons", "of all", "records"], lines))
            self._note.value = live.view(live.quiet(_how_many(len(shown), len(found))))


def matching(concepts: DataFrame, sought: str) -> DataFrame:
    """The rows with each sought word in their name, or as their id."""
    for part in sought.lower().split():
        names = concepts["concept_name"].str.lower()
        concepts = concepts[names.str.contains(part, regex=False) | (concepts["concept_id"].astype(str) == part)]
    return concepts


def _how_many(shown: int, found: int) -> str:
    if not found:
        return "No concept has these words. Try fewer words."
    return f"{found:,} concept{'' if found == 1 else 's'}" + (f"; {shown} of them shown" if shown < found else "")


def _box(name: str, *children: Any, column: bool = False) -> widgets.Box:
    box = (widgets.VBox if column else widgets.Box)(children)
    box.add_class(name)
    return box

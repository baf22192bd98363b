"""Audit: the whole log read anew, what is wrong with it, and who did what when."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from genokit.display import Html, card, table
from genokit.frames import Frame
from genokit.workspaces.access import judged
from genokit.workspaces.log import Damage, LogEntry


@dataclass(frozen=True)
class Audit:
    """What an audit of a workspace has found.

    Attributes
    ----------
    address : str
        The workspace.
    entries : list of LogEntry
        Every entry whose bytes are whole.
    damage : list of Damage
        What is wrong with the log, each with the number of the entry; 0 for a strange file beside the entries.
    """

    address: str
    entries: Sequence[LogEntry]
    damage: Sequence[Damage]

    @property
    def intact(self) -> bool:
        """Whether no entry was changed, removed, inserted or reordered."""
        return not self.damage

    def timeline(self) -> pd.DataFrame:
        """Who did what when.

        Returns
        -------
        pandas.DataFrame
            A row for each entry, in the log's order: ``number``, ``time`` (UTC, by the member's own clock), ``member``,
            ``kind``, ``what`` (its fields) and ``refused`` (why it has no effect; empty if it has).
        """
        rows = [
            (one.number, one.time, one.member, one.kind, _words(one), reason) for one, reason in judged(self.entries)
        ]
        frame = Frame(rows, columns=["number", "time", "member", "kind", "what", "refused"])
        return frame.assign(time=pd.to_datetime(frame["time"], utc=True, errors="coerce"))

    def __repr__(self) -> str:
        state = "intact" if self.intact else f"damaged at {', '.join(str(one.number) for one in self.damage)}"
        return f"<Audit {self.address} {len(self.entries)} entries, {state}>"

    def _repr_html_(self) -> Html:
        timeline = self.timeline()
        rows: dict[str, object] = {
            "Entries": f"{len(self.entries):,}, {sum(timeline['refused'] != ''):,} of them without effect",
            "Members": len(set(timeline["member"])),
        }
        rows |= {f"Entry {one.number}": one.problem for one in self.damage}
        if self.intact:
            rows["Head"] = self.entries[-1].sha256
        without = "no effect: " + timeline.pop("refused") + "; " + timeline["what"]
        shown = timeline.assign(what=timeline["what"].where(without.str.startswith("no effect: ; "), without))
        fold = {"Timeline": table(shown.iloc[::-1], most=200)}
        status = "VERIFIED" if self.intact else "DAMAGED"
        return card(f"Audit of {self.address}", rows, status=status, fold=fold)


def _words(entry: LogEntry) -> str:
    """The fields that a person reads in a timeline: values and the members of lists, but not where files are."""
    shown = {key: _text(value) for key, value in entry.fields.items() if key not in ("folder", "practice")}
    text = ", ".join(f"{key} = {value}" for key, value in shown.items() if value)
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text)  # the first digits of a hash tell which it is


def _text(value: Any) -> str:
    """A value in few words; of a mapping in a mapping only the key."""
    if isinstance(value, dict):
        value = [f"{key}" if isinstance(one, (dict, list)) else f"{key}: {one}" for key, one in value.items()]
    if isinstance(value, list):
        return textwrap.shorten(", ".join(str(one) for one in value if one is not None), 160)
    return "" if value is None else str(value)

"""The states of an array's children, put together from one listing a look, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from genokit.batch.job_state import STATUSES, all_statuses

UNKNOWN = 255  # a child that has not been listed yet


@dataclass(frozen=True)
class ArrayStates:
    """The states of an array's children, by index.

    ``states`` holds a byte a child: its status's place in STATUSES, or UNKNOWN. A round lists every status but the
    commonest, which the rest then have; ``counts`` are the parent's when the last whole round began.
    """

    states: bytes
    counts: Mapping[str, int] | None = None
    draft: bytes = b""
    draft_counts: Mapping[str, int] | None = None  # of the round that is under way
    todo: tuple[str, ...] = ()  # the statuses that are left to list, and the commonest
    token: str | None = None

    @property
    def next_status(self) -> str | None:
        """The status whose children must be listed next."""
        return self.todo[0] if len(self.todo) > 1 else None

    def after_counts(self, counts: Mapping[str, int]) -> ArrayStates:
        """With a new round begun where the parent's counts have changed and no round is under way."""
        counts = all_statuses(counts)
        if self.todo or self.counts == counts or not any(counts.values()):
            return self
        todo = sorted((status for status in STATUSES if counts[status]), key=counts.__getitem__)
        draft = bytes([UNKNOWN]) * len(self.states)
        return replace(self, draft=draft, draft_counts=counts, todo=tuple(todo))._finished()

    def after_page(self, indices: Iterable[int], token: str | None) -> ArrayStates:
        """With one page of children in the status ``next_status``.

        >>> states = ArrayStates(bytes([UNKNOWN]) * 4).after_counts({"RUNNING": 1, "SUCCEEDED": 3})
        >>> states.next_status, list(states.after_page([2], None).states)
        ('RUNNING', [5, 5, 4, 5])
        """
        status = STATUSES.index(self.todo[0])
        shown, draft = bytearray(self.states), bytearray(self.draft)
        for index in indices:
            if index < len(draft):
                shown[index] = draft[index] = status
        todo = self.todo if token else self.todo[1:]
        return replace(self, states=bytes(shown), draft=bytes(draft), todo=todo, token=token)._finished()

    def _finished(self) -> ArrayStates:
        """The round's result, where nothing is left to list."""
        if self.next_status:
            return self
        rest = STATUSES.index(self.todo[-1])
        return ArrayStates(self.draft.replace(bytes([UNKNOWN]), bytes([rest])), counts=self.draft_counts)

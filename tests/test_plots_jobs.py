"""Figures of jobs: the numbers in them are those of the data, for one job and for ten thousand."""

from __future__ import annotations

import pandas as pd
import pytest

from genokit.display import STATUS_COLOURS
from genokit.plots import jobs

USED = {"vCPU": (2, 8), "memory (GiB)": (3.5, None)}
NOON = pd.Timestamp("2026-11-22 12:00", tz="UTC")


def timeline(attempts: pd.DataFrame, now: pd.Timestamp = NOON):
    return jobs.picture(attempts, {}, USED, now=now).axes[2]


def attempts(n: int, status: str = "SUCCEEDED", name: str = "align") -> pd.DataFrame:
    started = [NOON + pd.Timedelta(seconds=30 * i) for i in range(n)]
    rows = [
        (
            "id",
            f"{name}-{i}",
            "highPriority",
            1 + i % 2,
            status if i % 3 else "FAILED",
            at,
            at + pd.Timedelta(minutes=2),
        )
        for i, at in enumerate(started)
    ]
    names = ["job_id", "name", "queue", "attempt", "status", "started", "stopped"]
    return pd.DataFrame(rows, columns=names).astype(
        {"started": "datetime64[ms, UTC]", "stopped": "datetime64[ms, UTC]"}
    )


@pytest.mark.parametrize("n", [0, 1, 30, 31, 10_000])
def test_a_timeline_has_a_named_bar_for_each_of_the_newest_attempts(n):
    ax = timeline(attempts(n))
    (bars,) = ax.containers
    assert len(bars) == len(ax.get_yticklabels()) == min(n, 30)
    assert "UTC" in ax.get_xlabel()
    assert ax.get_title(loc="left") == ("Attempts" if n <= 30 else f"The newest 30 of {n:,} attempts")
    assert n == 0 or f"align-{n - 1}" in ax.get_yticklabels()[-1].get_text()
    ax.figure.canvas.draw()


def test_a_running_attempt_reaches_to_now():
    table = attempts(1)
    table["stopped"] = pd.Series([pd.NaT], dtype="datetime64[ms, UTC]")
    ((bar,),) = timeline(table, NOON + pd.Timedelta(minutes=5)).containers
    assert bar.get_width() * 24 * 60 == pytest.approx(5, rel=1e-3)


def test_a_failed_attempt_has_a_sign_beside_its_colour():
    assert [text.get_text() for text in timeline(attempts(4)).texts] == ["✕", "✕"]


@pytest.mark.parametrize("name", ["$\\frac{", "a" * 200, "<script>", "new\nline", ""])
def test_any_name_can_be_drawn(name):
    jobs.picture(attempts(2, name=name), {}, {"vCPU": (1, 2)}, now=NOON, title=name).canvas.draw()


def test_counts_are_written_at_their_bars():
    ax = jobs.picture(attempts(1), {"RUNNING": 3, "SUCCEEDED": 9990}, USED, now=NOON).axes[0]
    assert [text.get_text() for text in ax.texts] == ["0", "0", "0", "0", "3", "9,990", "0"]
    assert ax.get_title(loc="left") == "9,993 jobs"
    assert [label.get_text() for label in ax.get_yticklabels()] == list(STATUS_COLOURS)


def test_what_is_in_use_is_written_beside_its_bar():
    ax = jobs.picture(attempts(1), {}, USED, now=NOON).axes[1]
    assert [text.get_text() for text in ax.texts] == ["2 of 8", "3.5, of an unknown size"]

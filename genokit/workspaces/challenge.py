"""Challenges: what submissions to a data set may use and write, how they are scored, and how much they can leak."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from genokit.disclosure import threshold
from genokit.display import Html, card, table
from genokit.errors import InvalidParameters, did_you_mean
from genokit.workspaces import access
from genokit.workspaces.gate import Output, declare
from genokit.workspaces.kinds import POLICIES, ReleasePolicy
from genokit.workspaces.log import LogEntry
from genokit.workspaces.sandbox import Limits
from genokit.workspaces.scorers import SCORERS

WAYS_TO_END, WAYS_OF_OUTPUT = 12, 16  # fixed sentences that a member can see: in all, and about each output
STEP_S = 10  # to which the wall time is rounded up


@dataclass(frozen=True)
class Challenge:
    """A challenge that a custodian has set.

    Attributes
    ----------
    name, dataset, metric, member : str
        Its name, the reference of its data set, its metric ("" without one) and the custodian who set it.
    outputs : list of Output
        The files that a submission must write, and no others.
    limits : Limits
        What a submission may use.
    quota_per_day : int
        Submissions that are evaluated for each member within 24 hours.
    private_fraction : float
        The share of the held-out rows whose scores are private until the deadline.
    deadline : str
        When submissions end, in UTC; "" for never.
    policy : ReleasePolicy
        The thresholds of the data set.
    """

    name: str
    dataset: str
    metric: str
    outputs: Sequence[Output]
    limits: Limits
    quota_per_day: int
    private_fraction: float
    deadline: str
    policy: ReleasePolicy
    member: str
    folder: str | None
    truth: str | None

    @property
    def bits_per_day(self) -> float:
        """The most bits of the data that the scores, states and times of a member's submissions can carry in a day."""
        splits = 2 if self.private_fraction else 1
        scores = 3 * splits * SCORERS[self.metric].bits if self.metric else 0.0  # with both ends of an interval
        ways = math.log2(WAYS_TO_END + WAYS_OF_OUTPUT * len(self.outputs)) + math.log2(
            math.ceil(self.limits.wall_s / STEP_S) + 1
        )
        return self.quota_per_day * (scores + ways)

    def __repr__(self) -> str:
        return f"<Challenge {self.name}: {self.metric or 'no metric'} on {self.dataset}, {len(self.outputs)} outputs>"

    def _repr_html_(self) -> Html:
        rows: dict[str, object] = {
            "Data set": self.dataset,
            "Metric": self.metric or "none",
            "Split": f"{1 - self.private_fraction:.0%} public, {self.private_fraction:.0%} private",
            "Deadline": utc(self.deadline),
            "Quota": f"{self.quota_per_day} submissions a day for each member",
            "Leak bound": f"at most {self.bits_per_day:,.0f} bits a day for each member, from scores, states and times",
            "Small counts": f"below {threshold(self.policy.min_cell)} hidden"
            + (f", others rounded to {self.policy.round_to}" if self.policy.round_to > 1 else ""),
        }
        outputs = [{"file": one.name, "type": one.type, "columns": ", ".join(one.columns)} for one in self.outputs]
        fold = {f"{len(outputs)} outputs": table(outputs), "Limits": asdict(self.limits)}
        return card(f"Challenge {self.name}", rows, fold=fold)


def found(entries: Sequence[LogEntry]) -> dict[str, Challenge]:
    """The challenges by name, from entries that have effect. One whose parts are not possible has none."""
    datasets, challenges = access.published(entries), dict[str, Challenge]()
    for one in entries:
        if one.kind == "challenged" and one["name"] not in challenges and one["dataset"] in datasets:
            with contextlib.suppress(InvalidParameters, TypeError, ValueError, AttributeError):
                challenges[one["name"]] = Challenge(
                    one["name"], one["dataset"], one["metric"] or "", declare(one["outputs"]), Limits(**one["limits"]),
                    one["quota_per_day"], one["private_fraction"], one["deadline"] or "",
                    POLICIES[datasets[one["dataset"]]["policy"]],
                    one.member, one["folder"], one["truth"],
                )  # fmt: skip
    return challenges


def checked(
    outputs: Mapping[str, Mapping[str, Any]], metric: str | None, quota_per_day: int, private_fraction: float
) -> bool:
    """Whether predictions are labels. Raises InvalidParameters unless outputs, metric, quota and split fit together."""
    scored = [one for one in declare(outputs) if one.type == "predictions"]
    if type(private_fraction) not in (int, float) or not 0 <= private_fraction < 1:
        raise InvalidParameters(f"private_fraction must be at least 0 and below 1, got {private_fraction!r}.")
    if type(quota_per_day) is not int or quota_per_day < 1:
        raise InvalidParameters(f"quota_per_day must be 1 or more, got {quota_per_day!r}.")
    if metric is None:
        if scored:
            raise InvalidParameters("Predictions need a metric and a truth. Pass metric= and truth=.")
        return False
    if metric not in SCORERS:
        raise InvalidParameters(f"There is no metric '{metric}'. {did_you_mean(metric, SCORERS)}")
    if len(scored) != 1:
        raise InvalidParameters(f"The metric '{metric}' needs one output of type 'predictions', got {len(scored)}.")
    labels = scored[0].predicts_labels
    if labels and (SCORERS[metric].kind == "number" or SCORERS[metric].binary):
        raise InvalidParameters(f"The metric '{metric}' needs predictions of type 'number', got labels.")
    return labels


def split(truth: pd.DataFrame, labels: bool, private_fraction: float) -> pd.DataFrame:
    """The held-out rows: ``id``, ``truth``, and ``split``, which chance decides. Raises InvalidParameters."""
    if list(truth.columns[:1]) != ["id"] or truth.shape[1] != 2 or truth["id"].duplicated().any():
        raise InvalidParameters(f"The truth needs a column 'id', without repetitions, and one more; got {[*truth]}.")
    values = truth.iloc[:, 1]
    if values.isna().any() or not (labels or pd.api.types.is_numeric_dtype(values)):
        raise InvalidParameters(f"The truth '{values.name}' has missing values, or words where numbers are needed.")
    private = np.random.default_rng().permutation(len(truth)) < round(private_fraction * len(truth))
    if private.all():
        raise InvalidParameters(f"{len(truth)} held-out rows are too few for a private share of {private_fraction}.")
    which = np.where(private, "private", "public")
    return pd.DataFrame({"id": truth["id"].astype(str), "truth": values, "split": which})


def last_day(time: str) -> str:
    """24 hours before a time of an entry, as entries hold times."""
    at = datetime.datetime.fromisoformat(time) - datetime.timedelta(days=1)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc(time: str) -> str:
    """A time of an entry for people.

    >>> utc("2027-01-31T00:00:00.000000Z"), utc("")
    ('2027-01-31 00:00 UTC', 'none')
    """
    return f"{time[:16].replace('T', ' ')} UTC" if time else "none"

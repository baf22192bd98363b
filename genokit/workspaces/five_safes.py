"""The life of a submission as an RO-Crate, in the phases of the Five Safes profile: https://w3id.org/5s-crate/0.4

Check, validation, sign-off, execution and disclosure are actions in the crate's metadata. It holds hashes, names,
times, states and the public score, which members see anyway; no output and no log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genokit.pipelines.crate import PROFILE, Crate, Reference
from genokit.workspaces import access
from genokit.workspaces.challenge import Challenge
from genokit.workspaces.log import LogEntry
from genokit.workspaces.review import ReleaseRequest
from genokit.workspaces.submission import Submission

FIVE_SAFES = "https://w3id.org/5s-crate/0.4"
PHASE = "https://w3id.org/shp#{}"
STATUS = "http://schema.org/{}ActionStatus"
TERMS_OF_USE = "As the data set's custodians have stated; nothing in this crate is a result"


def write(
    one: Submission, known: Challenge, entries: Sequence[LogEntry], requests: Sequence[ReleaseRequest], folder: Path
) -> Path:
    """Write ``ro-crate-metadata.json`` for a submission into a folder; returns its path."""
    crate, result = Crate(folder), one.result
    people = {name: crate.add(f"#member-{name}", "Person", name=name) for name in (one.member, known.member)}
    set_at = next(entry for entry in entries if entry.kind == "challenged" and entry["name"] == known.name).time
    data = access.published(entries)[known.dataset]
    dataset = crate.add(
        f"#{known.dataset}", "CreativeWork", name=known.dataset, license=data["licence"], identifier=data["manifest"]
    )
    code = crate.add(
        "#code", "SoftwareSourceCode", name=" ".join(one.entry["command"]),
        identifier=one.entry["image"] or f"sha256:{one.entry['code']}",
        author=people[one.member],
    )  # fmt: skip
    limits = crate.values("limit", asdict(known.limits), {})
    actions = [_action(crate, "sign-off", "SignOff", "Completed", people[known.member], set_at, object=dataset)]
    if result:
        ran = "Failed" if result["state"] == "FAILED" else "Completed"
        passed = {"SUCCEEDED": "Completed", "FAILED": "Potential", "REFUSED": "Failed"}[result["state"]]
        scores = zip(("score", "low", "high"), result["score"], strict=True)
        seen = crate.values("public", {name: "none" if value is None else value for name, value in scores}, {})
        held = crate.values("output", dict.fromkeys(result["outputs"], "held until its release"), {})
        kit = crate.add("#genokit", "SoftwareApplication", name="genokit", version=result["genokit"])
        judge, at = people[known.member], result.time
        actions += [
            _action(crate, "check", "CheckValue", "Completed", judge, at, object=code),
            _action(crate, "validation", "ValidationCheck", "Completed", judge, at, object=code),
            crate.add(
                "#execution", "CreateAction", name="Run in the sandbox", instrument=code, agent=people[one.member],
                object=[dataset, *limits, kit], result=[*seen, *held], actionStatus=STATUS.format(ran),
                startTime=one.entry.time, endTime=at, error=result["reason"] if ran == "Failed" else None,
            ),
            _action(crate, "gate", "DisclosureCheck", passed, judge, at, error=result["reason"]),
        ]  # fmt: skip
    for request in requests:
        status = {"RELEASED": "Completed", "REJECTED": "Failed", "WITHDRAWN": "Failed"}.get(request.state, "Active")
        by = [
            crate.add(f"#member-{name}", "Person", name=name)
            for name in sorted({n for of in request.votes.values() for n in of})
        ]
        about = f"{request.state}: {', '.join(request.votes)}"
        actions.append(_action(crate, f"review-{request.id}", "DisclosureCheck", status, by, None, description=about))
    return crate.write(
        [PROFILE.format("process"), FIVE_SAFES], TERMS_OF_USE, name=f"Submission {one.id}",
        description=f"A submission to {known.name}: {one.state}.", datePublished=(result or one.entry).time,
        author=people[one.member], mentions=actions,
        sourceOrganization=crate.add("#workspace", "Organization", name=known.name),
    )  # fmt: skip


def _action(
    crate: Crate, name: str, phase: str, status: str, agent: object, time: str | None, **more: Any
) -> Reference:
    phase_of = crate.add(PHASE.format(phase), "DefinedTerm", name=phase)
    return crate.add(
        f"#{name}", "AssessAction", name=name, additionalType=phase_of, agent=agent, endTime=time,
        actionStatus=STATUS.format(status), **more,
    )  # fmt: skip

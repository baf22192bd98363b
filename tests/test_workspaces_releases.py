"""The release of results: a request, two reviewers who are not its author, and only what they have seen leaves."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from test_pipeline_crate import contexts, violations  # noqa: F401

from genokit import Settings, Workspace, storage
from genokit.batch.shipping import archive
from genokit.errors import AccessDenied, HashMismatch, InvalidRequest, NotFound
from genokit.workspaces import review
from genokit.workspaces.log import encoded

ABOUT = {"context": "All 300 synthetic persons by ward.", "controls": "Counts below 10 are hidden."}
TABLE = {"type": "aggregate", "columns": {"ward": ["a", "b", "c"], "n": "count"}, "counts": ["n"], "by": ["ward"]}
OUTPUTS = {"by_ward.csv": TABLE, "numbers.json": {"type": "numbers", "keys": ["persons"]}}
PROGRAM = """
import csv, json
rows = [row for row in csv.DictReader(open("/data/wards.csv")) if int(row["age"]) >= OLDEST]
with open("/out/by_ward.csv", "w") as file:
    print("ward,n", file=file)
    for ward in "abc":
        print(f"{ward},{sum(row['ward'] == ward for row in rows)}", file=file)
json.dump({"persons": len(rows)}, open("/out/numbers.json", "w"))
"""


def seen_by(ws: Workspace, member: str) -> Workspace:
    """The same workspace, seen by another member from another home."""
    return Workspace(ws.address, member, settings=Settings(home=ws.clients.settings.home.parent / member))


@pytest.fixture
def ws(tmp_path) -> Workspace:
    """A workspace with three custodians and two modellers, and a data set of 300 synthetic persons."""
    ws = Workspace.create(tmp_path / "lab", "anna", settings=Settings(home=tmp_path / "anna"))
    ws.grant("bert", "custodian").grant("carl", "custodian").grant("cleo", "modeller").grant("dora", "modeller")
    (tmp_path / "wards").mkdir()
    ages = [20] * 4 + [40] * 296
    wards = ["a"] * 160 + ["b"] * 137 + ["c"] * 3
    pd.DataFrame({"age": ages, "ward": wards}).to_csv(tmp_path / "wards" / "wards.csv", index=False)
    ws.publish(tmp_path / "wards", licence="CC0-1.0", terms="GRU")
    ws.challenge("tables", "wards", outputs=OUTPUTS)
    return ws


def evaluated(ws: Workspace, member: str, oldest: int = 0, challenge: str = "tables", more: str = "") -> str:
    """A submission by a member that counts persons of at least this age, and does some more, evaluated."""
    folder = ws.clients.settings.home / f"code{oldest}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "count.py").write_text(PROGRAM.replace("OLDEST", str(oldest)) + more)
    theirs = seen_by(ws, member)
    shipped = archive.ship(theirs.clients, folder, storage.join(ws.address, "code", member))
    code, number = shipped.rpartition("/")[2].partition(".")[0], f"{len(ws.entries()):016x}"
    theirs._append("submitted", submission=number, challenge=challenge, command=["python", "count.py"], code=code)
    assert ws._evaluate(number)["state"] == "SUCCEEDED"
    return number


def forged(ws: Workspace, member: str, kind: str, **fields) -> None:
    """An entry that a member writes around the library's checks, rightly signed."""
    theirs = seen_by(ws, member)
    entries = theirs._log.read()
    data = encoded(len(entries) + 1, entries[-1].sha256, member, kind, fields)
    assert theirs._log._put(data, entries, lambda *_: None)


def approved(ws: Workspace, request: str, files=("by_ward.csv",)) -> None:
    for reviewer in ("anna", "bert"):
        seen_by(ws, reviewer).vote(request, dict.fromkeys(files, "approve"))
    ws.decide(request, "APPROVED")


def test_a_request_goes_through_the_states_to_its_release(ws):
    number = evaluated(ws, "cleo")
    cleo, bert = seen_by(ws, "cleo"), seen_by(ws, "bert")
    request = cleo.request(number, ["by_ward.csv"], **ABOUT)
    state = lambda: ws.requests()["state"].tolist()  # noqa: E731
    assert state() == ["SUBMITTED"]
    seen = ws.review(request)
    assert seen.files["by_ward.csv"] == b"ward,n\na,160\nb,\nc,\n"  # b is hidden too, or the sum would tell c
    assert seen.evidence["results"]["output_0"]["files"][0]["sdc"]["summary"]["suppressed"]
    assert "synthetic persons by ward" in seen._repr_html_()
    assert ws.vote(request, {"by_ward.csv": "approve"}).state == "PARTIALLY_REVIEWED"
    with pytest.raises(InvalidRequest, match="PARTIALLY_REVIEWED cannot become APPROVED"):
        ws.decide(request, "APPROVED")
    assert bert.vote(request, {"by_ward.csv": "approve"}, "Fine.").state == "REVIEWED"
    assert bert.decide(request, "APPROVED").state == "APPROVED"
    with pytest.raises(NotFound, match=r"is APPROVED\. Its files can be fetched once it is RELEASED"):
        cleo.released(request)
    assert ws.decide(request, "RELEASED").state == "RELEASED"
    assert (cleo.released(request) / "by_ward.csv").read_bytes() == seen.files["by_ward.csv"]
    with pytest.raises(AccessDenied, match="'dora' may not read the release"):
        seen_by(ws, "dora").released(request)
    ws.log(number)
    read = [(one.member, one["request"] or one["submission"]) for one in ws.entries("opened")]
    assert read == [("anna", request), ("cleo", request), ("anna", number)]


def test_nobody_reviews_a_request_of_their_own(ws):
    request = ws.request(evaluated(ws, "anna"), ["by_ward.csv"], **ABOUT)
    for action in (lambda: ws.vote(request, {"by_ward.csv": "approve"}), lambda: ws.decide(request, "RETURNED")):
        with pytest.raises(InvalidRequest, match="nobody reviews a request of their own"):
            action()
    for reviewer in ("bert", "carl"):
        seen_by(ws, reviewer).vote(request, {"by_ward.csv": "approve"})
    assert seen_by(ws, "bert").decide(request, "APPROVED").state == "APPROVED"


def test_one_reviewer_is_not_two(ws):
    request = seen_by(ws, "cleo").request(evaluated(ws, "cleo"), ["by_ward.csv"], **ABOUT)
    for _ in range(3):
        assert ws.vote(request, {"by_ward.csv": "approve"}).state == "PARTIALLY_REVIEWED"


def test_modellers_neither_look_nor_vote_nor_decide(ws):
    request = seen_by(ws, "cleo").request(evaluated(ws, "cleo"), ["by_ward.csv"], **ABOUT)
    dora = seen_by(ws, "dora")
    for action in (
        lambda: dora.review(request),
        lambda: dora.vote(request, {"by_ward.csv": "approve"}),
        lambda: dora.decide(request, "RETURNED"),
    ):
        with pytest.raises(AccessDenied):
            action()


def test_a_rejected_file_is_not_released(ws):
    request = seen_by(ws, "cleo").request(evaluated(ws, "cleo"), ["by_ward.csv"], **ABOUT)
    ws.vote(request, {"by_ward.csv": "approve"})
    seen_by(ws, "bert").vote(request, {"by_ward.csv": "reject"})
    seen_by(ws, "carl").vote(request, {"by_ward.csv": "approve"})
    with pytest.raises(InvalidRequest, match="not every file has been approved by two reviewers"):
        ws.decide(request, "APPROVED")
    assert ws.decide(request, "REJECTED", "The context is missing.").state == "REJECTED"
    with pytest.raises(InvalidRequest, match="REJECTED cannot become"):
        ws.decide(request, "RELEASED")


def test_a_request_is_frozen_while_it_is_reviewed_and_a_changed_file_loses_its_votes(ws):
    first, cleo = evaluated(ws, "cleo"), seen_by(ws, "cleo")
    request = cleo.request(first, ["by_ward.csv"], **ABOUT)
    ws.vote(request, {"by_ward.csv": "approve"})
    with pytest.raises(InvalidRequest, match="not while it is PARTIALLY_REVIEWED"):
        cleo.request(first, ["numbers.json"], request=request, **ABOUT)
    with pytest.raises(InvalidRequest, match="PARTIALLY_REVIEWED cannot become WITHDRAWN"):
        cleo.withdraw(request)
    ws.decide(request, "RETURNED", "Add the numbers.")
    with pytest.raises(InvalidRequest, match="RETURNED is not reviewed"):
        seen_by(ws, "bert").vote(request, {"by_ward.csv": "approve"})
    cleo.request(first, ["by_ward.csv", "numbers.json"], request=request, **ABOUT)
    assert "<td>persons</td>" in ws.review(request)._repr_html_()
    assert "files = by_ward.csv: approve" in ws.audit().timeline()["what"].str.cat(sep="; ")
    votes = cleo._request(request).votes
    assert {name: len(of) for name, of in votes.items()} == {"by_ward.csv": 1, "numbers.json": 0}
    assert cleo._request(request).state == "SUBMITTED"
    ws.decide(request, "RETURNED")
    cleo.request(evaluated(ws, "cleo", 30), ["by_ward.csv"], request=request, **ABOUT)  # of another submission
    assert cleo._request(request).votes == {"by_ward.csv": {}}


def test_an_author_has_one_open_request_and_may_withdraw_it(ws):
    number, cleo = evaluated(ws, "cleo"), seen_by(ws, "cleo")
    request = cleo.request(number, ["by_ward.csv"], **ABOUT)
    with pytest.raises(InvalidRequest, match="has the open request"):
        cleo.request(number, ["numbers.json"], **ABOUT)
    ws.decide(request, "RETURNED")
    cleo.withdraw(request)
    with pytest.raises(InvalidRequest, match="WITHDRAWN cannot become SUBMITTED"):
        cleo._append("moved", _rules, request=request, to="SUBMITTED")
    assert cleo.request(number, ["numbers.json"], **ABOUT) != request


def _rules(entries, new):
    from genokit.workspaces.releases import _by_the_rules

    _by_the_rules(entries, new)


@pytest.mark.parametrize("files", [[], ["../../truth.csv"], ["log.txt"], ["predictions.csv"], ["hashes.json"]])
def test_only_outputs_that_passed_the_gate_can_be_asked_for(ws, files):
    number = evaluated(ws, "cleo")
    with pytest.raises(InvalidRequest, match="This cannot be requested: the files must be outputs that submission"):
        seen_by(ws, "cleo").request(number, files, **ABOUT)
    assert seen_by(ws, "cleo").request(number, "numbers.json", **ABOUT)


def test_counts_that_differ_by_few_from_an_earlier_release_are_not_released(ws):
    """With both tables one would learn that 4 persons in ward a are younger than 30."""
    cleo, dora = seen_by(ws, "cleo"), seen_by(ws, "dora")
    first = cleo.request(evaluated(ws, "cleo"), ["by_ward.csv"], **ABOUT)
    approved(ws, first)
    ws.decide(first, "RELEASED")
    second = dora.request(evaluated(ws, "dora", 30), ["by_ward.csv"], **ABOUT)
    assert ws.review(second).differences == [f"n of 'by_ward.csv' differs by few from release {first} in 1 row"]
    with pytest.raises(InvalidRequest, match="learns the difference"):
        approved(ws, second)


def test_counts_of_another_version_of_the_data_are_compared_too(ws):
    """A version with four rows more, and the table of both, would tell of these four."""
    cleo, dora = seen_by(ws, "cleo"), seen_by(ws, "dora")
    first = cleo.request(evaluated(ws, "cleo", 30), ["by_ward.csv"], **ABOUT)
    approved(ws, first)
    ws.decide(first, "RELEASED")
    ws.publish(ws.clients.settings.home.parent / "wards", version="2.0.0", licence="CC0-1.0", terms="GRU")
    ws.challenge("again", "wards", outputs=OUTPUTS)
    second = dora.request(evaluated(ws, "dora", challenge="again"), ["by_ward.csv"], **ABOUT)
    assert ws.review(second).differences == [f"n of 'by_ward.csv' differs by few from release {first} in 1 row"]


def test_counts_of_two_files_of_one_request_are_compared_too(ws):
    ws.challenge("two", "wards", outputs={**OUTPUTS, "other.csv": TABLE})
    number = evaluated(ws, "cleo", challenge="two", more="""
with open("/out/other.csv", "w") as file:
    print("ward,n\\na,156", file=file)
""")  # fmt: skip
    request = seen_by(ws, "cleo").request(number, ["by_ward.csv", "other.csv"], **ABOUT)
    assert ws.review(request).differences == ["n of 'other.csv' differs by few from 'by_ward.csv' in 1 row"]
    with pytest.raises(InvalidRequest, match="learns the difference"):
        approved(ws, request, ["by_ward.csv", "other.csv"])


def test_a_count_that_an_earlier_release_hides_is_not_shown_later(ws):
    """Ward b is hidden because the sum of all would tell ward c. A table without ward c does not hide it."""
    cleo, dora = seen_by(ws, "cleo"), seen_by(ws, "dora")
    first = cleo.request(evaluated(ws, "cleo"), ["by_ward.csv"], **ABOUT)
    approved(ws, first)
    ws.decide(first, "RELEASED")
    number = evaluated(ws, "dora", more="""
with open("/out/by_ward.csv", "w") as file:
    print("ward,n\\na,160\\nb,137", file=file)
""")  # fmt: skip
    second = dora.request(number, ["by_ward.csv"], **ABOUT)
    assert ws.review(second).files["by_ward.csv"] == b"ward,n\na,160\nb,137\n"
    assert ws.review(second).differences == [
        f"n of 'by_ward.csv' is hidden here or in release {first}, but not in both, in 1 row"
    ]


def test_of_two_releases_at_once_that_tell_a_difference_one_is_refused(ws):
    """Both are approved before either is released."""
    requests = []
    for member, oldest in (("cleo", 0), ("dora", 30)):
        requests.append(seen_by(ws, member).request(evaluated(ws, member, oldest), ["by_ward.csv"], **ABOUT))
        approved(ws, requests[-1])
    both = threading.Barrier(2)

    def released(reviewer: str, request: str) -> str:
        custodian = seen_by(ws, reviewer)
        both.wait()
        try:
            return custodian.decide(request, "RELEASED").state
        except InvalidRequest as error:
            return "learns the difference" * ("learns the difference" in str(error))

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(released, ("bert", "carl"), requests))
    assert answers == ["RELEASED", "learns the difference"]


def test_nobody_asks_for_another_s_outputs(ws):
    """Else a custodian could let another member ask for the custodian's own outputs, and review them."""
    number, cleo = evaluated(ws, "anna"), seen_by(ws, "cleo")
    with pytest.raises(InvalidRequest, match="only anna, who sent the submission, asks for its outputs"):
        cleo.request(number, ["by_ward.csv"], **ABOUT)
    forged(ws, "cleo", "requested", request="a" * 16, submission=number, files=["by_ward.csv"], **ABOUT)
    assert ws.requests().empty


def test_a_file_that_changes_between_approval_and_release_is_not_released(ws):
    number = evaluated(ws, "cleo")
    request = seen_by(ws, "cleo").request(number, ["by_ward.csv"], **ABOUT)
    approved(ws, request)
    folder = Path(ws.address, ws.submission(number).result["folder"])
    output, manifest = folder / "outputs" / "by_ward.csv", folder / "hashes.json"
    kept = output.read_bytes(), manifest.read_bytes()
    output.write_text("ward,n\na,156\n")
    with pytest.raises(HashMismatch):
        ws.decide(request, "RELEASED")
    changed = json.loads(kept[1])
    changed["outputs"]["by_ward.csv"] = "0" * 64
    manifest.write_text(json.dumps(changed))
    with pytest.raises(HashMismatch):
        ws.decide(request, "RELEASED")
    output.write_bytes(kept[0])
    manifest.write_bytes(kept[1])
    ws.decide(request, "RELEASED")
    Path(ws.address, ws._request(request).folder, "by_ward.csv").write_text("ward,n\na,156\n")
    with pytest.raises(HashMismatch):
        seen_by(ws, "cleo").released(request)


def test_forged_entries_about_a_request_have_no_effect(ws):
    """Each is rightly chained and signed, by a member who has no right to write it, or not now."""
    first, cleo = evaluated(ws, "cleo"), seen_by(ws, "cleo")
    request = cleo.request(first, ["by_ward.csv"], **ABOUT)
    manifest = ws.submission(first).result["manifest"]
    files = {"by_ward.csv": "approve"}
    forged(ws, "cleo", "voted", request=request, files=files, manifest=manifest)  # a modeller
    forged(ws, "dora", "moved", request=request, to="WITHDRAWN")  # not the author
    forged(ws, "cleo", "moved", request=request, to="RELEASED")  # not the author's move
    forged(ws, "anna", "decided", request=request, to="RELEASED", files={}, folder="released/x/y")  # not approved
    forged(ws, "anna", "voted", request=request, files=files, manifest="0" * 64)  # on other files
    forged(ws, "anna", "voted", request=request, files={"other.csv": "approve"}, manifest=manifest)
    forged(ws, "cleo", "evaluated", submission=first, state="SUCCEEDED", seconds=1, score=[1, 1, 1], outputs=["a"],
           folder="results/x/y", manifest="0" * 64, genokit="1")  # fmt: skip
    forged(ws, "cleo", "requested", request=request, submission=first, files=["numbers.json"], **ABOUT)  # again
    one = ws._request(request)
    assert (one.state, one.votes) == ("SUBMITTED", {"by_ward.csv": {}})
    assert ws.submission(first).score is None
    approved(ws, request)
    ws.decide(request, "RELEASED")
    forged(
        ws, "anna", "decided", request=request, to="RELEASED", files={"truth.csv": "0" * 64}, folder="truth/tables/x"
    )
    forged(ws, "cleo", "changed", request=request, submission=first, files=["numbers.json"], **ABOUT)
    assert set(ws._request(request).pinned) == {"by_ward.csv"}
    assert ws._request(request).folder.startswith("released/")
    assert ws.audit().intact


def test_every_move_that_the_table_does_not_name_is_refused(ws):
    """A walk over all states and moves, with the pure state machine alone."""
    for state in ("PENDING", *review.MOVES, "PARTIALLY_REVIEWED", "REVIEWED"):
        known = review.ReleaseRequest(
            "1", "cleo", "2", "3", "c", "c", {"a": {"anna": "approve", "bert": "approve"}}, state
        )
        for to, before in review.MOVES.items():
            kind = "moved" if to in ("SUBMITTED", "WITHDRAWN") else "decided"
            member = "cleo" if kind == "moved" else "anna"
            fields = {"request": "1", "to": to, "files": {"a": "0"} if to == "APPROVED" else {}}
            entry = review.LogEntry(1, "", "", member, kind, "", fields, "")
            assert bool(review.refusal({"1": known}, {}, entry)) == (state not in before), (state, to)


@pytest.mark.usefixtures("contexts")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the validator's own
def test_the_crate_of_a_submission_is_valid_and_has_the_phases_of_five_safes(ws, tmp_path):
    number = evaluated(ws, "cleo")
    request = seen_by(ws, "cleo").request(number, ["by_ward.csv"], **ABOUT)
    approved(ws, request)
    ws.decide(request, "RELEASED")
    path = seen_by(ws, "dora").crate(number, tmp_path / "crate")
    graph = {one["@id"]: one for one in json.loads(path.read_text())["@graph"]}
    phases = {one["additionalType"]["@id"].partition("#")[2] for one in graph.values() if "additionalType" in one}
    assert phases == {"CheckValue", "ValidationCheck", "SignOff", "DisclosureCheck"}
    assert graph["#code"]["identifier"] == f"sha256:{ws.submission(number).entry['code']}"
    assert graph["#limit-processes"]["value"] == "64"
    assert "160" not in [one.get("value") for one in graph.values()]  # no count
    assert violations(path.parent, "process-run-crate-0.5") == []

"""Model to data: a challenge, submissions to it, what members are told, and what they are not."""

from __future__ import annotations

import ast
import datetime
import gzip
import hashlib
import inspect
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from botocore.exceptions import ClientError
from embedded import wait_until

from genokit import Batch, Settings, Workspace, backends, storage
from genokit.batch.shipping import archive, bootstrap
from genokit.display import table
from genokit.errors import AccessDenied, HashMismatch, InvalidParameters, InvalidRequest, NotFound
from genokit.workspaces import challenge as challenges
from genokit.workspaces import evaluation, gate
from genokit.workspaces.log import encoded, now
from genokit.workspaces.sandbox import Limits

PREDICT = """
import csv, json, sys
rows = list(csv.DictReader(open("/data/wards.csv")))
train = [row for row in rows if row["sick"] != ""]
print("trained on", len(train), "rows", train[0]["id"])
with open("/out/predictions.csv", "w") as file:
    print("id,risk", file=file)
    for row in rows:
        if row["sick"] == "":
            print(f"{row['id']},{float(row['dose']) * SIGN}", file=file)
with open("/out/by_ward.csv", "w") as file:
    print("ward,n", file=file)
    for ward in sorted({row["ward"] for row in rows}):
        print(f"{ward},{sum(row['ward'] == ward for row in rows)}", file=file)
"""
OUTPUTS = {
    "predictions.csv": {"type": "predictions", "columns": {"id": "label", "risk": "number"}},
    "by_ward.csv": {
        "type": "aggregate",
        "columns": {"ward": ["a", "b", "c"], "n": "count"},
        "counts": ["n"],
        "by": ["ward"],
    },
}
COMMAND = ["python", "predict.py"]


def wards(seed: int, size: int = 300) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Synthetic rows, a third of them held out, and the truth for those."""
    dice = np.random.default_rng(seed)
    dose = dice.normal(size=size).round(3)
    sick = (dose + dice.normal(size=size) > 0).astype(int)
    ward = dice.choice(["a", "b", "c"], size, p=[0.6, 0.39, 0.01])
    rows = pd.DataFrame({"id": [f"p{i}" for i in range(size)], "ward": ward, "dose": dose, "sick": sick})
    held = rows.index >= 2 * size // 3
    truth = rows.loc[held, ["id", "sick"]]
    return rows.assign(sick=rows["sick"].where(~held).astype("Int64")), truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("challenges")


def seen_by(ws: Workspace, member: str) -> Workspace:
    """The same workspace, seen by another member from another home."""
    return Workspace(ws.address, member, settings=Settings(home=ws.clients.settings.home.parent / member))


@pytest.fixture(scope="module")
def ws(folder):
    """A workspace with a data set, whose custodian is anna and whose modellers are cleo and dora."""
    ws = Workspace.create(folder / "lab", "anna", settings=Settings(home=folder / "anna"))
    ws.grant("bert", "custodian").grant("cleo", "modeller").grant("dora", "modeller").grant("vera", "viewer")
    rows, _ = wards(1)
    (folder / "wards").mkdir()
    rows.to_csv(folder / "wards" / "wards.csv", index=False)
    ws.publish(folder / "wards", name="wards", licence="CC0-1.0", terms="GRU", practice=wards(2)[0])
    yield ws
    for member in ("anna", "cleo", "dora"):
        backends.account(Settings(home=folder / member)).stop()


def set_challenge(ws: Workspace, name: str, **changes) -> challenges.Challenge:
    given = {"outputs": OUTPUTS, "metric": "roc_auc", "truth": wards(1)[1], "limits": Limits(wall_s=30, cpu_s=20)}
    return ws.challenge(name, "wards", **{**given, **changes})


@pytest.fixture(scope="module")
def risk(ws) -> challenges.Challenge:
    return set_challenge(ws, "risk", quota_per_day=50)


@pytest.fixture
def code(tmp_path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "predict.py").write_text(PREDICT.replace("SIGN", "1"))
    return tmp_path / "code"


def sent(ws: Workspace, challenge: str, code: Path, command=COMMAND, time: str | None = None) -> str:
    """The id of a submission whose job is not started; it is written around the library's checks."""
    shipped = archive.ship(ws.clients, code, storage.join(ws.address, "code", ws.member))
    number = shipped.rpartition("/")[2][:16]
    number = f"{int(number, 16) ^ len(ws.entries()):016x}"
    sha256 = shipped.rpartition("/")[2].partition(".")[0]
    fields = {"submission": number, "challenge": challenge, "command": list(command), "code": sha256}
    forged(ws, ws.member, "submitted", time, **fields)
    return number


def forged(ws: Workspace, member: str, kind: str, time: str | None = None, **fields) -> None:
    """An entry that a member writes around the library's checks, rightly signed; its clock may say another time."""
    log = seen_by(ws, member)._log
    entries = log.read()
    entry = json.loads(encoded(len(entries) + 1, entries[-1].sha256, member, kind, fields))
    assert log._put(json.dumps({**entry, "time": time or entry["time"]}).encode(), entries, lambda *_: None)


def test_a_submission_is_evaluated_by_a_job_and_its_score_is_told(ws, risk, code):
    cleo = seen_by(ws, "cleo")
    one = cleo.submit("risk", code, COMMAND).wait()
    assert (one.state, one.result["reason"]) == ("SUCCEEDED", None)
    assert 0.6 < one.score < 1
    score, low, high = one.result["score"]
    assert low < score < high
    assert score == round(score, 4)
    assert one.result["outputs"] == ["by_ward.csv"]
    assert one.result["seconds"] % 10 == 0 < one.result["seconds"]
    board = cleo.leaderboard("risk")
    assert board[["rank", "member", "score"]].values.tolist() == [[1, "cleo", score]]
    assert "SUCCEEDED" in one._repr_html_()


def test_members_are_not_told_the_log_the_private_score_or_the_outputs(ws, risk, code):
    cleo = seen_by(ws, "cleo")
    number = sent(cleo, "risk", code)
    ws._evaluate(number)
    assert str(ws.log(number)) == "trained on 200 rows p0\n"
    for member in ("cleo", "vera"):
        with pytest.raises(AccessDenied, match="needs the role custodian"):
            seen_by(ws, member).log(number)
        with pytest.raises(AccessDenied, match="needs the role custodian"):
            seen_by(ws, member).leaderboard("risk", "private")
    assert len(ws.leaderboard("risk", "private")) >= 1
    everything = "".join(path.read_text() for path in (Path(ws.address) / "log").iterdir())
    scores = json.loads(ws._private_file(ws.submission(number), "scores.json"))
    assert set(scores) == {"public", "private"}
    assert ws.submission(number).result["score"] == scores["public"]
    assert '"private":' not in everything
    assert "trained on" not in everything
    _, hashes = ws._held(ws.submission(number))
    assert not [one for one in {**hashes["files"], **hashes["outputs"]}.values() if one in everything]


def test_a_job_tells_nothing_that_the_submission_printed(ws, risk, code):
    one = seen_by(ws, "dora").submit("risk", code, COMMAND)
    one.wait()
    assert one.job.log() == f"Submission {one.id}: SUCCEEDED"


@pytest.fixture(scope="module")
def three(ws, folder) -> str:
    """Definitions and queues with the names of the stack for AWS, whose jobs run here, without its walls."""
    batch, place = Batch(ws.clients), folder / "submission"
    place.mkdir()
    for action, more in (("stage", []), ("gate", ["Ref::job"])):
        words = ["Ref::address", "Ref::submission", "Ref::member", str(place), *more]
        batch.define(f"three-{action}", command=["python", "-m", "genokit.workspaces", action, *words])
    batch.define("three-run", command=["true"], environment={"CODE": f"{place}/code"})
    environment = ws.clients.batch.describe_compute_environments()["computeEnvironments"][0]["computeEnvironmentArn"]
    for number, name in enumerate(("three-custody", "three-submissions")):
        ws.clients.batch.create_job_queue(
            jobQueueName=name, priority=number, state="ENABLED",
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
        )  # fmt: skip
    return "three"


def test_three_jobs_evaluate_a_submission_as_on_aws(ws, risk, three, code, folder):
    """The command writes where the second job of this machine can: to the folder that AWS mounts as /out."""
    place = folder / "submission"
    program = PREDICT.replace("SIGN", "1").replace('"/data/', f'"{place}/data/').replace('"/out/', f'"{place}/out/')
    (code / "predict.py").write_text(program)
    number = seen_by(ws, "cleo").submit("risk", code, COMMAND, start=False).id
    assert ws.evaluate(number, stack=three).wait().state == "SUCCEEDED"
    assert not list(place.iterdir())


def test_a_second_job_that_fails_is_a_submission_that_fails(ws, risk, three, code, folder):
    place, batch = folder / "submission", Batch(ws.clients)
    number = sent(seen_by(ws, "cleo"), "risk", code)
    ws._stage(number, place)
    with pytest.raises(InvalidRequest, match="Another submission is in"):
        ws._stage(number, place)
    ran = batch.submit(f"{three}-run", queue=f"{three}-submissions", command=["false"]).wait()
    entry = ws._gate(number, place, ran.id)
    assert (entry["state"], entry["reason"]) == ("FAILED", "The command ended with an error.")
    assert not list(place.iterdir())


def test_a_submission_that_cannot_be_staged_leaves_room_for_the_next(ws, risk, code, folder):
    place, number = folder / "submission", sent(seen_by(ws, "cleo"), "risk", code)
    manifest = Path(ws.address, ws.entries("published")[0]["folder"], "datapackage.json")
    kept = manifest.read_bytes()
    manifest.write_bytes(b"{}")
    with pytest.raises(HashMismatch):
        ws._stage(number, place)
    manifest.write_bytes(kept)
    ws._stage(number, place)
    assert {one.name for one in place.iterdir()} == {"code", "data", "out"}
    shutil.rmtree(place)


def test_a_job_that_fails_quotes_nothing(ws, code, folder):
    """What the job prints can be read by the member who submitted: no message of an unexpected error is printed."""
    content = b"id,truth,split\np200,ANNA\xff,public\n"
    storage.write(storage.join(ws.address, "truth", "odd", "x", "truth.csv"), content)
    sha256 = hashlib.sha256(content).hexdigest()
    forged(ws, "anna", "challenged", name="odd", dataset="wards@1.0.0", metric="roc_auc", outputs=OUTPUTS, limits={},
           quota_per_day=9, private_fraction=0, folder="truth/odd/x", truth=sha256)  # fmt: skip
    number = sent(seen_by(ws, "cleo"), "odd", code)
    command = [sys.executable, "-m", "genokit.workspaces", "evaluate", ws.address, number, "anna"]
    environment = {**os.environ, **ws.clients.settings.environ()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "genokit: the evaluation failed with UnicodeDecodeError. A custodian repeats it to see why.\n"
    )


@pytest.mark.parametrize(
    ("program", "state", "reason"),
    [
        ("import sys; sys.exit(17)", "FAILED", "The command ended with an error."),
        ("raise ValueError(open('/data/wards.csv').read())", "FAILED", "The command ended with an error."),
        ("import os; os.kill(os.getpid(), 9)", "FAILED", "The command ended with an error."),
        ("import time; time.sleep(99)", "FAILED", "It used more than 1 seconds."),
        ("pass", "REFUSED", "'by_ward.csv' is missing."),
        (PREDICT.replace("SIGN", "1") + "open('/out/rows.csv', 'w')", "REFUSED",
         "There is a file or folder that is not a declared output."),
        (PREDICT.replace("SIGN", "1").replace("id']},", "id']}x,"), "REFUSED",
         "'predictions.csv' does not have exactly the ids of the held-out rows."),
        (PREDICT.replace("SIGN", "1").replace("== \"\":", "== \"\" and row['id'] != 'p299':"), "REFUSED",
         "'predictions.csv' does not have exactly the ids of the held-out rows."),
        (PREDICT.replace("SIGN", "1").replace("{ward},", "p1 {rows[0]['dose']},"),
         "REFUSED", "'by_ward.csv' has a label that was not declared."),
        (PREDICT.replace("SIGN", "1") + "open('/out/by_ward.csv', 'w').write('ward,n\\na,150\\nb,151\\n')", "REFUSED",
         "'by_ward.csv' counts more persons than there are in the data."),
    ],
)  # fmt: skip
def test_of_a_submission_that_does_not_succeed_a_fixed_sentence_is_told(ws, program, state, reason, code):
    wall_s = 1 if "seconds" in reason else 60
    name = f"within-{wall_s}"
    if name not in ws.challenges()["challenge"].tolist():
        set_challenge(ws, name, limits=Limits(wall_s=wall_s, cpu_s=5), quota_per_day=50)
    (code / "predict.py").write_text(program)
    entry = ws._evaluate(sent(seen_by(ws, "cleo"), name, code))
    assert (entry["state"], entry["reason"], entry["score"]) == (state, reason, [None, None, None])
    assert entry["seconds"] % 10 == 0 < entry["seconds"]


def test_a_rehearsal_shows_everything_on_practice_data(ws, risk, code):
    vera = seen_by(ws, "vera")
    done = vera.rehearse("risk", code, COMMAND)
    assert (done.state, done.scores) == ("SUCCEEDED", {})
    assert b"trained on 200 rows" in done.log
    assert {one.name for one in done.outputs} == set(OUTPUTS)
    assert "trained on" in done._repr_html_()
    (code / "predict.py").write_text("1 / 0")
    failed = vera.rehearse("risk", code, COMMAND)
    assert (failed.state, b"ZeroDivisionError" in failed.log) == ("FAILED", True)


def test_equal_scores_share_a_rank_and_an_error_comes_last(ws, code):
    set_challenge(ws, "ranks", metric="brier", quota_per_day=9)
    for member, sign in (("cleo", "1"), ("dora", "0"), ("cleo", "0")):
        (code / "predict.py").write_text(PREDICT.replace("SIGN", sign))
        ws._evaluate(sent(seen_by(ws, member), "ranks", code))
    board = seen_by(ws, "vera").leaderboard("ranks")
    assert board["rank"].tolist() == [1, 1, 3]
    assert board["score"].is_monotonic_increasing


def test_the_quota_holds_at_submission_and_again_at_evaluation(ws, code):
    set_challenge(ws, "few", quota_per_day=1)
    cleo = seen_by(ws, "cleo")
    first = sent(cleo, "few", code)
    with pytest.raises(InvalidRequest, match="'cleo' has made 1 submissions to 'few' within 24 hours"):
        cleo.submit("few", code, COMMAND)
    second = sent(cleo, "few", code)  # around the library
    ws._evaluate(first)
    with pytest.raises(InvalidRequest, match="quota is 1"):
        ws._evaluate(second)
    assert ws._evaluate(first).number == ws.submission(first).result.number
    ws._evaluate(sent(seen_by(ws, "dora"), "few", code))  # another member's quota is another


def test_a_submission_to_a_queue_that_is_not_there_leaves_no_entry(ws, code):
    set_challenge(ws, "queued")
    before = len(ws.entries())
    with pytest.raises(NotFound, match=r"There is no job queue 'highPrioritty'\. Did you mean 'highPriority'"):
        seen_by(ws, "cleo").submit("queued", code, ["python", "predict.py"], queue="highPrioritty")
    assert len(ws.entries()) == before


class Sightless:
    """The client of one who may submit jobs, and not look at queues."""

    def __init__(self, client: object) -> None:
        self._client = client

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)

    def get_paginator(self, operation: str) -> object:
        if operation == "describe_job_queues":
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "DescribeJobQueues")
        return self._client.get_paginator(operation)


def test_who_may_not_look_at_queues_submits(ws, code):
    set_challenge(ws, "unseen")
    cleo = seen_by(ws, "cleo")
    batch = Batch(backends.Clients(cleo.clients.settings, batch=Sightless(cleo.clients.batch)))
    one = cleo.submit("unseen", code, ["python", "predict.py"], batch=batch)
    assert one.job.queue == "highPriority"
    one.job.terminate("seen")


def test_a_late_submission_is_refused_whatever_its_clock_says(ws, code):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    set_challenge(ws, "timely", deadline=soon)
    early = sent(seen_by(ws, "cleo"), "timely", code)
    with pytest.raises(InvalidRequest, match="can be revealed after its deadline, which is on 20"):
        ws.reveal("timely")
    wait_until(lambda: datetime.datetime.now(datetime.UTC) > soon)
    assert ws._evaluate(early)["state"] == "SUCCEEDED"  # what counts is when it was submitted
    with pytest.raises(InvalidRequest, match="'timely' ended on"):
        seen_by(ws, "cleo").submit("timely", code, COMMAND)
    ws.grant("vera", "viewer")  # what the custodian writes dates what comes after it
    backdated = now(soon - datetime.timedelta(hours=1))
    late = sent(seen_by(ws, "cleo"), "timely", code, time=backdated)
    assert ws.submission(late).entry.time == backdated
    with pytest.raises(InvalidRequest, match="came after the deadline"):
        ws._evaluate(late)
    assert ws.reveal("timely")["submission"].tolist() == [early]
    assert seen_by(ws, "vera").leaderboard("timely", "private")["submission"].tolist() == [early]


def test_a_custodian_reproduces_a_submission(ws, risk, code):
    number = sent(seen_by(ws, "cleo"), "risk", code)
    ws._evaluate(number)
    compared = ws.reproduce(number)
    assert compared.equal
    assert compared.table["what"].tolist() == ["scores", "by_ward.csv"]
    with pytest.raises(AccessDenied):
        seen_by(ws, "cleo").reproduce(number)


def test_code_truth_or_results_that_were_changed_are_not_used(ws, risk, code):
    number = sent(seen_by(ws, "dora"), "risk", code)
    shipped = Path(ws.address, "code", "dora", f"{ws.submission(number).entry['code']}.tar.gz")
    original = shipped.read_bytes()
    shipped.write_bytes(b"other code")
    again = sent(seen_by(ws, "dora"), "risk", code)
    shipped.write_bytes(b"other code")
    assert ws._evaluate(number)["reason"] == "The code is not an archive that was submitted."
    shipped.write_bytes(original)
    truth = Path(ws.address, risk.folder, "truth.csv")
    kept = truth.read_bytes()
    truth.write_bytes(kept.replace(b",1,", b",0,"))
    with pytest.raises(HashMismatch, match="was changed after it was published"):
        ws._evaluate(again)
    truth.write_bytes(kept)
    entry = ws._evaluate(again)
    results = Path(ws.address, entry["folder"], "scores.json")
    results.write_text('{"private": [1, 1, 1]}')
    with pytest.raises(HashMismatch):
        ws.leaderboard("risk", "private")


def packed(*entries: tuple[str, dict[str, object]]) -> bytes:
    """An archive with entries as an attacker writes them: names, and what differs from an empty file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, changes in entries:
            one = tarfile.TarInfo(name)
            for attribute, value in changes.items():
                setattr(one, attribute, value)
            tar.addfile(one, io.BytesIO(bytes(one.size)) if one.isreg() else None)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        packed(("/etc/cron.d/job", {"size": 1})),
        packed(("../../escaped", {"size": 1})),
        packed(("a/../../escaped", {"size": 1})),
        packed(("out", {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"})),
        packed(("out", {"type": tarfile.SYMTYPE, "linkname": "../../.."})),
        packed(("a", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}), ("a/escaped", {"size": 1})),
        packed(("out", {"type": tarfile.LNKTYPE, "linkname": "/etc/shadow"})),
        packed(("disk", {"type": tarfile.BLKTYPE, "devmajor": 254})),
        packed(("pipe", {"type": tarfile.FIFOTYPE})),
        packed(("a/" * 1900 + "x", {"size": 1})),
        packed(("twice", {"size": 1}), ("twice", {"size": 1})),
        gzip.compress(gzip.compress(packed(("a", {"size": 1})))),
        packed(("x", {"size": 2**20}))[:-9],
        gzip.compress(tarfile.TarInfo("x").tobuf()[:100] + b"\x00" * 5000),
        b"PK\x03\x04",
        b"",
    ],
    ids=["absolute", "up", "up inside", "link", "link up", "through a link", "hard link", "device", "pipe", "deep",
         "twice", "packed thrice", "cut off", "half a header", "zip", "empty"],
)  # fmt: skip
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(ws, content, tmp_path):
    if "archives" not in ws.challenges()["challenge"].tolist():
        set_challenge(ws, "archives", quota_per_day=50)
    sha256 = hashlib.sha256(content).hexdigest()
    storage.write(storage.join(ws.address, "code", "cleo", f"{sha256}.tar.gz"), content)
    number = f"{int(sha256[:16], 16):016x}"
    seen_by(ws, "cleo")._append("submitted", submission=number, challenge="archives", command=["true"], code=sha256)
    assert ws._evaluate(number)["state"] == "REFUSED"
    assert not list(Path(ws.address).parent.rglob("escaped"))


def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_it_fills_the_disk(ws, tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        one = tarfile.TarInfo("zeros")
        one.size = 2**31
        tar.fileobj.write(one.tobuf())  # the claim is enough: nothing is read before it is checked
    (tmp_path / f"{hashlib.sha256(file.getvalue()).hexdigest()}.tar.gz").write_bytes(file.getvalue())
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(InvalidRequest, match="more than 1,024 MiB when unpacked"):
        bootstrap.unpack(ws.clients, str(next(tmp_path.glob("*.gz"))), tmp_path / "unpacked")


def test_malformed_entries_stop_nobody_from_reading_the_others(ws, risk, code):
    """Each is rightly chained and signed: by a custodian with another version of the kit, say, or by a modeller."""
    fields = {"dataset": "wards@1.0.0", "limits": {}, "quota_per_day": 1, "private_fraction": 0}
    forged(ws, "anna", "challenged", name="strange", outputs={"a.csv": {"type": "video"}}, **fields)
    forged(ws, "anna", "challenged", name="limits", outputs={}, **{**fields, "limits": {"gpus": 1}})
    forged(ws, "anna", "challenged", name="text", outputs={"a.csv": "text"}, **fields)
    forged(ws, "anna", "revealed", challenge="risk", scores={"0" * 16: "high"})
    forged(ws, "anna", "evaluated", submission="0" * 16, state="SUCCEEDED", seconds=1, score=[1], outputs=[],
           folder="results/x/y", manifest="0" * 64, genokit="1")  # fmt: skip
    forged(ws, "cleo", "submitted", submission="f" * 16, challenge="absent", command=["true"], code="0" * 64)
    assert {"strange", "limits", "text"}.isdisjoint(ws.challenges()["challenge"])
    assert "risk" in ws.challenges()["challenge"].tolist()
    assert ws.leaderboard("risk").columns[0] == "rank"
    with pytest.raises(InvalidRequest, match="a challenge that there is not"):
        ws._evaluate("f" * 16)
    with pytest.raises(InvalidParameters, match="A command is a list of words"):
        seen_by(ws, "cleo").submit("risk", code, "python predict.py")


def test_hostile_texts_are_escaped_wherever_they_are_shown(ws, risk, code):
    hostile = "<script>alert(1)</script>\x1b[31m"
    number = sent(seen_by(ws, "dora"), "risk", code, ["sh", "-c", hostile])
    ws._evaluate(number)
    one = ws.submission(number)
    pages = (one._repr_html_(), table(ws.submissions()), ws.audit()._repr_html_(), ws._repr_html_(), repr(one))
    assert not [page for page in pages if "<script>" in page or "\x1b" in page]
    assert "\x1b" not in str(ws.log(number))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metric": "gini"}, "There is no metric 'gini'"),
        ({"metric": None}, "Predictions need a metric"),
        ({"truth": None}, "needs outputs, and a truth"),
        ({"outputs": {"by_ward.csv": OUTPUTS["by_ward.csv"]}}, "needs one output of type 'predictions'"),
        (
            {
                "outputs": {
                    **OUTPUTS,
                    "by_ward.csv": {**OUTPUTS["by_ward.csv"], "columns": {"ward": "label", "n": "count"}},
                }
            },
            "'ward' of the aggregate 'by_ward.csv' needs a list of the labels",
        ),
        ({"quota_per_day": 0}, "1 or more"),
        ({"private_fraction": 1}, "below 1"),
        ({"private_fraction": "half"}, "below 1"),
        ({"deadline": "tomorrow"}, "needs a date or a datetime"),
        ({"truth": pd.DataFrame({"id": ["a", "a"], "sick": [0, 1]})}, "column 'id', without repetitions"),
        ({"truth": pd.DataFrame({"id": ["a", "b"], "sick": [0, None]})}, "missing values"),
        ({"truth": pd.DataFrame({"id": ["a", "b"], "sick": ["no", "yes"]})}, "words where numbers"),
    ],
)
def test_a_challenge_whose_parts_do_not_belong_together_is_refused(ws, changes, why):
    with pytest.raises(InvalidParameters, match=why):
        set_challenge(ws, "wrong", **changes)


def test_only_custodians_set_challenges_and_names_are_taken_once(ws, risk):
    with pytest.raises(AccessDenied, match="'cleo' is modeller"):
        set_challenge(seen_by(ws, "cleo"), "mine")
    with pytest.raises(InvalidRequest, match="There is a challenge 'risk' already"):
        set_challenge(ws, "risk")
    with pytest.raises(NotFound, match="Did you mean 'risk'"):
        ws.challenge("rusk")
    with pytest.raises(AccessDenied, match="'vera' is viewer"):
        seen_by(ws, "vera").submit("risk", Path(ws.address), COMMAND)


def test_the_card_says_what_scores_can_leak(risk):
    """Scores of both splits, one of the sentences, and one of the four times up to 30 seconds."""
    assert risk.bits_per_day == pytest.approx(50 * (2 * 3 * 13.288 + math.log2(12 + 2 * 16) + 2), rel=0.01)
    assert "bits a day for each member" in risk._repr_html_()


def test_the_bound_counts_all_sentences_that_can_be_told():
    """Of the gate's sentences, an output gets those of its own type; each sentence names nothing but the output."""
    sentences = [
        node.args[0] for module in (gate, evaluation) for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "OutputRefused"
    ]  # fmt: skip
    names = {
        ast.unparse(one.value) for text in sentences for one in ast.walk(text) if isinstance(one, ast.FormattedValue)
    }
    assert names == {"one.name", "name", "most", "MOST_PIXELS"}  # of which all but the name are fixed
    assert len(sentences) <= 25  # of which files have 5, predictions 8, aggregates 10, numbers 2, figures 2, models 2
    assert challenges.WAYS_OF_OUTPUT >= 5 + 10


def test_the_truth_cannot_be_guessed_from_its_hash(ws, risk):
    """Few held-out rows have few possible truths, and all members read the hash."""
    truth = pd.read_csv(Path(ws.address, risk.folder, "truth.csv"))
    assert len(str(truth["salt"][0])) >= 16
    assert truth["salt"].nunique() == 1


def test_ids_and_labels_of_the_truth_stay_as_they_are_written(ws, tmp_path):
    """An id or a label may begin with zeros, and a label may be "NA"."""
    (tmp_path / "truth.csv").write_text("id,sick\n001,01\n002,02\n")
    frame = pd.DataFrame({"id": ["001", "002"], "sick": ["NA", "yes"]})
    for labels, truth in ((["NA", "yes"], frame), (["01", "02"], tmp_path / "truth.csv")):
        outputs = {"answers.csv": {"type": "predictions", "columns": {"id": "label", "sick": labels}}}
        given = {"metric": "accuracy", "outputs": outputs, "truth": truth, "private_fraction": 0}
        found = ws._truth(set_challenge(ws, f"of-{labels[1]}", **given))
        assert found[["id", "truth"]].values.tolist() == [["001", labels[0]], ["002", labels[1]]]


def test_who_sends_a_submission_under_another_s_id_gets_neither_its_score_nor_its_outputs(ws, risk, code):
    number = sent(seen_by(ws, "dora"), "risk", code)
    ws._evaluate(number)
    fields = ws.submission(number).entry.fields
    forged(ws, "cleo", "submitted", **fields)
    board = ws.leaderboard("risk")
    assert board[board["submission"] == number]["member"].tolist() == ["dora"]
    table = ws.submissions("risk")
    assert table[table["submission"] == number]["member"].tolist() == ["dora"]


def test_a_folder_deeper_than_python_can_remove_stops_no_other_submission(ws, risk, three, code, folder):
    place, number = folder / "submission", sent(seen_by(ws, "cleo"), "risk", code)
    ws._stage(number, place)
    ran = Batch(ws.clients).submit(f"{three}-run", queue=f"{three}-submissions", command=["true"]).wait()
    at = os.open(place / "out", os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    entry = ws._gate(number, place, ran.id)
    assert entry["reason"] == "There is a file or folder that is not a declared output."
    assert not list(place.iterdir())


def test_the_labels_of_a_challenge_may_be_words(ws, code):
    outputs = {"answers.csv": {"type": "predictions", "columns": {"id": "label", "sick": ["no", "yes"]}}}
    truth = wards(1)[1].assign(sick=lambda frame: frame["sick"].map({0: "no", 1: "yes"}))
    set_challenge(ws, "words", metric="f1_macro", outputs=outputs, truth=truth, private_fraction=0)
    (code / "predict.py").write_text(
        "import csv\nwith open('/out/answers.csv', 'w') as file:\n    print('id,sick', file=file)\n"
        "    for row in csv.DictReader(open('/data/wards.csv')):\n        if row['sick'] == '':\n"
        "            print(row['id'] + (',yes' if float(row['dose']) > 0 else ',no'), file=file)\n"
    )
    entry = ws._evaluate(sent(seen_by(ws, "cleo"), "words", code))
    assert entry["state"] == "SUCCEEDED"
    assert entry["score"][0] > 0.6

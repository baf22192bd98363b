"""What members share: data sets by their terms, and runs that another lab reproduces."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import genokit
from genokit import Dataset, Settings, Workspace, storage
from genokit.errors import AccessDenied, HashMismatch, InvalidManifest, InvalidParameters, InvalidRequest, NotFound
from genokit.workspaces import access
from genokit.workspaces.kinds import duo

ROWS = "id,age\n1,30\n2,40\n"


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A workspace with a member in each role, as its custodian sees it."""
    ws = Workspace.create(tmp_path / "lab", "anna", settings=Settings(home=tmp_path / "anna"))
    return ws.grant("ben", "analyst").grant("cleo", "modeller").grant("dan", "viewer")


def seen_by(ws: Workspace, member: str) -> Workspace:
    """The same workspace, seen by another member from another home."""
    return Workspace(ws.address, member, settings=Settings(home=ws.clients.settings.home.parent / member))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ages" / "sub").mkdir(parents=True)
    (tmp_path / "ages" / "ages.csv").write_text(ROWS)
    (tmp_path / "ages" / "sub" / "read.me").write_text("ages in years")
    return tmp_path / "ages"


@pytest.fixture
def ages(ws: Workspace, folder: Path) -> str:
    mock = pd.DataFrame({"id": [7], "age": [99]})
    return ws.publish(folder, licence="CC-BY-4.0", terms=["GRU", "IRB"], conditions="Cite us.", practice=mock)


# --- data sets


def test_an_analyst_reads_data_after_accepting_their_terms(ws, ages):
    ben = seen_by(ws, "ben")
    with pytest.raises(AccessDenied, match=r"'ben' may not read 'ages@1\.0\.0': analyst, terms not accepted") as denied:
        ben.fetch("ages")
    assert denied.value.action == "fetched"
    assert ben.accept("ages").startswith("GRU (DUO:0000042 general research use); IRB (DUO:0000021")
    data = ben.fetch("ages", progress=False)
    assert isinstance(data, Dataset)
    assert data["ages"].read_text() == ROWS
    assert data["ages"].is_relative_to(ben.clients.settings.cache)
    assert [(one.member, one["dataset"]) for one in ws.entries("fetched")] == [("ben", "ages@1.0.0")]


@pytest.mark.parametrize(("member", "role"), [("cleo", "modeller"), ("dan", "viewer")])
def test_modellers_and_viewers_never_read_data_and_cannot_accept_terms(ws, ages, member, role):
    other = seen_by(ws, member)
    for forbidden in (other.fetch, other.accept):
        with pytest.raises(AccessDenied, match=f"needs the role custodian or analyst; '{member}' is {role}"):
            forbidden("ages")
    assert ws.entries("fetched") == []


def test_accepted_terms_expire(ws, ages):
    ben = seen_by(ws, "ben")
    ben.accept("ages", expires=datetime.date(2020, 1, 1))
    with pytest.raises(AccessDenied, match="terms accepted until 2020-01-01"):
        ben.fetch("ages")
    until = "2020-01-01T00:00:00.000000Z"
    assert access.reading(ws.entries(), "ben", ages, "2019-12-31T23:59:59.999999Z")[0]
    assert not access.reading(ws.entries(), "ben", ages, until)[0]


def test_who_is_made_a_viewer_reads_no_data_any_more(ws, ages):
    ben = seen_by(ws, "ben")
    ben.accept("ages")
    ws.grant("ben", "viewer")
    with pytest.raises(AccessDenied, match="'ben' is viewer"):
        ben.fetch("ages")


def test_the_table_shows_what_is_published_and_what_i_may_read(ws, ages):
    row = seen_by(ws, "ben").datasets().iloc[0]
    assert (row["dataset"], row["files"], row["licence"], row["terms"], row["by"]) == (
        "ages@1.0.0", 2, "CC-BY-4.0", "GRU, IRB", "anna",
    )  # fmt: skip
    assert (row["readable"], row["why"]) == (False, "analyst, terms not accepted")
    assert ws.datasets().iloc[0]["readable"]
    assert ws.policy("ages") == (10, 1)


def test_every_member_reads_the_practice_data(ws, ages):
    mock = seen_by(ws, "cleo").practice("ages", progress=False)
    assert mock["ages"].read_text() == "id,age\n7,99\n"
    assert mock.title == "practice data for ages"
    ws.revoke("cleo")
    with pytest.raises(AccessDenied, match=r"'cleo' may not read the practice data of 'ages@1\.0\.0'"):
        seen_by(ws, "cleo").practice("ages")


def test_a_published_folder_stays_as_it_was(ws, ages, folder):
    assert sorted(path.name for path in folder.rglob("*")) == ["ages.csv", "read.me", "sub"]


def test_a_fetched_data_set_is_published_with_its_licence_and_citation(ws, mnist):
    ref = ws.publish(mnist, terms="NRES")
    assert ref == "mnist@1.0.0"
    again = ws.fetch(ref, progress=False)
    assert (again.hashes, again.citation) == (mnist.hashes, mnist.citation)


def test_a_version_is_published_once_and_names_without_version_mean_the_last(ws, ages, folder):
    with pytest.raises(InvalidRequest, match=r"'ages@1\.0\.0' has been published already"):
        ws.publish(folder, terms="GRU")
    (folder / "ages.csv").write_text(ROWS + "3,50\n")
    assert ws.publish(folder, version="2.0.0", terms="GRU") == "ages@2.0.0"
    assert ws.fetch("ages", progress=False)["ages"].read_text().endswith("3,50\n")
    assert ws.fetch("ages@1.0.0", progress=False)["ages"].read_text() == ROWS


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"terms": ()}, "one or more terms of the Data Use Ontology"),
        ({"terms": ["GRU", "ANY"]}, "one or more terms of the Data Use Ontology"),
        ({"terms": "GRU", "policy": "none"}, "one of default, opensafely, datashield"),
        ({"terms": "GRU", "version": "1/0"}, "a version"),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_is_uploaded(ws, folder, wrong, said):
    with pytest.raises(InvalidParameters, match=said):
        ws.publish(folder, **wrong)
    with pytest.raises(InvalidManifest, match="name"):
        ws.publish(folder, name="../ages", terms="GRU")
    with pytest.raises(AccessDenied, match="'published' needs the role custodian; 'ben' is analyst"):
        seen_by(ws, "ben").publish(folder, terms="GRU")
    assert not Path(ws.address, "data").exists()


def test_practice_rows_need_one_table_to_be_like(ws, folder):
    (folder / "more.csv").write_text("x\n")
    with pytest.raises(InvalidParameters, match="has 2 files of type"):
        ws.publish(folder, terms="GRU", practice=pd.DataFrame({"x": [1]}))


def test_the_data_themselves_are_not_published_as_practice_data(ws, folder):
    with pytest.raises(InvalidParameters, match="The practice data of 'ages' are the data themselves"):
        ws.publish(folder, terms="GRU", practice=folder)
    assert not Path(ws.address, "data").exists()


def test_no_data_can_be_guessed_from_the_hash_in_the_log(ws, folder):
    """Who knows all of a table but one cell could try its values: the hash that members see has a salt."""
    salts = set()
    for version in ("1", "2"):
        ws.publish(folder, version=version, terms="GRU")
        content = json.loads(Path(ws.address, ws.entries("published")[-1]["folder"], "datapackage.json").read_text())
        salts.add(content["x-salt"])
    assert len(salts) == 2


def test_every_term_has_an_identifier_of_the_ontology():
    assert all(words.startswith("DUO:00000") and len(words) > 12 for words in duo().values())
    assert len({words[:11] for words in duo().values()}) == len(duo())


def test_on_s3_data_are_published_fetched_and_pinned_in_the_same_way(account, folder):
    ws = Workspace.create("s3://genokit/lab", "anna", settings=account)
    ref = ws.publish(folder, terms="GRU", practice=pd.DataFrame({"id": [7], "age": [99]}))
    assert ws.fetch(ref, progress=False)["ages"].read_text() == ROWS
    assert ws.practice(ref, progress=False)["ages"].read_text() == "id,age\n7,99\n"
    storage.write(f"s3://genokit/lab/{ws.entries('published')[0]['folder']}/datapackage.json", "{}", clients=ws.clients)
    with pytest.raises(HashMismatch, match=r"datapackage\.json' was changed after it was published"):
        ws.fetch(ref, progress=False)


# --- what was changed afterwards


def manifest(ws: Workspace) -> Path:
    return Path(ws.address, ws.entries("published")[0]["folder"], "datapackage.json")


def test_a_forged_manifest_is_refused(ws, ages):
    """Its files and their hashes fit one another; only the log knows that it is not what was published."""
    data = manifest(ws).parent / "ages" / "ages.csv"
    data.write_text("id,age\n1,31\n2,40\n")
    content = json.loads(manifest(ws).read_text())
    content["resources"][0]["hash"] = f"sha256:{genokit.files.sha256(data)}"
    manifest(ws).write_text(json.dumps(content))
    with pytest.raises(HashMismatch, match=r"datapackage\.json' was changed after it was published"):
        ws.fetch("ages", progress=False)


def test_a_changed_file_is_refused(ws, ages):
    (manifest(ws).parent / "ages" / "ages.csv").write_text("id,age\n1,31\n2,40\n")
    with pytest.raises(HashMismatch):
        ws.fetch("ages", progress=False)


def test_of_two_entries_for_one_version_the_first_holds(ws, ages):
    """By a custodian who skips the library's check."""
    fields = dict(ws.entries("published")[0].fields)
    ws._log.append("anna", "published", {**fields, "manifest": "0" * 64})
    assert ws.fetch("ages", progress=False)["ages"].read_text() == ROWS


# --- runs


def notebook(place: Path, *lines: str) -> Path:
    place.mkdir(exist_ok=True)
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line) for line in lines]), place / "n.ipynb"
    )
    return place / "n.ipynb"


@pytest.fixture(scope="module")
def thought(tmp_path_factory) -> genokit.Run:
    """A run of a notebook."""
    place = tmp_path_factory.mktemp("thought")
    file = notebook(place / "notebooks", "import genokit", "genokit.record('answer', 42)")
    return genokit.run(file, name="think", settings=Settings(home=place / "home"), progress=False)


@pytest.fixture
def shared(ws: Workspace, thought: genokit.Run) -> str:
    """The id of that run, shared by the analyst."""
    return seen_by(ws, "ben").publish(thought)


def test_a_run_is_shared_and_found_across_members(ws, shared):
    row = ws.runs(search="THINK").iloc[0]
    assert (row["name"], row["notebook"], row["outputs"], row["member"]) == ("think", "n.ipynb", "answer", "ben")
    assert ws.runs(search="nothing like it").empty


def test_no_result_of_a_run_is_in_the_log_and_none_can_be_guessed_from_it(ws, shared):
    """Modellers and viewers read the log. The file of results has few possible contents, and so few possible hashes."""
    entry = Path(ws.address, "log", f"{len(ws.entries()):08}.json").read_text()
    results = Path(ws.address, "runs", "ben", shared, "outputs.csv")
    assert "42" in results.read_text()
    assert genokit.files.sha256(results) not in entry
    assert len(json.loads(results.with_name("hashes.json").read_text())["salt"]) == 32


def test_another_lab_reproduces_a_shared_run(ws, shared):
    compared = ws.reproduce(shared)
    assert compared.equal
    assert ws.runs()["reproduced"].tolist() == ["anna"]
    assert [one["equal"] for one in seen_by(ws, "dan").entries("reproduced")] == [True]


def test_who_reads_a_run_is_in_the_log(ws, shared):
    ws.run(shared)
    assert [(one.member, one["run"]) for one in ws.entries("opened")] == [("anna", shared)]


def test_runs_of_others_are_for_those_who_may_read_data(ws, shared):
    for member in ("cleo", "dan", "mallory"):
        with pytest.raises(AccessDenied, match=f"'{member}' may not read the run"):
            seen_by(ws, member).run(shared)
    with pytest.raises(NotFound, match="has no run"):
        ws.run("0" * 16)


def test_of_two_shared_runs_with_one_id_the_first_holds(ws, shared, thought):
    """Else a member could put a notebook of their own where others trust a run, and reproduce it."""
    cleo = seen_by(ws, "cleo")
    theirs = ws.entries("shared")[0].fields
    mine = cleo.publish(thought)
    cleo._log.append("cleo", "shared", {**theirs, "folder": f"runs/cleo/{mine}", "name": "hijacked"})
    assert ws.runs()["name"].tolist() == ["think", "think"]
    assert ws.runs().set_index("run")["member"][shared] == "ben"
    assert ws.run(shared).state == "SUCCEEDED"
    assert ws.cite(shared).startswith("ben (")


def test_a_run_whose_files_were_changed_is_refused(ws, shared):
    record = Path(ws.address, "runs", "ben", shared, "run.json")
    record.write_text(record.read_text().replace("42", "43"))
    with pytest.raises(HashMismatch, match=r"run\.json' was changed after it was published"):
        ws.run(shared)


def test_a_run_that_used_a_data_set_of_the_workspace_is_reproduced_with_the_reproducer_s_own_copy(ws, ages, tmp_path):
    lines = (
        "import genokit, pandas",
        "data = genokit.Workspace().fetch('ages', progress=False)",
        "genokit.record('mean', pandas.read_csv(data['ages'])['age'].mean())",
    )
    labs = {
        name: Settings(home=tmp_path / name, workspace=ws.address, member=name, runs=tmp_path / name / "runs")
        for name in ("anna", "ben")
    }
    ben = Workspace(settings=labs["ben"])
    ben.accept("ages")
    done = genokit.run(
        notebook(tmp_path / "nb", *lines), settings=labs["ben"], progress=False, cache=True, workspace=ben
    )
    assert done.data
    run = ben.runs()["run"][0]
    storage.delete(tmp_path / "ben")  # nothing of that lab's machine is there
    compared = Workspace(settings=labs["anna"]).reproduce(run)
    assert compared.equal
    assert [one.member for one in ws.entries("fetched")] == ["ben", "anna", "anna"]


# --- citation


def test_a_citation_names_what_the_log_pins(ws, ages, shared):
    text, item = ws.cite("ages"), json.loads(ws.cite("ages", "csl"))
    pinned = ws.entries("published")[0]["manifest"]
    assert text.startswith(f"anna ({datetime.datetime.now(datetime.UTC).year}). ages, version 1.0.0.")
    assert pinned in text
    assert pinned in item["note"]
    assert (item["type"], item["id"]) == ("dataset", "ages@1.0.0")
    assert "think (n.ipynb)" in ws.cite(shared)
    with pytest.raises(NotFound, match=r"Did you mean 'ages@1\.0\.0'"):
        ws.cite("age@1.0.0")
    with pytest.raises(InvalidParameters, match="'bibtex' is not a style"):
        ws.cite("ages", "bibtex")

"""The crates of runs and pipelines: what they say, whether their files are as recorded, and whether they are valid."""

from __future__ import annotations

import csv
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import requests
from requests.adapters import HTTPAdapter

from genokit import Manifest, Pipeline, Run, Settings, run
from genokit.errors import GenokitError, NotebookFailed, NotFound, PipelineFailed
from genokit.files import sha256
from genokit.pipelines import compare, crate, reproduce

PARAMETERS = "from pathlib import Path\nx: Path = Path('x.csv')\nn: int = 1"
MAKES = "import genokit\ngenokit.record('twice', 2 * n)\nPath('y.csv').write_text(x.read_text() * 2)"
KEEPS = "genokit.record('table', Path('y.csv').absolute())"
Write = Callable[..., Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a notebook whose first cell has its parameters, beside a file x.csv."""

    def notebook(name: str, *sources: str) -> Path:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        return tmp_path / f"{name}.ipynb"

    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    return notebook


def entities(folder: Path) -> dict[str, Any]:
    """The entities of a crate by id; every reference resolves, and every file of the folder has its hash."""
    graph = json.loads((folder / crate.METADATA).read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    for entity in graph:
        for value in entity.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict):
                    assert one.keys() == {"@id"}
                    assert one["@id"] in found or one["@id"].startswith("https://w3id.org/"), one
    for part in found["./"]["hasPart"]:
        path = part["@id"].removeprefix("file://")
        if not path.endswith("/"):
            assert sha256(folder / path) == found[part["@id"]]["sha256"]
    return found


def cli(words: list[str], settings: Settings) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "genokit", *words]
    environ = {**os.environ, **settings.environ()}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_the_unit_of_a_parameter_is_in_the_crate_and_on_the_card(settings: Settings, write: Write) -> None:
    done = run(write("wait", "wait: float = 1  # [min] at most\nn = 1"), settings=settings, progress=False)
    found = entities(done.path)
    assert found["#wait-parameter-wait"]["unitText"] == "min"
    assert "unitText" not in found["#wait-parameter-n"]
    assert "<td>min</td>" in done._repr_html_()


def test_the_crate_of_a_run_says_what_was_run_on_what_by_whom_and_what_came_of_it(
    settings: Settings, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENOKIT_ORCID", "0000-0002-1825-0097")
    done = run(write("double", PARAMETERS, MAKES, KEEPS), {"x": tmp_path / "x.csv", "n": 21}, settings=settings)
    found = entities(done.path)
    action = found[f"#{done.path.name}"]
    source = found[action["instrument"]["@id"]]
    assert (action["@type"], action["actionStatus"]) == ("CreateAction", "http://schema.org/CompletedActionStatus")
    assert (source["name"], source["sha256"]) == ("double.ipynb", sha256(done.source))
    assert action["agent"] == {"@id": "https://orcid.org/0000-0002-1825-0097"}
    assert action["description"].endswith("Settings that differ from their defaults: home.")
    named = {one["@id"]: found[one["@id"]] for one in action["object"]}
    assert named["#double-parameter-n"]["value"] == "21"
    assert named[(tmp_path / "x.csv").as_uri()]["sha256"] == sha256(tmp_path / "x.csv")
    results = [one["@id"] for one in action["result"]]
    assert {"notebook.ipynb", "notebook.html", (tmp_path / "y.csv").as_uri()} < set(results)
    assert found["#double-result-twice"]["value"] == "42"
    assert "papermill==" in (done.path / crate.PACKAGES).read_text()


def test_a_failed_run_has_a_crate_too_with_its_error(settings: Settings, write: Write) -> None:
    with pytest.raises(NotebookFailed) as caught:
        run(write("bad", "x = 1", "raise ValueError('no reads')"), settings=settings)
    assert caught.value.run is not None
    action = entities(caught.value.run.path)[f"#{caught.value.run.path.name}"]
    assert action["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert "ValueError: no reads" in action["error"]


def test_the_crate_of_a_job_that_was_killed_before_it_wrote_anything_names_its_missing_files(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    crate.write_run(Run(tmp_path, "a", "FAILED", tmp_path / "a.ipynb", "5e", now, error="the Batch job ended").save())
    graph = {entity["@id"]: entity for entity in crate.read(tmp_path)}
    assert graph[f"#{tmp_path.name}"]["error"] == "the Batch job ended"
    assert "sha256" not in graph["source.ipynb"]


def test_verify_finds_what_was_changed_and_what_is_missing(settings: Settings, write: Write, tmp_path: Path) -> None:
    done = run(write("double", PARAMETERS, MAKES), {"x": tmp_path / "x.csv"}, settings=settings)
    assert set(crate.verify(done.path).state) == {"unchanged"}
    (done.path / crate.SOURCE).write_text("{}")
    (tmp_path / "x.csv").unlink()
    states = crate.verify(done.path).set_index("path").state
    assert states[crate.SOURCE] == "changed"
    assert states[(tmp_path / "x.csv").as_uri()] == "missing"
    assert states["notebook.ipynb"] == "unchanged"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"@graph": [1]}', '{"@graph": [{}]}'])
def test_a_damaged_crate_is_reported_as_such(text: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not an RO-Crate"):
        crate.verify(tmp_path)
    (tmp_path / crate.METADATA).write_text(text)
    with pytest.raises(GenokitError, match="cannot be read"):
        crate.verify(tmp_path)


def test_a_crate_names_no_file_outside_of_it_by_a_relative_path(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "crate").mkdir()
    graph = [{"@id": "../secret", "@type": "File", "sha256": sha256(tmp_path / "secret")}]
    (tmp_path / "crate" / crate.METADATA).write_text(json.dumps({"@graph": graph}))
    assert list(crate.verify(tmp_path / "crate").state) == ["missing"]


@pytest.mark.slow
def test_why_finds_the_run_that_made_a_file_even_when_it_was_renamed(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    done = run(write("double", PARAMETERS, MAKES, KEEPS), {"x": tmp_path / "x.csv"}, settings=settings)
    (tmp_path / "y.csv").rename(tmp_path / "renamed.csv")
    made, used = (crate.why(tmp_path / name, settings=settings) for name in ("renamed.csv", "x.csv"))
    assert made.to_dict("records") == [{"role": "made", "notebook": "double.ipynb", "path": str(done.path)}]
    assert list(used.role) == ["used"]
    for command, code in (("why", 0), ("verify", 1)):
        asked = tmp_path / "x.csv" if command == "why" else done.path
        told = cli([command, str(asked)], settings)
        assert (told.returncode, told.stderr) == (code, "")
        assert str(done.path) in told.stdout if command == "why" else "missing" in told.stdout
    (tmp_path / "renamed.csv").write_text("other")
    assert cli(["why", str(tmp_path / "renamed.csv")], settings).returncode == 1
    assert crate.why(tmp_path / "renamed.csv", settings=settings).empty


def test_a_crate_names_data_sets_units_and_what_one_notebook_passed_to_another(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.csv").write_text("a\n1\n")
    Manifest.freeze(tmp_path / "data", "small")
    fetches = f"from genokit import Manifest\nManifest({str(tmp_path / 'data')!r}).fetch()"
    write("first", "wait: float = 2.5  # [min] at most", fetches, "import genokit; genokit.record('n', [3, 4])")
    write("second", "m: list = []", "1 / 0")
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[[notebook]]\nname = "first"\npath = "first.ipynb"\n'
        '[[notebook]]\nname = "second"\npath = "second.ipynb"\ninputs = { m = "first.n" }\n'
    )
    with pytest.raises(PipelineFailed) as caught:
        Pipeline(tmp_path / "p.toml", settings=settings).run(progress=False)
    folder = caught.value.runs[0].path.parent
    found = entities(folder)
    descriptor = found[(tmp_path / "data" / "datapackage.json").as_uri()]
    assert descriptor["sha256"] == sha256(tmp_path / "data" / "datapackage.json")
    assert {"@id": descriptor["@id"]} in found["#first"]["object"]
    assert found["#first-parameter-wait"]["unitText"] == "min"
    assert {"@id": "#first-result-n"} in found["#second"]["object"], "an upstream notebook's result is an input"
    with open(folder / crate.OUTPUTS, newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"notebook": "first", "name": "n", "kind": "text", "value": "[3, 4]", "sha256": "", "bytes": ""}
        ]
    assert set(crate.verify(folder).state) == {"unchanged"}
    for name in ("datapackage.json", "t.csv"):
        used = crate.why(tmp_path / "data" / name, settings=settings)
        assert list(used.role) == ["used"], f"{name} was fetched"


def test_a_table_beside_the_crate_lists_every_output_with_hash_and_size(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    done = run(write("double", PARAMETERS, MAKES, KEEPS), {"x": tmp_path / "x.csv"}, settings=settings, progress=False)
    with open(done.path / crate.OUTPUTS, newline="") as file:
        twice, table = csv.DictReader(file)
    assert twice == {"notebook": "double", "name": "twice", "kind": "integer", "value": "2", "sha256": "", "bytes": ""}
    assert (table["kind"], table["bytes"], table["sha256"]) == ("file", "16", sha256(tmp_path / "y.csv"))


def test_the_crate_of_a_restored_run_names_the_run_that_was_executed(settings: Settings, write: Write) -> None:
    path = write("one", "n: int = 1")
    first, again = (run(path, settings=settings, cache=True, progress=False) for _ in range(2))
    assert again.cached_from == str(first.path)
    found = entities(again.path)
    original = found[found[f"#{again.path.name}"]["isBasedOn"]["@id"]]
    assert (original["@type"], original["@id"]) == ("Dataset", f"{first.path.as_uri()}/")


# --- a crate run again

WRITES = (
    "import genokit, random\nfrom pathlib import Path\nPath('y.csv').write_text(x.read_text() * n)\n"
    "genokit.record('table', Path('y.csv').absolute())\ngenokit.record('mean', n / 3)\n"
    "genokit.record('parts', {'a': [1, n]})"
)
DRAWS = "import matplotlib.pyplot as plt\nplt.plot([1, n])\nplt.show()"


@pytest.mark.slow
def test_a_crate_is_run_again_from_its_own_notebook_and_every_result_is_equal(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    path = write("study", PARAMETERS, WRITES, DRAWS)
    (tmp_path / "work").mkdir()
    done = run(path, {"x": Path("../x.csv"), "n": 2}, settings=settings, progress=False, cwd=tmp_path / "work")
    path.write_text("{}")  # the crate has its own copy
    again = reproduce(done.path, settings)
    assert again.equal
    assert list(again.table["what"]) == ["state", "output table", "output mean", "output parts", "figure 1"]
    assert repr(again).endswith("5 of 5 are equal>")
    assert again.packages == []
    assert again.runs[0][1].cwd == str(tmp_path / "work"), "in the working folder that the run had"
    told = cli(["reproduce", str(done.path)], settings)
    assert told.returncode == 0, told.stderr
    assert "5 of 5 are equal" in told.stdout
    (tmp_path / "x.csv").write_text("other")
    with pytest.raises(GenokitError, match=r"cannot be reproduced. These files have changed .*x.csv"):
        reproduce(done.path, settings)


def test_a_table_that_was_recorded_is_a_file_of_the_crate_and_equal_when_made_again(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    code = "import genokit, pandas\ngenokit.record('table', pandas.DataFrame({'a': range(n)}))"
    done = run(write("tables", "n: int = 3", code), settings=settings, progress=False)
    path = done.outputs["table"]
    assert path.is_relative_to(done.path)
    files = crate.verify(done.path).set_index("path")
    assert tuple(files.loc[str(path.relative_to(done.path)), ["state", "role"]]) == ("unchanged", "made")
    assert list(crate.why(path, settings=settings).role) == ["made"]
    again = reproduce(done.path, settings)
    assert again.equal
    assert len(again.table) == 2
    assert "table" in (done.path / crate.OUTPUTS).read_text()
    path.write_text("other")
    assert set(crate.verify(done.path).state) == {"changed", "unchanged"}


@pytest.mark.slow
def test_what_differs_is_measured_in_numbers_figures_and_files(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    path = write("study", PARAMETERS, WRITES, DRAWS)
    runs = [run(path, {"x": tmp_path / "x.csv", "n": n}, settings=settings, progress=False) for n in (3, 6)]
    found = compare(*runs).table.set_index("what")
    assert found.loc["output mean", ["a", "b", "equal", "absolute", "relative"]].tolist() == [1, 2, False, 1, 1]
    assert found.loc["output parts", ["absolute", "relative"]].tolist() == [3, 1]
    assert not found.equal["output table"], "its content differed when the runs ended"
    figure = found.loc["figure 1"]
    assert 0 < figure.absolute < 0.2
    assert 0 < figure.relative < 0.5
    assert found.equal[["state", "parameter x", "code"]].all()
    shown = compare(*runs)._repr_html_()
    assert shown.count("<img") == 2, "side by side"


@pytest.mark.parametrize(
    ("one", "other", "equal", "absolute", "relative"),
    [
        (0, 1e-9, False, 1e-9, float("inf")),
        (float("nan"), float("nan"), True, 0, 0),
        (1, 1.0, True, 0, 0),
        ("a", "b", False, None, None),
        ({"a": [2, "x"]}, {"a": [2, "y"]}, False, 0, 0),
        ([1, 2], [1], False, None, None),
        (True, False, False, None, None),
    ],
)
def test_the_distance_of_two_values(
    one: object, other: object, equal: bool, absolute: float | None, relative: float | None, tmp_path: Path
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    runs = [Run(tmp_path, "a", "SUCCEEDED", tmp_path / "a.ipynb", "", now, outputs={"x": x}) for x in (one, other)]
    nbformat.write(nbformat.v4.new_notebook(), runs[0].notebook)
    row = compare(*runs).table.set_index("what").loc["output x"]
    assert row.equal == equal
    wanted = [float("nan") if one is None else one for one in (absolute, relative)]
    assert [row.absolute, row.relative] == pytest.approx(wanted, nan_ok=True)


@pytest.mark.slow
def test_a_pipeline_is_run_again_with_its_results_passed_anew_and_says_what_differs(
    settings: Settings, write: Write, tmp_path: Path
) -> None:
    write("draw", "n: int = 1", "import random, genokit; genokit.record('seed', random.random())")
    write("take", "seed: float = 0", "import genokit\ngenokit.record('got', seed)")
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[[notebook]]\nname = "take"\npath = "take.ipynb"\ninputs = { seed = "draw.seed" }\n'
        '[[notebook]]\nname = "draw"\npath = "draw.ipynb"\n'
    )
    done = Pipeline(tmp_path / "p.toml", settings=settings).run(progress=False)
    again = reproduce(done.path, settings)
    assert [a.name for a, _ in again.runs] == ["draw", "take"]
    draw, take = (b.outputs for _, b in again.runs)
    assert take["got"] == draw["seed"] != done.outputs["draw"]["seed"]
    assert not again.equal
    assert list(again.table["what"][~again.table["equal"]]) == ["output seed", "output got"]
    assert "mismatch" in again._repr_html_()
    assert cli(["reproduce", str(done.path)], settings).returncode == 1


# --- RO-Crate's own validator


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The network as the validator needs it: the two contexts, and nothing else. Gives what else was asked for."""
    terms = ["ParameterConnection", "ContainerImage", "sha256", "environment", "containerImage", "resourceUsage"]
    run_terms = {"@context": {term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in terms}}
    folder = Path(__file__).parent / "contexts"
    known = {
        f"{crate.SPECIFICATION.format(version)}/context": (folder / f"ro-crate-{version}.jsonld").read_bytes()
        for version in ("1.1", "1.3")
    }
    known[crate.TERMS] = json.dumps(run_terms).encode()
    unknown: list[str] = []

    def send(self: HTTPAdapter, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        answer = requests.Response()
        answer.request, answer.url = request, str(request.url)
        content = known.get(answer.url.rstrip("/"))
        answer.status_code, answer._content = (200, content) if content else (504, b"")
        answer.headers["Content-Type"] = "application/ld+json"
        unknown.extend([] if content else [answer.url])
        return answer

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return unknown


def violations(folder: Path, profile: str) -> list[str]:
    from rocrate_validator import services
    from rocrate_validator.models import Severity

    asked = {"rocrate_uri": str(folder), "profile_identifier": profile, "no_cache": True}
    found = services.validate({**asked, "requirement_severity": Severity.REQUIRED})
    return [str(issue.message) for issue in found.get_issues()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the validator's own
def test_crates_of_runs_and_pipelines_are_valid(
    settings: Settings, write: Write, tmp_path: Path, contexts: list[str]
) -> None:
    write("double", PARAMETERS, MAKES, KEEPS)
    write("next", "m: int = 1", "1 / 0")
    x = tmp_path / "x.csv"
    (tmp_path / "p.toml").write_text(
        'name = "p"\ntitle = "<Two>"\n'
        f'[[notebook]]\nname = "double"\npath = "double.ipynb"\nparameters = {{ x = "{x}" }}\n'
        '[[notebook]]\nname = "next"\npath = "next.ipynb"\ninputs = { m = "double.twice" }\n'
    )
    with pytest.raises(PipelineFailed) as caught:
        Pipeline(tmp_path / "p.toml", settings=settings).run(progress=False)
    first, second = caught.value.runs
    with pytest.raises(PipelineFailed) as again:
        Pipeline(tmp_path / "p.toml", settings=settings).run(progress=False)
    restored = again.value.runs[0]
    assert restored.cached_from
    assert violations(restored.path, "process-run-crate-0.5") == []
    assert violations(restored.path.parent, "provenance-run-crate-0.5") == []
    assert list(entities(first.path.parent)) != []
    assert violations(first.path, "process-run-crate-0.5") == []
    assert violations(second.path, "process-run-crate-0.5") == []
    assert violations(first.path.parent, "provenance-run-crate-0.5") == []
    metadata = first.path / crate.METADATA
    metadata.write_text(metadata.read_text().replace('"instrument"', '"describedBy"'))
    assert any("instrument" in one for one in violations(first.path, "process-run-crate-0.5"))
    assert contexts == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the validator's own
def test_a_crate_written_as_version_1_3_is_valid_too(
    settings: Settings, write: Write, tmp_path: Path, contexts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crate, "VERSION", "1.3")
    path = write("double", PARAMETERS, MAKES, KEEPS)
    done = run(path, {"x": tmp_path / "x.csv"}, settings=settings, progress=False)
    assert violations(done.path, "ro-crate-1.3") == []
    assert contexts == []

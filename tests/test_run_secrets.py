"""Secrets: read in the kernel alone, and found in no file of a run, however it ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from embedded import Box

from genokit import Pipeline, Settings, run
from genokit.errors import InvalidNotebook, InvalidParameters, NotebookFailed, NotFound, PipelineFailed
from genokit.pipelines import Run, Schema, secret_values
from genokit.pipelines.secret_values import redacted

# Half are variables whose names look like secrets, half are read by secret://NAME: of these, half are private files.
NAMES = [f"{'LAB' if n % 2 else 'PLANT'}_{n:02d}{'' if n % 2 else '_TOKEN'}" for n in range(50)]
ODD = ['é"', "<&>", "'\\", "+/", "-."]
VALUES = {name: f"{chr(97 + n % 26)}S{n:02d}{ODD[n % 5]}q{n * 7919:07d}" for n, name in enumerate(NAMES)}
VALUES["LAB_49"] = "-----BEGIN THING-----\nMIIB49linealpha49\nMIIB49linebeta490\n-----END THING-----"
FILES = NAMES[1::4]

# Each cell shows some of the list `s` of all 50 values, in every way that ends in a file.
LEAKS = """
import base64, html, json, logging, os, sys, urllib.parse, warnings
import genokit
from IPython.display import HTML, JSON, Markdown, display, publish_display_data
from pathlib import Path
s = [lab[name] if name in lab else os.environ[name] for name in names]
---
print(s[0], s[1]); print(s[2], file=sys.stderr); print(s[3][:4], end="", flush=True); print(s[3][4:])
---
display(HTML(f"<b title='{html.escape(s[4])}'>{s[5]}</b>")); display(Markdown(s[6])); display(JSON({s[7]: [s[8]]}))
---
publish_display_data({"text/plain": s[9], "application/x-lab+json": {"k": [s[10]]}}, metadata={"lab": {"key": s[11]}})
---
import ipywidgets
ipywidgets.Text(value=s[12], description=s[13])
---
f"key={s[14]}"
---
print(base64.b64encode(f"me:{s[15]}".encode()).decode(), base64.urlsafe_b64encode((s[16] + "?").encode()).decode())
print(json.dumps(s[17]), repr(s[18]), urllib.parse.quote(s[19]), s[20].encode())
---
genokit.record("text", s[21]); genokit.record("deep", {"a": [s[22], (s[23], {s[24]})]})
genokit.record("raw", s[25].encode())
genokit.record("path", Path("/tmp") / f"figure-{s[26]}.png"); genokit.record("n_found", {s[27]: 1}); print(s[49])
---
import matplotlib.pyplot as plt
plt.plot([1]); plt.title(s[28].replace("$", "")); plt.show()
---
logging.getLogger("lab").warning(s[29]); warnings.warn(s[30])
os.write(1, f"to the log {s[31]}".encode()); os.write(2, s[32].encode())
---
#raises
def ask(url, key=s[33]):
    raise ConnectionError(f"401 for {url} {key}", {"k": s[34]})
ask(f"https://me:{s[35]}@host/{s[36]}")
---
#raises
try:
    raise KeyError(s[37])
except KeyError as error:
    raise RuntimeError(s[38]) from error
---
from genokit.bars import Bar
with Bar(total=1, desc=s[39]) as bar:
    bar.update()
---
print("\\x1b[31m" + s[40] + "\\x1b[0m", s[41] * 3); display({"text/html": f"<pre>{s[42]}</pre>"}, raw=True)
---
!echo "$PLANT_44_TOKEN"
get_ipython().set_next_input(s[43]); print(s[45].split("."), s[46].upper().lower() and s[46], s[47], s[48])
"""
PARAMETERS = "names: list = []\nlab: dict = {}\nmax_tokens: int = 3\nurl: str = 'x'"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def given(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The secrets in the environment and in private files; the parameters that refer to them."""
    monkeypatch.setattr(secret_values, "_read", {})
    for name in FILES:
        keep(settings, name, VALUES[name])
    for name in set(NAMES) - set(FILES):
        monkeypatch.setenv(name, VALUES[name])
    lab = {name: f"secret://{name}" for name in NAMES if name.startswith("LAB")}
    return {"names": NAMES, "lab": lab, "url": f"https://me:{VALUES['PLANT_00_TOKEN']}@host"}


def keep(settings: Settings, name: str, value: str, mode: int = 0o600) -> Path:
    path = settings.home / "secrets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value + "\n")
    path.chmod(mode)
    return path


def write(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    for source in sources:
        tags = {"tags": ["raises-exception"]} if source.startswith("#raises") else {}
        cells.append(nbformat.v4.new_code_cell(source, metadata=tags))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def leaky(path: Path, *more: str) -> Path:
    return write(path, *(cell.strip() for cell in LEAKS.split("---\n")), *more)


def leaks(folder: Path, but: str = "secrets") -> list[str]:
    """Which secrets stand in which files or their names, as they are, a line of them, escaped, or in base64."""
    found = []
    for path in (path for path in folder.rglob("*") if but not in path.relative_to(folder).parts):
        data = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        for name, value in VALUES.items():
            for part in value.splitlines():
                forms = {part.encode(), json.dumps(part)[1:-1].encode(), repr(part.encode())[2:-1].encode()}
                for shift in range(3):
                    whole = base64.b64encode(b"-" * shift + part.encode())
                    forms |= {whole[4 if shift else 0 : len(whole) // 4 * 4 - 4]}
                found += [f"{name} in {path}" for form in forms if form in data]
    return found


def test_fifty_secrets_are_in_no_file_of_a_run(settings: Settings, given: dict[str, object], tmp_path: Path) -> None:
    done = run(leaky(tmp_path / "leaks.ipynb"), given, settings=settings, progress=False, cache=True)
    assert leaks(settings.home) == []
    assert done.state == "SUCCEEDED"
    assert done.parameters["lab"] == given["lab"]
    assert done.parameters["url"] == "https://me:secret://PLANT_00_TOKEN@host"
    assert done.outputs["text"] == "secret://LAB_21"
    assert done.outputs["deep"] == {"a": ["secret://PLANT_22_TOKEN", ("secret://LAB_23", {"secret://PLANT_24_TOKEN"})]}
    assert Run.load(done.path) == done
    said = done.notebook.read_text()
    assert "_genokit_secret('LAB_01')" in said
    # Two went to the log, one into a picture, one into a path, whose slashes are single, and one to the next input.
    elsewhere = {"LAB_31", "PLANT_32_TOKEN", "PLANT_28_TOKEN", "PLANT_26_TOKEN", "LAB_43"}
    assert {name for name in NAMES if f"secret://{name}" not in said} <= elsewhere
    again = run(done.source, given, settings=settings, progress=False, cache=True)
    assert again.cached_from == str(done.path)
    assert leaks(settings.home) == []


@pytest.mark.slow
@pytest.mark.parametrize("end", ["raise ValueError(*s)", "os.kill(os.getpid(), 9)", "raise SystemExit(s[0])"])
def test_nor_of_a_run_that_fails_or_whose_kernel_dies(
    settings: Settings, given: dict[str, object], tmp_path: Path, end: str
) -> None:
    with pytest.raises(NotebookFailed) as raised:
        run(leaky(tmp_path / "leaks.ipynb", end), given, settings=settings, progress=False)
    assert leaks(settings.home) == []
    ended = raised.value.run
    assert not any(value in f"{raised.value}{ended.error}{ended.traceback}" for value in VALUES.values())
    if ended.state == "KERNEL_DIED":
        assert "to the log secret://LAB_31" in (ended.path / "kernel.log").read_text()


@pytest.mark.slow
def test_nor_of_a_run_that_is_killed_with_its_kernel(
    settings: Settings, given: dict[str, object], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    notebook = leaky(tmp_path / "leaks.ipynb", f"Path({str(ready)!r}).touch()\nimport time; time.sleep(60)")
    code = f"import genokit; genokit.run({str(notebook)!r}, {given!r}, progress=False)"
    runner = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **settings.environ()})
    deadline = time.monotonic() + 240
    while not ready.exists():
        assert time.monotonic() < deadline
        assert runner.poll() is None
        time.sleep(0.05)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    (killed,) = settings.runs.glob("*/run.json")
    assert Run.load(killed.parent).outputs["text"] == "secret://LAB_21"
    assert leaks(settings.home) == []


@pytest.mark.slow
def test_nor_of_a_pipeline_whose_file_holds_one(settings: Settings, given: dict[str, object], tmp_path: Path) -> None:
    leaky(tmp_path / "a.ipynb")
    write(tmp_path / "b.ipynb", "import genokit\ngenokit.record('same', token == open(key).read())",
          parameters="token: str = ''  # not a secret\nkey: str = ''  # not a secret")  # fmt: skip
    (tmp_path / "key").write_text(VALUES["LAB_21"])
    toml = f"""
    name = "tour"  # {VALUES["LAB_01"]}
    [[notebook]]
    name = "a"
    path = "a.ipynb"
    parameters = {{ names = {NAMES}, lab = {{ {", ".join(f'{k} = "{v}"' for k, v in dict(given["lab"]).items())} }} }}
    [[notebook]]
    name = "b"
    path = "b.ipynb"
    inputs = {{ token = "a.text" }}
    parameters = {{ key = "{tmp_path / "key"}" }}
    [[notebook]]
    name = "c"
    path = "b.ipynb"
    after = ["a"]
    parameters = {{ token = "{VALUES["PLANT_14_TOKEN"]}", key = "/none/{VALUES["PLANT_04_TOKEN"]}" }}
    """
    (tmp_path / "tour.toml").write_text(toml)
    with pytest.raises(PipelineFailed) as raised:
        Pipeline(tmp_path / "tour.toml", settings=settings).run(progress=False)
    assert leaks(settings.home) == []
    assert not any(value in str(raised.value) for value in VALUES.values())
    a, b, _ = raised.value.runs
    assert a.state == "SUCCEEDED"
    assert b.outputs == {"same": True}, "a recorded secret is read again by the notebook that takes it"


@pytest.mark.slow
def test_nor_of_a_job_s_log(account: Settings, given: dict[str, object], tmp_path: Path) -> None:
    keep(account, "LAB_01", VALUES["LAB_01"])
    code = "print('key', key, flush=True)\nimport genokit\ngenokit.record('key', key)\nraise ValueError(key)"
    notebook = write(tmp_path / "one.ipynb", code, parameters="key: str")
    box = Box(account)
    words = [sys.executable, "-m", "genokit", "run", str(notebook), "-p", "key=secret://LAB_01", "--log-output"]
    environ = [{"name": name, "value": value} for name, value in account.environ().items()]
    size = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]
    job = box.submit(box.define(*words, environment=environ, resourceRequirements=size))
    assert box.wait(job)["status"] == "FAILED"
    said = "\n".join(box.written(job))
    assert "key secret://LAB_01" in said
    assert "ValueError: secret://LAB_01" in said
    assert leaks(account.home) == []


def test_a_secret_is_a_text_of_the_environment_or_of_a_private_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_values, "_read", {})
    code = "import genokit\ngenokit.record('size', len(token)); genokit.record('same', token == others[0]['k'])"
    notebook = write(tmp_path / "one.ipynb", code, parameters="token: str = ''\nothers: list = []")
    given = {"token": "secret://LAB", "others": [{"k": "secret://LAB"}]}
    with pytest.raises(
        NotFound, match=r"secret://LAB has no value. Set the environment variable LAB, or write the file"
    ):
        run(notebook, given, settings=settings, progress=False)
    path = keep(settings, "LAB", "x" * 12, mode=0o644)
    with pytest.raises(InvalidParameters, match=r"other users may read the file .*chmod 600"):
        run(notebook, given, settings=settings, progress=False)
    assert list(settings.runs.glob("*/*")) == []
    path.chmod(0o600)
    first = run(notebook, given, settings=settings, progress=False)
    assert first.outputs == {"size": 12, "same": True}
    monkeypatch.setenv("LAB", "y" * 9)
    assert first.rerun(settings).outputs["size"] == 9, "the environment goes first"
    monkeypatch.setenv("LAB", "short")
    with pytest.raises(InvalidParameters, match="fewer than 8 characters"):
        run(notebook, given, settings=settings, progress=False)


def test_a_reference_in_the_parameters_cell_is_read_too(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_values, "_read", {})
    monkeypatch.setenv("LAB", "z" * 10)
    code = "import genokit\ngenokit.record('size', len(token))"
    notebook = write(tmp_path / "one.ipynb", code, parameters="token = 'secret://LAB'")
    done = run(notebook, settings=settings, progress=False)
    assert (done.outputs, done.parameters) == ({"size": 10}, {"token": "secret://LAB"})


def test_a_parameter_named_like_a_secret_takes_a_reference_and_nothing_else() -> None:
    schema = Schema.parse("api_key: str = ''\nout = Path('x')\nn = 1\noptions = {}", "n.ipynb")
    assert schema.check({"api_key": "secret://KEY"}) == {"api_key": "secret://KEY"}
    assert schema.json_schema()["properties"]["api_key"]["pattern"] == "^secret://([A-Za-z_]\\w*)$"
    with pytest.raises(InvalidParameters, match=r"give it the value 'secret://NAME'"):
        schema.check({"api_key": "secret://no name"})
    with pytest.raises(InvalidParameters, match=r"'options' looks like a secret"):
        schema.check({"api_key": "secret://KEY", "options": ["ghp_" + "a1" * 18]})
    with pytest.raises(InvalidParameters, match=r"'out': expected Path, got 'secret://KEY'(?s:.*)'n': expected int"):
        schema.check({"api_key": "secret://KEY", "out": "secret://KEY", "n": "secret://KEY"})


def test_a_notebook_that_contains_a_secret_is_refused_and_it_is_not_repeated(
    settings: Settings, tmp_path: Path
) -> None:
    notebook = write(tmp_path / "one.ipynb", f"key = 'ghp_{'a1' * 18}'")
    with pytest.raises(InvalidNotebook, match=r"contains a token of GitHub.*nothing was run.*secret://NAME") as raised:
        run(notebook, settings=settings, progress=False)
    assert "a1a1" not in str(raised.value)


def test_what_is_redacted_stays_what_it_was() -> None:
    secrets = {"hunter22": "secret://PASSWORD", "12345678": "secret://PIN"}
    node = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("stream", text="hunter22\n")])
    assert type(redacted(node, secrets)) is nbformat.NotebookNode
    assert redacted(node, secrets).outputs[0].text == "secret://PASSWORD\n"
    value = {"n": 12345678, "path": Path("/a/hunter22"), "when": (None, True, 0.5), "raw": b"hunter22"}
    changed = {
        "n": "secret://PIN",
        "path": Path("/a/secret:/PASSWORD"),
        "when": (None, True, 0.5),
        "raw": "secret://PASSWORD",
    }
    assert redacted(value, secrets) == changed
    assert redacted(value, {}) is value
